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
import platform
import re
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state

# Of differences between layers so many are shown; a layer with more settings is noted by a digest.
SHOWN = 8
SETTINGS = ("optimizer", "loss")
LARGE = 80


def describe_model(model: keras.Model) -> dict[str, Any]:
    """What a record holds of a model: plain values, those of equal layers once.

    What cannot be serialised (a class without `get_config`, say) is left out.
    """
    compiled = _serialised(model.get_compile_config) or {}
    config = _serialised(model.get_config)
    described: dict[str, Any] = {} if config is None else {"layers": _digest(config)}
    kinds: list[dict[str, Any]] = []
    described["list"] = [
        [_unnumbered(layer.name), type(layer).__name__, _place(_layer_settings(layer), kinds)]
        for layer in model._flatten_layers(include_self=False, recursive=True)
    ]
    described |= {"kinds": kinds, "code": describe_code([model.loss, *_own_classes(model)])}
    # By NumPy, since over several replicas it is no plain variable.
    described["is_trained"] = int(model.optimizer.iterations.numpy()) > 0
    # Not as it was given to compile: "adam" is Adam().
    optimizer = {"class_name": type(model.optimizer).__name__}
    optimizer |= _serialised(model.optimizer.get_config) or {}
    parts = {"optimizer": optimizer, "loss": compiled.get("loss")}
    for name, part in {**parts, "loss_weights": compiled.get("loss_weights")}.items():
        described.update(_flat(name, part))
    return described


def model_differences(
    recorded: Mapping[str, Any], now: Mapping[str, Any], *, rate_at_end: float | None = None
) -> list[str]:
    """Lines "optimizer learning_rate: 0.01 recorded, 0.5 now" for what both say differently.

    The learning rate of a model that was trained before may be on its way.

    Args:
        rate_at_end: the one that the run left it with, if that is known.
    """
    lines = []
    if "list" in recorded:
        lines += _layer_differences(recorded, now)
        if not lines and recorded.get("layers") != now.get("layers"):
            lines.append("the layers are the same, but connected otherwise")
        if is_other_code(recorded["code"], now["code"]):
            lines.append("the code of its own classes or of its loss was changed")
    before, after = (
        {n: v for n, v in d.items() if n.startswith(SETTINGS)} for d in (recorded, now)
    )
    if "list" not in recorded:  # By a version that wrote less, and a digest of all layers.
        before, after = ({n: d[n] for n in {*recorded} & {*now}} for d in (recorded, now))
    rate = "optimizer learning_rate"
    if now["is_trained"] and rate_at_end in (None, after.get(rate)):
        before.pop(rate, None), after.pop(rate, None)
    return [*lines, *differing(before, after)]


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Lines "units: 64 recorded, 32 now" for every name whose values differ."""
    return [
        f"{where}{name}: {recorded.get(name)} recorded, {now.get(name)} now"
        for name in sorted({*recorded, *now})
        if recorded.get(name) != now.get(name)
    ]


def _layer_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = recorded["list"], now["list"]
    lines = []
    # Matched by their kinds and names, so that a layer that was put in is not taken for a change
    # of all that follow.
    matcher = difflib.SequenceMatcher(None, [str(v[:2]) for v in old], [str(v[:2]) for v in new])
    for change, i, i_end, j, j_end in matcher.get_opcodes():
        if change == "replace" and i_end - i == j_end - j:
            change = "equal"  # Renamed, or of another kind.
        if change == "equal":
            for at, (one, other) in enumerate(zip(old[i:i_end], new[j:j_end], strict=True), i + 1):
                where = f"layer {one[0]} ({at} of {len(old)}): "
                facts = [{"kind": layer[1], "name": layer[0]} for layer in (one, other)]
                facts[0] |= recorded["kinds"][one[2]]
                facts[1] |= now["kinds"][other[2]]
                lines += differing(facts[0], facts[1], where)
            continue
        for layers, first, end, what in ((old, i, i_end, "is gone"), (new, j, j_end, "is new")):
            lines += [
                f"layer {layers[at][0]} ({at + 1} of {len(layers)}, {layers[at][1]}) {what}"
                for at in range(first, end)
            ]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def _layer_settings(layer: keras.Layer) -> dict[str, Any]:
    """Of one layer without those in it, which are listed by themselves."""
    config = _serialised(layer.get_config) or {}
    if layer._layers:
        config = {n: v for n, v in config.items() if not isinstance(v, (Mapping, list, tuple))}
    config.pop("name", None)
    flat = {n: v for n, v in _flat("", config).items() if v is not None}
    if len(flat) > LARGE:  # A vocabulary, say.
        return {"settings": _digest(config)}
    return {n: v if isinstance(v, (str, int, float)) else str(v) for n, v in flat.items()}


def _place(settings: dict[str, Any], kinds: list[dict[str, Any]]) -> int:
    """The number of these settings in a list, to which new ones are added."""
    if settings not in kinds:
        kinds.append(settings)
    return kinds.index(settings)


def _own_classes(model: keras.Model) -> list[type]:
    """Those of the model and its layers that are neither Keras's nor this package's."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    found = {type(layer) for layer in layers}
    own = [c for c in found if c.__module__.partition(".")[0] not in ("keras", "kerastrain")]
    return sorted(own, key=lambda each: each.__qualname__)


def describe_code(value: Any) -> list[str]:
    """[Python's version, digest] of what functions and classes do, as far as that can be seen.

    Comments and docstrings do not count; what a function finds in its closure, its defaults and
    its own module does: plain values, functions and classes.
    """
    text = _code_text(value, set())
    version = ".".join(platform.python_version_tuple()[:2])
    return [version, hashlib.sha256(text.encode()).hexdigest()]


def is_other_code(recorded: list[str], now: list[str]) -> bool:
    """Whether two `describe_code` differ; another version of Python names things otherwise."""
    return recorded[0] == now[0] and recorded[1] != now[1]


def _code_text(value: Any, seen: set[int]) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_code_text(each, seen) for each in value)}]"
    if isinstance(value, Mapping):
        return _code_text([[str(name), each] for name, each in value.items()], seen)
    if isinstance(value, (set, frozenset)):
        return _code_text(sorted(map(repr, value)), seen)
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return repr(value)
    if id(value) in seen:
        return "again"
    seen.add(id(value))
    if isinstance(value, types.CodeType):
        first = 1 if value.co_consts and not value.co_name.startswith("<") else 0  # A docstring.
        return _code_text([value.co_code, value.co_names, value.co_consts[first:]], seen)
    if isinstance(value, functools.partial):
        return _code_text([value.func, value.args, value.keywords], seen)
    if isinstance(value, types.MethodType):
        return _code_text(value.__func__, seen)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        used = [value.__globals__.get(name) for name in value.__code__.co_names]
        near = [v for v in used if getattr(v, "__module__", value.__module__) == value.__module__]
        return _code_text(
            [value.__code__, value.__defaults__, value.__kwdefaults__, cells, near], seen
        )
    if isinstance(value, type):
        members = [v for v in vars(value).values() if isinstance(v, types.FunctionType)]
        return _code_text([value.__qualname__, members], seen)
    return type(value).__qualname__


def weights_sha256(model: keras.Model) -> str:
    """A hash of the weights, by which a start from others is noticed."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(array.tobytes())
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
