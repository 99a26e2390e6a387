"""How the learning rate changes, by name: `--schedule="cosine(warmup_epochs=1)"`.

    schedule = parse_schedule("exponential(rate=0.9)")
    set_schedule(model.optimizer, schedule, rate=0.003, steps_per_epoch=430)
    plateau_callback(schedule, objective)     # Keras's ReduceLROnPlateau, or None

All are Keras's own, made from what is known only with the data: the steps of an epoch. One
that depends on the length of the run has that length in its text ("cosine(epochs=30)"), so
that a later start with more epochs is seen to ask for another schedule.
"""

from kerastrain.schedules.kinds import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Plateau,
    Schedule,
    Step,
)
from kerastrain.schedules.named import (
    SCHEDULES,
    parse_schedule,
    plateau_callback,
    set_schedule,
)

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Exponential",
    "OneCycle",
    "Plateau",
    "Schedule",
    "Step",
    "parse_schedule",
    "plateau_callback",
    "set_schedule",
]
