"""Runs `making` and `checking` for some formats, each step in a process of its own.

    reports = run_step("checking", stage_folder, ["onnx", "openvino"])
    reports["onnx"]["problems"]

A process that dies of one format is started again for the others.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kerastrain.export.clean_environment import clean_environment
from kerastrain.export.formats.catalog import FORMATS, Format
from kerastrain.export.formats.stage import Stage
from kerastrain.workdir import read_json, write_json

# Of one process. Converting a network of a billion numbers takes minutes.
MAX_SECONDS = 1800.0


def run_step(step: str, folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Does "making" or "checking" for the formats.

    Returns:
        For each of them its report; {"problems": [what the process said last]} for one that
        it died of.
    """
    reports: dict[str, dict[str, Any]] = {}
    while left := [name for name in names if name not in reports]:
        words = _run(step, folder, left)
        done = {name: folder / f"{step}-{name}.json" for name in left}
        reports |= {name: read_json(file) for name, file in done.items() if file.exists()}
        culprit = next((name for name in left if name not in reports), None)
        if culprit is not None:
            reports[culprit] = {"problems": [f"{step} it ended the process: {words}"]}
    return reports


def _run(step: str, folder: Path, names: Sequence[str]) -> str:
    """Runs the process to its end; returns why it ended, and the last it wrote."""
    # In a folder of its own: `python -m` looks for modules in the current one first.
    with tempfile.TemporaryDirectory() as empty, open(folder / f"{step}.log", "ab") as log:
        command = [sys.executable, "-m", f"kerastrain.export.formats.{step}"]
        try:
            status = subprocess.run(
                [*command, str(folder.absolute()), *names],
                # OpenVINO's converter reports its use to its maker, except in continuous
                # integration.
                env=clean_environment(CI="true", KERAS_HOME=empty),
                cwd=empty,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C is for the trainer, which ends its helpers itself.
                start_new_session=True,
                timeout=MAX_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"it took more than {MAX_SECONDS:.0f} seconds"
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    lines = (folder / f"{step}.log").read_text(errors="replace").strip().splitlines()
    return f"{how}; {' '.join(lines[-3:])[-400:]}"


def do_step(step: str, do: Callable[[Stage, Format], dict[str, Any]]) -> None:
    """In the process: does the step for the formats that its arguments name."""
    folder, *names = sys.argv[1:]
    stage = Stage.read(Path(folder))
    for name in names:
        write_json(stage.folder / f"{step}-{name}.json", do(stage, FORMATS[name]))
