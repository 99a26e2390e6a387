"""How a run has gone so far by one rule; what a checkpoint holds of it.

progress = StoppingProgress(Patience(5), objective)
progress.tell(evaluation)            # True: the best so far
progress.stopped
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kerastrain.objective import Objective
from kerastrain.training.stopping.criterion import Criterion, Evaluation, Verdict, Watch


class StoppingProgress:
    """The best evaluation so far and the rule's latest verdict.

    Args:
        rule: decides when to stop.
        objective: decides what is best.
        min_delta, start_from: as Keras's callback has them, also for what is best.

    Attributes:
        best: None before the first finite value.
        latest: the evaluation that was told last.
        verdict: the latest, None before the first.
    """

    def __init__(
        self, rule: Criterion, objective: Objective, *, min_delta: float = 0.0, start_from: int = 0
    ):
        self.rule = rule
        self.objective = objective
        self._min_delta = min_delta
        self._start_from = start_from
        self._goes_on_from = 0
        self._begin()

    def _begin(self) -> None:
        self._watch = Watch(self.rule, self.objective)
        self.best: Evaluation | None = None
        self.latest: Evaluation | None = None
        self.verdict: Verdict | None = None

    @property
    def metrics(self) -> frozenset[str]:
        """The names of the values that an evaluation must have."""
        return self.rule.metrics(self.objective) | {self.objective.name}

    @property
    def stopped(self) -> bool:
        # What was decided before the run was told to go on is over.
        is_new = self.latest is not None and self.latest.index >= self._goes_on_from
        return is_new and self.verdict is not None and self.verdict.stops

    def tell(self, evaluation: Evaluation) -> bool:
        """Takes one more evaluation; returns whether it is the best so far."""
        self.verdict = self._watch.tell(evaluation)
        self.latest = evaluation
        name = self.objective.name
        than = None if self.best is None else self.best.value(name)
        is_best = evaluation.index >= self._start_from and self.objective.is_better(
            evaluation.value(name), than=than, min_delta=self._min_delta
        )
        if is_best:
            self.best = evaluation
        return is_best

    def go_on(self) -> None:
        """Begins to count anew after a stop that is not to be the end; the best stays."""
        best, end = self.best, self.latest
        self._begin()
        if end is None:
            return
        self._goes_on_from = end.index + 1
        # As if the best had been reached just now: nothing has been waited since.
        values = end.values if best is None else best.values
        self.verdict = self._watch.tell(dataclasses.replace(end, values=values))
        self.best, self.latest = best, end

    def to_json(self) -> dict[str, Any]:
        """What `take_up` needs besides the evaluations; JSON values."""
        return {"stopped": self.stopped, "goes_on_from": self._goes_on_from}

    def take_up(self, values: Mapping[str, Any], evaluations: Sequence[Evaluation]) -> None:
        """Goes on from a `to_json`, as if this rule had been told all the evaluations."""
        self._begin()
        self._goes_on_from = 0
        before = [each for each in evaluations if each.index < values["goes_on_from"]]
        for evaluation in before:
            self.tell(evaluation)
        if before:
            self.go_on()
        for evaluation in evaluations[len(before) :]:
            self.tell(evaluation)
