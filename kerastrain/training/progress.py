"""What callbacks remember, kept in the checkpoint.

    state.host["callbacks"] = callback_progress(callbacks)
    restore_progress(callbacks, state.host["callbacks"])     # after on_train_begin

A callback with `get_state()` and `set_state(values)` says itself what must survive
(JSON values). Of any other (Keras's ReduceLROnPlateau, a user's own) the plain
attributes are kept (numbers, strings, truth values, None), except those named like an
argument of its constructor: they are settings, and Keras changes the sign of some.
"""

from __future__ import annotations

import collections
import inspect
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

# Of callbacks that have been in a run already, how they were before it: one object may be in a
# run that is started again by the same program, or rolls back.
_pristine: weakref.WeakKeyDictionary[keras.callbacks.Callback, dict[str, Any]] = (
    weakref.WeakKeyDictionary()
)


def pristine_progress(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, Any]:
    """`callback_progress` of the callbacks as they were before their first run."""
    for callback in callbacks:
        if callback not in _pristine:
            _pristine[callback] = _state(callback)
    return {name: _pristine[callback] for name, callback in _named(callbacks)}


def callback_progress(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, Any]:
    """{"0 EarlyStopping": {...}, …}: the state of every callback that has one."""
    states = {name: _state(callback) for name, callback in _named(callbacks)}
    return {name: state for name, state in states.items() if state}


def restore_progress(
    callbacks: Sequence[keras.callbacks.Callback],
    recorded: Mapping[str, Any],
    *,
    before: Mapping[str, Any],
) -> None:
    """Gives every callback back what `callback_progress` kept of it.

    Args:
        before: `pristine_progress`, taken before `on_train_begin`. An attribute that
            `on_train_begin` has changed says something of this start (CSVLogger's, whether
            its file is there already) and stays.
    """
    now = callback_progress(callbacks)
    for name, callback in _named(callbacks):
        state = recorded.get(name)
        if state is None:
            continue
        if hasattr(callback, "set_state"):
            callback.set_state(state)
        else:
            for attribute, value in state.items():
                is_of_this_start = _value(before, name, attribute) != _value(now, name, attribute)
                if not is_of_this_start:
                    setattr(callback, attribute, value)


def _value(progress: Mapping[str, Any], name: str, attribute: str) -> Any:
    return progress.get(name, {}).get(attribute)


def _named(
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


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    if hasattr(callback, "get_state"):
        return callback.get_state()
    if getattr(callback, "per_chunk", False):
        return {}  # Displays and logs of this package derive everything from the run.
    settings = _constructor_arguments(type(callback))
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in vars(callback).items()
        if name not in settings
        and (value is None or isinstance(value, (bool, int, float, str, np.generic)))
    }


def _constructor_arguments(kind: type) -> set[str]:
    return {
        name
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for name in inspect.signature(vars(base)["__init__"]).parameters
    }
