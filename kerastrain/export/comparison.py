"""Whether two answers are the same, and where they are not.

    difference("label", expected, received, 1e-5)   # [], or ["'label' differs in 2 of …"]

Tolerances, of the difference |expected - received| <= t * scale + t * |expected|,
where the scale is 1 for probabilities and the largest expected value of any
other output (at least 1 for logits): t = 1e-5, or 5e-2 for a model that
computes in half precision (bfloat16 has a rounding error of 2^-9 an operation,
and a graph rounds at other places than single operations do). Labels and other
integers must agree, except where two classes are as probable within tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

FLOAT32_TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-2


def difference(
    name: str,
    expected: np.ndarray,
    received: np.ndarray,
    tolerance: float,
    close_calls: np.ndarray | None = None,
) -> list[str]:
    """A message when `received` is not `expected`; nothing when it is.

    NaN is expected of what the live model gives anew each time: then nothing is compared.
    """
    if expected.shape != received.shape:
        return [f"'{name}' has shape {received.shape}; expected {expected.shape}."]
    if expected.dtype.kind != "f":
        differs = np.asarray(storable(expected) != storable(received))
        if close_calls is not None and name == "label":
            differs &= ~close_calls
        return [_first_difference(name, expected, received, differs)] if differs.any() else []
    if np.isnan(expected).all():
        return []
    if not np.isfinite(received).all():
        return [f"'{name}' has NaN or infinity."]
    if expected.dtype == np.float64:
        # They are in float64 because they lie close together and far from zero.
        expected, received = expected - expected.mean(), received - expected.mean()
    largest = float(np.abs(expected).max())
    scale = {"probabilities": 1.0, "logits": max(largest, 1.0)}.get(name, largest or 1.0)
    close = np.isclose(received, expected, rtol=tolerance, atol=tolerance * scale)
    if close.all():
        return []
    text = _first_difference(name, expected, received, ~close)
    return [f"{text} Allowed: {tolerance:g} of {scale:.6g}."]


def _first_difference(
    name: str, expected: np.ndarray, received: np.ndarray, differs: np.ndarray
) -> str:
    place = tuple(np.argwhere(differs)[0])
    rows = len(np.unique(np.argwhere(differs)[:, 0]))
    return (
        f"'{name}' differs in {rows} of {len(expected)} rows, first in row {place[0]}: "
        f"expected {expected[place]}, received {received[place]}."
    )


def ties(answers: Mapping[str, np.ndarray], tolerance: float) -> np.ndarray | None:
    """Rows whose two most probable classes are equally probable within tolerance."""
    if "probabilities" not in answers:
        return None
    highest = np.sort(answers["probabilities"], -1)
    # Of NaN, which may be any number, every two are.
    return np.asarray(~(highest[:, -1] - highest[:, -2] > 4 * tolerance))


def storable(array: np.ndarray) -> np.ndarray:
    """Strings as fixed-width UTF-8 bytes; anything else as it is."""
    if array.dtype.kind not in "OUS":
        return array
    encoded = [v.encode() if isinstance(v, str) else v for v in array.reshape(-1).tolist()]
    return np.array(encoded, dtype=bytes).reshape(array.shape)
