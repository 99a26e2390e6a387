"""New rows for a model: what it was trained on, or an error that names column, row and value.

    rows = incoming_rows(table, schema, rows_before=8192)    # {"age": float32 [n], …}

What a model has never seen but can take (a new category, a number out of range, a
missing value) passes here; drift.py counts it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.tables.columns import is_date, is_number, raw_rows
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.data.tables.schema_matching import check_zone
from kerastrain.data.tables.statistics import days
from kerastrain.errors import DataError


def arrow_types(schema: Schema) -> dict[str, pa.DataType]:
    """How to read the columns of a CSV file whose types are its own affair.

    A category whose values all look like numbers in this file ("01", "02") was text in
    training, and whole numbers in the first rows say nothing about those that follow.
    """
    types = {}
    for column in schema.columns:
        if column.kind == "number" or (column.kind, column.dtype) == ("category", "float32"):
            types[column.name] = pa.float64()
        elif column.kind == "category":
            types[column.name] = pa.string()
    return types


def incoming_rows(
    table: pa.Table, schema: Schema, *, rows_before: int = 0
) -> dict[str, np.ndarray]:
    """The schema's columns by input name, as `columns.raw_rows` gives them, checked.

    Args:
        table: plain types, as `reading` gives them; other columns are ignored. Times with a
            zone become UTC, as in training.
        rows_before: how many rows were read before these, for messages.

    Raises:
        DataError: a column has another type than in training (times with a zone where there
            were none, for instance), or a value that is no number (no date, neither yes nor no)
            or infinite; column, row and value are named.
    """
    columns = {
        column.name: _as_trained(table[column.name], column, rows_before)
        for column in schema.columns
    }
    with np.errstate(over="ignore"):  # 1e39 becomes infinite, which is told below
        rows = raw_rows(pa.table(columns), schema)
    for column in schema.columns:
        _check_values(rows[column.input], table[column.name], column, rows_before)
    return rows


def _as_trained(values: pa.ChunkedArray, column: Column, rows_before: int) -> pa.ChunkedArray:
    """The values in a type that `raw_rows` takes for such a column."""
    kind = values.type
    if pa.types.is_null(kind):  # nothing but missing values
        return values
    if column.kind == "date":
        check_zone(column, kind)
        return values if is_date(kind) or pa.types.is_string(kind) else _refuse(column, kind)
    if column.dtype == "string":
        return _as_text(values, column, rows_before)
    if pa.types.is_string(kind):
        return _parsed(values, column, rows_before)
    return values if is_number(kind) else _refuse(column, kind)


def _as_text(values: pa.ChunkedArray, column: Column, rows_before: int) -> pa.ChunkedArray:
    """Text, or whole numbers, which training reads as the same text: 7 and 7.0 are "7"."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind):
        return values
    why = ""
    if pa.types.is_boolean(kind):
        why = "A bool can be written in several ways (True, true, yes, 1)."
    if pa.types.is_floating(kind):
        broken = pc.indices_nonzero(pc.fill_null(pc.not_equal(values, pc.round(values)), False))
        if len(broken) == 0:
            return values.cast(pa.string())
        row = broken[0].as_py()
        why = (
            f"A number with decimals can be written in several ways: {values[row].as_py()!r} in "
            f"row {rows_before + row + 1:,} (the first row after the header is 1)."
        )
    raise DataError(
        f"Column '{column.name}' has the type {kind}; the model was trained on text. {why}"
        f"{why and ' '}Convert the column to text, written as in training."
    )


def _refuse(column: Column, received: pa.DataType) -> pa.ChunkedArray:
    expected = "dates" if column.kind == "date" else _expected(column)
    raise DataError(
        f"Column '{column.name}' has the type {received}; the model was trained on {expected}. "
        "Convert the column."
    )


def _expected(column: Column) -> str:
    if column.dtype == "string":
        return "text"
    return "bools" if column.kind == "boolean" else "numbers"


def _parsed(values: pa.ChunkedArray, column: Column, rows_before: int) -> pa.ChunkedArray:
    """Numbers, or bools, that are written as text."""
    wanted = pa.bool_() if column.kind == "boolean" else pa.float64()
    values = pc.utf8_trim_whitespace(values)
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        texts = values.to_pylist()
    row = next(place for place, text in enumerate(texts) if not _can_be(text, wanted))
    raise DataError(
        f"Column '{column.name}' holds {texts[row]!r} in row {rows_before + row + 1:,} (the first "
        f"row after the header is 1); the model was trained on {_expected(column)}. Correct the "
        "value, or leave it empty (missing)."
    )


def _can_be(text: str | None, wanted: pa.DataType) -> bool:
    try:
        pa.scalar(text, pa.string()).cast(wanted)
    except pa.ArrowInvalid:
        return False
    return True


def _check_values(
    values: np.ndarray, given: pa.ChunkedArray, column: Column, rows_before: int
) -> None:
    """Raises DataError for the first value that is none of the column's kind."""
    bad, expected = _bad_values(values, column)
    if not bad.any():
        return
    row = int(np.argmax(bad))
    raise DataError(
        f"Column '{column.name}' holds {given[row].as_py()!r} in row {rows_before + row + 1:,} "
        f"(the first row after the header is 1); expected {expected}. Correct the value, or "
        "leave it empty (missing)."
    )


def _bad_values(values: np.ndarray, column: Column) -> tuple[np.ndarray, str]:
    if column.kind == "boolean":
        return ~(np.isnan(values) | (values == 0) | (values == 1)), "0 or 1, as in training"
    if column.kind == "date":
        is_bad = np.isnan(days(values)) & (values != "")
        return is_bad, "a date such as 2011-01-31 or 2011-01-31T13:00:00"
    if values.dtype.kind == "f":
        return np.isinf(values), "a number that float32 can hold (up to 3.4e38)"
    return np.zeros(len(values), bool), ""
