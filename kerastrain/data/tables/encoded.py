"""What an encoded table is: its arrays by name, and what a network must know of them.

    columns.numbers       # ("age", "hours", "hours is missing"): the columns of "numbers"
    columns.sizes         # (9, 16): indices 0 to size-1 of each of the "categories"

An encoded table is {"numbers": float32 [n, k], "categories": int32 [n, c]}; one without
numbers or without categories lacks that name. An index of -1 is a value that the training
rows did not have.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from kerastrain.data.tables.columns import ROUNDINGS

NUMBERS = "numbers"
CATEGORIES = "categories"

BINS = 48
BIN_ROWS = 200_000
# Of a bin, in deviations: across a narrower one a network could turn the rounding of a float32
# into a visible difference.
LEAST_WIDTH = 1e-3


@dataclass(frozen=True)
class EncodedColumns:
    """The columns of an encoded table.

    Attributes:
        numbers: a name for each column of "numbers".
        edges: for each of them the edges between bins of equal counts of its training
            values, rising; with one or two values only these.
        categories: a name for each column of "categories".
        sizes: for each of them the number of indices.
        target_mean, target_deviation: of the training targets, for regression.
    """

    numbers: tuple[str, ...] = ()
    edges: tuple[tuple[float, ...], ...] = ()
    categories: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    target_mean: float = 0.0
    target_deviation: float = 1.0

    def with_bins(self, numbers: np.ndarray) -> EncodedColumns:
        """With the edges of these training rows, float32 [n, k]."""
        return dataclasses.replace(self, edges=bin_edges(numbers))

    @property
    def target_dtype(self) -> str:
        """In which numbers of the target's units are learned from and answered: "float64" where
        float32 would round them by more than a ten-thousandth of their deviation."""
        rounding = abs(self.target_mean) * np.finfo(np.float32).eps / 2
        return "float64" if self.target_deviation < ROUNDINGS * rounding else "float32"

    def with_target(self, targets: np.ndarray) -> EncodedColumns:
        """With mean and deviation of these training targets, float [n, 1]; 0 becomes 1."""
        values = targets.astype(np.float64)
        return dataclasses.replace(
            self, target_mean=float(values.mean()), target_deviation=float(values.std()) or 1.0
        )


def bin_edges(numbers: np.ndarray, *, bins: int = BINS) -> tuple[tuple[float, ...], ...]:
    """For each column of float32 [n, k] at most bins + 1 quantiles that differ.

    They are values that occur: no interpolation, so that whole numbers keep their steps. Of
    more than BIN_ROWS rows so many are taken, evenly: more would hardly move the edges.
    """
    if len(numbers) > BIN_ROWS:
        numbers = numbers[np.linspace(0, len(numbers) - 1, BIN_ROWS).astype(np.int64)]
    return tuple(_edges(np.ascontiguousarray(column), bins) for column in numbers.T)


def _edges(values: np.ndarray, bins: int) -> tuple[float, ...]:
    low, high = values.min(), values.max()
    if ((values == low) | (values == high)).all():  # A flag; quantiles would take a sort.
        edges = np.unique([low, high])
    else:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1), method="nearest"))
    kept = [float(edges[0])]
    for edge in edges[1:].astype(float).tolist():
        if edge - kept[-1] >= LEAST_WIDTH:
            kept.append(edge)
    return tuple(kept)
