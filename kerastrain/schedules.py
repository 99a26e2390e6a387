"""How the learning rate changes, by name: `--schedule="cosine(warmup_epochs=1)"`.

    schedule = parse_schedule("exponential(rate=0.9)")
    set_schedule(model.optimizer, schedule, rate=0.003, steps_per_epoch=430)
    plateau_callback(schedule, objective)     # Keras's ReduceLROnPlateau, or None

All are Keras's own, made from what is known only with the data: the steps of an epoch. One
that depends on the length of the run has that length in its text ("cosine(epochs=30)"), so
that a later start with more epochs is seen to ask for another schedule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

from kerastrain.errors import OptionsError, suggestion
from kerastrain.expression import make, parse_call, pointed
from kerastrain.objective import Objective

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Schedule:
    """Base of all; `rate` is the learning rate that the options or the optimizer say."""

    name: ClassVar[str]

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        """A keras LearningRateSchedule; None for a rate that is a variable."""
        return None

    def with_length(self, *, max_epochs: int | None, max_steps: int | None) -> Schedule:
        """The same, with the length of the run where it depends on that."""
        return self

    def __str__(self) -> str:
        """As `parse_schedule` reads it."""
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def _check(self, name: str, *, least: float, below: float = float("inf")) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if value is not None and not (is_number and least <= value < below):
            bound = "" if below == float("inf") else f" and less than {below:g}"
            raise OptionsError(
                f"{self.name} has {name}={value!r}; expected a number of at least {least:g}{bound}."
            )


@dataclass(frozen=True)
class Constant(Schedule):
    """The rate as it is."""

    name = "constant"


@dataclass(frozen=True)
class _Cosine(Schedule):
    """A linear rise, and a fall along half a cosine (Loshchilov & Hutter 2017, eq. 5)."""

    epochs: float | None = None
    steps: int | None = None

    def with_length(self, *, max_epochs: int | None, max_steps: int | None) -> Schedule:
        if self.epochs is not None or self.steps is not None:
            return self
        return dataclasses.replace(self, epochs=max_epochs, steps=max_steps)

    def _check_length(self) -> None:
        self._check("epochs", least=0.001)
        self._check("steps", least=1)

    def _length(self, steps_per_epoch: int) -> int:
        lengths = [] if self.steps is None else [self.steps]
        lengths += [] if self.epochs is None else [round(self.epochs * steps_per_epoch)]
        if not lengths:
            raise OptionsError(f"{self} does not say its length; give epochs or steps.")
        return max(1, min(lengths))

    @staticmethod
    def _rise_and_fall(rate: float, *, length: int, rise: int, start: float, end: float) -> Any:
        from keras.optimizers.schedules import CosineDecay

        if rise == 0:
            return CosineDecay(rate, length, alpha=end)
        return CosineDecay(
            start * rate, max(1, length - rise), alpha=end, warmup_target=rate, warmup_steps=rise
        )


@dataclass(frozen=True)
class Cosine(_Cosine):
    """From `rate` to `end` times it along half a cosine, after a linear warm-up from 0.

    Loshchilov & Hutter (2017), "SGDR", eq. 5, without restarts.

    Attributes:
        epochs, steps: the whole length, warm-up included; both: the shorter. Default: the
            run's. Afterwards the rate stays where it is.
        warmup_epochs, warmup_steps: default none.
        end: share of `rate`, 0 to 1.
    """

    warmup_epochs: float | None = None
    warmup_steps: int | None = None
    end: float = 0.0

    name = "cosine"

    def __post_init__(self) -> None:
        self._check_length()
        self._check("warmup_epochs", least=0)
        self._check("warmup_steps", least=0)
        self._check("end", least=0, below=1.0001)
        if self.warmup_epochs is not None and self.warmup_steps is not None:
            raise OptionsError("cosine has warmup_epochs and warmup_steps; expected one of them.")

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        length = self._length(steps_per_epoch)
        warmup = self.warmup_steps or round((self.warmup_epochs or 0) * steps_per_epoch)
        if warmup >= length:
            raise OptionsError(
                f"--schedule={self} has a warm-up of {warmup} steps in a run of {length}; expected "
                "a shorter one."
            )
        return self._rise_and_fall(rate, length=length, rise=warmup, start=0.0, end=self.end)


@dataclass(frozen=True)
class OneCycle(_Cosine):
    """Up to `rate` and down again, once in the whole run.

    Smith & Topin (2018), "Super-convergence"; the rise is linear as there, the fall half a
    cosine, to far below the start. Momentum stays as it is.

    Attributes:
        epochs, steps: as in Cosine.
        rise: share of the length, 0 to below 1.
        start, end: shares of `rate`.
    """

    rise: float = 0.3
    start: float = 0.04
    end: float = 0.0001

    name = "one_cycle"

    def __post_init__(self) -> None:
        self._check_length()
        self._check("rise", least=0, below=1)
        self._check("start", least=0, below=1.0001)
        self._check("end", least=0, below=1.0001)

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        length = self._length(steps_per_epoch)
        rise = min(round(self.rise * length), length - 1)
        return self._rise_and_fall(rate, length=length, rise=rise, start=self.start, end=self.end)


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate · r^(t / T): r for each T, continuously, or in stairs.

    Attributes:
        rate: r, above 0 to 1.
        every_epochs, every_steps: T; default one epoch.
        staircase: t / T is rounded down.
    """

    rate: float = 0.9
    every_epochs: float | None = None
    every_steps: int | None = None
    staircase: bool = False

    name = "exponential"

    def __post_init__(self) -> None:
        self._check("rate", least=1e-12, below=1.0001)
        self._check("every_epochs", least=0.001)
        self._check("every_steps", least=1)
        if self.every_epochs is not None and self.every_steps is not None:
            raise OptionsError("exponential has every_epochs and every_steps; expected one.")

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        from keras.optimizers.schedules import ExponentialDecay

        epochs = 1 if self.every_epochs is None else self.every_epochs
        every = self.every_steps or max(1, round(epochs * steps_per_epoch))
        return ExponentialDecay(rate, every, self.rate, staircase=bool(self.staircase))


@dataclass(frozen=True)
class Step(Schedule):
    """`factor` times less at each of the given epochs or steps.

    Attributes:
        factor: what the rate is multiplied with, above 0 to 1.
        epochs, steps: where; one of them, rising.
    """

    factor: float = 0.1
    epochs: Sequence[float] | None = None
    steps: Sequence[int] | None = None

    name = "step"

    def __post_init__(self) -> None:
        self._check("factor", least=1e-12, below=1.0001)
        given = [points for points in (self.epochs, self.steps) if points is not None]
        if len(given) != 1:
            raise OptionsError("step needs epochs or steps, as in step(epochs=[30, 60]).")
        points = list(given[0]) if isinstance(given[0], (list, tuple)) else []
        are_positive = all(isinstance(point, (int, float)) and point > 0 for point in points)
        if not points or not are_positive or sorted(set(points)) != points:
            raise OptionsError(f"step has {given[0]!r}; expected rising numbers, as in [30, 60].")

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        from keras.optimizers.schedules import PiecewiseConstantDecay

        points = self.steps or [round(epoch * steps_per_epoch) for epoch in self.epochs or ()]
        # Keras changes the rate after its boundary: the step before the one that is meant.
        boundaries = [max(0, int(point) - 1) for point in points]
        values = [rate * self.factor**i for i in range(len(points) + 1)]
        return PiecewiseConstantDecay(boundaries, values)


@dataclass(frozen=True)
class Plateau(Schedule):
    """`keras.callbacks.ReduceLROnPlateau` on the objective: less whenever it stays where it is.

    Attributes:
        factor: what the rate is multiplied with, 0 to below 1.
        patience: evaluations without an improvement; fewer than the stopping rule's, to matter.
        min_delta, cooldown, min_rate: as min_delta, cooldown and min_lr there.
    """

    factor: float = 0.1
    patience: int = 3
    min_delta: float = 0.0001
    cooldown: int = 0
    min_rate: float = 0.0

    name = "plateau"

    def __post_init__(self) -> None:
        self._check("factor", least=0, below=1)
        for name in ("patience", "min_delta", "cooldown", "min_rate"):
            self._check(name, least=0)


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
