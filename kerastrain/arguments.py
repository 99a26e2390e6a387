"""What an argument of a name may be: in words, and as a question.

SHARE.check("cosine", "end", 2)     # "cosine has end=2; expected a number from 0 to 1."
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from kerastrain.errors import ArgumentError


@dataclass(frozen=True)
class Expected:
    """A kind of value."""

    words: str
    fits: Callable[[Any], bool]

    def check(self, owner: str, name: str, value: Any) -> None:
        """Raises ArgumentError unless the value fits."""
        if not self.fits(value):
            message = f"{owner} has {name}={value!r}; expected {self.words}."
            raise ArgumentError(message, argument=name)


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    return -math.inf < value < math.inf  # type: ignore[operator]


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _rises(points: Any, is_point: Callable[[Any], bool]) -> bool:
    is_list = isinstance(points, (list, tuple)) and len(points) > 0
    return is_list and all(map(is_point, points)) and sorted(set(points)) == list(points)


NUMBER = Expected("a finite number", is_number)
POSITIVE = Expected("a number above 0", lambda v: is_number(v) and v > 0)
NOT_NEGATIVE = Expected("a finite number of at least 0", lambda v: is_number(v) and v >= 0)
COUNT = Expected("a whole number of at least 1", lambda v: _is_whole(v) and v >= 1)
AT_LEAST_2 = Expected("a whole number of at least 2", lambda v: _is_whole(v) and v >= 2)
COUNT_OR_0 = Expected("a whole number of at least 0", lambda v: _is_whole(v) and v >= 0)
SHARE = Expected("a number from 0 to 1", lambda v: is_number(v) and 0 <= v <= 1)
SHARE_BELOW_1 = Expected("a number from 0 to below 1", lambda v: is_number(v) and 0 <= v < 1)
FACTOR = Expected("a number above 0, at most 1", lambda v: is_number(v) and 0 < v <= 1)
FACTOR_BELOW_1 = Expected("a number above 0 and below 1", lambda v: is_number(v) and 0 < v < 1)
TRUTH = Expected("True or False", lambda v: isinstance(v, bool))
TEXT = Expected("a text", lambda v: isinstance(v, str))
TEXTS = Expected(
    "a list of texts",
    lambda v: isinstance(v, list) and all(isinstance(each, str) for each in v),
)
RISING = Expected(
    "a list of rising numbers above 0, as in [30, 60]", lambda v: _rises(v, POSITIVE.fits)
)
RISING_COUNTS = Expected(
    "a list of rising whole numbers of at least 1, as in [500, 1000]",
    lambda v: _rises(v, COUNT.fits),
)
