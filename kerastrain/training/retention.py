"""Which checkpoints stay: the union of several wishes, as a pure function of their records.

retention = Retention(last=3, best=1, every=Interval.parse("10epochs"), objective=objective)
retention.kept(records, newest=5000)     # {3000, 4500, 4750, 5000}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kerastrain.objective import Objective
from kerastrain.options import Interval, TrainOptions
from kerastrain.training.checkpoint_files import Record


@dataclass(frozen=True)
class Retention:
    """What is kept; pinned checkpoints always are, and one from before the best weights.

    Attributes:
        last: that many of the newest, at least 1.
        best: that many of those saved at an evaluation, the best by the objective.
        every: of those saved, the first after each multiple of it (epochs, steps, or
            seconds of training). None: none for this reason.
        last_evaluated: the newest one that was saved at an evaluation; before there is
            one, the first of all.
    """

    last: int = 3
    best: int = 0
    every: Interval | None = None
    objective: Objective | None = None
    last_evaluated: bool = False

    @classmethod
    def of(cls, options: TrainOptions, objective: Objective) -> Retention:
        """What the options ask for."""
        every = options.keep_every
        return cls(
            last=options.keep_last,
            best=options.keep_best,
            every=None if every is None else Interval.parse(every, flag="keep_every"),
            objective=objective,
            last_evaluated=options.rolls_back,
        )

    def kept(self, records: Sequence[Record], *, newest: int) -> set[int]:
        """The steps that stay.

        Args:
            records: of all checkpoints, in any order.
            newest: the step committed last; it stays whatever its number.
        """
        ordered = sorted(records, key=lambda record: record.step)
        # A program may begin to count anew: the newest need not have the largest number.
        others = [record.step for record in ordered if record.step != newest]
        kept = {newest, *others[max(0, len(others) - (self.last - 1)) :]}
        kept |= {record.step for record in ordered if record.pinned}
        kept |= self._best(ordered) | self._every(ordered)
        kept |= self._before_best(ordered, newest)
        if self.last_evaluated:
            evaluated = [record.step for record in ordered if record.objective is not None]
            kept |= set(evaluated[-1:] or [record.step for record in ordered[:1]])
        return kept

    def is_among_best(self, value: float, records: Sequence[Record]) -> bool:
        """Whether a checkpoint with this objective would be kept as one of the best."""
        if self.objective is None or self.best == 0:
            return False
        if not self.objective.is_better(value, than=None):  # NaN, or an infinity
            return False
        known = [record for record in records if record.objective is not None]
        better = [r for r in known if not self.objective.is_better(value, than=r.objective)]
        return len(better) < self.best

    def _before_best(self, ordered: Sequence[Record], newest: int) -> set[int]:
        """The last from before the best weights: if these are damaged, it makes them again."""
        best = next((record.best_step for record in ordered if record.step == newest), None)
        before = [record.step for record in ordered if best is not None and record.step < best]
        return set(before[-1:])

    def _best(self, ordered: Sequence[Record]) -> set[int]:
        if self.objective is None or self.best == 0:
            return set()
        sign = 1 if self.objective.direction == "min" else -1
        known = [
            (sign * record.objective, record.step)
            for record in ordered
            # NaN has no place in an order.
            if record.objective is not None and math.isfinite(record.objective)
        ]
        return {step for _, step in sorted(known)[: self.best]}

    def _every(self, ordered: Sequence[Record]) -> set[int]:
        if self.every is None:
            return set()
        first: dict[int, int] = {}
        for record in ordered:
            position = {
                "steps": record.step,
                "epochs": record.epoch,
                "seconds": record.seconds,
            }[self.every.unit]
            first.setdefault(int(position // self.every.count), record.step)
        return {step for multiple, step in first.items() if multiple > 0}
