"""Confidence intervals of an export's metrics, by resampling the test rows.

    intervals(task, outputs, targets, resamples=1000)      # {"accuracy": (0.853, 0.866), …}
    difference_intervals(task, before, after, targets)     # {"accuracy": (0.001, 0.004), …}

The percentile bootstrap (Efron & Tibshirani 1993, chapter 13): draw as many rows as
there are, with replacement; compute the metric; the interval reaches from the 2.5th
to the 97.5th percentile of what a thousand draws gave. It says how far the metric
could be off because other test rows might have been drawn, for this one model; it
knows nothing of what another training run would have given. The interval of `ece` lies
high for a well calibrated model: a sum of absolute values only grows with noise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kerastrain.data.source import Task
from kerastrain.errors import OptionsError
from kerastrain.export.weighting import Metrics, metrics_by_weights

# Draws that share a generator; so the numbers do not depend on the number of threads.
BLOCK = 50
MAX_THREADS = 4


def intervals(
    task: Task | None,
    outputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """(low, high) of each metric of `score`; a metric that most draws do not define is left out.

    Args:
        outputs, targets, weights: as for `score`; a row that is drawn k times counts k
            times its weight.
        resamples: how many draws; 0: no intervals.
        confidence: the share of draws between low and high, 0 to 1, both excluded.

    Raises:
        OptionsError: `resamples` or `confidence` is out of range.
    """
    return _percentile_intervals(
        metrics_by_weights(task, outputs, targets),
        _base_weights(weights, len(targets)),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def difference_intervals(
    task: Task | None,
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    targets: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """(low, high) of each metric of the second answers minus that of the first.

    The paired bootstrap: every draw of rows is put to both models. Rows that are hard are so
    for both, so the difference is known better than either metric.

    Args:
        first, second: two models' answers to the same rows; the others are those of `intervals`.

    Raises:
        OptionsError: `resamples` or `confidence` is out of range.
    """
    of_first = metrics_by_weights(task, first, targets)
    of_second = metrics_by_weights(task, second, targets)

    def differences(row_weights: np.ndarray) -> dict[str, float]:
        before, after = of_first(row_weights), of_second(row_weights)
        return {name: after[name] - before[name] for name in before if name in after}

    return _percentile_intervals(
        differences,
        _base_weights(weights, len(targets)),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def _base_weights(weights: np.ndarray | None, rows: int) -> np.ndarray:
    return np.ones(rows) if weights is None else weights.reshape(-1).astype(np.float64)


def _percentile_intervals(
    metrics: Metrics, base: np.ndarray, *, resamples: int, confidence: float, seed: int
) -> dict[str, tuple[float, float]]:
    check_settings(resamples=resamples, confidence=confidence)
    rows = len(base)

    def draw(block: int) -> list[dict[str, float]]:
        size = min(BLOCK, resamples - block * BLOCK)
        drawn = (counts * base for counts in _counts(rows, size, seed=seed, block=block))
        return [metrics(each) for each in drawn if each.sum() > 0]

    # NumPy lets go of the interpreter in what takes long here.
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        found = [each for part in pool.map(draw, range(-(-resamples // BLOCK))) for each in part]
    names = found[0] if found else {}
    drawn = {name: np.array([each[name] for each in found]) for name in names}
    return {
        name: _percentiles(values[np.isfinite(values)], confidence)
        for name, values in drawn.items()
        if np.isfinite(values).mean() > 0.5
    }


def check_settings(*, resamples: int, confidence: float) -> None:
    """Raises OptionsError unless intervals can be computed so."""
    if resamples < 0:
        raise OptionsError(
            f"--bootstrap is {resamples}; expected a number of resamples, 0 for no intervals."
        )
    if not 0 < confidence < 1:
        raise OptionsError(f"--confidence is {confidence:g}; expected a share, as 0.95.")


def _counts(rows: int, size: int, *, seed: int, block: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, int64 [rows], in each of `size` draws."""
    generator = np.random.default_rng([seed, block])
    for _ in range(size):
        yield np.bincount(generator.integers(0, rows, rows), minlength=rows)


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
