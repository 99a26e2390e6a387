"""Patience: so long without an improvement.

Patience(5)                          # evaluations, as in Keras
Patience(epochs=10, min_delta=0.01, relative=True)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kerastrain.arguments import COUNT_OR_0, NOT_NEGATIVE, NUMBER, TRUTH
from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import (
    Evaluation,
    Monitoring,
    Span,
    Verdict,
    shown,
    span_of,
)


@dataclass(frozen=True)
class Patience(Monitoring):
    """Stop after so long in a row without an improvement.

    The rule of `keras.callbacks.EarlyStopping`: with E the monitored value, an evaluation t
    improves when E(t) is better than the best so far by more than `min_delta`; stop when
    position(t) - position(last improvement) >= patience, at an evaluation without one. A
    value that is not finite never improves. Patience 0, like 1 evaluation, stops at the first
    evaluation that is not better than the best before it; the very first never stops.

    Attributes:
        evaluations, epochs, steps, seconds: the patience; one of them.
        min_delta: by how much better a value must be to count; in the metric's unit, or,
            if `relative`, as a share of the best value's size.
        baseline: only an improvement that beats this value too begins the wait anew.
        start_from: so many evaluations are passed over first.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: a number out of range, or not exactly one length.
        ObjectiveError: the direction of `monitor` is not known.
    """

    evaluations: int | None = None
    epochs: float | None = None
    steps: int | None = None
    seconds: float | None = None
    min_delta: float = 0.0
    relative: bool = False
    baseline: float | None = None
    start_from: int = 0
    monitor: str | None = None

    name = "patience"

    def __post_init__(self) -> None:
        self._check_monitor()
        NOT_NEGATIVE.check(self.name, "min_delta", self.min_delta)
        TRUTH.check(self.name, "relative", self.relative)
        COUNT_OR_0.check(self.name, "start_from", self.start_from)
        if self.baseline is not None:
            NUMBER.check(self.name, "baseline", self.baseline)
        span_of(self)

    @property
    def span(self) -> Span:
        return span_of(self)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        span, objective = self.span, self.watched(objective)
        best: Evaluation | None = None
        since: float | None = None  # The position that the wait is counted from.
        for evaluation in evaluations:
            here, value = evaluation.position(span.unit), evaluation.value(objective.name)
            if since is None:  # A run that goes on after its end begins to wait there.
                since = 0.0 if evaluation.index == 0 else here
            before = None if best is None else best.value(objective.name)
            is_counted = evaluation.index >= self.start_from
            improves = is_counted and objective.is_better(
                value, than=before, min_delta=self.delta(before)
            )
            if improves:
                best = evaluation
            if not is_counted or (improves and self._beats_baseline(objective, value)):
                since = here
            # Epochs are fractions: nine tenths and one tenth may make a little less than one.
            is_long = here - since >= span.count - 1e-9 * max(1.0, here)
            waits_enough = is_long and evaluation.index > 0
            stops = is_counted and not improves and waits_enough
            says = _says(objective.name, Span(here - since, span.unit), best)
            yield self._verdict(stops, says, here - since, span.count)

    def delta(self, best: float | None) -> float:
        """By how much a value must be better than `best`."""
        return self.min_delta * abs(best or 0.0) if self.relative else self.min_delta

    def _beats_baseline(self, objective: Objective, value: float) -> bool:
        than = self.baseline
        return than is None or objective.is_better(value, than=than, min_delta=self.delta(than))


def _says(name: str, waited: Span, best: Evaluation | None) -> str:
    text = f"{name} did not improve in {waited}"
    if best is None:
        return f"{text} (it was never a finite number)"
    return f"{text} (best {shown(best.value(name))})"
