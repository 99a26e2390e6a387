"""The metrics of the same answers under many weightings of their rows, quickly.

    metrics = metrics_by_weights(task, outputs, targets)     # prepared once: sorted, summed up
    metrics(counts)                                          # {"accuracy": 0.86, …}

A bootstrap asks a thousand times. What does not depend on the weights (the order by
score, each row's error) is computed once; a weighting then costs a few passes over
the rows. With all weights equal the numbers are those of `scoring.score`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.export.calibration import BINS, bin_numbers
from kerastrain.export.scoring import (
    Classified,
    Predicted,
    brier_terms,
    classified,
    curve_classes,
    has_areas,
    predicted,
)

Metrics = Callable[[np.ndarray], dict[str, float]]


def metrics_by_weights(
    task: Task | None, outputs: Mapping[str, np.ndarray], targets: np.ndarray
) -> Metrics:
    """A function from row weights (float64 [n], at least one above 0) to metrics by name.

    Metrics that a weighting does not define (an area when one class has no weight) are NaN.

    Args:
        outputs: a signature's answers [n, ...].
        targets: as for `score`.
    """
    if isinstance(task, Classification):
        return _class_metrics(classified(task, outputs, targets))
    if isinstance(task, Regression):
        return _number_metrics(predicted(task, outputs, targets))
    return lambda weights: {}


def _class_metrics(given: Classified) -> Metrics:
    classes = given.probabilities.shape[1]
    is_right = given.labels == given.targets
    of_truth = np.take_along_axis(given.probabilities, given.targets[:, None], 1)[:, 0]
    # As scikit-learn's log_loss, which keeps a certain but wrong answer from being infinite.
    surprise = -np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1))
    means = {"accuracy": is_right, "loss": surprise, "brier": brier_terms(given)}
    terms = np.stack([term.astype(np.float64) for term in means.values()])
    bins, gaps = bin_numbers(given.confidence), is_right - given.confidence
    f1_macro, area = _f1_macro(given), _areas(given)

    def metrics(weights: np.ndarray) -> dict[str, float]:
        total = weights.sum()
        found = dict(zip(means, _sums(terms, weights) / total, strict=True))
        found["f1_macro"] = f1_macro(weights)
        found["ece"] = np.abs(np.bincount(bins, weights * gaps, BINS)).sum() / total
        return {**found, **area(weights)}

    return metrics if classes > 1 else lambda weights: {}


def _f1_macro(given: Classified) -> Callable[[np.ndarray], float]:
    """The mean of 2 TP / (true + predicted) over the classes that occur in either."""
    classes = given.probabilities.shape[1]
    # Only cells that occur: with 1,000 classes a confusion matrix has a million.
    cells, cell = np.unique(given.targets * classes + given.labels, return_inverse=True)
    true, said = cells // classes, cells % classes

    def f1_macro(weights: np.ndarray) -> float:
        counts = np.bincount(cell, weights, len(cells))
        right = np.bincount(true, counts * (true == said), classes)
        both = np.bincount(true, counts, classes) + np.bincount(said, counts, classes)
        return float(np.mean(2 * right[both > 0] / both[both > 0]))

    return f1_macro


def _areas(given: Classified) -> Metrics:
    if not has_areas(given):
        return lambda weights: {}
    curves = [_Curve(given.probabilities[:, k], given.targets == k) for k in curve_classes(given)]

    def means(weights: np.ndarray) -> dict[str, float]:
        found = np.mean([curve.areas(weights) for curve in curves], axis=0)
        return dict(zip(("roc_auc", "average_precision"), found.tolist(), strict=True))

    return means


class _Curve:
    """Rows in the order of their scores; those with the same score are one group."""

    def __init__(self, scores: np.ndarray, is_positive: np.ndarray):
        self.order = np.argsort(scores, kind="stable")
        rising = scores[self.order]
        starts = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
        # Of the positive rows: where they are in the order, where their groups begin and end,
        # and how many positive rows come before their groups.
        self.places = np.flatnonzero(is_positive[self.order])
        group = np.searchsorted(starts, self.places, side="right") - 1
        self.begins, self.ends = starts[group], np.append(starts[1:], len(scores))[group]
        self.positives_before = np.searchsorted(self.places, self.begins)

    def areas(self, weights: np.ndarray) -> tuple[float, float]:
        """(area under the ROC curve, average precision)."""
        ordered = weights.take(self.order)
        positive, upto = ordered.take(self.places), _running_sums(ordered)
        before = upto.take(self.begins)
        area = _roc_auc(positive, before + upto.take(self.ends), total=upto[-1])
        if np.isnan(area):
            return np.nan, np.nan
        # Precision where the threshold is the row's score: of all rows from its group upwards.
        hits = _running_sums(positive)
        with np.errstate(invalid="ignore"):
            precisions = (hits[-1] - hits.take(self.positives_before)) / (upto[-1] - before)
            parts = np.where(positive > 0, positive * precisions, 0)
            return area, float(parts.sum() / hits[-1])


def _roc_auc(positive: np.ndarray, twice_ranks: np.ndarray, *, total: float) -> float:
    """From the weighted rank sum of the positive rows (Mann & Whitney 1947; ties count half).

    Args:
        positive: the weights of the positive rows.
        twice_ranks: for each, the weight of all rows below its score and of all up to it.
        total: the weight of all rows.
    """
    positives = positive.sum()
    negatives = total - positives
    if not positives > 0 or not negatives > 0:
        return np.nan
    ranks = np.einsum("i,i", positive, twice_ranks) / 2
    # Among themselves the positive rows come to half of all their pairs, ties or not.
    return float((ranks - positives**2 / 2) / (positives * negatives))


def _running_sums(values: np.ndarray) -> np.ndarray:
    """The sums of the first 0, 1, … n values, float64 [n + 1]."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _number_metrics(given: Predicted) -> Metrics:
    errors = given.predictions - given.targets
    centred = given.targets - given.targets.mean(0)
    columns = errors.shape[1]
    # Terms [t, n]: one pass over the weights sums them all.
    terms = [np.square(errors).T, np.abs(errors).T, centred.T, np.square(centred).T]
    extra: dict[str, np.ndarray] = {}
    for level, values in given.quantiles.items():
        above = given.targets[:, 0] - values
        extra[f"pinball_{level:g}"] = np.maximum(level * above, (level - 1) * above)
        extra[f"coverage_{level:g}"] = (above <= 0).astype(np.float64)
    rows = np.concatenate([*terms, *(term[None] for term in extra.values())])

    def metrics(weights: np.ndarray) -> dict[str, float]:
        means = _sums(rows, weights) / weights.sum()
        squared, absolute, middle, square = means[: 4 * columns].reshape(4, columns)
        spread = square - middle**2
        found = {"rmse": np.mean(np.sqrt(squared)), "mae": np.mean(absolute)}
        found["r2"] = np.mean(1 - squared / spread) if (spread > 0).all() else np.nan
        found.update(zip(extra, means[4 * columns :], strict=True))
        if extra:
            losses = [found[name] for name in extra if name.startswith("pinball_")]
            found["pinball"] = np.mean(losses)
        return found

    return metrics


def _sums(terms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sum of each row of `terms` [t, n]: float64 [t]."""
    # Not `@`: BLAS would start threads for it, and draws have threads of their own.
    return np.einsum("ti,i->t", terms, weights)
