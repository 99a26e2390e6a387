"""What a model is, so that a resumed run is known to train the same one.

    recorded = describe_model(model)
    model_differences(recorded, describe_model(other))    # ["optimizer learning_rate: …", …]

The strict match of variables (`checkpoints`) cannot see a dropout rate, a
learning rate or a loss; their configurations can.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import json
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state

from kerastrain.training.kept_variables import FOREIGN, kept_variables, read_by

# So many differences between layers are shown.
SHOWN = 8
# What is given to compile; "loss" stands for "loss_weights", too.
COMPILED = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
# Of a layer with more settings only a digest is recorded.
LARGE = 80
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def describe_model(model: keras.Model) -> dict[str, Any]:
    """What a run's record holds of a model: plain values.

    What cannot be serialised (a class without `get_config`, say) is left out.
    """
    compiled = _serialised(model.get_compile_config) or {}
    config = _serialised(model.get_config)
    layers = model._flatten_layers(include_self=False, recursive=True)
    described = {
        "layers": _digest(config),  # What earlier versions wrote alone.
        "graph": _digest(_without_lambdas(config)),
        "layer_list": [
            {"name": _unnumbered(each.name), "kind": type(each).__name__, **_settings(each)}
            for each in layers
        ],
        "code": _code_of([*map(type, [model, *layers]), model.loss]),
        # By NumPy, since over several replicas it is no plain variable.
        "is_trained": int(model.optimizer.iterations.numpy()) > 0,
    }
    # Not as it was given to compile: "adam" is Adam().
    optimizer = {"class_name": type(model.optimizer).__name__}
    optimizer |= _serialised(model.optimizer.get_config) or {}
    compiled["optimizer"] = optimizer
    for name in COMPILED:
        described.update(_flat(name, _without_lambdas(compiled.get(name))))
    return described


def model_differences(
    recorded: Mapping[str, Any], now: Mapping[str, Any], *, rate_at_end: float | None = None
) -> list[str]:
    """Lines "optimizer learning_rate: 0.01 recorded, 0.5 now" for what both say differently.

    The learning rate of a model that was trained before may be on its way.

    Args:
        rate_at_end: the one that the run left it with, if that is known.
    """
    is_whole, rate = "layer_list" in recorded, "optimizer learning_rate"
    before, after = dict(recorded), dict(now)
    at_end = None if rate_at_end is None else _rounded(rate_at_end)
    if now["is_trained"] and at_end in (None, now.get(rate)):
        before[rate] = after[rate] = None
    if not is_whole:  # By an earlier version: what both say.
        both = {*recorded} & {*now}
        return differing({n: before[n] for n in both}, {n: after[n] for n in both})
    lines = _layer_differences(recorded, now)
    if not lines and recorded["graph"] != now["graph"]:
        lines.append("the layers are the same, but connected otherwise")
    lines += [
        f"{name}: its code, or a value that it uses, was changed"
        for name in recorded["code"].keys() & now["code"].keys()
        if is_other_code(recorded["code"][name], now["code"][name])
    ]
    for part in ("optimizer", "loss", "metrics", "weighted_metrics"):
        kind = f"{part} class_name"
        if before.get(kind) == after.get(kind):
            names = [n for n in {*before, *after} if n.startswith(part)]
        else:
            names = [kind]  # The rest is no news then.
        lines += differing({n: before.get(n) for n in names}, {n: after.get(n) for n in names})
    return lines


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Lines "units: 64 recorded, 32 now" for every name whose values differ."""
    return [
        f"{where}{name}: {recorded.get(name)} recorded, {now.get(name)} now"
        for name in sorted({*recorded, *now})
        if recorded.get(name) != now.get(name)
    ]


def _layer_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Layers are matched by kind and name: one that was put in does not change all that follow."""
    old, new = recorded["layer_list"], now["layer_list"]
    a, b = ([f"{layer['kind']} {layer['name']}" for layer in one] for one in (old, new))
    matcher = difflib.SequenceMatcher(a=a, b=b, autojunk=False)
    lines = []
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        both = min(i_end - i, j_end - j)  # The same, renamed, or of another kind.
        for at in range(both):
            where = f"layer {old[i + at]['name']} ({i + at + 1} of {len(old)}): "
            lines += differing(old[i + at], new[j + at], where)
        gone = [f"layer {e['name']} ({e['kind']}) is gone" for e in old[i + both : i_end]]
        lines += gone + [f"layer {e['name']} ({e['kind']}) is new" for e in new[j + both : j_end]]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def _settings(layer: keras.Layer) -> dict[str, Any]:
    """Of one layer without those in it, which are listed by themselves."""
    config = _without_lambdas(_serialised(layer.get_config) or {})
    if layer._layers:
        config = {n: v for n, v in config.items() if not isinstance(v, (Mapping, list, tuple))}
    flat = {n: v for n, v in _flat("", config).items() if v is not None and n != "name"}
    if len(flat) > LARGE:  # A vocabulary, say.
        return {"settings": _digest(config)}
    return {n: v if isinstance(v, (str, int, float)) else str(v) for n, v in flat.items()}


def _without_lambdas(config: Any) -> Any:
    """Without the code that Keras keeps of a lambda: it holds the line where that stood."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "__lambda__":
            return "a lambda"
        return {name: _without_lambdas(value) for name, value in config.items()}
    return list(map(_without_lambdas, config)) if isinstance(config, (list, tuple)) else config


def _code_of(values: list[Any]) -> dict[str, str]:
    """{name: `describe_code`} of those classes and functions that are no library's."""
    own = [v for v in values if callable(v) and not _is_of_library(v)]
    return {getattr(v, "__qualname__", type(v).__qualname__): describe_code(v) for v in own}


def describe_code(value: Any) -> str:
    """ "3.11 DIGEST": what a function or class does, as far as this Python's compiler shows it.

    Comments and docstrings do not count; what it finds in its closure, its defaults and its
    own module does: plain values, functions and classes.
    """
    digest = hashlib.sha256(_code_text(value, set()).encode()).hexdigest()
    return f"{sys.version_info[0]}.{sys.version_info[1]} {digest[:16]}"


def is_other_code(recorded: str, now: str) -> bool:
    """Whether two `describe_code` differ; those of two versions of Python cannot be compared."""
    return recorded.split()[0] == now.split()[0] and recorded != now


def _is_of_library(value: Any) -> bool:
    """Its code is known by its version; that of a recipe, or of a module of it, by its files."""
    name = str(getattr(value, "__module__", getattr(value, "__name__", "")))
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    package = name.partition(".")[0]
    return package in FOREIGN or package.startswith("kerastrain") or "-packages" in file


def _code_text(value: Any, seen: set[int]) -> str:
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, (set, frozenset)):
        value = sorted(map(repr, value))
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_code_text(each, seen) for each in value)}]"
    if isinstance(value, PLAIN):
        return repr(value)
    is_known = _is_of_library(value) and not isinstance(value, functools.partial)
    if id(value) in seen or is_known:
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    seen.add(id(value))
    parts: list[Any] = [type(value).__qualname__]
    if isinstance(value, types.CodeType):
        first = 1 if value.co_consts and not value.co_name.startswith("<") else 0  # A docstring.
        parts += [value.co_code, value.co_names, value.co_consts[first:]]
    elif isinstance(value, types.FunctionType):
        parts += [value.__code__, value.__defaults__, value.__kwdefaults__, _near(value)]
    elif isinstance(value, functools.partial):
        parts += [value.func, value.args, value.keywords]
    elif isinstance(value, type):
        parts += [v for v in vars(value).values() if isinstance(v, types.FunctionType)]
    elif callable(value):  # A method, or an object with __call__ and its settings.
        attributes = getattr(value, "__dict__", {}).values()
        parts += [getattr(value, "__func__", type(value))]
        parts += [v for v in attributes if isinstance(v, PLAIN)]
    return _code_text(parts, seen)


def _near(function: types.FunctionType) -> list[Any]:
    """What a function finds in its closure, and what else it reads that does not change."""
    fixed, bound = (*PLAIN, tuple, type, types.FunctionType), function.__code__.co_freevars
    return [v for name, v in read_by(function) if name in bound or isinstance(v, fixed)]


def weights_sha256(model: keras.Model) -> str:
    """A hash of all that belongs to a model, by which other weights are noticed."""
    digest = hashlib.sha256()
    for _, variable in kept_variables(model):
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def _serialised(get: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # Keras warns of what it cannot serialise; it is left out then.
            warnings.simplefilter("ignore")
            return keras.saving.serialize_keras_object(get())
    except Exception:  # Whatever a get_config of the user's own raises.
        return None


def _digest(value: Any) -> str:
    text = json.dumps(_flat("", value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """Nested configurations as {"optimizer learning_rate": 0.01}, without what differs from
    process to process: numbers that Keras adds to names, and seeds that it drew."""
    if isinstance(value, Mapping):
        items = [(k, v) for k, v in value.items() if k not in ("seed", "module")]
        pairs = [(prefix if k == "config" else f"{prefix} {k}".strip(), v) for k, v in items]
    elif isinstance(value, (list, tuple)):
        pairs = [(f"{prefix} {i}".strip(), v) for i, v in enumerate(value)]
    elif isinstance(value, str):
        return {prefix: _unnumbered(value)}
    else:
        return {prefix: _rounded(value) if isinstance(value, float) else value}
    flat: dict[str, Any] = {}
    for name, item in pairs:
        flat.update(_flat(name, item))
    return flat


def _unnumbered(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


@contextlib.contextmanager
def automatic_names_restored() -> Iterator[None]:
    """Layers made afterwards are named as if none had been made inside ("dense", not "dense_1")."""
    counters = global_state.get_global_attribute("object_name_uids")
    before = {} if counters is None else dict(counters)
    try:
        yield
    finally:
        counters = global_state.get_global_attribute("object_name_uids")
        if counters is not None:
            counters.clear()
            counters.update(before)
