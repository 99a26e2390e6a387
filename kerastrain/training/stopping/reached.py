"""Something is reached: a value, a length of training; or it is not, in time.

Target(0.995) | Budget(seconds=600)
Baseline(0.8, steps=1000)            # give up a run that is not at 0.8 by then
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kerastrain.arguments import NUMBER
from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import (
    Criterion,
    Evaluation,
    Monitoring,
    Span,
    Verdict,
    shown,
    span_of,
)


def is_reached(objective: Objective, value: float, target: float) -> bool:
    """Whether a finite value is as good as the target, or better."""
    if not math.isfinite(value):
        return False
    return value >= target if objective.direction == "max" else value <= target


@dataclass(frozen=True)
class Target(Monitoring):
    """Stop as soon as the metric is as good as `value`: E(t) >= value, or <= for one to minimise.

    Attributes:
        value: in the metric's unit.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: `value` is not a finite number.
        ObjectiveError: the direction of `monitor` is not known.
    """

    value: float
    monitor: str | None = None

    name = "target"

    def __post_init__(self) -> None:
        self._check_monitor()
        NUMBER.check(self.name, "value", self.value)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        objective = self.watched(objective)
        for evaluation in evaluations:
            value = evaluation.value(objective.name)
            stops = is_reached(objective, value, self.value)
            word = "reached" if stops else "has not reached"
            says = f"{objective.name} {shown(value)} {word} the target {self.value:g}"
            yield self._verdict(stops, says, value, self.value)


@dataclass(frozen=True)
class Baseline(Monitoring):
    """Stop when the metric has not been as good as `value` by a given position.

    With S the position: stop at the first evaluation at or after S if no evaluation so far
    has reached `value`.

    Attributes:
        value: in the metric's unit.
        evaluations, epochs, steps, seconds: S; one of them.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: a number out of range, or not exactly one position.
        ObjectiveError: the direction of `monitor` is not known.
    """

    value: float
    evaluations: int | None = None
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    monitor: str | None = None

    name = "baseline"

    def __post_init__(self) -> None:
        self._check_monitor()
        NUMBER.check(self.name, "value", self.value)
        span_of(self)

    @property
    def span(self) -> Span:
        return span_of(self)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        span, objective = self.span, self.watched(objective)
        best: float | None = None
        for evaluation in evaluations:
            value = evaluation.value(objective.name)
            if objective.is_better(value, than=best):
                best = value
            is_above = best is not None and is_reached(objective, best, self.value)
            stops = not is_above and evaluation.position(span.unit) >= span.count
            found = "was never a finite number" if best is None else f"was {shown(best)} at best"
            says = f"{objective.name} {found} after {span}, with a baseline of {self.value:g}"
            yield self._verdict(stops, says, best, self.value)


@dataclass(frozen=True)
class After(Criterion):
    """Met from a position on; joined by `and`, it lets no other criterion stop before.

    Attributes:
        evaluations, epochs, steps, seconds: the position; one of them.

    Raises:
        OptionsError: a negative number, or not exactly one position.
    """

    evaluations: int | None = None
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None

    name = "after"

    def __post_init__(self) -> None:
        span_of(self)

    @property
    def span(self) -> Span:
        return span_of(self)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        span = self.span
        for evaluation in evaluations:
            here = evaluation.position(span.unit)
            says = f"{Span(round(here, 3), span.unit)} of {span} had passed"
            yield self._verdict(here >= span.count, says, here, span.count)


class Budget(After):
    """`After`, by its name in a row of `or`: so long, and no longer.

    It is looked at when the run evaluates; `--max_seconds` and `--max_steps` end a run in
    between as well.
    """

    name = "budget"


@dataclass(frozen=True)
class Never(Criterion):
    """Never stops: the run goes to its budget."""

    name = "never"

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        for _ in evaluations:
            yield Verdict((), ())
