"""Evaluations made of lists of numbers."""

from __future__ import annotations

from collections.abc import Sequence

from kerastrain.objective import Objective
from kerastrain.training.stopping import Criterion, Evaluation, parse_criterion

LOSS = Objective("val_loss", "min")
ACCURACY = Objective("val_accuracy", "max")


def evaluations(values: Sequence[float], *, name: str = "val_loss", **others: Sequence[float]):
    """One evaluation an epoch of 10 steps, two seconds each."""
    return [
        Evaluation(
            index=i,
            step=10 * (i + 1),
            epoch=float(i + 1),
            seconds=2.0 * (i + 1),
            values={name: value, **{other: series[i] for other, series in others.items()}},
        )
        for i, value in enumerate(values)
    ]


def stop_index(
    criterion: Criterion | str,
    values: Sequence[float],
    *,
    objective: Objective = LOSS,
    **others: Sequence[float],
) -> int | None:
    """The index of the first evaluation at which a criterion stops."""
    rule = parse_criterion(criterion) if isinstance(criterion, str) else criterion
    told = evaluations(values, name=objective.name, **others)
    verdicts = rule.verdicts(iter(told), objective)
    return next((i for i, verdict in enumerate(verdicts) if verdict.stops), None)


def measured(criterion: Criterion | str, values, *, objective: Objective = LOSS, **others):
    """What a single criterion measured at each evaluation."""
    rule = parse_criterion(criterion) if isinstance(criterion, str) else criterion
    told = evaluations(values, name=objective.name, **others)
    return [verdict.readings[0].value for verdict in rule.verdicts(iter(told), objective)]
