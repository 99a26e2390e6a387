"""The variables that belong to a model: Keras's own, and those that it does not track.

    for path, variable in kept_variables(model):     # raw tf.Variables
        best[path] = variable.numpy()

Keras tracks what layers make by `add_weight`. A `tf.Variable` in a layer's attribute, in an
object that a layer holds, or in the closure or the globals of a function that it calls is part
of what the model answers all the same, so it is kept, restored and exported with the weights.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

# Packages whose own objects and functions hold nothing of the user's.
FOREIGN = {"tensorflow", "keras", "numpy", "absl", "kerastrain", "pandas", "pyarrow"}
FOREIGN |= sys.stdlib_module_names - {"__main__"}
# Of Keras's own, what may hold something of the user's.
OPEN = (keras.layers.Layer, keras.metrics.Metric, keras.losses.Loss, tf.Module)
# Methods by which a model answers and is judged; a function of the user's may be among them.
ASKED_BY = ("call", "compute_loss", "test_step")


def kept_variables(model: keras.Model) -> list[tuple[str, tf.Variable]]:
    """Return (path, raw variable) of the model's weights and of what Keras does not track."""
    return [*((v.path, v.value) for v in model.weights), *untracked_variables(model)]


def untracked_variables(model: keras.Model) -> list[tuple[str, tf.Variable]]:
    """Return (path, raw variable) of what belongs to the model although Keras does not know it."""
    found: list[tuple[str, tf.Variable]] = []
    tracked = {id(v.value) for v in [*model.variables, *model.metrics_variables]}
    seen: dict[int, Any] = {}  # With the objects, so that no other gets the number of one.
    # Not by recursion: a chain of objects may be longer than Python's stack.
    waiting: list[tuple[str, Any]] = [(model.name, model)]
    while waiting:
        path, value = waiting.pop()
        raw = value.value if isinstance(value, keras.Variable) else value
        if id(raw) in seen:
            continue
        seen[id(raw)] = raw
        if not isinstance(raw, tf.Variable):
            waiting += reversed([(f"{path}/{part}", item) for part, item in _parts(raw)])
        elif id(raw) not in tracked:
            found.append((path, raw))
    return found


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (name, object) of what a value holds and may hold variables in."""
    if isinstance(value, Mapping):
        yield from list(value.items())
    elif isinstance(value, (list, tuple)):
        yield from enumerate(list(value))
    elif isinstance(value, types.FunctionType):
        yield from read_by(value)
    elif isinstance(value, types.MethodType):
        yield from [("self", value.__self__), ("call", value.__func__)]
    elif hasattr(value, "python_function"):  # A tf.function.
        yield "call", value.python_function
    elif isinstance(value, functools.partial):
        yield from [("call", value.func), ("args", value.args), ("keywords", value.keywords)]
    elif _is_looked_into(value):
        held = [*getattr(value, "__dict__", {}).items(), *_slots(value)]
        yield from (part for part in held if not _is_bookkeeping(value, *part))
        if isinstance(value, keras.layers.Layer):
            yield from ((n, getattr(type(value), n)) for n in ASKED_BY if hasattr(value, n))


def _slots(value: Any) -> Iterator[tuple[str, Any]]:
    for kind in type(value).__mro__:
        names = vars(kind).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(value, name):
                yield name, getattr(value, name)


def _is_looked_into(value: Any) -> bool:
    if isinstance(value, (type, types.ModuleType, keras.Optimizer)):
        return False
    is_open = isinstance(value, (*OPEN, types.SimpleNamespace))
    return is_open or not _is_foreign(type(value).__module__)


def _is_bookkeeping(holder: Any, name: str, value: Any) -> bool:
    """Whether an attribute is TensorFlow's list of the others, or what a metric has counted."""
    counted = name == "_variables" or isinstance(value, keras.Variable)
    return name.startswith("_self_") or (isinstance(holder, keras.metrics.Metric) and counted)


def _is_foreign(module: str | None) -> bool:
    return (module or "").partition(".")[0] in FOREIGN


def read_by(function: types.FunctionType) -> Iterator[tuple[Any, Any]]:
    """Yield (name, value) of what a function of the user's reads besides its arguments."""
    if _is_foreign(function.__module__):
        return
    code, found = function.__code__, []
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # Not bound yet: it is still being defined.
            found.append((name, cell.cell_contents))
    names = dict.fromkeys(names_read(code))
    for name, value in [*found, *((name, function.__globals__.get(name)) for name in names)]:
        if not isinstance(value, types.ModuleType):
            yield name, value
        elif not _is_foreign(value.__name__):
            # `settings.scale`: of a module only what the function names.
            yield from ((part, vars(value)[part]) for part in names if part in vars(value))
    yield from enumerate(function.__defaults__ or ())


def names_read(code: types.CodeType) -> list[str]:
    """Return the global names and attributes that code reads, nested functions included."""
    nested = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [*code.co_names, *(name for inner in nested for name in names_read(inner))]
