"""A log file that only grows, and that a full disk neither damages nor stops.

file = AppendOnlyFile("runs/mnist/metrics.jsonl")
file.append(b"a line\n")     # never raises: what finds no room waits in memory
file.commit()                # on the disk when it returns, or OSError
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

logger = logging.getLogger(__name__)


class AppendOnlyFile:
    """Made with its folder by the first addition, open until `close`.

    Saves are written by another thread, so it may be used by two.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None
        self._unwritten = b""
        self._lock = threading.Lock()

    def append(self, content: bytes) -> None:
        """Adds to the end. A process killed meanwhile leaves at most the last addition cut."""
        with self._lock:
            self._unwritten += content
            # A disk without room must not end the run; `commit` tries again, and raises.
            with contextlib.suppress(OSError):
                self._write_out()

    def commit(self) -> None:
        """Waits until everything so far is on the disk.

        Raises:
            OSError: it cannot be written; it is kept and tried again by the next call.
        """
        with self._lock:
            self._write_out()
            if self._descriptor is not None:
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Commits and closes; warns when that fails. A second call does nothing."""
        try:
            self.commit()
        except OSError as error:
            logger.warning(
                "%s: what came since the last save could not be written (%s).",
                self.path,
                error.strerror,
            )
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor, self._unwritten = None, b""

    def _write_out(self) -> None:
        while self._unwritten:
            written = os.write(self._opened(), self._unwritten)
            self._unwritten = self._unwritten[written:]

    def _opened(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = os.open(self.path, flags, 0o666)
        return self._descriptor
