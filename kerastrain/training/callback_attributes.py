"""What a callback's attributes are: as values that can be kept, and as it was made.

made = as_made(callback)            # when it was first seen, after its constructor
now = seen(attributes(callback))
now["wait"].kept, now["wait"].text == made["wait"].text
"""

from __future__ import annotations

import collections
import dis
import functools
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kerastrain.training.identity import describe_code
from kerastrain.training.kept_values import Unkept, encode

# Arrays that a callback was made with are copied up to this size, to be brought back if need be.
COPIED_BYTES = 1 << 26
# Where a callback has what it was when it was first seen: one object may be in several runs.
MADE = "_kerastrain_made"


@dataclass(frozen=True)
class Seen:
    """An attribute at one moment.

    Attributes:
        text: by which two moments are compared: NaN is not equal to itself.
        kept: as JSON values; None of what cannot be kept, too.
        unkept: what it is, if it cannot be kept: a function, or its class.
        arrays: {sha256: array}, those that `kept` refers to.
    """

    text: str
    kept: Any = None
    unkept: str = ""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def seen(attributes: Mapping[str, Any]) -> dict[str, Seen]:
    """Attributes as they are now."""
    return {name: _seen(value) for name, value in attributes.items()}


def _seen(value: Any) -> Seen:
    function = _function_text(value)
    if function is not None:
        return Seen(function, unkept="function")
    arrays: dict[str, np.ndarray] = {}
    try:
        kept = encode(value, arrays)
    except Unkept as error:
        return Seen(str(error), unkept=str(error))
    return Seen(json.dumps(kept), kept, arrays=arrays)


def named_callbacks(
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[tuple[str, keras.callbacks.Callback]]:
    """Each with its class and its number in that: one more of another kind changes no name."""
    counts: collections.Counter[str] = collections.Counter()
    named = []
    for callback in callbacks:
        kind = type(callback).__name__
        named.append((f"{counts[kind]} {kind}", callback))
        counts[kind] += 1
    return named


def as_made(callback: keras.callbacks.Callback) -> dict[str, Seen]:
    """What a callback was when it was first seen; arrays are copies, or left out."""
    if MADE not in vars(callback):
        made = seen(attributes(callback))
        for each in made.values():
            small = {n: a.copy() for n, a in each.arrays.items() if a.nbytes <= COPIED_BYTES}
            each.arrays.clear()
            each.arrays.update(small)
        vars(callback)[MADE] = made
    return vars(callback)[MADE]


def attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A callback's own, and what its class holds for it: a list that every instance adds to."""
    shared = {
        name: value
        for kind in reversed(type(callback).__mro__)
        if not is_library(kind)
        for name, value in vars(kind).items()
        if isinstance(value, (list, dict, set, np.ndarray)) and not name.startswith("__")
    }
    return {**shared, **{n: v for n, v in vars(callback).items() if n != MADE}}


def is_library(kind: type) -> bool:
    return kind is object or kind.__module__.partition(".")[0] in ("keras", "kerastrain")


@functools.cache
def set_by_libraries(kind: type) -> frozenset[str]:
    """Names of the attributes that Keras's classes, or this package's, set among its bases."""
    members = [m for base in kind.__mro__ if is_library(base) for m in vars(base).values()]
    return frozenset(
        step.argval
        for member in members
        if isinstance(member, types.FunctionType)
        for step in dis.get_instructions(member)
        if step.opname == "STORE_ATTR"
    )


def _function_text(value: Any) -> str | None:
    """ "halve (code 3f2a…)"; by its name where the code is not Python's; None for no function."""
    value = getattr(value, "__func__", value)
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} (code {describe_code(value.__code__)})"
    if isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
        return f"{value.__name__} (function)"
    return None
