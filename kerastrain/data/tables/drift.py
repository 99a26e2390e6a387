"""Whether new rows are like those of the training: counted batch by batch.

    counts = DriftCounts(statistics, schema)
    for rows in batches:
        counts.add(rows)
    counts.remarks()         # ["Column 'age': 3 of 1,000 values are outside …", …]
    drift_report(counts)     # {"rows": 1000, "columns": [{"column": "age", "psi": 0.02, …}, …]}

The population stability index of a column is

    PSI = Σ (a - e) · ln(a / e)

over its bins, where e is the share of the training rows in a bin and a that of
the new ones, neither less than 0.0001 (Siddiqi 2006, "Credit Risk Scorecards").
Missing values are a bin, and so are values that were not recorded. By the same
book's rule of thumb it is small below 0.1 and large from 0.25 on.

Few rows have a high PSI by chance alone: of two samples of n and m rows of one
distribution with B bins its expectation is near (B - 1)(1/n + 1/m), its law near
(1/n + 1/m) times chi-square with B - 1 degrees of freedom (Yurdakul & Naranjo
2020, "Statistical properties of the population stability index"). That is too low
where bins hold few rows, so the bound that unchanged rows stay below in 95 % of
cases is found by drawing such samples; drift is only what lies above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerastrain.data.tables.schema import Column, Schema
from kerastrain.data.tables.statistics import (
    bin_indices,
    is_complete,
    is_measured,
    is_present,
    iso_date,
    present_values,
)

FLOOR = 1e-4
MODERATE, LARGE = 0.1, 0.25
DRAWS = 1000


@dataclass
class ColumnCounts:
    """New rows of one column, counted.

    Attributes:
        recorded: the column's entry in `statistics.table_statistics`.
        bins: int64: rows in each bin, of values not recorded, and without a value.
        outside: values below the least or above the greatest of training; of
            categories and bools, those that training did not have.
        first_outside: (row, value) of the first of them; rows count from 1.
    """

    column: Column
    recorded: Mapping[str, Any]
    bins: np.ndarray
    outside: int = 0
    first_outside: tuple[int, Any] | None = None

    @property
    def missing(self) -> int:
        return int(self.bins[-1])

    def add(self, values: np.ndarray, rows_before: int) -> None:
        """Counts some rows: float32 [n] or object [n] of str, as `columns.raw_rows` gives them."""
        present = present_values(values, self.column)
        indices = bin_indices(present, self.recorded)
        self.bins += np.bincount(indices, minlength=len(self.bins))
        self.bins[-1] += len(values) - len(present)
        is_outside = self._is_outside(present, indices)
        self.outside += int(is_outside.sum())
        if self.first_outside is None and is_outside.any():
            rows = np.flatnonzero(is_present(values, self.column))
            row = int(rows[np.argmax(is_outside)])
            self.first_outside = (rows_before + row + 1, values[row])

    def _is_outside(self, present: np.ndarray, indices: np.ndarray) -> np.ndarray:
        if is_measured(self.column):
            low, high = self.recorded["min"], self.recorded["max"]
            if low is None:  # nothing is known of a column without values
                return np.ones(len(present), bool)
            return (present < low) | (present > high)
        if is_complete(self.recorded):
            return indices == len(self.recorded["values"])
        return np.zeros(len(present), bool)


@dataclass
class DriftCounts:
    """New rows of a table, counted."""

    statistics: Mapping[str, Any]
    schema: Schema
    rows: int = 0
    columns: list[ColumnCounts] = field(init=False)

    def __post_init__(self) -> None:
        recorded = self.statistics["columns"]
        self.columns = [
            ColumnCounts(column, recorded[column.name], _no_counts(recorded[column.name]))
            for column in self.schema.columns
        ]

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Counts the next rows, by input name as `columns.raw_rows` gives them."""
        for counts in self.columns:
            counts.add(rows[counts.column.input], self.rows)
        self.rows += len(next(iter(rows.values())))

    def remarks(self) -> list[str]:
        """A line for each column with values that the model was never trained on."""
        found = [_remark(counts, self.rows) for counts in self.columns]
        return [remark for remark in found if remark]


def drift_report(counts: DriftCounts) -> dict[str, Any]:
    """What changed, column by column, the greatest PSI first; plain JSON values.

    Returns:
        {"rows": n, "training_rows": m, "columns": [{"column", "kind", "psi",
        "psi_bound_95", "verdict", "out_of_range", "unseen", "missing",
        "missing_in_training"}, …]}. The last four are shares of the rows; `out_of_range` is
        None for categories, `unseen` for numbers, and for categories of which training had
        more values than were recorded.

    Raises:
        ValueError: no rows were counted.
    """
    if counts.rows == 0:
        raise ValueError("No rows were counted.")
    columns = [_column_report(c, counts.rows, counts.statistics["rows"]) for c in counts.columns]
    columns.sort(key=lambda column: (-column["psi"], column["column"]))
    return {"rows": counts.rows, "training_rows": counts.statistics["rows"], "columns": columns}


def population_stability_index(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """PSI of shares [..., bins], summed over the last axis."""
    expected, actual = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    return ((actual - expected) * np.log(actual / expected)).sum(-1)


def unchanged_bound(expected: np.ndarray, *, rows: int, training_rows: int) -> float:
    """What the PSI of `rows` rows stays below in 95 % of cases when nothing changed.

    Args:
        expected: shares [bins] of the training rows.
    """
    # Rounding must not make the shares sum to more than 1: NumPy refuses them then.
    shares = expected / expected.sum()
    random = np.random.default_rng(0)  # its own, and always the same
    trained = random.multinomial(training_rows, shares, DRAWS) / training_rows
    seen = random.multinomial(rows, shares, DRAWS) / rows
    return float(np.quantile(population_stability_index(trained, seen), 0.95))


def verdict(psi: float, bound: float) -> str:
    """ "stable", "moderate" or "large"; what chance alone explains is stable."""
    if psi < MODERATE or psi <= bound:
        return "stable"
    return "moderate" if psi < LARGE else "large"


def _no_counts(recorded: Mapping[str, Any]) -> np.ndarray:
    return np.zeros(len(_expected(recorded)), np.int64)


def _expected(recorded: Mapping[str, Any]) -> np.ndarray:
    """Shares of training: of each bin, of values not recorded, and of what is missing."""
    rest = [recorded["rest"]] if "rest" in recorded else []
    return np.array([*recorded["shares"], *rest, recorded["missing"]])


def _column_report(counts: ColumnCounts, rows: int, training_rows: int) -> dict[str, Any]:
    expected = _expected(counts.recorded)
    psi = float(population_stability_index(expected, counts.bins / rows))
    bound = unchanged_bound(expected, rows=rows, training_rows=training_rows)
    measured = is_measured(counts.column)
    share = counts.outside / rows
    knows_unseen = not measured and is_complete(counts.recorded)
    return {
        "column": counts.column.name,
        "kind": counts.column.kind,
        "psi": psi,
        "psi_bound_95": bound,
        "verdict": verdict(psi, bound),
        "out_of_range": share if measured else None,
        "unseen": share if knows_unseen else None,
        "missing": counts.missing / rows,
        "missing_in_training": counts.recorded["missing"],
    }


def _remark(counts: ColumnCounts, rows: int) -> str:
    parts = []
    if counts.outside and counts.first_outside is not None:
        row, value = counts.first_outside
        values = "1 value is" if counts.outside == 1 else f"{counts.outside:,} values are"
        parts.append(f"{values} {_outside_of(counts)} (row {row:,}: {_shown(value)})")
    if counts.missing and counts.recorded["missing"] == 0:
        values = "1 value is" if counts.missing == 1 else f"{counts.missing:,} values are"
        parts.append(f"{values} missing, none was in training")
    if not parts:
        return ""
    return f"Column '{counts.column.name}': of {rows:,} rows, {'; '.join(parts)}."


def _outside_of(counts: ColumnCounts) -> str:
    if not is_measured(counts.column):
        return "not among those of training"
    low, high = counts.recorded["min"], counts.recorded["max"]
    if low is None:
        return "there, where training had none"
    if counts.column.kind == "date":
        return f"outside of training's dates, {iso_date(low)} to {iso_date(high)}"
    return f"outside of training's range, {low:g} to {high:g}"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"
