"""Where two models answer the same rows differently.

found, most = differences_between(task, answers_of_a, answers_of_b, targets, shown=10)
found.rows, found.only_a_right         # of classes
found.mean, found.nearer_b             # of numbers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.metrics

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.export.evaluation import MAX_CLASSES_WITH_CONFUSION
from kerastrain.export.scoring import Classified, classified, predicted

Answers = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class OtherLabels:
    """Where the versions take rows for different classes.

    Attributes:
        rows: with different labels.
        both_right, only_a_right, only_b_right, both_wrong: rows; in sum all.
        counts: [label of a][label of b]; None for more than 100 classes.
        cells: {"true", "a", "b", "rows"} of different labels, the most frequent first.
    """

    rows: int
    both_right: int
    only_a_right: int
    only_b_right: int
    both_wrong: int
    classes: tuple[str, ...]
    counts: list[list[int]] | None
    cells: list[dict[str, Any]]


@dataclass(frozen=True)
class OtherNumbers:
    """How far the versions' predictions are apart, in the target's units.

    Attributes:
        mean, largest: of the absolute difference.
        nearer_a, nearer_b, as_near: rows, by whose prediction is nearer to the truth.
    """

    mean: float
    largest: float
    nearer_a: int
    nearer_b: int
    as_near: int


def differences_between(
    task: Task, of_a: Answers, of_b: Answers, targets: np.ndarray, *, shown: int
) -> tuple[OtherLabels | OtherNumbers, list[dict[str, Any]]]:
    """What differs, and {"row", "true", "a", "b", "difference"} of rows that differ most.

    The difference is the share of probability that the two give to different classes (the total
    variation distance: 0 to 1), or that of the predictions.

    Args:
        of_a, of_b: their answers to the same rows, {output: [n, ...]}.
        targets: as for `scoring.score`.
        shown: at most so many rows.
    """
    if isinstance(task, Classification):
        return _labels(task, of_a, of_b, targets, shown)
    return _numbers(task, of_a, of_b, targets, shown)


def _labels(
    task: Classification, of_a: Answers, of_b: Answers, targets: np.ndarray, shown: int
) -> tuple[OtherLabels, list[dict[str, Any]]]:
    a, b = classified(task, of_a, targets), classified(task, of_b, targets)
    classes, truth = tuple(map(str, task.classes)), a.targets
    right_a, right_b = a.labels == truth, b.labels == truth
    differs = a.labels != b.labels
    found = OtherLabels(
        rows=int(differs.sum()),
        both_right=int((right_a & right_b).sum()),
        only_a_right=int((right_a & ~right_b).sum()),
        only_b_right=int((~right_a & right_b).sum()),
        both_wrong=int((~right_a & ~right_b).sum()),
        classes=classes,
        counts=_cross_table(a, b, len(classes)),
        cells=_cells(np.stack([truth, a.labels, b.labels], 1)[differs], classes),
    )
    distance = np.abs(a.probabilities - b.probabilities).sum(1) / 2
    most = [
        {
            "row": row,
            "true": classes[truth[row]],
            "a": {"label": classes[a.labels[row]], "probability": float(a.confidence[row])},
            "b": {"label": classes[b.labels[row]], "probability": float(b.confidence[row])},
            "difference": float(distance[row]),
        }
        for row in _largest(distance, shown)
    ]
    return found, most


def _cross_table(a: Classified, b: Classified, classes: int) -> list[list[int]] | None:
    if classes > MAX_CLASSES_WITH_CONFUSION:
        return None
    table = sklearn.metrics.confusion_matrix(a.labels, b.labels, labels=range(classes))
    return table.tolist()


def _cells(triples: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """How often each (true, a, b) occurs in `triples` int64 [n, 3]."""
    if not len(triples):
        return []
    kinds, counts = np.unique(triples, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        {**{n: classes[k] for n, k in zip(("true", "a", "b"), kinds[place], strict=True)},
         "rows": int(counts[place])}
        for place in order
    ]  # fmt: skip


def _numbers(
    task: Regression, of_a: Answers, of_b: Answers, targets: np.ndarray, shown: int
) -> tuple[OtherNumbers, list[dict[str, Any]]]:
    a, b = predicted(task, of_a, targets), predicted(task, of_b, targets)
    # Of several numbers a row, the farthest apart.
    apart = np.abs(a.predictions - b.predictions).max(1)
    errors = [np.abs(each.predictions - each.targets).mean(1) for each in (a, b)]
    found = OtherNumbers(
        mean=float(np.abs(a.predictions - b.predictions).mean()),
        largest=float(apart.max()),
        nearer_a=int((errors[0] < errors[1]).sum()),
        nearer_b=int((errors[1] < errors[0]).sum()),
        as_near=int((errors[0] == errors[1]).sum()),
    )
    most = [
        {
            "row": row,
            "true": _plain(a.targets[row]),
            "a": _plain(a.predictions[row]),
            "b": _plain(b.predictions[row]),
            "difference": float(apart[row]),
        }
        for row in _largest(apart, shown)
    ]
    return found, most


def _largest(distances: np.ndarray, count: int) -> list[int]:
    """The rows of the largest distances above 0, the largest first."""
    order = np.argsort(-distances, kind="stable")[:count]
    return [int(row) for row in order if distances[row] > 0]


def _plain(numbers: np.ndarray) -> Any:
    return float(numbers[0]) if len(numbers) == 1 else numbers.tolist()
