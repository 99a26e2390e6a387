"""Criteria that reckon with noise: smoothing, spread, significance, divergence.

Smoothed(Patience(5), beta=0.8)      # any criterion, on smoothed values
Plateau(10, epsilon=0.001)
Significance(z=2, patience=5)
Divergence(deviations=5)
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kerastrain.arguments import AT_LEAST_2, COUNT, NOT_NEGATIVE, NUMBER, SHARE_BELOW_1
from kerastrain.errors import OptionsError
from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import (
    Criterion,
    Evaluation,
    Monitoring,
    Reading,
    Verdict,
    shown,
)

VALIDATION_LOSS = "val_loss"
DIFFERENCE_ERROR = "val_loss_difference_error"


class Moments:
    """Exponentially weighted mean and standard deviation, without a bias to the beginning.

    Weights are beta^age, divided by their sum (for the mean the same as Adam's correction by
    1 - beta^t, Kingma & Ba 2015, section 3); the variance is updated as in Finch (2009),
    "Incremental calculation of weighted mean and variance", section 9.
    """

    def __init__(self, beta: float):
        self._beta = beta
        self._weight = self.mean = self._squares = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self._weight = self._beta * self._weight + 1
        difference = value - self.mean
        self.mean += difference / self._weight
        self._squares = self._beta * self._squares + difference * (value - self.mean)
        self.count += 1

    @property
    def deviation(self) -> float:
        return math.sqrt(max(0.0, self._squares) / self._weight) if self._weight else 0.0


@dataclass(frozen=True)
class Smoothed(Criterion):
    """Another criterion, told of smoothed values.

    m(t) = beta · m(t-1) + (1 - beta) · x(t), divided by 1 - beta^t (Kingma & Ba 2015,
    section 3). A value that is not finite is passed on and leaves the mean as it was.

    Attributes:
        criterion: of which every metric is smoothed.
        beta: 0 (no smoothing) to below 1.

    Raises:
        OptionsError: `beta` is out of range, or `criterion` is none.
    """

    criterion: Criterion
    beta: float = 0.9

    name = "smoothed"

    def __post_init__(self) -> None:
        if not isinstance(self.criterion, Criterion):
            raise OptionsError(
                f"smoothed was given {self.criterion!r}; expected a criterion, as in "
                "smoothed(patience(5))."
            )
        SHARE_BELOW_1.check(self.name, "beta", self.beta)
        if any(isinstance(leaf, Significance) for leaf in self.criterion.leaves()):
            raise OptionsError(
                "smoothed was given significance, whose standard errors are of the values as they "
                "are; expected another criterion."
            )

    def leaves(self) -> Iterator[Criterion]:
        yield from self.criterion.leaves()

    def metrics(self, objective: Objective) -> frozenset[str]:
        return self.criterion.metrics(objective)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        smooth = self._smooth(evaluations, self.metrics(objective))
        for verdict in self.criterion.verdicts(smooth, objective):
            readings = tuple(map(self._renamed, verdict.readings))
            yield Verdict(readings, tuple(map(self._renamed, verdict.because)))

    def _renamed(self, reading: Reading) -> Reading:
        return dataclasses.replace(
            reading,
            criterion=f"smoothed({reading.criterion}, beta={self.beta:g})",
            says=f"smoothed, {reading.says}",
        )

    def _smooth(
        self, evaluations: Iterable[Evaluation], metrics: frozenset[str]
    ) -> Iterator[Evaluation]:
        moments = {name: Moments(self.beta) for name in metrics}
        for evaluation in evaluations:
            smooth = dict(evaluation.values)
            for name, moment in moments.items():
                value = evaluation.value(name)
                if math.isfinite(value):
                    moment.add(value)
                    smooth[name] = moment.mean
            yield dataclasses.replace(evaluation, values=smooth)


@dataclass(frozen=True)
class Plateau(Monitoring):
    """Stop when the last n values lie close together: their standard deviation < epsilon.

    The deviation is the sample's: sqrt(sum (x - mean)² / (n - 1)).

    Attributes:
        n: evaluations, at least 2.
        epsilon: in the metric's unit.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: a number out of range.
        ObjectiveError: the direction of `monitor` is not known.
    """

    n: int
    epsilon: float
    monitor: str | None = None

    name = "plateau"

    def __post_init__(self) -> None:
        self._check_monitor()
        AT_LEAST_2.check(self.name, "n", self.n)
        NOT_NEGATIVE.check(self.name, "epsilon", self.epsilon)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        name = self.watched(objective).name
        values: list[float] = []
        for evaluation in evaluations:
            values = [*values[1 - self.n :], evaluation.value(name)]
            is_known = len(values) == self.n and all(map(math.isfinite, values))
            deviation = statistics.stdev(values) if is_known else math.inf
            says = (
                f"the last {self.n} values of {name} had a standard deviation of "
                f"{shown(deviation)} (limit {self.epsilon:g})"
            )
            reading = deviation if is_known else None
            yield self._verdict(deviation < self.epsilon, says, reading, self.epsilon)


@dataclass(frozen=True)
class Significance(Criterion):
    """Patience in which only a significant improvement of the validation loss counts.

    With d_i = (loss of example i at the reference) - (loss now), n examples, mean d and
    standard error se = sqrt(sum (d_i - d)² / (n (n - 1))): an improvement counts when
    d > z · se (the paired z test), and this evaluation is then the reference. Stop after
    `patience` evaluations in a row that do not count.

    d is taken from `val_loss` itself, the standard error from the examples' losses without
    weights and regularisation: it is meant for a loss that has neither.

    The standard error needs the loss of every example, so the run measures it
    (`kerastrain.callbacks.measurements`), at the same z, and records it as
    `val_loss_difference_error`, NaN as long as there is no reference. A replay with another z
    takes the errors as recorded.

    Attributes:
        z: standard errors; 2 is about 2.5 % of false improvements.
        patience: evaluations.

    Raises:
        OptionsError: a number out of range.
    """

    z: float = 2.0
    patience: int = 5

    name = "significance"

    def __post_init__(self) -> None:
        NOT_NEGATIVE.check(self.name, "z", self.z)
        COUNT.check(self.name, "patience", self.patience)

    def metrics(self, objective: Objective) -> frozenset[str]:
        return frozenset({VALIDATION_LOSS, DIFFERENCE_ERROR})

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        reference: float | None = None
        waited = 0
        for evaluation in evaluations:
            value, error = evaluation.value(VALIDATION_LOSS), evaluation.value(DIFFERENCE_ERROR)
            if is_significant(value, than=reference, error=error, z=self.z):
                reference, waited = value, 0
            else:
                waited += 1
            found = "none" if reference is None else shown(reference)
            says = (
                f"{VALIDATION_LOSS} did not improve by more than {self.z:g} standard errors in "
                f"{waited} evaluations (reference {found})"
            )
            yield self._verdict(waited >= self.patience, says, waited, self.patience)


def is_significant(value: float, *, than: float | None, error: float, z: float) -> bool:
    """Whether a loss fell by more than z standard errors.

    Args:
        than: the reference; None: any finite loss counts.
        error: of the difference; NaN, where it could not be measured: does not count.
    """
    if than is None or not math.isfinite(value):
        return math.isfinite(value)
    return than - value > z * error


@dataclass(frozen=True)
class Divergence(Monitoring):
    """Stop a run that goes wrong: not finite, beyond a threshold, or far off its own course.

    Stop when E(t) is not finite; or is worse than `threshold`; or is worse than the smoothed
    value of the evaluations before it by more than `deviations` of their standard
    deviations, both exponentially weighted with `beta`.

    Attributes:
        threshold: in the metric's unit; None: none.
        deviations: k; None: that is not looked at.
        beta: 0 to below 1.
        start_from: evaluations that are needed for a standard deviation.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: a number out of range.
        ObjectiveError: the direction of `monitor` is not known.
    """

    threshold: float | None = None
    deviations: float | None = None
    beta: float = 0.9
    start_from: int = 5
    monitor: str | None = None

    name = "divergence"

    def __post_init__(self) -> None:
        self._check_monitor()
        if self.threshold is not None:
            NUMBER.check(self.name, "threshold", self.threshold)
        if self.deviations is not None:
            NOT_NEGATIVE.check(self.name, "deviations", self.deviations)
        AT_LEAST_2.check(self.name, "start_from", self.start_from)
        SHARE_BELOW_1.check(self.name, "beta", self.beta)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        objective, moments = self.watched(objective), Moments(self.beta)
        for evaluation in evaluations:
            value, limit = evaluation.value(objective.name), self._limit(objective, moments)
            is_beyond = limit is not None and objective.is_better(limit, than=value)
            stops = is_beyond or not math.isfinite(value)
            bound = "" if limit is None else f" (limit {shown(limit)})"
            says = f"{objective.name} was {shown(value)}{bound}"
            yield self._verdict(stops, says, value, limit)
            if math.isfinite(value):
                moments.add(value)

    def _limit(self, objective: Objective, moments: Moments) -> float | None:
        """The strictest of the limits."""
        limits = [] if self.threshold is None else [self.threshold]
        is_min = objective.direction == "min"
        if self.deviations is not None and moments.count >= self.start_from:
            off = self.deviations * moments.deviation
            limits.append(moments.mean + off if is_min else moments.mean - off)
        if not limits:
            return None
        return min(limits) if is_min else max(limits)
