"""What is shown to people is best effort: a full disk or a reader that went away costs no run.

    with best_effort_output() as stdout:
        print("epoch 1")     # never an error, whatever became of the terminal, file or pipe
    stdout.lost              # the first error in writing; None: everything arrived

`sys.stdout` and `sys.stderr` are replaced meanwhile, so that what others print (Keras, a
callback, the logging of a library) cannot end a run either.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDERR = 2


class BestEffortFile(io.FileIO):
    """An open file that seems to take everything that is written to it.

    What cannot be written is dropped, and later writes are tried again: a full disk may have
    room by then.

    Attributes:
        lost: the first error in writing.
        remark: written to the standard error, once, when something is dropped; None: nothing.
    """

    lost: OSError | None = None
    remark: str | None = None

    def write(self, content: ReadableBuffer) -> int:
        try:
            # None: it does not block, and its reader is slow.
            while (written := super().write(content)) is None:
                select.select([], [self], [])
            return written
        except OSError as error:
            if self.lost is None:
                self.lost = error
                self._tell(error)
            return memoryview(content).nbytes

    def _tell(self, error: OSError) -> None:
        # Not by logging: its message may be on the way to the very stream that is writing here.
        if self.remark is not None:
            with contextlib.suppress(OSError):  # There is nobody left to tell.
                os.write(STDERR, f"{self.remark} ({error.strerror}).\n".encode())


@contextlib.contextmanager
def best_effort_output(*, remark: str | None = None) -> Iterator[BestEffortFile | None]:
    """Inside, nothing that is printed raises an error.

    Args:
        remark: told on the standard error, with the reason, when the standard output is lost.

    Yields:
        The file of the standard output; None where that is no file of the system's, but what a
        notebook or a test put there, which is left as it is.
    """
    for descriptor in range(3):
        _reserve(descriptor)
    before = sys.stdout, sys.stderr
    stdout, stderr = sys.stdout, sys.stderr = _harmless(sys.stdout), _harmless(sys.stderr)
    file = _file_of(stdout)
    if isinstance(file, BestEffortFile) and stdout is not before[0]:
        file.remark = remark
    try:
        yield file if isinstance(file, BestEffortFile) else None
    finally:
        sys.stdout, sys.stderr = before
        for stream in {stdout, stderr} - {*before}:
            stream.flush()


def _reserve(descriptor: int) -> None:
    """Keeps a number that was closed when the process began from the next file that is opened:
    what native code writes to it would be written into that file."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDONLY if descriptor else os.O_WRONLY)  # the lowest free number


def _harmless(stream: TextIO | None) -> TextIO:
    if stream is None or stream.closed:
        # What cannot be written to, so that it is known that something was lost.
        file = BestEffortFile(os.open(os.devnull, os.O_RDONLY), "w")
        return io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8", line_buffering=True)
    if not isinstance(stream, io.TextIOWrapper) or type(_file_of(stream)) is not io.FileIO:
        return stream
    with contextlib.suppress(OSError):  # Lost before this began.
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(BestEffortFile(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="replace",  # A terminal that cannot show "…" shows "?".
        line_buffering=stream.line_buffering or stream.write_through,
    )


def _file_of(stream: TextIO) -> object:
    """What is at the bottom of a text stream."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
