"""Whether a format answers as the live model does, and how far it is from it.

    found = compare(received, expected, limits=None, tolerance=1e-5)
    found.error, found.agreement, found.problems

Without limits of its own a format must give the same answers (`kerastrain.export.comparison`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerastrain.export.comparison import difference, ties
from kerastrain.export.formats.catalog import Limits

# What is reported of several answers; else the one with the largest error.
MAIN = ("probabilities", "logits", "prediction")
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Compared:
    """What was found.

    Attributes:
        error_of: the answer that `error` is of.
        error: its largest absolute difference from the live model's; NaN when it has none.
        agreement: share of the rows with the live model's label; None without classes.
        problems: why the format is not published; empty when nothing is wrong.
    """

    error_of: str
    error: float
    agreement: float | None
    problems: tuple[str, ...]


def compare(
    received: Arrays, expected: Arrays, *, limits: Limits | None, tolerance: float
) -> Compared:
    """Compares named answers [n, ...] with the live model's."""
    odd = sorted(set(received) ^ set(expected))
    if odd:
        text = f"its answers are {', '.join(received)}; expected {', '.join(expected)}"
        return Compared("", float("nan"), None, (text,))
    shapes = [
        f"'{name}' has shape {received[name].shape}; expected {values.shape}"
        for name, values in expected.items()
        if received[name].shape != values.shape
    ]
    if shapes:
        return Compared("", float("nan"), None, tuple(shapes))
    errors = {name: _error(received[name], values) for name, values in expected.items()}
    main = next((name for name in MAIN if name in errors), max(errors, key=lambda n: errors[n]))
    agreement = _agreement(received, expected, tolerance)
    if limits is None:
        problems = _differences(received, expected, tolerance, agreement)
    else:
        problems = _beyond(limits, errors, expected, agreement)
    return Compared(main, errors[main], agreement, tuple(problems))


def _error(received: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; infinite for what is no finite number."""
    apart = np.abs(received.astype(np.float64) - expected.astype(np.float64))
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")


def _agreement(received: Arrays, expected: Arrays, tolerance: float) -> float | None:
    """Of the rows whose label is not a matter of rounding."""
    name = next((name for name in ("probabilities", "logits") if name in expected), None)
    if name is None:
        return None
    same = _labels(received[name], name) == _labels(expected[name], name)
    close_calls = ties(expected, tolerance)
    return float(np.mean(same if close_calls is None else same | close_calls))


def _labels(values: np.ndarray, name: str) -> np.ndarray:
    if values.ndim == 1 or values.shape[-1] == 1:  # one unit: the second class's
        return values.reshape(len(values)) > (0.5 if name == "probabilities" else 0.0)
    return values.argmax(-1)


def _differences(
    received: Arrays, expected: Arrays, tolerance: float, agreement: float | None
) -> list[str]:
    problems = []
    for name, values in expected.items():
        problems += difference(name, values, received[name], tolerance)
    if agreement is not None and agreement < 1 and not problems:
        problems.append(f"{1 - agreement:.1%} of the labels differ from the live model's.")
    return problems


def _beyond(
    limits: Limits, errors: Mapping[str, float], expected: Arrays, agreement: float | None
) -> list[str]:
    problems = []
    if agreement is not None and agreement < limits.agreement:
        problems.append(
            f"{agreement:.1%} of the labels are the live model's; expected at least "
            f"{limits.agreement:.0%}."
        )
    for name, error in errors.items():
        if name == "logits":
            continue
        allowed = limits.probability
        if name != "probabilities":
            allowed = limits.share * (float(np.ptp(expected[name])) or 1.0)
        if not error <= allowed:
            problems.append(f"'{name}' differs by up to {error:.3g}; allowed is {allowed:.3g}.")
    return problems
