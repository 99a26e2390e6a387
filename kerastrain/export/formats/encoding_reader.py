"""Encodes raw rows by preprocessing.json alone, in NumPy: what a client of its own would do.

    content = json.load(open("preprocessing.json"))
    arrays = encode(content, {"age": [39.0, nan], "job": ["clerk", ""]})
    arrays["numbers"], arrays["categories"]      # float32 [n, k], int32 [n, c]

A published preprocessing.json was compared with its encoder by this reader. It can be copied:
it needs NumPy, and SciPy only for numbers that are scaled by quantiles.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)([T ](\d\d):(\d\d)(:(\d\d)(\..*)?)?)?", re.ASCII | re.DOTALL
)
_EPOCH = datetime.date(1970, 1, 1)


def encode(content: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The network's arrays for rows {input: values [n]}; a name without columns is left out."""
    arrays: dict[str, np.ndarray] = {}
    if content["numbers"]:
        columns = [_number(one, rows[one["column"]]) for one in content["numbers"]]
        arrays["numbers"] = np.stack(columns, -1).astype(np.float32)
    if content["categories"]:
        indices = [_category(one, rows[one["column"]]) for one in content["categories"]]
        arrays["categories"] = np.array(indices, np.int32).T
    return arrays


def _number(one: Mapping[str, Any], values: Any) -> np.ndarray:
    if one["kind"] == "date":
        return _date_part(one, values)
    x = np.asarray(values, np.float32)
    is_there = np.isfinite(x)
    if one["kind"] == "is missing":
        return ~is_there
    x = np.where(is_there, x, np.float32(0))
    if one["kind"] == "number":
        x = _scaled(one, x)
    return np.where(is_there, x, np.float32(0))


def _scaled(one: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    if one["scaling"] == "quantiles":
        return _normal(one, x)
    z = (x - np.float32(one["mean"])) * np.float32(one["factor"])
    z = np.clip(z, np.float32(-1e6), np.float32(1e6))
    return z / np.sqrt(1 + np.square(z * np.float32(1 / one["squash"])))


def _normal(one: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    if len(one["edges"]) < 2:
        return np.zeros_like(x)
    from scipy.special import erfinv

    share = np.interp(x, one["edges"], one["shares"])
    share = np.clip(share, one["margin"], 1 - one["margin"])
    return math.sqrt(2) * erfinv(2 * share - 1)


def _category(one: Mapping[str, Any], values: Any) -> list[int]:
    places = {value: place for place, value in enumerate(one["vocabulary"], one["first"])}
    return [places.get(_value(value), one["unknown"]) for value in np.asarray(values).tolist()]


def _value(value: Any) -> Any:
    """A text, or a whole number as Python's int; other numbers are no codes."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value.decode() if isinstance(value, bytes) else value


def _date_part(one: Mapping[str, Any], values: Any) -> np.ndarray:
    parsed = [_days(text) for text in np.asarray(values).tolist()]
    if one["part"] == "missing":
        return np.array([day is None for day in parsed])
    shares = np.array([_part(one["part"], day) if day else 0.0 for day in parsed], np.float32)
    if one["part"] == "days":
        shares = _scaled(one, shares)
    return np.where([day is None for day in parsed], np.float32(0), shares)


def _days(value: str | bytes) -> tuple[datetime.date, float] | None:
    """The day and the share of it that has passed; None for what is no date."""
    text = value.decode() if isinstance(value, bytes) else value
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[i] or 0) for i in (1, 2, 3, 5, 6, 8))
    if hour > 23 or minute > 59 or second > 59:
        return None
    try:
        return datetime.date(year, month, day), (hour * 3600 + minute * 60 + second) / 86_400
    except ValueError:  # the 30th of February
        return None


def _part(part: str, day: tuple[datetime.date, float]) -> float:
    date, of_day = day
    days = (date - _EPOCH).days
    if part == "days":
        return days + of_day
    shares: Sequence[tuple[str, float]] = (
        ("day of year", ((date.month - 1) * 31 + date.day - 1) / 372),
        ("weekday", (days + 3) % 7 / 7),
        ("time of day", of_day),
    )
    name, _, wave = part.rpartition(" ")
    angle = 2 * math.pi * dict(shares)[name]
    return math.sin(angle) if wave == "(sin)" else math.cos(angle)
