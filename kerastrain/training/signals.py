"""SIGINT and SIGTERM: heard at once, obeyed at the next safe place.

    with Signals() as signals:
        ...
        if signals.received: save, and leave with signals.exit_status

A second SIGINT ends the process at once, as it would without us.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

HEARD = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Remembers the first signal; outside the main thread it hears none."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def exit_status(self) -> int:
        """What the shell expects of a process ended by the signal: 128 + its number."""
        return 128 + (self.received or 0)

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._hear) for number in HEARD}
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
            logger.info("%s: leaving at the next safe place.", self.received.name)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
