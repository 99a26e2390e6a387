"""Dates as text, to parts, by Keras's own layers.

    parts = date_parts(texts, name="sold")      # strings [batch] -> float32 [batch, 8]

ISO 8601 is read: "2011-01-31", "2011-01-31T13:00:00", also with a space for the T, without
seconds or with parts of one. Texts cannot be taken apart by Keras's operations, but its
TextVectorization can number their characters; digits are then numbers.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

PARTS = (
    "days",
    "day of year (sin)",
    "day of year (cos)",
    "weekday (sin)",
    "weekday (cos)",
    "time of day (sin)",
    "time of day (cos)",
    "missing",
)
# Position of the digits in "2011-01-31T13:00:00".
_DIGITS = {"year": (0, 1, 2, 3), "month": (5, 6), "day": (8, 9), "hour": (11, 12)}
_DIGITS |= {"minute": (14, 15), "second": (17, 18)}
# One more than "2011-01-31T13:00:00" has: parts of a second may follow, a zone may not.
_LENGTH = 20
_CHARACTERS = "0123456789-T :."
# TextVectorization numbers: 0 no character, 1 unknown, then its vocabulary. From 0 for "0" on:
_NOTHING = -2
# Days from the civil calendar's own origin to 1970-01-01.
_EPOCH = 719_468


def date_parts(texts: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    """float32 [batch, len(PARTS)]; zeros and "missing" 1 for a text that is no date in ISO 8601.

    Args:
        texts: string [batch].

    Days are counted from 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date
    Algorithms", days_from_civil); the others are the sine and cosine of the share of the
    year, week and day that has passed, so that December is near January.
    """
    characters = keras.layers.TextVectorization(
        standardize=None,
        split="character",
        vocabulary=list(_CHARACTERS),
        output_mode="int",
        output_sequence_length=_LENGTH,
        name=f"{name}_characters",
    )(texts)
    digits = ops.cast(characters, "int32") + _NOTHING
    year, month, day, hour, minute, second = (_number(digits, at) for at in _DIGITS.values())
    days = _days(year, month, day)
    has_time, has_second = _is(digits, 10, "T "), _is(digits, 16, ":")
    is_date = _is_day(digits, year, month, day)
    is_date &= ops.where(has_time, _is_time(digits, hour, minute, second), _ends(digits, 10))
    seconds = hour * 3600 + minute * 60 + ops.where(has_second, second, 0)
    of_year = (ops.cast((month - 1) * 31 + day - 1, "float32")) / 372.0
    of_week = ops.cast(ops.mod(days + 3, 7), "float32") / 7.0
    of_day = ops.where(has_time, ops.cast(seconds, "float32") / 86_400.0, 0.0)
    whole = ops.cast(days, "float32") + of_day
    waves = [wave(2 * math.pi * share) for share in (of_year, of_week, of_day) for wave in _WAVES]
    parts = ops.stack([whole, *waves], axis=-1)
    known = ops.cast(is_date, "float32")[:, None]
    return ops.concatenate([ops.where(known > 0, parts, 0.0), 1.0 - known], axis=-1)


_WAVES = (ops.sin, ops.cos)


def _number(digits: keras.KerasTensor, places: tuple[int, ...]) -> keras.KerasTensor:
    chosen = ops.take(digits, np.array(places, np.int32), axis=1)
    powers = 10 ** np.arange(len(places) - 1, -1, -1, dtype=np.int32)
    return ops.sum(chosen * powers, axis=1)


def _are_digits(digits: keras.KerasTensor, *parts: str) -> keras.KerasTensor:
    places = [place for part in parts for place in _DIGITS[part]]
    chosen = ops.take(digits, np.array(places, np.int32), axis=1)
    return ops.all((chosen >= 0) & (chosen <= 9), axis=1)


def _is(digits: keras.KerasTensor, place: int, characters: str) -> keras.KerasTensor:
    """Whether one of these characters stands there."""
    allowed = np.array([_CHARACTERS.index(one) for one in characters], np.int32)
    return ops.any(ops.equal(digits[:, place : place + 1], allowed), axis=1)


def _ends(digits: keras.KerasTensor, place: int) -> keras.KerasTensor:
    return ops.equal(digits[:, place], _NOTHING)


def _is_day(
    digits: keras.KerasTensor,
    year: keras.KerasTensor,
    month: keras.KerasTensor,
    day: keras.KerasTensor,
) -> keras.KerasTensor:
    is_december = ops.cast(month >= 12, "int32")
    next_month = _days(year + is_december, month + 1 - 12 * is_december, 1)
    is_formed = _are_digits(digits, "year", "month", "day")
    is_formed &= _is(digits, 4, "-") & _is(digits, 7, "-")
    is_month = (month >= 1) & (month <= 12)
    return is_formed & is_month & (day >= 1) & (day <= next_month - _days(year, month, 1))


def _is_time(
    digits: keras.KerasTensor,
    hour: keras.KerasTensor,
    minute: keras.KerasTensor,
    second: keras.KerasTensor,
) -> keras.KerasTensor:
    is_minute = _are_digits(digits, "hour", "minute") & _is(digits, 13, ":")
    is_second = _is(digits, 16, ":") & _are_digits(digits, "second") & (second <= 59)
    is_second &= _ends(digits, 19) | _is(digits, 19, ".")
    return is_minute & (hour <= 23) & (minute <= 59) & (_ends(digits, 16) | is_second)


def _days(
    year: keras.KerasTensor, month: keras.KerasTensor, day: keras.KerasTensor | int
) -> keras.KerasTensor:
    """Days since 1970-01-01 in the proleptic Gregorian calendar, int32 [batch]."""
    # Years begin in March, so that the leap day is the last one.
    year = year - ops.cast(month <= 2, "int32")
    era = ops.floor_divide(year, 400)
    of_era = year - era * 400
    of_year = ops.floor_divide(153 * ops.mod(month + 9, 12) + 2, 5) + day - 1
    days = of_era * 365 + ops.floor_divide(of_era, 4) - ops.floor_divide(of_era, 100) + of_year
    return era * 146_097 + days - _EPOCH
