"""After a loss that is not finite: back to the last good evaluation, and slower from there.

    rollbacks = read_rollbacks(workdir)
    gone = abandoned(records, rollbacks)      # checkpoints of a future that was given up
    slow_down(optimizer, halvings=len(rollbacks))

The way back leads to the state of the last evaluation, which depends on nothing but
the run itself, and not to the last save, which depends on the clock: so an interrupted
run rolls back exactly as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from kerastrain.training.checkpoint_files import Record
from kerastrain.workdir import Workdir, read_json, write_json

LARGEST_NUMBER = 3


@dataclass(frozen=True)
class Rollback:
    """One way back.

    Attributes:
        bad_step: whose loss was not finite.
        to_step: the state that training went on from, with half the learning rate.
    """

    bad_step: int
    to_step: int


def read_rollbacks(workdir: Workdir) -> list[Rollback]:
    """All of the run's, oldest first.

    Raises:
        WorkdirError: the record cannot be read.
    """
    if not workdir.rollbacks_file.exists():
        return []
    return [Rollback(**values) for values in read_json(workdir.rollbacks_file)["rollbacks"]]


def write_rollbacks(workdir: Workdir, rollbacks: Sequence[Rollback]) -> None:
    """Records them, before anything else is done about the newest."""
    write_json(workdir.rollbacks_file, {"rollbacks": [asdict(each) for each in rollbacks]})


def target_of(records: Sequence[Record]) -> int | None:
    """The step to go back to: the last evaluation's, else the beginning; None without either."""
    evaluated = [record.step for record in records if record.objective is not None]
    beginning = [record.step for record in records if record.step == 0]
    return max(evaluated or beginning, default=None)


def abandoned(records: Sequence[Record], rollbacks: Sequence[Rollback]) -> set[int]:
    """Steps of checkpoints that know less than all rollbacks and lie beyond where one led."""
    return {
        record.step
        for record in records
        if any(record.step > rollback.to_step for rollback in rollbacks[record.rollbacks :])
    }


def slow_down(optimizer: keras.Optimizer, *, known: int, halvings: int) -> bool:
    """Halves the learning rate.

    Args:
        known: halvings that the optimizer's restored variables hold already.
        halvings: all of the run's.

    Returns:
        Whether compiled steps must be compiled anew: a schedule is part of the program.
    """
    rate: Any = optimizer._learning_rate
    if isinstance(rate, _Slower):
        rate = rate.schedule
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        optimizer._learning_rate = _Slower(rate, 0.5**halvings)
        return True
    optimizer.learning_rate.assign(optimizer.learning_rate * 0.5 ** (halvings - known))
    return False


class _Slower(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule, times a factor."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, factor: float):
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: Any) -> Any:
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"schedule": schedule, "factor": self.factor}
