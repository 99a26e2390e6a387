"""A new Python that checks exports, and imports TensorFlow while we do something else.

    with FreshProcess() as process:
        ...                                # make FOLDER, as `verification.write_check` does
        process.begin(folder)              # has `verification.check` done with it
        ...
        report = process.finish(folder)    # {"problems": [], …}

TensorFlow is not needed for it on this side: a command starts it before its own imports.

It sees no GPU. The trainer holds the memory of those there are, and most
servers have none: an export with operations for GPUs alone must be found here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kerastrain.errors import ExportError
from kerastrain.export.clean_environment import clean_environment

LOG = "check.log"


class FreshProcess:
    """Runs `python -m kerastrain.export.verification` for as long as the block lasts.

    Attributes:
        began: when it was started, by `time.monotonic`.
    """

    def __enter__(self) -> FreshProcess:
        """Raises ExportError where the system starts no process."""
        # In a folder of its own: `python -m` looks for modules in the current one first.
        self._empty = tempfile.TemporaryDirectory()
        self._log = Path(self._empty.name) / LOG
        self.began = time.monotonic()
        self._process = self._start()
        return self

    def _start(self) -> subprocess.Popen[str]:
        # NumPy's threads would be there when it forks.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment = clean_environment(KERAS_HOME=self._empty.name, **threads)
        try:
            with open(self._log, "wb") as words:
                return subprocess.Popen(
                    [sys.executable, "-m", "kerastrain.export.verification"],
                    env=environment,
                    cwd=self._empty.name,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=words,
                    text=True,
                    # A Ctrl-C is for the trainer, which ends its helpers itself.
                    start_new_session=True,
                )
        except OSError as error:
            raise ExportError(
                f"The process that checks exports cannot be started ({error}). Are there too many "
                "processes, or too little memory or space for temporary files?"
            ) from error

    def __exit__(self, *exception: object) -> None:
        self._stop()
        self._empty.cleanup()

    def _stop(self) -> None:
        # With the child that is checking, also when it alone is left: both are in the session
        # that the process began.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def begin(self, folder: Path) -> None:
        """Has FOLDER checked. One at a time: `finish` comes before the next."""
        if self._process.poll() is not None:  # killed while it waited, for want of memory say
            self._stop()
            self._process = self._start()
        assert self._process.stdin is not None
        # One that has just died is found by `finish`, with what it said.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{json.dumps(str(folder.absolute()))}\n")
            self._process.stdin.flush()

    def finish(self, folder: Path) -> dict[str, Any]:
        """Waits for the check of FOLDER, and returns its report.

        Raises:
            ExportError: the process failed; the end of what it wrote is in the message.
        """
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "0":
            log = folder / LOG if (folder / LOG).exists() else self._log
            words = log.read_text(errors="replace")
            raise ExportError(
                "The check of the export in a fresh process failed. Its last words:\n"
                + "\n".join(words.strip().splitlines()[-20:])
            )
        report: dict[str, Any] = json.loads((folder / "report.json").read_text())
        return report
