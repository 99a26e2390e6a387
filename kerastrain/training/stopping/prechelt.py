"""The criteria of Prechelt (1998), "Early Stopping - But When?", section 2.1.

GL(2)                # the objective is 2 % worse than its best
PQ(0.5, k=5)         # generalization loss against training progress
UP(3, k=5)           # worse at the end of three strips in a row

With E_va(t) the validation error at evaluation t and E_opt(t) its minimum up to t:
GL(t) = 100 · (E_va(t) / E_opt(t) - 1). With E_tr(t) the training loss, over a strip of k:
P_k(t) = 1000 · (mean of E_tr(t-k+1 … t) / their minimum - 1).

The paper counts epochs; here the evaluations are counted, by default one an epoch. What is
decided at the end of a strip is met there alone, also when it is joined by `and`.

Errors. GL needs an error: positive, and 0 at best. Of a metric that is minimised it is the
value minus `ideal`, 0 unless said; of one that is maximised (accuracy, AUC, F1, R²)
`ideal` minus the value, `ideal` being 1 unless said. Where values lie beyond `ideal`
(a metric without such a bound), E_opt changes sign; then its size is divided by:
GL(t) = 100 · (E_va(t) - E_opt(t)) / |E_opt(t)|, the same formula for positive errors.
At E_opt = 0 GL is 0 for the best value and infinite for any other, and it is infinite for a
value that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kerastrain.arguments import AT_LEAST_2, COUNT, NOT_NEGATIVE, NUMBER
from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import (
    Criterion,
    Evaluation,
    Monitoring,
    Verdict,
    shown,
)

TRAINING_LOSS = "loss"


def error_of(objective: Objective, value: float, ideal: float | None) -> float:
    """The error form of a value; see this module."""
    if objective.direction == "min":
        return value - (0.0 if ideal is None else ideal)
    return (1.0 if ideal is None else ideal) - value


def generalization_loss(error: float, best: float) -> float:
    """GL(t) in percent; infinite for an error that is not finite.

    Args:
        error: E_va(t).
        best: E_opt(t), `error` included.
    """
    if not math.isfinite(error):
        return math.inf
    if error == best:
        return 0.0
    return 100 * (error - best) / abs(best) if best else math.inf * (error - best)


def progress(losses: Sequence[float]) -> float:
    """P_k(t) in per mille, of the last k training losses."""
    least = min(losses)
    excess = sum(losses) / len(losses) - least
    if excess == 0:
        return 0.0
    return 1000 * excess / abs(least) if least else math.inf


@dataclass(frozen=True)
class GL(Monitoring):
    """Stop at the first evaluation with GL(t) > alpha (Prechelt 1998, "first class").

    Attributes:
        alpha: percent; 1 to 5 in the paper.
        ideal: the value of a perfect model; None: 0, or 1 for a metric that is maximised.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: a number out of range.
        ObjectiveError: the direction of `monitor` is not known.
    """

    alpha: float
    ideal: float | None = None
    monitor: str | None = None

    name = "gl"

    def __post_init__(self) -> None:
        self._check_monitor()
        NOT_NEGATIVE.check(self.name, "alpha", self.alpha)
        if self.ideal is not None:
            NUMBER.check(self.name, "ideal", self.ideal)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        objective = self.watched(objective)
        for evaluation, loss in generalization_losses(evaluations, objective, self.ideal):
            says = f"{_gl_says(objective, evaluation, loss)}, over {self.alpha:g}"
            yield self._verdict(loss > self.alpha, says, loss, self.alpha)


def generalization_losses(
    evaluations: Iterable[Evaluation], objective: Objective, ideal: float | None
) -> Iterator[tuple[Evaluation, float]]:
    """Each evaluation with its GL."""
    best = math.nan
    for evaluation in evaluations:
        error = error_of(objective, evaluation.value(objective.name), ideal)
        if math.isfinite(error) and not error >= best:
            best = error
        yield evaluation, generalization_loss(error, best)


def _gl_says(objective: Objective, evaluation: Evaluation, loss: float) -> str:
    value = evaluation.value(objective.name)
    return f"the generalization loss of {objective.name} ({shown(value)}) was {loss:.3g} %"


@dataclass(frozen=True)
class PQ(Monitoring):
    """Stop at the first end of a strip with GL(t) / P_k(t) > alpha (Prechelt 1998, "second class").

    As long as the training loss falls fast, a generalization loss may still be made good.

    Attributes:
        alpha: 0.5 to 3 in the paper.
        k: evaluations in a strip; 5 in the paper.
        ideal: as in GL.
        monitor: the metric; None: the objective. The progress is always of the training loss.

    Raises:
        OptionsError: a number out of range.
        ObjectiveError: the direction of `monitor` is not known.
    """

    alpha: float
    k: int = 5
    ideal: float | None = None
    monitor: str | None = None

    name = "pq"

    def __post_init__(self) -> None:
        self._check_monitor()
        NOT_NEGATIVE.check(self.name, "alpha", self.alpha)
        AT_LEAST_2.check(self.name, "k", self.k)
        if self.ideal is not None:
            NUMBER.check(self.name, "ideal", self.ideal)

    def metrics(self, objective: Objective) -> frozenset[str]:
        return super().metrics(objective) | {TRAINING_LOSS}

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        objective = self.watched(objective)
        losses: list[float] = []
        quotient = 0.0  # Between the ends of strips it is shown as it was at the last.
        for evaluation, gl in generalization_losses(evaluations, objective, self.ideal):
            losses.append(evaluation.value(TRAINING_LOSS))
            is_end = len(losses) % self.k == 0
            if is_end:
                quotient = _quotient(gl, progress(losses[-self.k :]))
            says = (
                f"{_gl_says(objective, evaluation, gl)}, {quotient:.3g} times the training "
                f"progress (limit {self.alpha:g})"
            )
            yield self._verdict(is_end and quotient > self.alpha, says, quotient, self.alpha)


def _quotient(loss: float, progress: float) -> float:
    if loss == 0:
        return 0.0
    return loss / progress if progress else math.inf * loss


@dataclass(frozen=True)
class UP(Monitoring):
    """Stop when the error was higher at the end of `s` strips in a row (Prechelt 1998, "third").

    UP_1 stops at the first end of a strip t with E_va(t) > E_va(t-k); UP_s where UP_(s-1)
    stops at t-k and E_va(t) > E_va(t-k). A value that is not finite counts as higher.

    Attributes:
        s: strips; 2 to 8 in the paper.
        k: evaluations in a strip; 5 in the paper.
        monitor: the metric; None: the objective.

    Raises:
        OptionsError: a number out of range.
        ObjectiveError: the direction of `monitor` is not known.
    """

    s: int
    k: int = 5
    monitor: str | None = None

    name = "up"

    def __post_init__(self) -> None:
        self._check_monitor()
        COUNT.check(self.name, "s", self.s)
        COUNT.check(self.name, "k", self.k)

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        objective = self.watched(objective)
        name, at_end, rises = objective.name, None, 0
        for count, evaluation in enumerate(evaluations, start=1):
            value = evaluation.value(name)
            is_end = count % self.k == 0
            if is_end:
                rises = rises + 1 if _is_worse(objective, value, at_end) else 0
                at_end = value
            says = f"{name} was worse at the end of {rises} strips of {self.k} in a row"
            yield self._verdict(is_end and rises >= self.s, says, rises, self.s)


def _is_worse(objective: Objective, value: float, before: float | None) -> bool:
    if before is None:
        return False
    return not math.isfinite(value) or objective.is_better(before, than=value)


@dataclass(frozen=True)
class Progress(Criterion):
    """Stop at the first end of a strip where the training loss hardly falls: P_k(t) < least.

    Prechelt (1998), section 2.1, ends every training at P_5(t) < 0.1.

    Attributes:
        k: evaluations in a strip.
        least: per mille.

    Raises:
        OptionsError: a number out of range.
    """

    k: int = 5
    least: float = 0.1

    name = "progress"

    def __post_init__(self) -> None:
        AT_LEAST_2.check(self.name, "k", self.k)
        NOT_NEGATIVE.check(self.name, "least", self.least)

    def metrics(self, objective: Objective) -> frozenset[str]:
        return frozenset({TRAINING_LOSS})

    def verdicts(
        self, evaluations: Iterable[Evaluation], objective: Objective
    ) -> Iterator[Verdict]:
        losses: list[float] = []
        latest: float | None = None
        for evaluation in evaluations:
            losses.append(evaluation.value(TRAINING_LOSS))
            is_end = len(losses) % self.k == 0
            if is_end:
                latest = progress(losses[-self.k :])
            stops = is_end and latest is not None and latest < self.least
            found = "not known yet" if latest is None else f"{latest:.3g} per mille"
            says = f"the training progress was {found}, with a limit of {self.least:g}"
            yield self._verdict(stops, says, latest, self.least)
