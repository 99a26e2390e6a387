"""What every test needs: quiet TensorFlow, property tests without a clock, real data, the command.

Real data lie beside the checkout, in `../shared/data`; where they do not, tests
that ask for them are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Before anything imports TensorFlow; processes that tests start inherit it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[1]

# A busy machine is slow, which is no failure.
hypothesis.settings.register_profile("kerastrain", deadline=None)
hypothesis.settings.load_profile("kerastrain")

# A folder's name in which libraries would see patterns, lists, formats and escapes.
STRANGE = "lr[0.1]*?{a,b} %s @2 ~é\\n\n-z"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A folder, not made yet, in one with a strange name, too."""
    return tmp_path / STRANGE / STRANGE


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; without it the test is skipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside the checkout")
    return folder


@pytest.fixture
def run_kerastrain(tmp_path: Path) -> Command:
    """Runs `kerastrain ARGUMENTS…` as a process of its own, in a fresh folder."""

    def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kerastrain", *arguments]
        # As a user has it: a level that is set would be respected, and everything shown.
        environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
        settings = {
            "cwd": tmp_path, "capture_output": True, "text": True, "env": environment, **settings
        }  # fmt: skip
        return subprocess.run(command, check=False, **settings)  # type: ignore[call-overload]

    return run
