"""What callbacks are set to, which may not differ between the starts of a run.

    recorded = callback_settings(callbacks)             # {"0 Patience": {"patience": "3"}}
    setting_differences(recorded, callbacks)            # ["callback 0 Patience: patience: …"]
    as_made(callback)["wait"].text                      # what `progress` compares with

Settings are the attributes as they stand after the constructor. Functions are compared by their
name and code, without what they refer to; arrays by their content.
"""

from __future__ import annotations

import collections
import dis
import functools
import hashlib
import json
import logging
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kerastrain.training.identity import describe_code
from kerastrain.training.kept_values import Unkept, encode
from kerastrain.training.kept_variables import names_read

logger = logging.getLogger(__name__)

# Nothing that is learned: what Keras's base class sets, and how much is shown.
NO_SETTINGS = {"params", "_model", "verbose"}
# What may differ from start to start: a path, the name of a file, a date, an id, a clock's time.
OF_ONE_START = re.compile(
    r'^(".*([/\\]|\d{4}-\d\d|\d{6}|0x|[0-9a-f]{8}|\.\w{1,8}"$)|\d{3,}\.\d{4,}$)'
)
# Names in the code of a callback that acts on the training.
ACTING = frozenset(
    ("stop_training", "learning_rate", "lr", "trainable", "compile", "set_weights")
    + ("load_weights", "set_value", "assign", "assign_add", "assign_sub", "apply")
)
# Arrays that a callback was made with are copied up to this size, to be brought back if need be.
COPIED_BYTES = 1 << 26
# Where a callback has what it was when it was first seen: one object may be in several runs.
MADE = "_kerastrain_made"


def callback_settings(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, Any]:
    """{"0 Patience": {"acts": True, "patience": "3", …}, …}: what every callback was set to.

    "acts": whether it acts on the training; settings are texts.
    """
    return {
        # Whether there is an EarlyStopping of this package is an option, when to stop.
        name: {
            "acts": _acts_on_training(callback) and not _is_ours(callback),
            **_settings(callback),
        }
        for name, callback in named_callbacks(callbacks)
    }


def setting_differences(
    recorded: Mapping[str, Mapping[str, Any]], callbacks: Sequence[keras.callbacks.Callback]
) -> list[str]:
    """Lines "callback 0 Patience: patience: 3 recorded, 5 now", or of one that came or went.

    No difference, but told: what `OF_ONE_START` matches, and whatever a callback has that does
    not act on the training.
    """
    acting = {name for name, each in callback_settings(callbacks).items() if each["acts"]}
    recorded_acting = {name for name, each in recorded.items() if each["acts"]}
    differences = [f"callback {name}: is gone" for name in sorted(recorded_acting - acting)]
    differences += [f"callback {name}: is new" for name in sorted(acting - recorded_acting)]
    for name, callback in named_callbacks(callbacks):
        before, now = recorded.get(name, {}), _settings(callback)
        for attribute in (a for a in now if a in before and before[a] != now[a]):
            line = f"{attribute}: {before[attribute]} recorded, {now[attribute]} now"
            if OF_ONE_START.match(before[attribute]) and OF_ONE_START.match(now[attribute]):
                logger.info("The callback %s was made otherwise: %s.", name, line)
            elif not _acts_on_training(callback):
                logger.warning("The callback %s was made otherwise: %s.", name, line)
            else:
                differences.append(f"callback {name}: {line}")
    return differences


def _acts_on_training(callback: keras.callbacks.Callback) -> bool:
    """Whether its code names what changes a model or an optimizer, or ends the training."""
    kinds = [k for k in type(callback).__mro__ if k not in (keras.callbacks.Callback, object)]
    members = [*vars(callback).values(), *(m for kind in kinds for m in vars(kind).values())]
    functions = [member for member in members if isinstance(member, types.FunctionType)]
    return any(not ACTING.isdisjoint(names_read(each.__code__)) for each in functions)


def _is_ours(callback: keras.callbacks.Callback) -> bool:
    return any(base.__module__.startswith("kerastrain.") for base in type(callback).__mro__)


def _settings(callback: keras.callbacks.Callback) -> dict[str, str]:
    kind: Any = type(callback)
    # When to stop is an option, and is compared there.
    left_out = NO_SETTINGS | (set_by_libraries(kind) if _is_ours(callback) else set())
    return {
        name: _short(each.text)
        for name, each in as_made(callback).items()
        if name in vars(callback) and name not in left_out and each.unkept in ("", "function")
    }


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# What a callback is made of.


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
    except RecursionError:
        return Seen("itself", unkept=f"{type(value).__name__} that holds itself")
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
def set_by_libraries(kind: Any) -> frozenset[str]:
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
