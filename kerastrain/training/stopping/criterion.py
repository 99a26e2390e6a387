"""What a stopping criterion is: evaluations in, one verdict for each out.

    class Target(Monitoring): ...
        def verdicts(self, evaluations, objective): ...    # a generator, a verdict for each
    watch = Watch(criterion, objective)
    watch.tell(evaluation).stops

A criterion is a frozen value without a memory of its own: what it has to remember lives in
the generator. So a run that is resumed gives it the recorded evaluations once more, and a
finished run can be judged by any other criterion.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from kerastrain.arguments import COUNT_OR_0, NOT_NEGATIVE, TEXT
from kerastrain.errors import ObjectiveError, OptionsError, suggestion
from kerastrain.objective import Objective

Unit = Literal["evaluations", "epochs", "steps", "seconds"]
UNITS: tuple[Unit, ...] = ("evaluations", "epochs", "steps", "seconds")


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation recorded.

    Attributes:
        index: 0-based, among the run's evaluations.
        step: optimizer steps done.
        epoch: passes over the training examples, fractional.
        seconds: of training and evaluating so far.
        values: metrics by name, `loss` and `val_loss` among them; NaN is possible.
    """

    index: int
    step: int
    epoch: float
    seconds: float
    values: Mapping[str, float]

    def position(self, unit: Unit) -> float:
        """How far the run was, in this unit."""
        if unit == "evaluations":
            return self.index + 1
        return {"epochs": self.epoch, "steps": self.step, "seconds": self.seconds}[unit]

    def value(self, name: str) -> float:
        """The value of a metric.

        Raises:
            ObjectiveError: it is not among the recorded ones.
        """
        if name not in self.values:
            raise ObjectiveError(
                f"The stopping criterion needs '{name}', which is not among the recorded metrics "
                f"{', '.join(self.values)}.{suggestion(name, self.values)}"
            )
        return self.values[name]


@dataclass(frozen=True)
class Reading:
    """What one criterion measured at one evaluation.

    Attributes:
        criterion: as it is written, "gl(2)".
        stops: whether this criterion, by itself, is met.
        says: in words and numbers.
        value, limit: what it compares, where that is two numbers.
    """

    criterion: str
    stops: bool
    says: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether to stop at an evaluation.

    Attributes:
        readings: of every criterion of the rule.
        because: of those that made it stop; empty when it goes on.
    """

    readings: tuple[Reading, ...]
    because: tuple[Reading, ...]

    @property
    def stops(self) -> bool:
        return bool(self.because)

    @property
    def says(self) -> str:
        return " and ".join(reading.says for reading in self.because)

    @classmethod
    def of(cls, reading: Reading) -> Verdict:
        return cls((reading,), (reading,) if reading.stops else ())


class Criterion(abc.ABC):
    """Base of all criteria; subclasses are frozen dataclasses."""

    # As it is called in expressions.
    name: ClassVar[str]

    @abc.abstractmethod
    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        """One verdict for each evaluation, in their order; takes no evaluation in advance.

        Args:
            objective: the run's; what a criterion looks at that says no metric of its own.

        Raises:
            ObjectiveError: a metric that it needs was not recorded.
        """

    def metrics(self, objective: Objective) -> frozenset[str]:
        """The names of the recorded values that it looks at."""
        return frozenset()

    def leaves(self) -> Iterator[Criterion]:
        """The criteria that it is made of, itself if it is one."""
        yield self

    def __or__(self, other: Criterion) -> Criterion:
        return AnyOf((self, other))

    def __and__(self, other: Criterion) -> Criterion:
        return AllOf((self, other))

    def __str__(self) -> str:
        """As `parse_criterion` reads it."""
        if not dataclasses.is_dataclass(self):
            return self.name
        shown = []
        for position, field in enumerate(dataclasses.fields(self)):
            value = getattr(self, field.name)
            value = value.item() if hasattr(value, "item") else value  # A number of NumPy's.
            if value != field.default:
                text = str(value) if isinstance(value, Criterion) else repr(value)
                shown.append(text if position == 0 else f"{field.name}={text}")
        return f"{self.name}({', '.join(shown)})" if shown else self.name

    def _verdict(
        self, stops: bool, says: str, value: float | None = None, limit: float | None = None
    ) -> Verdict:
        return Verdict.of(Reading(str(self), stops, says, value, limit))


class Monitoring(Criterion):
    """A criterion that looks at one metric: its `monitor`, else the run's objective."""

    monitor: str | None

    def watched(self, objective: Objective) -> Objective:
        """The metric that it looks at, and its direction."""
        return objective if self.monitor is None else Objective.parse(self.monitor)

    def metrics(self, objective: Objective) -> frozenset[str]:
        return frozenset({self.watched(objective).name})

    def _check_monitor(self) -> None:
        if self.monitor is not None:
            TEXT.check(self.name, "monitor", self.monitor)
            Objective.parse(self.monitor)


@dataclass(frozen=True)
class _Joined(Criterion):
    parts: tuple[Criterion, ...]

    word: ClassVar[str]

    def leaves(self) -> Iterator[Criterion]:
        for part in self.parts:
            yield from part.leaves()

    def metrics(self, objective: Objective) -> frozenset[str]:
        return frozenset().union(*(part.metrics(objective) for part in self.parts))

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        streams = itertools.tee(evaluations, len(self.parts))
        each = [
            part.verdicts(stream, objective)
            for part, stream in zip(self.parts, streams, strict=True)
        ]
        for together in zip(*each, strict=True):
            readings = tuple(reading for verdict in together for reading in verdict.readings)
            because = tuple(reading for verdict in together for reading in verdict.because)
            yield Verdict(readings, because if self._joins(together) else ())

    @abc.abstractmethod
    def _joins(self, verdicts: tuple[Verdict, ...]) -> bool:
        """Whether these verdicts of the parts, at one evaluation, make the whole one stop."""

    def __str__(self) -> str:
        return f" {self.word} ".join(
            f"({part})" if isinstance(part, _Joined) else str(part) for part in self.parts
        )


class AnyOf(_Joined):
    """Stops when one of its parts does."""

    word = "or"

    def _joins(self, verdicts: tuple[Verdict, ...]) -> bool:
        return any(verdict.stops for verdict in verdicts)


class AllOf(_Joined):
    """Stops at an evaluation where all of its parts are met."""

    word = "and"

    def _joins(self, verdicts: tuple[Verdict, ...]) -> bool:
        return all(verdict.stops for verdict in verdicts)


class Watch:
    """A criterion that is told of evaluations as they come."""

    def __init__(self, criterion: Criterion, objective: Objective):
        self._arriving: collections.deque[Evaluation] = collections.deque()
        self._verdicts = criterion.verdicts(self._evaluations(), objective)

    def tell(self, evaluation: Evaluation) -> Verdict:
        """The verdict on this evaluation."""
        self._arriving.append(evaluation)
        return next(self._verdicts)

    def _evaluations(self) -> Iterator[Evaluation]:
        while True:
            yield self._arriving.popleft()


@dataclass(frozen=True)
class Span:
    """So many evaluations, epochs, steps or seconds."""

    count: float
    unit: Unit

    def __str__(self) -> str:
        unit = self.unit.removesuffix("s") if self.count == 1 else self.unit
        return f"{self.count:,.10g} {unit}"


def span_of(criterion: Any) -> Span:
    """What a criterion with the fields evaluations, epochs, steps and seconds says of them.

    Raises:
        OptionsError: none is given, or several, or a negative number.
    """
    given = {unit: getattr(criterion, unit) for unit in UNITS}
    said = {unit: count for unit, count in given.items() if count is not None}
    if len(said) != 1:
        raise OptionsError(
            f"{criterion.name} was given {' and '.join(said) or 'no length'}; expected one of "
            f"{', '.join(UNITS)}, as in {criterion.name}(epochs=3)."
        )
    ((unit, count),) = said.items()
    kind = COUNT_OR_0 if unit in ("evaluations", "steps") else NOT_NEGATIVE
    kind.check(criterion.name, unit, count)
    return Span(count, unit)


def shown(value: float) -> str:
    """A metric's value in a sentence."""
    return f"{value:.4g}"
