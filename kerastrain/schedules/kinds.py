"""The schedules: frozen values that make Keras's own.

Cosine(epochs=30, warmup_epochs=1).build(0.003, steps_per_epoch=430)     # a CosineDecay
str(Step(epochs=[30, 60]))                                # as `parse_schedule` reads it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastrain.arguments import (
    COUNT,
    COUNT_OR_0,
    FACTOR,
    FACTOR_BELOW_1,
    NOT_NEGATIVE,
    POSITIVE,
    RISING,
    RISING_COUNTS,
    SHARE,
    SHARE_BELOW_1,
    TRUTH,
    Expected,
)
from kerastrain.errors import OptionsError


def argument(expected: Expected, default: Any = None) -> Any:
    """A field of a schedule; one with the default None may be left at that."""
    return dataclasses.field(default=default, metadata={"expected": expected})


@dataclass(frozen=True)
class Schedule:
    """Base of all; `rate` is the learning rate that the options or the optimizer say.

    Raises:
        OptionsError: an argument has a value that makes no sense.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                field.metadata["expected"].check(self.name, field.name, value)

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        """A keras LearningRateSchedule; None for a rate that is a variable.

        Raises:
            OptionsError: it does not fit the length of the run.
        """
        return None

    def with_length(self, *, max_epochs: int | None, max_steps: int | None) -> Schedule:
        """The same, with the length of the run where it depends on that."""
        return self

    def zero_from(self, steps_per_epoch: int) -> int | None:
        """The step from which on the rate is 0; None: there is none."""
        return None

    def __str__(self) -> str:
        """As `parse_schedule` reads it."""
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def _at_most_one_of(self, *names: str) -> list[str]:
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise OptionsError(f"{self.name} has {' and '.join(given)}; expected one of them.")
        return given


@dataclass(frozen=True)
class Constant(Schedule):
    """The rate as it is."""

    name = "constant"


@dataclass(frozen=True)
class _Cosine(Schedule):
    """A linear rise, and a fall along half a cosine."""

    epochs: float | None = argument(POSITIVE)
    steps: int | None = argument(COUNT)
    end: float = argument(SHARE, 0.0)

    def with_length(self, *, max_epochs: int | None, max_steps: int | None) -> Schedule:
        if self.epochs is not None or self.steps is not None:
            return self
        return dataclasses.replace(self, epochs=max_epochs, steps=max_steps)

    def zero_from(self, steps_per_epoch: int) -> int | None:
        return self._length(steps_per_epoch) if self.end == 0 else None

    def _length(self, steps_per_epoch: int) -> int:
        lengths = [] if self.steps is None else [self.steps]
        lengths += [] if self.epochs is None else [round(self.epochs * steps_per_epoch)]
        if not lengths:
            raise OptionsError(f"{self} does not say its length; give epochs or steps.")
        return max(1, min(lengths))

    def _rise_and_fall(self, rate: float, *, length: int, rise: int, start: float) -> Any:
        """From `start` times the rate to the rate in step number `rise`, and on to the end."""
        from keras.optimizers.schedules import CosineDecay

        if rise == 0:
            return CosineDecay(rate, length, alpha=self.end)
        return CosineDecay(
            start * rate, length - rise, alpha=self.end, warmup_target=rate, warmup_steps=rise
        )


@dataclass(frozen=True)
class Cosine(_Cosine):
    """From `rate` to `end` times it along half a cosine, after a linear warm-up.

    Loshchilov & Hutter (2017), "SGDR", eq. 5, without restarts. The first step of a warm-up of
    W steps takes `rate` / W, the W-th `rate`, as in Goyal et al. (2017), section 2.2.

    Attributes:
        epochs, steps: the whole length, warm-up included; both: the shorter. Default: the
            run's. Afterwards the rate stays where it is.
        end: share of `rate`, 0 to 1.
        warmup_epochs, warmup_steps: default none.
    """

    warmup_epochs: float | None = argument(NOT_NEGATIVE)
    warmup_steps: int | None = argument(COUNT_OR_0)

    name = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_most_one_of("warmup_epochs", "warmup_steps")

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        length = self._length(steps_per_epoch)
        warmup = self.warmup_steps or round((self.warmup_epochs or 0) * steps_per_epoch)
        if warmup >= length:
            raise OptionsError(
                f"--schedule={self} has a warm-up of {warmup} steps in a run of {length}; expected "
                "a shorter one."
            )
        # Not from 0: that would be a step for nothing, in which Keras's Ftrl divides by it.
        rise, start = (warmup - 1, 1 / warmup) if warmup else (0, 0.0)
        return self._rise_and_fall(rate, length=length, rise=rise, start=start)


@dataclass(frozen=True)
class OneCycle(_Cosine):
    """Up to `rate` and down again, once in the whole run.

    Smith & Topin (2018), "Super-convergence"; the rise is linear as there, the fall half a
    cosine, to far below the start. Momentum stays as it is.

    Attributes:
        epochs, steps: as in Cosine.
        start, end: shares of `rate`.
        rise: share of the length, 0 to below 1.
    """

    end: float = argument(SHARE, 0.0001)
    start: float = argument(SHARE, 0.04)
    rise: float = argument(SHARE_BELOW_1, 0.3)

    name = "one_cycle"

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        length = self._length(steps_per_epoch)
        rise = min(round(self.rise * length), length - 1)
        return self._rise_and_fall(rate, length=length, rise=rise, start=self.start)


@dataclass(frozen=True)
class Exponential(Schedule):
    """rate · r^(t / T): r for each T, continuously, or in stairs.

    Attributes:
        rate: r, above 0 to 1.
        every_epochs, every_steps: T; default one epoch.
        staircase: t / T is rounded down.
    """

    rate: float = argument(FACTOR, 0.9)
    every_epochs: float | None = argument(POSITIVE)
    every_steps: int | None = argument(COUNT)
    staircase: bool = argument(TRUTH, False)

    name = "exponential"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_most_one_of("every_epochs", "every_steps")

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        from keras.optimizers.schedules import ExponentialDecay

        epochs = 1 if self.every_epochs is None else self.every_epochs
        every = self.every_steps or max(1, round(epochs * steps_per_epoch))
        return ExponentialDecay(rate, every, self.rate, staircase=self.staircase)


@dataclass(frozen=True)
class Step(Schedule):
    """The rate times `factor`, at each of the given epochs or steps, or each time so many are over.

    Attributes:
        factor: what the rate is multiplied with, above 0 to 1.
        epochs, steps: where, rising.
        every_epochs, every_steps: how often. One of these four.
    """

    factor: float = argument(FACTOR, 0.1)
    epochs: Sequence[float] | None = argument(RISING)
    steps: Sequence[int] | None = argument(RISING_COUNTS)
    every_epochs: float | None = argument(POSITIVE)
    every_steps: int | None = argument(COUNT)

    name = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._at_most_one_of("epochs", "steps", "every_epochs", "every_steps"):
            raise OptionsError(
                "step needs epochs or steps, as in step(epochs=[30, 60]), or every_epochs or "
                "every_steps, as in step(every_epochs=30)."
            )

    def build(self, rate: float, steps_per_epoch: int) -> Any:
        from keras.optimizers.schedules import PiecewiseConstantDecay

        if self.every_epochs is not None or self.every_steps is not None:
            stairs = Exponential(self.factor, self.every_epochs, self.every_steps, staircase=True)
            return stairs.build(rate, steps_per_epoch)
        points = self.steps or [round(epoch * steps_per_epoch) for epoch in self.epochs or ()]
        # Keras changes the rate after its boundary: the step before the one that is meant.
        boundaries = [max(0, int(point) - 1) for point in points]
        values = [rate * self.factor**i for i in range(len(points) + 1)]
        return PiecewiseConstantDecay(boundaries, values)


@dataclass(frozen=True)
class Plateau(Schedule):
    """`keras.callbacks.ReduceLROnPlateau` on the objective: less whenever it stays where it is.

    Attributes:
        factor: what the rate is multiplied with, above 0 to below 1.
        patience: evaluations without an improvement; fewer than the stopping rule's, to matter.
        min_delta, cooldown, min_rate: as min_delta, cooldown and min_lr there.
    """

    factor: float = argument(FACTOR_BELOW_1, 0.1)
    patience: int = argument(COUNT, 3)
    min_delta: float = argument(NOT_NEGATIVE, 0.0001)
    cooldown: int = argument(COUNT_OR_0, 0)
    min_rate: float = argument(NOT_NEGATIVE, 0.0)

    name = "plateau"
