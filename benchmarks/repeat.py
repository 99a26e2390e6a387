"""How long a finished command takes when it is given again: a whole process, start to end.

seconds = repeat_seconds(times=3)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time


def repeat_seconds(*, times: int) -> list[float]:
    """Trains `digits` for an epoch, then gives the same command `times` more."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kerastrain", "train", "--recipe=digits"]
        command += [f"--workdir={folder}/run", "--max_epochs=1"]
        _run(command)
        return [_run(command) for _ in range(times)]


def _run(command: list[str]) -> float:
    began = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{process.stdout}{process.stderr}")
    return time.perf_counter() - began
