"""What a callback's attributes are: as values that can be kept, and as it was made.

made = as_made(callback)            # when it was first seen, after its constructor
now = Seen.of(attributes(callback))
now.kept["wait"], now.text("wait") == made.text("wait")
"""

from __future__ import annotations

import collections
import dis
import hashlib
import itertools
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kerastrain.training.kept_values import Unkept, encode

# Arrays that a callback was made with are copied up to this size, to be brought back if need be.
COPIED_BYTES = 1 << 26
# Where a callback has what it was when it was first seen: one object may be in several runs.
MADE = "_kerastrain_made"


@dataclass
class Seen:
    """Attributes at one moment.

    Attributes:
        kept: as JSON values. arrays: {attribute: {sha256: array}}, those they refer to.
        functions: {attribute: its name and the checksum of its code}.
        unkept: {attribute: its class}, of all others.
        by_libraries: names of attributes that Keras's classes set, or this package's.
    """

    kept: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    unkept: dict[str, str] = field(default_factory=dict)
    by_libraries: frozenset[str] = frozenset()

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Seen:
        seen = cls()
        for name, value in attributes.items():
            arrays: dict[str, np.ndarray] = {}
            function = function_text(value)
            if function is not None:
                seen.functions[name] = function
                continue
            try:
                seen.kept[name], seen.arrays[name] = encode(value, arrays), arrays
            except Unkept as error:
                seen.unkept[name] = str(error)
            except RecursionError:
                seen.unkept[name] = f"{type(value).__name__} that holds itself"
        return seen

    def text(self, name: str) -> str | None:
        """By which two values are compared: NaN is not equal to itself."""
        if name in self.kept:
            return json.dumps(self.kept[name])
        return self.functions.get(name) or self.unkept.get(name)


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


def as_made(callback: keras.callbacks.Callback) -> Seen:
    """What a callback was when it was first seen; large arrays are copies, or left out."""
    if MADE not in vars(callback):
        seen, left = Seen.of(attributes(callback)), COPIED_BYTES
        for arrays in seen.arrays.values():
            left -= sum(array.nbytes for array in arrays.values())
            copies = {sha256: array.copy() for sha256, array in arrays.items() if left >= 0}
            arrays.clear()
            arrays.update(copies)
        seen.by_libraries = set_by_libraries(type(callback))
        vars(callback)[MADE] = seen
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


def set_by_libraries(kind: type) -> frozenset[str]:
    """Names of the attributes that Keras's classes, or this package's, set among its bases."""
    codes = [
        member.__code__
        for base in kind.__mro__
        if is_library(base)
        for member in vars(base).values()
        if isinstance(member, types.FunctionType)
    ]
    names = set()
    for code in codes:
        steps = list(dis.get_instructions(code))
        for before, step in itertools.pairwise(steps):
            if step.opname == "STORE_ATTR" and before.argval == "self":
                names.add(step.argval)
    return frozenset(names)


def function_text(value: Any) -> str | None:
    """ "halve (code 3f2a…)"; by its name where the code is not Python's; None for no function."""
    if isinstance(value, types.MethodType):
        value = value.__func__
    if isinstance(value, types.FunctionType):
        return f"{value.__qualname__} (code {_code_checksum(value.__code__)[:16]})"
    if isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
        return f"{value.__name__} (function)"
    return None


def _code_checksum(code: types.CodeType) -> str:
    texts = [_constant_text(constant) for constant in code.co_consts]
    content = repr((code.co_code, code.co_names, texts))
    return hashlib.sha256(content.encode()).hexdigest()


def _constant_text(constant: Any) -> str:
    if isinstance(constant, types.CodeType):
        return _code_checksum(constant)
    # A set has another order in each process.
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)
