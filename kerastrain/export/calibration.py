"""Calibration: do events that are given 80 % happen in 80 % of the rows?

    table = reliability(probabilities, happened)    # Bin(low, high, mean, share, rows), …
    ece = expected_calibration_error(confidence, is_right)

Bins are equally wide, (0, 1/15] to (14/15, 1], as in Guo et al. (2017), "On
Calibration of Modern Neural Networks", section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The rows whose probability is in (low, high]; 0 belongs to the first bin.

    Attributes:
        mean: their mean probability.
        share: the share of them in which it happened.
        rows: how many they are; mean and share are weighted, this is not.
    """

    low: float
    high: float
    mean: float
    share: float
    rows: int


def bin_numbers(probabilities: np.ndarray, *, bins: int = BINS) -> np.ndarray:
    """The bin (0-based, int64 [n]) of each probability [n]."""
    return np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability(
    probabilities: np.ndarray,
    happened: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    bins: int = BINS,
) -> list[Bin]:
    """The calibration table; bins without rows (or without weight) are left out.

    Args:
        probabilities: float [n], 0 to 1.
        happened: bool [n].
        weights: float [n]; None: every row counts once.
    """
    counted = np.ones(len(probabilities)) if weights is None else weights.astype(np.float64)
    numbers = bin_numbers(probabilities, bins=bins)
    rows = np.bincount(numbers, minlength=bins)
    total = np.bincount(numbers, counted, bins)
    means = np.bincount(numbers, counted * probabilities, bins)
    shares = np.bincount(numbers, counted * happened, bins)
    return [
        Bin(b / bins, (b + 1) / bins, means[b] / total[b], shares[b] / total[b], int(rows[b]))
        for b in range(bins)
        if total[b] > 0
    ]


def expected_calibration_error(
    confidence: np.ndarray, is_right: np.ndarray, *, weights: np.ndarray | None = None
) -> float:
    """The bins' distances between confidence and accuracy, weighted by their rows.

    ECE = sum over the bins of |B_m| / n · |acc(B_m) - conf(B_m)| (Guo et al. 2017, eq. 3).

    Args:
        confidence: the probability of each row's label, float [n].
        is_right: whether that label is the row's class, bool [n].
        weights: float [n]; None: every row counts once.
    """
    counted = np.ones(len(confidence)) if weights is None else weights.astype(np.float64)
    gaps = np.bincount(bin_numbers(confidence), counted * (is_right - confidence), BINS)
    return float(np.abs(gaps).sum() / counted.sum())
