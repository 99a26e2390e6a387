"""What a criterion would have done in a run that has been recorded.

found = outcome(parse_criterion("gl(2)"), evaluations, objective)
found.stopped_at, found.best, found.lost
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import Criterion, Evaluation, Verdict
from kerastrain.training.stopping.prechelt import error_of, generalization_loss


@dataclass(frozen=True)
class Outcome:
    """How a recorded run would have ended.

    Attributes:
        stopped_at: the evaluation where the criterion stops; None: not within the record.
        last: the last evaluation of the run as it would have been.
        says: why it stops; "" when it does not.
        verdicts: on every evaluation up to `last`.
        best: the evaluation with the best objective up to `last`; None: never a finite one.
        best_of_all: the same for the whole record.
        record: all evaluations.
    """

    objective: Objective
    stopped_at: Evaluation | None
    last: Evaluation
    says: str
    verdicts: tuple[Verdict, ...]
    best: Evaluation | None
    best_of_all: Evaluation | None
    record: tuple[Evaluation, ...]

    @property
    def end(self) -> Evaluation:
        """The record's last evaluation."""
        return self.record[-1]

    @property
    def lost(self) -> float | None:
        """By how much the best would have been worse than that of the whole record; >= 0."""
        if self.best is None or self.best_of_all is None:
            return None
        name = self.objective.name
        return abs(self.best_of_all.value(name) - self.best.value(name))

    @property
    def lost_percent(self) -> float:
        """The same as Prechelt's generalization loss: in percent of the best error; NaN: unknown.

        For an accuracy the error is what is missing to one (`stopping.prechelt`).
        """
        if self.best is None or self.best_of_all is None:
            return math.nan
        name = self.objective.name
        error, least = (
            error_of(self.objective, each.value(name), None)
            for each in (self.best, self.best_of_all)
        )
        return generalization_loss(error, least)

    @property
    def seconds_saved(self) -> float:
        return self.end.seconds - self.last.seconds

    @property
    def share_saved(self) -> float:
        """Of the record's steps, 0 to 1: unlike seconds, the same on every machine."""
        return 1 - self.last.step / self.end.step if self.end.step else 0.0


def outcome(
    criterion: Criterion, evaluations: Sequence[Evaluation], objective: Objective
) -> Outcome:
    """Runs a criterion over a record of at least one evaluation.

    Raises:
        ObjectiveError: it needs a value that was not recorded.
    """
    verdicts: list[Verdict] = []
    for verdict in criterion.verdicts(iter(evaluations), objective):
        verdicts.append(verdict)
        if verdict.stops:
            break
    last = evaluations[len(verdicts) - 1]
    has_stopped = verdicts[-1].stops
    return Outcome(
        objective=objective,
        stopped_at=last if has_stopped else None,
        last=last,
        says=verdicts[-1].says,
        verdicts=tuple(verdicts),
        best=best_evaluation(evaluations[: len(verdicts)], objective),
        best_of_all=best_evaluation(evaluations, objective),
        record=tuple(evaluations),
    )


def best_evaluation(evaluations: Sequence[Evaluation], objective: Objective) -> Evaluation | None:
    """The first one with the best finite value of the objective."""
    best: Evaluation | None = None
    for evaluation in evaluations:
        than = None if best is None else best.value(objective.name)
        if objective.is_better(evaluation.value(objective.name), than=than):
            best = evaluation
    return best
