"""Arrow columns: few types in place of many, and what the encoder takes of them.

    table = plain_table(table)          # bool, integers, floats, string; other types as they are
    rows = raw_columns(table, schema)   # {"age": float32 [n], "workclass": Texts(…), …}
    rows = raw_rows(table, schema)      # {"age": float32 [n], "workclass": object [n], …}

`raw_rows` gives the values that a client of the exported model sends: NaN for a
missing number, "" for a missing category or date. `raw_columns` are the same with
each different text held once, which is how a whole table is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.tables.content import MISSING
from kerastrain.errors import DataError, suggestion

if TYPE_CHECKING:
    from kerastrain.data.tables.schema import Column, Schema


# How many times the rounding to float32 numbers must spread, for float32 to hold them.
ROUNDINGS = 10_000


def plain_table(table: pa.Table) -> pa.Table:
    """The same table; missing values are nulls (not NaN, "" or "NA"), dictionaries are decoded.

    Texts have no spaces around them, and those of `content.MISSING` are missing: a value
    is the same whatever kind of file it comes from.
    """
    return pa.table([_plain(column) for column in table.columns], names=table.column_names)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(column.type) or pa.types.is_float16(column.type):
        column = pc.cast(column, pa.float64())
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if _is_text_or_bytes(column.type):
        try:
            column = column.cast(pa.string())
        except pa.ArrowInvalid:
            return column  # bytes that are no text: the schema leaves them out, and says so
        # On all values: to encode them as a dictionary first costs more than it saves.
        trimmed = pc.utf8_trim_whitespace(column)
        is_missing = pc.is_in(trimmed, pa.array(MISSING))
        return pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed)
    return column


def _is_text_or_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
    )


@dataclass(frozen=True)
class Texts:
    """A column of text: `values` object [u] of different str, `codes` int32 [n] into them."""

    values: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray) -> Texts:
        """The rows of these numbers; values that no row has any more stay."""
        return Texts(self.values, self.codes[rows])

    def expanded(self) -> np.ndarray:
        """object [n] of str."""
        return self.values[self.codes]


RawColumns = Mapping[str, np.ndarray | Texts]


def raw_columns(table: pa.Table, schema: Schema) -> dict[str, np.ndarray | Texts]:
    """The schema's columns by their input names: float32 [n] or float64 [n], or `Texts`.

    Raises:
        DataError: a column is missing, or is not of the schema's kind.
    """
    check_columns(table.column_names, schema, source="The table")
    return {column.input: _raw(table[column.name], column) for column in schema.columns}


def taken(columns: RawColumns, rows: np.ndarray) -> dict[str, np.ndarray | Texts]:
    """The rows of these numbers, of every column."""
    return {
        name: values.take(rows) if isinstance(values, Texts) else values[rows]
        for name, values in columns.items()
    }


def expanded(columns: RawColumns) -> dict[str, np.ndarray]:
    """As clients send them: float32 [n], or object [n] of str."""
    return {
        name: values.expanded() if isinstance(values, Texts) else values
        for name, values in columns.items()
    }


def raw_rows(table: pa.Table, schema: Schema) -> dict[str, np.ndarray]:
    """The schema's columns by their input names: float32 [n], or object [n] of str.

    Raises:
        DataError: a column is missing, or is not of the schema's kind.
    """
    return expanded(raw_columns(table, schema))


def check_columns(names: Collection[str], schema: Schema, *, source: str) -> None:
    """Raises DataError, with the nearest names, unless every column of the schema is there."""
    lacking = [column.name for column in schema.columns if column.name not in names]
    if not lacking:
        return
    others = [name for name in names if name not in {c.name for c in schema.columns}]
    hints = [suggestion(name, others).strip() for name in lacking]
    listed = [f"'{name}'{hint and f' ({hint})'}" for name, hint in zip(lacking, hints, strict=True)]
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    raise DataError(
        f"{source} lacks {len(lacking)} of the {len(schema.columns)} columns that are used: "
        f"{', '.join(listed[:10])}{more}. Its columns: {', '.join(names)}."
    )


def _raw(values: pa.ChunkedArray, column: Column) -> np.ndarray | Texts:
    if pa.types.is_null(values.type):  # All missing: CSV knows no type then.
        values = values.cast(pa.string() if column.dtype == "string" else pa.float64())
    if column.dtype != "string":
        if not is_number(values.type):
            raise DataError(_wrong_type(values, column, "numbers"))
        kind = pa.float64() if column.dtype == "float64" else pa.float32()
        return pc.cast(values, kind, safe=False).to_numpy(zero_copy_only=False)
    if column.kind == "date":
        if not is_date(values.type) and not pa.types.is_string(values.type):
            raise DataError(_wrong_type(values, column, "dates"))
        return _texts(date_texts(values))
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())  # Codes that training had as text: 7 is "7".
    if not pa.types.is_string(values.type):
        raise DataError(_wrong_type(values, column, "text"))
    return _texts(values)


def _wrong_type(values: pa.ChunkedArray, column: Column, expected: str) -> str:
    where = ""
    if pa.types.is_string(values.type) and expected == "numbers":
        is_bad = pc.and_kleene(
            pc.is_valid(values), pc.invert(pc.match_substring_regex(values, _PLAIN_NUMBER))
        )
        bad = np.flatnonzero(is_bad.to_numpy(zero_copy_only=False))
        if len(bad):
            where = f"; row {bad[0] + 1} is {values[int(bad[0])].as_py()!r}"
    return (
        f"Column '{column.name}' is {_described(values.type)}{where}; the schema has {expected} "
        f"there. {_several_ways(values.type) if expected == 'text' else ''}"
        "Correct the values, or say by --schema what the column is."
    )


def _several_ways(kind: pa.DataType) -> str:
    """Why values of this type are no text, where it is not plain to see."""
    if pa.types.is_floating(kind):
        return "Numbers with decimals can be written in several ways; make it text in the file. "
    if pa.types.is_boolean(kind):
        return "Bools can be written in several ways (True, true, 1); make it text in the file. "
    return ""


_PLAIN_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


def _described(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "text"
    return "dates" if is_date(kind) else f"of type {kind}"


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def is_date(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def has_zone(kind: pa.DataType) -> bool:
    """Whether these dates or times are of a zone; else they are somebody's local ones."""
    return getattr(kind, "tz", None) is not None


def number_values(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [n]; NaN where the value is missing. False is 0 and true is 1."""
    # safe=False: integers above 2**53 are rounded here.
    return pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def float32_holds(values: np.ndarray) -> bool:
    """Whether float32 tells these numbers apart: it keeps them, or rounds them by less than a
    ten-thousandth of their standard deviation.

    Args:
        values: float64 [n]; NaN is missing.
    """
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)  # They pass over NaN.
    if np.isnan(low):
        return True
    rounding = max(-low, high) * np.finfo(np.float32).eps / 2
    # The spread of n values is at least that of two at the ends and the others in the middle.
    if (high - low) / math.sqrt(2 * len(values)) >= ROUNDINGS * rounding:
        return True
    with np.errstate(over="ignore"):  # too large ones are the caller's to refuse
        is_kept = np.array_equal(values.astype(np.float32), values, equal_nan=True)
    return is_kept or bool(np.nanstd(values) >= ROUNDINGS * rounding)


def text_values(column: pa.ChunkedArray) -> np.ndarray:
    """object [n] of str; "" where the value is missing."""
    return pc.fill_null(column, "").to_numpy(zero_copy_only=False)


def date_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates as ISO 8601 text, "2011-01-31" or "2011-01-31T13:00:00"; text as it is.

    Times with a zone are given in UTC, and a client of a model that was trained on such
    times gives UTC too: a time without a zone is taken as it is. Parts of a second are
    dropped.
    """
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_date(column.type):
        return pc.strftime(column.cast(pa.date32()).cast(pa.timestamp("s")), format="%Y-%m-%d")
    if column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
        column = pc.local_timestamp(column)
    return pc.strftime(column.cast(pa.timestamp("s"), safe=False), format="%Y-%m-%dT%H:%M:%S")


def _texts(column: pa.ChunkedArray) -> Texts:
    coded = pc.fill_null(column, "").dictionary_encode().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.chunk(0)
    values = coded.dictionary.to_numpy(zero_copy_only=False)
    return Texts(values, coded.indices.to_numpy(zero_copy_only=False).astype(np.int32))
