"""All that is measured on the test split, as one value.

found = evaluate(task, outputs, targets, resamples=1000)
found.metrics["accuracy"], found.intervals["accuracy"], found.confusion.recall
json.dumps(found.to_json())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.metrics

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.export.bootstrap import intervals
from kerastrain.export.calibration import Bin, reliability
from kerastrain.export.scoring import (
    Classified,
    Predicted,
    areas,
    classified,
    has_areas,
    predicted,
    score,
)

# A matrix of more classes than this is for programs, not for JSON.
MAX_CLASSES_WITH_CONFUSION = 100


@dataclass(frozen=True)
class Confusion:
    """How many rows of each class were taken for which.

    Attributes:
        classes: the classes' own values, as text.
        counts: int64 [true class, predicted class]; rows, whatever their weights.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        """The share of each class that was recognised, float64 [classes]; NaN without rows."""
        return _shares(self.counts.diagonal(), self.counts.sum(1))

    @property
    def precision(self) -> np.ndarray:
        """The share of each class's predictions that are right, float64 [classes]."""
        return _shares(self.counts.diagonal(), self.counts.sum(0))


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities beside what happened.

    Attributes:
        event: what has the probability: a class, or that the label is right.
        bins: those that have rows.
    """

    event: str
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        rows: of the test split.
        metrics: those of `scoring.score`.
        intervals: (low, high) by metric; empty when none were asked for.
        resamples, confidence: how these were made.
        confusion, calibration: None unless classes are predicted.
        positive: of two classes, the one that average_precision and the calibration are about.
        by_class: {class: {"roc_auc", "average_precision"}}, each against the rest, of more.
        numbers: targets and predictions; None unless numbers are predicted. Not in the JSON.
    """

    rows: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    resamples: int
    confidence: float
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    positive: str | None = None
    by_class: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    numbers: Predicted | None = None

    def to_json(self) -> dict[str, Any]:
        """{"metrics", "intervals", "confusion", "calibration", …} of plain values."""
        return {
            "metrics": self.metrics,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "confusion": _confusion_json(self.confusion),
            "calibration": _calibration_json(self.calibration),
            "positive": self.positive,
            "by_class": self.by_class,
            "rows": self.rows,
            "resamples": self.resamples,
            "confidence": self.confidence,
        }


def evaluate(
    task: Task | None,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Evaluation:
    """Measures a signature's answers [n, ...]; the arguments are those of `score` and `intervals`.

    Raises:
        OptionsError: `resamples` or `confidence` is out of range.
    """
    found = Evaluation(
        rows=len(targets),
        metrics=score(task, outputs, targets, weights=weights),
        intervals=intervals(
            task, outputs, targets, weights=weights, resamples=resamples, confidence=confidence
        ),
        resamples=resamples,
        confidence=confidence,
    )
    if isinstance(task, Classification):
        given = classified(task, outputs, targets, weights)
        return dataclasses.replace(
            found,
            confusion=_confusion(given, task),
            calibration=_calibration(given, task),
            positive=None if task.positive is None else str(task.positive),
            by_class=_by_class(given, task),
        )
    if isinstance(task, Regression):
        return dataclasses.replace(found, numbers=predicted(task, outputs, targets, weights))
    return found


def _confusion(given: Classified, task: Classification) -> Confusion | None:
    if len(task.classes) > MAX_CLASSES_WITH_CONFUSION:
        return None
    counts = sklearn.metrics.confusion_matrix(
        given.targets, given.labels, labels=range(len(task.classes))
    )
    return Confusion(tuple(map(str, task.classes)), counts)


def _calibration(given: Classified, task: Classification) -> Calibration:
    """Of two classes: of the positive one's probability. Of more: of the label's."""
    if given.positive is not None:
        event = f"the class is {task.positive}"
        probabilities = given.probabilities[:, given.positive]
        happened = given.targets == given.positive
    else:
        event = "the label is right"
        probabilities, happened = given.confidence, given.labels == given.targets
    return Calibration(event, tuple(reliability(probabilities, happened, weights=given.weights)))


def _by_class(given: Classified, task: Classification) -> dict[str, dict[str, float]]:
    if given.positive is not None or not has_areas(given):
        return {}
    found = areas(given)
    return {
        str(value): {name: each[place] for name, each in found.items()}
        for place, value in enumerate(task.classes)
    }


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)


def _confusion_json(confusion: Confusion | None) -> dict[str, Any] | None:
    if confusion is None:
        return None
    return {"classes": list(confusion.classes), "counts": confusion.counts.tolist()}


def _calibration_json(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    bins = [
        {name: number if name == "rows" else float(number) for name, number in vars(each).items()}
        for each in calibration.bins
    ]
    return {"event": calibration.event, "bins": bins}
