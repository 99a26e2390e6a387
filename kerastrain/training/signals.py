"""SIGINT, SIGTERM and SIGHUP (the terminal is gone): heard at once, obeyed at the next safe place.

    with Signals() as signals:
        ...                          # a signal here raises SignalReceived at once
        with signals.deferred():
            ...                      # here it is only noted, in signals.received
        ...                          # and raised, at the latest, when that block ends

Most of a command has nothing to lose: starting, exporting. The training loop has; it
looks at `received` between chunks of steps, saves, and returns.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalReceived(KeyboardInterrupt):
    """Raised by the first signal. Not an Exception, so that no `except Exception` takes it."""


class Signals:
    """Remembers the first signal; outside the main thread it hears none.

    Args:
        second_kills: a second SIGINT ends the process at once, whatever it is doing; for a
            command, which loses nothing by it. Otherwise it raises KeyboardInterrupt, which
            waits for the end of the running call into TensorFlow.
    """

    def __init__(self, *, second_kills: bool = False) -> None:
        self.received: signal.Signals | None = None
        self.where = ""  # for people: " at step 1,234", " while exporting"
        self._second_kills = second_kills
        self._deferred = False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def exit_status(self) -> int:
        """What the shell expects of a process ended by the signal: 128 + its number."""
        return 128 + (self.received or 0)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal is only noted. Leaving it as usual with one noted raises it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.received is not None:
            raise SignalReceived

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            # Under nohup a run outlives its terminal.
            is_kept = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            heard = HEARD[:2] if is_kept else HEARD
            self._previous = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            if self._second_kills:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if not self._deferred:
                raise SignalReceived
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
