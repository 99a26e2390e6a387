"""Schedules by name, and on an optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kerastrain.errors import OptionsError, suggestion
from kerastrain.expression import make, parse_call, pointed
from kerastrain.objective import Objective
from kerastrain.schedules.kinds import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Schedule,
    Step,
)

if TYPE_CHECKING:
    import keras

SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind for kind in (Constant, Cosine, OneCycle, Exponential, Step, Plateau)
}


def parse_schedule(text: str) -> Schedule:
    """Reads "cosine(warmup_epochs=1)".

    Raises:
        OptionsError: the text cannot be read, names no schedule, or gives one arguments that it
            does not take; the message points at the place.
    """
    call = parse_call(text, flag="schedule")
    if call.name.lower() not in SCHEDULES:
        says = f"there is no schedule '{call.name}', only {', '.join(SCHEDULES)}."
        raise pointed(text, "schedule", 0, says + suggestion(call.name, SCHEDULES))
    return make(call, SCHEDULES[call.name.lower()], text=text, flag="schedule")


def set_schedule(
    optimizer: keras.Optimizer, schedule: Schedule, *, rate: float | None, steps_per_epoch: int
) -> None:
    """Gives an optimizer a schedule, instead of the one that it has.

    Args:
        rate: the options'; None: the optimizer's own.

    Raises:
        OptionsError: the optimizer has a schedule of its own and `rate` is not said; or what is
            asked for does not fit the length of the run.
    """
    import keras

    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(inner, "optimizers"):
        raise OptionsError(
            f"--schedule={schedule}: the recipe's optimizer is a {type(inner).__name__}, which "
            "joins several with a learning rate each. Give each its own where the recipe makes it."
        )
    is_variable = isinstance(inner._learning_rate, keras.Variable)
    if rate is None and not is_variable:
        raise OptionsError(
            f"--schedule={schedule}: the recipe's optimizer has a learning rate that changes by "
            "itself. Give --learning_rate too, from which the schedule is to begin."
        )
    base = float(inner.learning_rate) if rate is None else rate
    made = schedule.build(base, steps_per_epoch)
    if made is not None:
        inner.learning_rate = made
    elif not is_variable:
        raise OptionsError(
            f"--schedule={schedule}: the recipe's optimizer has a learning rate that changes by "
            "itself, and Keras cannot make it constant. Use another schedule."
        )
    elif rate is not None:
        inner.learning_rate = rate


def plateau_callback(schedule: Schedule, objective: Objective) -> keras.callbacks.Callback | None:
    """Keras's ReduceLROnPlateau for the schedule `plateau`; None for any other."""
    if not isinstance(schedule, Plateau):
        return None
    import keras

    return keras.callbacks.ReduceLROnPlateau(
        monitor=objective.name,
        mode=objective.direction,
        factor=schedule.factor,
        patience=schedule.patience,
        min_delta=schedule.min_delta,
        cooldown=schedule.cooldown,
        min_lr=schedule.min_rate,
    )
