"""Arrow columns: few types in place of many, and what the encoder takes of them.

    table = plain_table(table)          # bool, integers, floats, string; other types as they are
    rows = raw_rows(table, schema)      # {"age": float32 [n], "workclass": object [n], …}

`raw_rows` gives the values that a client of the exported model sends: NaN for a
missing number, "" for a missing category.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from kerastrain.data.tables.schema import Schema


def plain_table(table: pa.Table) -> pa.Table:
    """The same table; missing values are nulls (not NaN or ""), dictionaries are decoded."""
    for place, field in enumerate(table.schema):
        table = table.set_column(place, field.name, _plain(table.column(place)))
    return table


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
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return column


def _is_text_or_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def raw_rows(table: pa.Table, schema: Schema) -> dict[str, np.ndarray]:
    """The schema's columns by their input names: float32 [n], or object [n] of str."""
    return {
        column.input: (
            number_values(table[column.name]).astype(np.float32)
            if column.kind == "number"
            else text_values(table[column.name])
        )
        for column in schema.columns
    }


def number_values(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [n]; NaN where the value is missing. False is 0 and true is 1."""
    # safe=False: integers above 2**53 are rounded here, and further in float32 anyway.
    return pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def text_values(column: pa.ChunkedArray) -> np.ndarray:
    """object [n] of str; "" where the value is missing."""
    return pc.fill_null(column, "").to_numpy(zero_copy_only=False)
