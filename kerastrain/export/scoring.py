"""Metrics of an export on the test split, by code that the training does not use.

    score(task, {"probabilities": p, "label": c}, targets)   # {"accuracy": 0.99, …}
    evaluate_export(version_folder, data)                     # the same, asked of the SavedModel
    metric(task, "roc_auc", outputs, targets)                 # one of them

What scikit-learn has is scikit-learn's, so what is published with a model was
measured on its answers by other code than that which trained it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import sklearn.metrics

from kerastrain.data.source import Classification, Data, Regression, Task
from kerastrain.errors import OptionsError, suggestion
from kerastrain.export.asking import load_export
from kerastrain.export.calibration import expected_calibration_error
from kerastrain.export.rows import examples_of, rows_of_split

# One-versus-rest areas sort the rows once for each class.
MAX_CLASSES_WITH_AREA = 20
HIGHER_IS_BETTER = ("accuracy", "f1_macro", "roc_auc", "average_precision", "r2")


@dataclass(frozen=True)
class Classified:
    """Answers about classes beside the truth.

    Attributes:
        probabilities: float64 [n, classes]; every row sums to 1.
        labels, targets: class indices, int64 [n].
        weights: float64 [n], or None.
        positive: the index that curves are about; None: each of them.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None
    positive: int | None = None

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each row's label, float64 [n]."""
        return np.take_along_axis(self.probabilities, self.labels[:, None], 1)[:, 0]


@dataclass(frozen=True)
class Predicted:
    """Answers about numbers beside the truth.

    Attributes:
        predictions, targets: float64 [n, d].
        quantiles: {level: float64 [n]}; empty without quantile regression.
        weights: float64 [n], or None.
    """

    predictions: np.ndarray
    targets: np.ndarray
    quantiles: Mapping[float, np.ndarray]
    weights: np.ndarray | None = None


def classified(
    task: Classification,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray | None = None,
) -> Classified:
    """Answers and truth as the metrics take them.

    Args:
        targets: class indices [n] or [n, 1], or one-hot rows [n, classes].
    """
    given = outputs["probabilities"]
    # In float64 and normalised again: scikit-learn warns where float32 sums to 0.9999999.
    exact = np.clip(given.astype(np.float64), 0, None)
    exact /= exact.sum(1, keepdims=True)
    is_one_hot = targets.ndim == 2 and targets.shape[1] > 1
    truth = targets.argmax(1) if is_one_hot else targets.reshape(-1).astype(np.int64)
    return Classified(exact, given.argmax(1), truth, _float64(weights), task.positive_index)


def predicted(
    task: Regression,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray | None = None,
) -> Predicted:
    """Answers and truth as the metrics take them; targets are numbers [n, ...]."""
    answers = outputs["prediction"]
    levels = tuple(getattr(task, "quantiles", ()))
    quantiles = outputs["quantiles"].astype(np.float64) if levels else np.zeros((len(targets), 0))
    return Predicted(
        answers.reshape(len(answers), -1).astype(np.float64),
        targets.reshape(len(targets), -1).astype(np.float64),
        {level: quantiles[:, place] for place, level in enumerate(levels)},
        _float64(weights),
    )


def score(
    task: Task | None,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Metrics by name; those that the data do not define (R² of one row) are left out.

    Args:
        outputs: a signature's answers [n, ...].
        targets: class indices [n] or one-hot rows [n, classes]; or numbers [n, ...].
        weights: how much each row counts, [n]; None: all the same.
    Returns:
        Classification: accuracy, loss (natural logarithm), f1_macro, roc_auc and
        average_precision (of the positive one of two classes; for more the mean of each
        against the rest, up to 20 classes), brier (for two classes of the second one, 0 to
        1; for more the sum over classes, 0 to 2), ece (expected calibration error).
        Regression: rmse, mae, r2; with quantiles also pinball, their mean loss, and
        pinball_Q and coverage_Q (the share of targets that do not exceed it) of each.
        Without a task: nothing.
    """
    found = {name: each() for name, each in _metrics(task, outputs, targets, weights).items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def metric(
    task: Task | None,
    name: str,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
) -> float:
    """One of the metrics of `score`; NaN where the data do not define it.

    Raises:
        OptionsError: there is no such metric for this task and these classes.
    """
    known = _metrics(task, outputs, targets, weights)
    if name not in known:
        raise OptionsError(
            f"There is no metric '{name}' here; expected one of {', '.join(known)}."
            f"{suggestion(name, known)}"
        )
    return float(known[name]())


def _metrics(
    task: Task | None,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    weights: np.ndarray | None,
) -> dict[str, Callable[[], float]]:
    """Every metric by name, to be computed when it is called."""
    if isinstance(task, Classification):
        return _class_metrics(classified(task, outputs, targets, weights))
    if isinstance(task, Regression):
        return _number_metrics(predicted(task, outputs, targets, weights))
    return {}


def _class_metrics(given: Classified) -> dict[str, Callable[[], float]]:
    m, w, count = sklearn.metrics, given.weights, given.probabilities.shape[1]
    p, labels, truth = given.probabilities, given.labels, given.targets
    metrics: dict[str, Callable[[], float]] = {
        "accuracy": lambda: m.accuracy_score(truth, labels, sample_weight=w),
        "loss": lambda: m.log_loss(truth, p, labels=list(range(count)), sample_weight=w),
        "f1_macro": lambda: m.f1_score(
            truth, labels, average="macro", zero_division=0, sample_weight=w
        ),
        "roc_auc": lambda: float(np.mean(areas(given)["roc_auc"])),
        "average_precision": lambda: float(np.mean(areas(given)["average_precision"])),
        "brier": lambda: float(np.average(brier_terms(given), weights=w)),
        "ece": lambda: expected_calibration_error(given.confidence, labels == truth, weights=w),
    }
    if not has_areas(given):
        del metrics["roc_auc"], metrics["average_precision"]
    return metrics


def has_areas(given: Classified) -> bool:
    """Whether curves have areas: there are rows of every class, and not too many classes."""
    count = given.probabilities.shape[1]
    return count <= MAX_CLASSES_WITH_AREA and len(np.unique(given.targets)) == count


def curve_classes(given: Classified) -> list[int]:
    """The positive class, or all of them."""
    every = range(given.probabilities.shape[1])
    return list(every) if given.positive is None else [given.positive]


def areas(given: Classified) -> dict[str, list[float]]:
    """By metric, of each of `curve_classes` against the rest."""
    m = sklearn.metrics
    return {
        name: [
            float(area(given.targets == k, given.probabilities[:, k], sample_weight=given.weights))
            for k in curve_classes(given)
        ]
        for name, area in (
            ("roc_auc", m.roc_auc_score),
            ("average_precision", m.average_precision_score),
        )
    }


def brier_terms(given: Classified) -> np.ndarray:
    """Each row's part of the Brier score (Brier 1950), float64 [n].

    For two classes the squared error of the second one's probability; for more, the
    sum of the squared errors of all. These are scikit-learn's conventions, too.
    """
    errors = given.probabilities.copy()
    errors[np.arange(len(errors)), given.targets] -= 1
    return np.square(errors[:, 1:] if errors.shape[1] == 2 else errors).sum(1)


def _number_metrics(given: Predicted) -> dict[str, Callable[[], float]]:
    m, w = sklearn.metrics, given.weights
    truth, answers = given.targets, given.predictions
    metrics: dict[str, Callable[[], float]] = {
        "rmse": lambda: m.root_mean_squared_error(truth, answers, sample_weight=w),
        "mae": lambda: m.mean_absolute_error(truth, answers, sample_weight=w),
        "r2": lambda: m.r2_score(truth, answers, sample_weight=w) if len(truth) > 1 else math.nan,
    }
    first, losses = truth[:, 0], [f"pinball_{level:g}" for level in given.quantiles]
    if losses:
        metrics["pinball"] = lambda: float(np.mean([metrics[name]() for name in losses]))
    for level, values in given.quantiles.items():
        metrics[f"pinball_{level:g}"] = partial(
            m.mean_pinball_loss, first, values, alpha=level, sample_weight=w
        )
        metrics[f"coverage_{level:g}"] = partial(np.average, first <= values, weights=w)
    return metrics


def answers_of_test_rows(
    version_folder: Path, data: Data, *, at_once: int | None = None
) -> dict[str, np.ndarray]:
    """Loads the SavedModel and asks it about every raw row of the test split.

    Args:
        at_once: as for `load_export`.

    Raises:
        DataError: the data have no test split.
        ExportError: the SavedModel cannot be loaded, or does not take the rows.
    """
    examples_of(data, "test")  # Whether there are any is known before a model is loaded.
    export = load_export(version_folder, at_once=at_once)
    return export.ask(rows_of_split(data, "test", export.inputs))


def evaluate_export(
    version_folder: Path, data: Data, *, task: Task | None = None
) -> dict[str, float]:
    """The metrics of a published version on the test split, by its own answers.

    Args:
        task: what is predicted, for data that do not say it themselves.

    Raises:
        DataError: the data have no test split.
        ExportError: the SavedModel cannot be loaded, or does not take the rows.
    """
    outputs = answers_of_test_rows(version_folder, data)
    assert data.test is not None
    return score(data.task or task, outputs, data.test.targets, weights=data.test.weights)


def _float64(weights: np.ndarray | None) -> np.ndarray | None:
    return None if weights is None else weights.reshape(-1).astype(np.float64)
