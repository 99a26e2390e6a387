"""The wheel holds everything: the command and the recipes work outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kerastrain
from kerastrain.recipe import shipped_recipes

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def run(*command: object, **settings: object) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **settings,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built wheel installed into it; its dependencies are this Python's."""
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools leaves build/ behind, and would reuse what lies there.
    source = folder / "source"
    source.mkdir()
    for name in ("kerastrain", "models"):
        shutil.copytree(root / name, source / name, ignore=IGNORED)
    for file in [root / "setup.py", root / "pyproject.toml", *root.glob("README.md")]:
        shutil.copy(file, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("kerastrain-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel)
    return folder / "site"


@pytest.fixture
def elsewhere(installed: Path, tmp_path: Path) -> dict[str, object]:
    """How to run a process in another folder, with the installed wheel and not the checkout."""
    return {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(installed)}}


def test_the_command_works_from_the_wheel(installed, elsewhere):
    assert "Commands:" in run(installed / "bin" / "kerastrain", "--help", **elsewhere)
    version = run(sys.executable, "-m", "kerastrain", "--version", **elsewhere)
    assert version.strip() == f"kerastrain {kerastrain.__version__}"


def test_every_recipe_is_found_in_the_wheel(installed, elsewhere):
    code = "from kerastrain.recipe import *; [print(locate_recipe(r)) for r in shipped_recipes()]"
    found = run(sys.executable, "-c", code, **elsewhere).split()
    assert found == [str(installed / f"kerastrain/models/{r}.py") for r in shipped_recipes()]


def test_the_default_recipe_loads_from_the_wheel(installed, elsewhere):
    code = "from kerastrain.recipe import load_recipe; print(load_recipe('digits').path)"
    last = run(sys.executable, "-c", code, **elsewhere).splitlines()[-1]
    assert last == str(installed / "kerastrain/models/digits.py")


def test_a_user_s_type_checker_sees_the_annotations(installed):
    assert (installed / "kerastrain/py.typed").exists()
    (folder,) = installed.glob("kerastrain-*.dist-info")
    assert "Classifier: Typing :: Typed" in (folder / "METADATA").read_text()
