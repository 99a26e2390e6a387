"""Runs the real command, kills it at chosen instants, and reads what a run left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kerastrain.resume_check.comparison import differences, what_remains
from kerastrain.training.checkpoint_files import CheckpointFiles
from kerastrain.workdir import Workdir

__all__ = ["assert_same", "what_remains"]

RECIPES = Path(__file__).parent / "recipes"
DEADLINE_SECONDS = 300

# Runs that take some seconds, save often, and end by early stopping or by their budget.
MLP = (f"--recipe={RECIPES / 'mlp.py'}", "--jit=on", "--checkpoint_every=70steps")
CNN = (f"--recipe={RECIPES / 'cnn.py'}", "--jit=off", "--checkpoint_every=25steps")


def start(workdir: Path, *flags: str, environment: dict[str, str] | None = None):
    """Starts `kerastrain train` in a process of its own."""
    with open(workdir.parent / f"{workdir.name}.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "kerastrain", "train", f"--workdir={workdir}", *flags],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )


def finish(workdir: Path, *flags: str, environment: dict[str, str] | None = None) -> None:
    process = start(workdir, *flags, environment=environment)
    status = process.wait(DEADLINE_SECONDS)
    assert status == 0, (workdir.parent / f"{workdir.name}.log").read_text()[-4000:]


def kill_when(condition: Callable[[], bool], process) -> bool:
    """SIGKILLs the process as soon as the condition holds; False when it ended before."""
    if wait_until(condition, process):
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def wait_until(condition: Callable[[], bool], process) -> bool:
    """Waits until the condition holds; False when the process ended before."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.0005)
    return False


def training_has_begun(workdir: Path) -> Callable[[], bool]:
    """True from the first checkpoint on, or the first saved by this start of the run."""
    before = _newest_step(workdir)
    return lambda: _newest_step(workdir) > before


def after(seconds: float, condition: Callable[[], bool]) -> Callable[[], bool]:
    """True `seconds` after the condition became true."""
    began: list[float] = []

    def is_due() -> bool:
        if not began and condition():
            began.append(time.monotonic())
        return bool(began) and time.monotonic() - began[0] >= seconds

    return is_due


def both(first: Callable[[], bool], second: Callable[[], bool]) -> Callable[[], bool]:
    """True while the second holds, once the first did."""
    seen: list[bool] = []

    def is_due() -> bool:
        if not seen and first():
            seen.append(True)
        return bool(seen) and second()

    return is_due


def in_a_save(workdir: Path) -> Callable[[], bool]:
    """True while files of a checkpoint lie there that its record does not commit yet."""

    def is_saving() -> bool:
        folder = workdir / "checkpoints" / "latest"
        names = {path.name for path in folder.glob("ckpt-*")} if folder.is_dir() else set()
        committed = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        return any(name.partition(".")[0].partition("_")[0] not in committed for name in names)

    return is_saving


def appears(marker: Path) -> Callable[[], bool]:
    marker.unlink(missing_ok=True)
    return marker.exists


def random_instant(workdir: Path, rng: random.Random, longest: float) -> Callable[[], bool]:
    return after(rng.uniform(0, longest), training_has_begun(workdir))


def _newest_step(workdir: Path) -> int:
    return max(CheckpointFiles(Workdir(workdir).latest_checkpoints).steps(), default=-1)


def assert_same(killed: dict[str, object], whole: dict[str, object]) -> None:
    assert differences(killed, whole) == []
