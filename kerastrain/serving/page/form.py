"""The form for a table: one field per column, with an example filled in and what was usual.

    fields = table_fields(signature, manifest)
    fields[0]   # {"input": "Age", "control": "number", "example": "29", "hint": "0.42 to 80", …}

What the columns are and what their values were comes from the manifest
(`data.schema`, `data.statistics`); without it, as for a model that others
exported, the fields follow from the signature alone. The example is a typical
row: of each number the median, of each category the most frequent value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerastrain.data.tables.statistics import iso_date
from kerastrain.serving.servable import Signature

DATE_HINT = "2011-01-31 or 2011-01-31T13:00:00"
# What a field may not leave empty: only float32 (NaN) and string ("") have a missing value.
_EMPTY_IS_MISSING = ("float16", "bfloat16", "float32", "float64", "string")


def table_fields(signature: Signature, manifest: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The fields in the order of the table's columns, or else of the signature.

    Args:
        signature: has `inputs`, {name: TensorInfo}, each of shape [batch].
        manifest: of the version, if it has one.

    Returns:
        For each input

            input, label            its name in requests and in the file
            dtype                   of the signature
            control                 "number", "choice" (one of `options`), "text"
            example                 what is filled in; "" leaves it missing
            may_be_missing          whether the field may stay empty
            hint                    for people: range or form of the values; may be ""
            minimum, maximum        numbers in training; None when unknown
            options                 [value, what is shown] pairs, the most frequent first
    """
    columns = _columns(manifest)
    order = [*columns, *(name for name in signature.inputs if name not in columns)]
    return [
        _field(name, signature.inputs[name].dtype.name, *columns.get(name, ({}, {})))
        for name in order
        if name in signature.inputs
    ]


def _columns(manifest: Mapping[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """Input name -> (the column of the schema, its statistics)."""
    data = (manifest or {}).get("data") or {}
    columns = (data.get("schema") or {}).get("columns") or []
    recorded = (data.get("statistics") or {}).get("columns") or {}
    return {column["input"]: (column, recorded.get(column["name"]) or {}) for column in columns}


def _field(
    name: str, dtype: str, column: Mapping[str, Any], recorded: Mapping[str, Any]
) -> dict[str, Any]:
    field = {
        "input": name,
        "label": column.get("name", name),
        "dtype": dtype,
        "may_be_missing": dtype in _EMPTY_IS_MISSING,
        **{"minimum": None, "maximum": None, "options": [], "hint": ""},
    }
    kind = column.get("kind") or ("boolean" if dtype == "bool" else "")
    if kind == "boolean":
        return field | _yes_or_no(dtype, recorded)
    if kind == "date":
        return field | _date(recorded)
    if kind == "category":
        return field | _category(dtype, recorded)
    if dtype == "string":
        return field | {"control": "text", "example": ""}
    return field | _number(dtype, recorded)


def _number(dtype: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"control": "number", "example": "0"}
    if _is_finite(recorded.get("min")) and _is_finite(recorded.get("max")):
        low, high = (_number_text(recorded[end], dtype) for end in ("min", "max"))
        found |= {"minimum": float(low), "maximum": float(high), "hint": f"{low} to {high}"}
        found["example"] = _number_text(_median(recorded), dtype)
    return found


def _date(recorded: Mapping[str, Any]) -> dict[str, Any]:
    found = {"control": "text", "example": "", "hint": DATE_HINT}
    if _is_finite(recorded.get("min")) and _is_finite(recorded.get("max")):
        low, high = iso_date(recorded["min"]), iso_date(recorded["max"])
        found |= {"example": iso_date(_median(recorded)), "hint": f"{low} to {high}"}
    return found


def _category(dtype: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """One of the values when all are known; else any, and the frequent ones are proposed."""
    values = [_value_text(value, dtype) for value in recorded.get("values") or []]
    found = {
        "control": "number" if dtype != "string" else "text",
        "example": values[0] if values else "" if dtype == "string" else "0",
        "options": [[value, value] for value in values],
    }
    if values and recorded.get("distinct") == len(values):
        return found | {"control": "choice"}
    if values:
        found["hint"] = f"{recorded.get('distinct', 'many')} values in training"
    return found


def _yes_or_no(dtype: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    yes, no = ("true", "false") if dtype == "bool" else ("1", "0")
    counted = recorded.get("values") or [0]
    return {
        "control": "choice",
        "options": [[yes, "yes"], [no, "no"]],
        "example": yes if counted[0] else no,
    }


def _median(recorded: Mapping[str, Any]) -> float:
    """The border between deciles with half of the present rows below it; a value that occurs."""
    edges, shares = recorded.get("edges") or [], recorded.get("shares") or []
    half = sum(shares) / 2
    borders = [*edges, recorded["max"]]
    below = np.cumsum(shares[: len(borders)])
    # Shares are sums of divisions: the fifth decile may be counted as 0.4999…
    place = int(np.searchsorted(below, half - 1e-9))
    return float(borders[min(place, len(borders) - 1)])


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _value_text(value: Any, dtype: str) -> str:
    return value if isinstance(value, str) else _number_text(value, dtype)


def _number_text(value: float, dtype: str) -> str:
    """As JSON has it, without what float32 adds: 0.42 and not 0.41999998688697815."""
    if "int" in dtype:
        return str(int(value))
    text = str(np.float32(value)) if dtype == "float32" else repr(float(value))
    return text.removesuffix(".0")
