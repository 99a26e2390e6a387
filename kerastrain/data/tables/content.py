"""What values are: the type that fits a column, in one block, in all, and by order.

    common_type(pa.int64(), pa.float64())       # double
    widened(pa.int64(), pa.array(["2.5"]))      # double
    cast_column(column, pa.int64(), Place("a.csv", "age"))   # or an error with row and value

Which type fits does not depend on where a file is cut into blocks, or a table into
files. Kinds of texts are tried as pyarrow.csv does: whole numbers, dates, times,
timestamps, numbers, else text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.errors import DataError

Values: TypeAlias = "pa.Array | pa.ChunkedArray"

# What stands for a missing value in CSV.
MISSING = ("", "NA", "N/A", "n/a", "?", "nan", "NaN", "NAN", "NULL", "null")

_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"
# Of more digits Arrow makes a negative number.
_HEXADECIMAL = "^0[xX][0-9a-fA-F]{1,15}$"
_TRIED = (
    pa.int64(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
)
_UNITS = ("s", "ms", "us", "ns")
_DESCRIBED = {
    pa.int64(): "a whole number",
    pa.float64(): "a number",
    pa.bool_(): "true or false",
    pa.date32(): "a date (2011-01-31)",
    pa.string(): "text",
}


@dataclass(frozen=True)
class Place:
    """Where values are, for messages: `rows_before` rows of the file were read before them."""

    path: object
    column: str
    rows_before: int = 0


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The narrowest type for the values of both; None where there is none.

    Numbers with numbers are numbers, dates with timestamps are timestamps, and whatever
    else is not alike is text. The order of the two does not matter.
    """
    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if _is_number(one) and _is_number(other):
        return _common_number(one, other)
    if _is_date(one) and _is_date(other):
        zones = getattr(one, "tz", None), getattr(other, "tz", None)
        if zones[0] != zones[1]:
            return pa.string()
        units = getattr(one, "unit", "s"), getattr(other, "unit", "s")
        return pa.timestamp(max(units, key=_UNITS.index), zones[0])
    if _is_scalar(one) and _is_scalar(other):
        return pa.string()
    if {one, other} == {pa.string(), pa.binary()}:
        return pa.binary()
    return None


def _common_number(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(one) or pa.types.is_floating(other) or pa.uint64() in (one, other):
        return pa.float64()
    return pa.int64()


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_date(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def _is_scalar(kind: pa.DataType) -> bool:
    return _is_number(kind) or _is_date(kind) or pa.types.is_time(kind) or pa.types.is_string(kind)


def widened(kind: pa.DataType, texts: Values) -> pa.DataType:
    """The type for values of `kind` and, besides, those that these trimmed texts are."""
    if pa.types.is_string(kind):
        return kind
    texts = pc.drop_null(texts)
    if len(texts) == 0 or (not pa.types.is_null(kind) and _can_be(texts, kind)):
        return kind
    # Each value that cannot be cast costs Arrow microseconds, so a few are tried first.
    few = texts.slice(0, 16)
    narrowest = next((k for k in _TRIED if _can_be(few, k) and _can_be(texts, k)), pa.string())
    return common_type(kind, narrowest)


def cast_column(column: Values, kind: pa.DataType, place: Place) -> Values:
    """The values as `kind`; integers may be rounded to floats, nothing else is lost.

    Raises:
        DataError: a value cannot be read as `kind`; column, row and value are named.
    """
    if column.type.equals(kind):
        return column
    if _can_be(column, kind):
        return _cast(column, kind)
    bad = _first_bad(column, kind)
    hint = (
        " A number with decimals can be written in several ways; store the column as text."
        if pa.types.is_floating(column.type) and pa.types.is_string(kind)
        else " A bool can be written in several ways; store the column as text, or say in the "
        "schema that it is a boolean."
        if pa.types.is_boolean(column.type) and pa.types.is_string(kind)
        else " Correct the value, or leave it empty (missing)."
    )
    raise DataError(
        f"'{place.path}', column '{place.column}': {column[bad].as_py()!r} in row "
        f"{place.rows_before + bad + 1:,} (the first row after the header is 1) cannot be read as "
        f"{_DESCRIBED.get(kind, str(kind))}.{hint}"
    )


def _can_be(values: Values, kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return values.null_count == len(values)
    if pa.types.is_boolean(values.type) and pa.types.is_string(kind):
        return values.null_count == len(values)  # True, true or 1: it has not one text.
    if _is_time_text(values, kind):
        return pc.all(pc.match_substring_regex(values, _TIME)).as_py() is not False
    if pa.types.is_floating(values.type) and pa.types.is_string(kind):
        return pc.all(pc.equal(values, pc.round(values))).as_py() is not False
    try:
        _cast(values, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _cast(values: Values, kind: pa.DataType) -> Values:
    if pa.types.is_null(kind):
        return pa.chunked_array([pa.nulls(len(values))])
    if _is_time_text(values, kind):  # Arrow's CSV reader takes it, its cast does not.
        moments = pc.binary_join_element_wise("1970-01-01", values, " ")
        return pc.cast(pc.cast(moments, pa.timestamp("s")), kind)
    if pa.types.is_string(values.type) and pa.types.is_floating(kind):
        return _as_floats(values, kind)
    rounds = pa.types.is_integer(values.type) and pa.types.is_floating(kind)
    return pc.cast(values, kind, safe=not rounds)


def _as_floats(texts: Values, kind: pa.DataType) -> Values:
    """Texts as numbers; 0x1F too, which Arrow reads as a whole number only."""
    try:
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        is_whole = pc.fill_null(pc.match_substring_regex(texts, _HEXADECIMAL), False)
        if not pc.any(is_whole).as_py():
            raise
        nothing = pa.scalar(None, texts.type)
        wholes = pc.cast(pc.if_else(is_whole, texts, nothing), pa.int64())
        others = pc.cast(pc.if_else(is_whole, nothing, texts), kind)
        return pc.coalesce(others, pc.cast(wholes, kind, safe=False))


def _is_time_text(values: Values, kind: pa.DataType) -> bool:
    return pa.types.is_time(kind) and pa.types.is_string(values.type)


def _first_bad(values: Values, kind: pa.DataType) -> int:
    """The place of the first value that cannot be `kind`, where there is one."""
    good, bad = 0, len(values)  # values[:good] can be, values[:bad] cannot
    while bad - good > 1:
        middle = (good + bad) // 2
        if _can_be(values.slice(good, middle - good), kind):
            good = middle
        else:
            bad = middle
    return good
