"""When to stop: decisions on recorded numbers, without TensorFlow.

    progress = PatienceProgress()
    progress = rule.update(progress, value=0.31, index=7)
    progress.stopped    # True: the patience is used up

The callback that wires this is `kerastrain.callbacks.early_stopping.EarlyStopping`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerastrain.objective import Objective


@dataclass(frozen=True)
class PatienceProgress:
    """How far patience is used up; plain values, kept in checkpoints.

    Attributes:
        best: the best finite value so far, None before the first.
        best_index: the evaluation (0-based) of `best`.
        wait: evaluations since the last improvement.
        stopped_index: the evaluation that ended the run, None while it goes on.
    """

    best: float | None = None
    best_index: int | None = None
    wait: int = 0
    stopped_index: int | None = None

    @property
    def stopped(self) -> bool:
        return self.stopped_index is not None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PatienceProgress:
        return cls(**values)


@dataclass(frozen=True)
class Patience:
    """Stop after `patience` evaluations in a row without an improvement.

    The rule of `keras.callbacks.EarlyStopping` (Prechelt 1998 calls the idea "stop
    when the validation error has risen"), except that a value that is not finite is
    never best: it counts as an evaluation without improvement.

    Attributes:
        patience: evaluations without improvement that end the run; 0 ends it at the first.
        min_delta: by how much, absolutely, a value must be better to count.
        baseline: only an improvement that also beats this value resets the wait.
        start_from: evaluations before this index (0-based) are passed over.
    """

    objective: Objective
    patience: int
    min_delta: float = 0.0
    baseline: float | None = None
    start_from: int = 0

    def update(
        self, progress: PatienceProgress, *, value: float | None, index: int
    ) -> PatienceProgress:
        """The progress after evaluation `index` gave `value` (None: not reported)."""
        if progress.stopped or value is None or index < self.start_from:
            return progress
        if self.objective.is_better(value, than=progress.best, min_delta=self.min_delta):
            beats_baseline = self.baseline is None or self.objective.is_better(
                value, than=self.baseline, min_delta=self.min_delta
            )
            wait = 0 if beats_baseline else progress.wait + 1
            return PatienceProgress(best=value, best_index=index, wait=wait)
        waited = dataclasses.replace(progress, wait=progress.wait + 1)
        # As in Keras, the very first evaluation never ends a run.
        if waited.wait >= self.patience and index > 0:
            return dataclasses.replace(waited, stopped_index=index)
        return waited
