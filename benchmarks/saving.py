"""What saving costs: how long a save holds the training up, and what that is of 30 seconds.

cost = measure(mlp, x, y)
cost.blocked_seconds      # median over all saves
cost.end_to_end_seconds   # (time with saves - time without) / number of saves
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from peers import BATCH_SIZE

import kerastrain
from kerastrain.training.loop import Loop

OFTEN, NEVER = "1s", "100000s"


@dataclass(frozen=True)
class Cost:
    """Of one save."""

    blocked_seconds: float
    end_to_end_seconds: float
    saves: int


def measure(
    build: Callable[[], keras.Model], x: np.ndarray, y: np.ndarray, *, epochs: int, pairs: int
) -> Cost:
    """Trains with a save every second and without, in turn, `pairs` times each."""
    blocked: list[float] = []
    differences: list[float] = []
    for _ in range(pairs):
        without, _none = _train(build(), x, y, epochs=epochs, every=NEVER)
        with_saves, spent = _train(build(), x, y, epochs=epochs, every=OFTEN)
        blocked += spent
        differences.append((with_saves - without) / max(len(spent), 1))
    return Cost(
        blocked_seconds=statistics.median(blocked),
        end_to_end_seconds=statistics.median(differences),
        saves=len(blocked),
    )


def _train(
    model: keras.Model, x: np.ndarray, y: np.ndarray, *, epochs: int, every: str
) -> tuple[float, list[float]]:
    """Seconds from the end of the first round to the end, and of each save in between."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, _timed_saves() as saves:
        kerastrain.train(
            model,
            (x, y),
            workdir=Path(folder) / "run",
            max_epochs=epochs,
            batch_size=BATCH_SIZE,
            evaluate_every=f"{epochs // 4}epochs",
            checkpoint_every=every,
            jit="on",
            callbacks=[clock],
            verbose=0,
        )
    # The last save, after the end, is there in both.
    during = [spent for at, spent in saves if clock.first < at < clock.last]
    return clock.last - clock.first, during


class _Clock(keras.callbacks.Callback):
    """Notes when the first and the last round end."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.last = time.perf_counter()
        if epoch == 0:
            self.first = self.last


@contextmanager
def _timed_saves() -> Iterator[list[tuple[float, float]]]:
    """(when it began, seconds) of every call of the loop's `save`, while the block runs."""
    saves: list[tuple[float, float]] = []
    original = Loop.save

    def timed(self: Loop) -> None:
        began = time.perf_counter()
        original(self)
        saves.append((began, time.perf_counter() - began))

    Loop.save = timed  # type: ignore[method-assign]
    try:
        yield saves
    finally:
        Loop.save = original  # type: ignore[method-assign]
