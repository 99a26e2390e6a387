"""Ctrl-C in `model.fit`, which tells no callback of it.

ctrl_c = CtrlC()
ctrl_c.listen(model, restore)        # restore() before KeyboardInterrupt leaves model.fit
ctrl_c.stop()
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import keras


class CtrlC:
    """A handler of SIGINT, which is put back afterwards; in the main thread only."""

    def __init__(self) -> None:
        self._previous: Any = None

    def listen(self, model: keras.Model, restore: Callable[[], None]) -> None:
        """From now on SIGINT calls `restore` first, if it interrupts `model.fit`."""

        def hear(number: int, frame: FrameType | None) -> None:
            previous = self._previous
            self.stop()
            # After a fit that died of an exception this is still there; the model is not ours.
            if _runs_fit(frame, model):
                restore()
            if callable(previous):
                previous(number, frame)
            elif previous == signal.SIG_DFL:
                raise KeyboardInterrupt

        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, hear)

    def stop(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


def _runs_fit(frame: FrameType | None, model: keras.Model) -> bool:
    """Whether `model.fit` is among the calls that a signal interrupted."""
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False
