"""What the training rows were like: recorded with a model, compared with the rows it meets later.

    statistics = table_statistics(train_rows, schema)       # plain JSON values
    statistics["columns"]["age"]["shares"]                  # share of the rows in each bin
    bins = bin_indices(present_values(rows["age"], column), statistics["columns"]["age"])

Numbers and dates are counted in bins between the deciles of training; categories
and bools by value. Shares are of all rows, missing ones included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.tables.columns import RawColumns, expanded
from kerastrain.data.tables.schema import Column, Schema

MAX_VALUES = 100
DECILES = np.arange(1, 10) / 10

_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?", re.ASCII)


def table_statistics(rows: RawColumns, schema: Schema) -> dict[str, Any]:
    """Of every column of the schema: what is missing, its range, and how it is distributed.

    Args:
        rows: the training rows by input name, as `columns.raw_columns` or `raw_rows` gives
            them: float32 [n] with NaN for missing, or texts with "" for missing.

    Returns:
        {"rows": n, "columns": {name: …}}, for each column by its name in the file

            kind, missing           what the schema says it is; the share without a value
            min, max, mean, std     numbers and dates; None without a value. std is of the
                                    population; dates are days since 1970-01-01
            edges                   numbers and dates: bin i holds edges[i-1] < x <= edges[i],
                                    the first and the last bin all below and above
            values, rest, distinct  categories and bools: the most frequent values, at most
                                    100; the share of all others; how many values there are
            shares                  of each bin, or of each of `values`
    """
    count = len(next(iter(rows.values())))

    def describe(column: Column) -> dict[str, Any]:
        values = expanded({column.input: rows[column.input]})[column.input]
        return _described(values, column, count)

    return {"rows": count, "columns": {column.name: describe(column) for column in schema.columns}}


def is_measured(column: Column) -> bool:
    """Whether the column's values have an order and a range."""
    return column.kind in ("number", "date")


def present_values(values: np.ndarray, column: Column) -> np.ndarray:
    """The values that are not missing: float64 [k] (dates as `days`), or object [k] of str."""
    present = values[is_present(values, column)]
    if column.kind == "date":
        return days(present)
    return present.astype(np.float64) + 0.0 if present.dtype.kind == "f" else present  # no -0.0


def is_present(values: np.ndarray, column: Column) -> np.ndarray:
    """bool [n]: whether there is a value."""
    if column.kind == "date":
        values = days(values)
    return ~np.isnan(values) if values.dtype.kind == "f" else values != ""


def days(texts: np.ndarray) -> np.ndarray:
    """float64 [n]: ISO 8601 dates and times as days since 1970-01-01, to the second.

    NaN for all other texts, which the encoder takes for missing, too.
    """
    coded = pa.array(texts, pa.string()).dictionary_encode()
    different = np.array([_day(text) for text in coded.dictionary.to_pylist()], np.float64)
    return different[coded.indices.to_numpy()]


def _day(text: str) -> float:
    if not _DATE.fullmatch(text):
        return np.nan
    try:
        return float(np.datetime64(text, "s").astype(np.int64)) / 86_400
    except ValueError:  # the 30th of February
        return np.nan


def iso_date(day: float) -> str:
    """The opposite of `days`, for one; without the time where that is midnight."""
    text = str(np.datetime64(round(day * 86_400), "s"))
    return text.removesuffix("T00:00:00")


def bin_indices(present: np.ndarray, recorded: Mapping[str, Any]) -> np.ndarray:
    """int64 [k]: where each value belongs among `shares`; values not recorded come after them.

    Args:
        present: values that are not missing, as `present_values` gives them.
        recorded: the column's entry in `table_statistics`.
    """
    if "edges" in recorded:
        return np.searchsorted(np.array(recorded["edges"], np.float64), present, side="left")
    known = recorded["values"]
    if not known or not len(present):
        return np.full(len(present), len(known), np.int64)
    kind = pa.string() if isinstance(known[0], str) else pa.float64()
    found = pc.index_in(pa.array(present, kind), value_set=pa.array(known, kind))
    return pc.fill_null(found, len(known)).to_numpy(zero_copy_only=False).astype(np.int64)


def is_complete(recorded: Mapping[str, Any]) -> bool:
    """Whether every value of a category in training is among those recorded."""
    return recorded["distinct"] == len(recorded["values"])


def _described(values: np.ndarray, column: Column, count: int) -> dict[str, Any]:
    present = present_values(values, column)
    start = {"kind": column.kind, "missing": (count - len(present)) / count}
    found = _measured(present) if is_measured(column) else _counted(present)
    shares = np.bincount(bin_indices(present, found), minlength=found.pop("bins")) / count
    if not is_measured(column):
        found["rest"] = float(shares[len(found["values"])])
        shares = shares[: len(found["values"])]
    return {**start, **found, "shares": shares.tolist()}


def _measured(present: np.ndarray) -> dict[str, Any]:
    if len(present) == 0:
        nothing = dict.fromkeys(("min", "max", "mean", "std"))
        return {**nothing, "edges": [], "bins": 1}
    edges = _edges(present)
    return {
        "min": float(present.min()),
        "max": float(present.max()),
        "mean": float(present.mean()),
        "std": float(present.std()),
        "edges": edges.tolist(),
        "bins": len(edges) + 1,
    }


def _edges(present: np.ndarray) -> np.ndarray:
    """Borders of the bins: the deciles, each once; no bin is empty.

    A value that is several deciles at once gets a bin of its own: with nine tenths of
    zeros, for instance, what lies below and above 0 is not counted together with them.
    """
    deciles = np.quantile(present, DECILES, method="inverted_cdf")
    edges, times = np.unique(deciles, return_counts=True)
    edges = np.union1d(edges, np.nextafter(edges[times > 1], -np.inf))
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    kept = edges[counts[:-1] > 0]
    return kept[:-1] if counts[-1] == 0 else kept


def _counted(present: np.ndarray) -> dict[str, Any]:
    """The most frequent values, by falling count, then by value."""
    if present.dtype == object:
        present = pa.array(present, pa.string())
    counted = pc.value_counts(present)
    counts = counted.field("counts").to_numpy()
    ordered = sorted(
        zip(counts.tolist(), counted.field("values").to_pylist(), strict=True),
        key=lambda item: (-item[0], item[1]),
    )
    values = [value for _, value in ordered[:MAX_VALUES]]
    return {"values": values, "distinct": len(ordered), "bins": len(values) + 1}
