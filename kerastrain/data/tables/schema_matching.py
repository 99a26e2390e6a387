"""A given schema and the table it is to be used for: whether they fit, and what is found anew.

schema = matched(schema, table, source="new.csv")       # or an error that names column and row
schema = without(schema, {"age": "--ignore_columns names it"})
check_column(column, values, first_row=8192)            # one column, in pieces of the table
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from kerastrain.data.tables.columns import (
    check_columns,
    has_zone,
    is_date,
    is_number,
    number_values,
    text_values,
)
from kerastrain.data.tables.schema import (
    MAX_FLOAT32_CODE,
    Column,
    Schema,
    check_values,
    input_names,
)
from kerastrain.data.tables.statistics import days
from kerastrain.errors import DataError

logger = logging.getLogger(__name__)


def without(schema: Schema, ignored: Mapping[str, str]) -> Schema:
    """The schema but for some columns, {name: reason}.

    Raises:
        DataError: no column is left.
    """
    columns = tuple(column for column in schema.columns if column.name not in ignored)
    if not columns:
        raise DataError(f"The schema leaves no column to predict '{schema.target}' from.")
    others = {name: why for name, why in schema.left_out if name not in ignored}
    return dataclasses.replace(
        schema, columns=columns, left_out=(*others.items(), *ignored.items())
    )


def matched(schema: Schema, table: pa.Table, *, source: str) -> Schema:
    """The schema with what this table says: missing values, inputs that were left out.

    Raises:
        DataError: the table lacks a column, or its values are not of the schema's kind.
    """
    names = table.column_names
    check_columns(names, schema, source=source)
    known = {column.name for column in schema.columns} | dict(schema.left_out).keys()
    others = [name for name in names if name not in known and name != schema.target]
    if others:
        logger.warning(
            "%s has columns that the schema does not name; they are left out: %s.",
            source,
            ", ".join(others),
        )
    inputs = input_names(column.name for column in schema.columns)
    columns = tuple(_matched(column, table[column.name], inputs) for column in schema.columns)
    _check_inputs(columns)
    left_out = (*schema.left_out, *((name, "the schema does not name it") for name in others))
    return dataclasses.replace(schema, columns=columns, left_out=left_out)


def _check_inputs(columns: Sequence[Column]) -> None:
    usable = input_names(column.input for column in columns)
    for column in columns:
        if usable[column.input] != column.input:
            raise DataError(
                f"The schema calls the input of column '{column.name}' {column.input!r}, which "
                "cannot be an input's name beside the others; expected for instance "
                f"{usable[column.input]!r}."
            )


def _matched(column: Column, values: pa.ChunkedArray, inputs: Mapping[str, str]) -> Column:
    check_column(column, values)
    is_known = column.kind != "date" or column.has_zone is not None or not is_date(values.type)
    return dataclasses.replace(
        column,
        has_zone=column.has_zone if is_known else has_zone(values.type),
        input=column.input or inputs[column.name],
        missing=values.null_count,
    )


def check_column(column: Column, values: pa.ChunkedArray, *, first_row: int = 0) -> None:
    """Raises DataError unless the values are of the kind that the schema says.

    Args:
        first_row: the number (from 0) of the first of these values, for messages.
    """
    kind, dtype = column.kind, column.dtype
    fits = {
        "number": is_number(values.type),
        "boolean": is_number(values.type),
        "category": is_number(values.type) or pa.types.is_string(values.type),
        "date": is_date(values.type) or pa.types.is_string(values.type),
    }
    if not fits[kind] and not pa.types.is_null(values.type):
        raise DataError(
            f"The schema says that column '{column.name}' is a {kind}, but its values are of "
            f"type {values.type}. Correct the schema or the values."
        )
    check_zone(column, values.type)
    check_values(column.name, kind, values, dtype=dtype, first_row=first_row)
    if (kind, dtype) == ("category", "float32"):
        _check_codes(column.name, values, first_row)
    if kind == "boolean":
        _check_boolean(column.name, values, first_row)
    if kind == "date" and pa.types.is_string(values.type):
        _check_dates(column.name, values, first_row)


def check_zone(column: Column, kind: pa.DataType) -> None:
    """Raises DataError for times with a zone where training had none, and the other way round:
    the same text would be another moment."""
    if column.has_zone is None or not is_date(kind) or has_zone(kind) == column.has_zone:
        return
    given, learned = ("with", "without") if has_zone(kind) else ("without", "with")
    correction = (
        "Give them a zone (2011-01-31T13:00:00+01:00, or Z for UTC)"
        if column.has_zone
        else "Convert them to the local times that training had, and leave the zone out"
    )
    raise DataError(
        f"Column '{column.name}' has times {given} a zone (type {kind}); the model was trained on "
        f"times {learned} one. {correction}."
    )


def _check_boolean(name: str, values: pa.ChunkedArray, first_row: int) -> None:
    numbers = number_values(values)
    bad = np.flatnonzero(~(np.isnan(numbers) | (numbers == 0) | (numbers == 1)))
    if len(bad):
        raise DataError(
            f"The schema says that column '{name}' is a boolean, but row "
            f"{first_row + bad[0] + 1:,} holds {numbers[bad[0]]:g}; expected 0 and 1."
        )


def _check_codes(name: str, values: pa.ChunkedArray, first_row: int) -> None:
    numbers = number_values(values) if is_number(values.type) else np.zeros(len(values))
    is_code = np.isnan(numbers) | (np.abs(numbers) <= MAX_FLOAT32_CODE) & (numbers % 1 == 0)
    bad = np.flatnonzero(~is_code)
    if len(bad) or not (is_number(values.type) or pa.types.is_null(values.type)):
        row = f"row {first_row + bad[0] + 1:,}" if len(bad) else ""
        what = f"{row} holds {numbers[bad[0]]:g}" if len(bad) else "it holds text"
        raise DataError(
            f"The schema says that column '{name}' is a category of whole numbers up to "
            f'{MAX_FLOAT32_CODE:,} (float32), but {what}. Say "dtype": "string" there.'
        )


def _check_dates(name: str, values: pa.ChunkedArray, first_row: int) -> None:
    texts = text_values(values)
    bad = np.flatnonzero(np.isnan(days(texts)) & (texts != ""))
    if len(bad):
        raise DataError(
            f"The schema says that column '{name}' is a date, but row {first_row + bad[0] + 1:,} "
            f"holds {texts[bad[0]]!r}; expected such as 2011-01-31 or 2011-01-31T13:00:00."
        )
