"""Half the learning rate, whatever kind it is: a variable, a schedule, a function.

slow_down(optimizer, known=0, halvings=1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def slow_down(optimizer: keras.Optimizer, *, known: int, halvings: int) -> bool:
    """Halves the learning rate.

    Args:
        known: halvings that the optimizer's restored variables hold already.
        halvings: all of the run's.

    Returns:
        Whether compiled steps must be compiled anew: a schedule is part of the program.
    """
    slowed = [_slow_down(each, known, halvings) for each in optimizers_of(optimizer)]
    return any(slowed)


def optimizers_of(optimizer: keras.Optimizer) -> list[keras.Optimizer]:
    """Return those that a keras.optimizers.MultiOptimizer joins; of any other, itself."""
    return list(getattr(optimizer, "optimizers", [optimizer]))


def _slow_down(optimizer: keras.Optimizer, known: int, halvings: int) -> bool:
    rate: Any = optimizer._learning_rate
    if isinstance(rate, _Slower):
        rate = rate.schedule
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        optimizer._learning_rate = _Slower(rate, 0.5**halvings)
        return True
    if not isinstance(rate, keras.Variable):  # A function that gives it.
        given = getattr(rate, "given", rate)
        optimizer._learning_rate = _SlowerCall(given, 0.5**halvings)
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


class _SlowerCall:
    """What a function gives, times a factor."""

    def __init__(self, given: Callable[[], Any], factor: float):
        self.given, self.factor = given, factor

    def __call__(self) -> Any:
        return self.given() * self.factor
