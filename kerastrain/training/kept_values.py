"""Values of callbacks as JSON values, exactly: types, dtypes, NaN and infinity.

    kept = encode(value, arrays)           # arrays: {sha256: array}, those too large for a text
    value = decode(kept, now, read)        # read(sha256) gives the bytes of such an array

What is there already (`now`) is changed in place where it can be: it may have another name
(two attributes, a list of the program's own, a variable in a compiled function).
"""

from __future__ import annotations

import base64
import collections
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Larger arrays are files of their own, written once for as long as they do not change.
INLINE_BYTES = 1 << 12

# Not made anew: how long one may be, or what it makes of a missing key, is not known.
ONLY_FILLED = (collections.deque, collections.defaultdict)
SETS = (set, frozenset)
KINDS = (list, tuple, *SETS, dict, collections.Counter, collections.OrderedDict, *ONLY_FILLED)
CONTAINERS = {kind.__name__: kind for kind in KINDS}


class Unkept(Exception):
    """A value, or one inside it, is of a class that is not known here, which is named."""


def encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON values from which `decode` makes the value again; `arrays` takes what is too large.

    Raises:
        Unkept: a file, a thread, a model, a function, an object of an unknown class.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if isinstance(value, Path):
        return {"kind": "path", "text": str(value)}
    if kind in KINDS and issubclass(kind, dict):
        pairs = [[encode(key, arrays), encode(item, arrays)] for key, item in value.items()]
        return {"kind": kind.__name__, "items": pairs}
    if kind in KINDS:
        items = [encode(item, arrays) for item in value]
        # A set has another order in each process.
        ordered = sorted(items, key=json.dumps) if kind in SETS else items
        return {"kind": kind.__name__, "items": ordered}
    if kind is np.ndarray or isinstance(value, np.generic):
        return {"kind": "array" if kind is np.ndarray else "scalar", **_array(value, arrays)}
    if isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
        return {"kind": "tensor", **_array(value.numpy(), arrays)}
    if kind is np.random.Generator:
        return {"kind": "random", "state": encode(value.bit_generator.state, arrays)}
    variables = variables_of(value)
    if variables:
        values = [_array(variable.numpy(), arrays) for variable in variables]
        return {"kind": "variables", "of": kind.__name__, "values": values}
    raise Unkept(kind.__name__)


def decode(kept: Any, now: Any, read: Callable[[str], bytes]) -> Any:
    """The value that was encoded; `now`, where that can become it.

    Raises:
        Unkept: it lives in an object (a metric, say) that is not there now.
    """
    if not isinstance(kept, dict):
        return kept
    kind = kept["kind"]
    if kind == "path":
        return Path(kept["text"])
    if kind in ("array", "scalar", "tensor"):
        return _as_before(kind, _array_of(kept, read), now)
    if kind == "variables":
        return _assigned(kept["of"], [_array_of(each, read) for each in kept["values"]], now)
    if kind == "random":
        if not isinstance(now, np.random.Generator):
            raise Unkept("Generator")
        now.bit_generator.state = decode(kept["state"], None, read)
        return now
    return _filled(CONTAINERS[kind], kept["items"], now, read)


def variables_of(value: Any) -> list[Any]:
    """The variables of an object that is nothing but variables."""
    if isinstance(value, (tf.Variable, keras.Variable)):
        return [value]
    if isinstance(value, keras.random.SeedGenerator):
        return [value.state]
    return list(value.variables) if isinstance(value, keras.metrics.Metric) else []


def _array(value: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    array = np.asarray(value)
    # bfloat16 and its like are told by their names only.
    name = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
    if array.dtype.hasobject or name.startswith("void"):
        raise Unkept(f"array of {array.dtype}")
    facts = {"dtype": name, "shape": list(array.shape)}
    if array.nbytes <= INLINE_BYTES:
        return {**facts, "base64": base64.b64encode(array.tobytes()).decode()}
    sha256 = hashlib.sha256(array.tobytes()).hexdigest()
    arrays[sha256] = array
    return {**facts, "file": sha256}


def _array_of(kept: dict[str, Any], read: Callable[[str], bytes]) -> np.ndarray:
    content = read(kept["file"]) if "file" in kept else base64.b64decode(kept["base64"])
    return np.frombuffer(content, np.dtype(kept["dtype"])).reshape(kept["shape"]).copy()


def _as_before(kind: str, array: np.ndarray, now: Any) -> Any:
    if kind == "scalar":
        return array[()]
    if kind == "tensor":
        return tf.constant(array)
    fits = type(now) is np.ndarray and (now.dtype, now.shape) == (array.dtype, array.shape)
    if not fits or not now.flags.writeable:
        return array
    now[...] = array
    return now


def _assigned(kind: str, values: list[np.ndarray], now: Any) -> Any:
    variables = variables_of(now)
    if [tuple(v.shape) for v in variables] == [value.shape for value in values]:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return now
    if not kind.endswith("Variable"):
        raise Unkept(kind)
    return (keras.Variable if kind == "Variable" else tf.Variable)(values[0])


def _filled(kind: Any, kept: list[Any], now: Any, read: Callable[[str], bytes]) -> Any:
    is_there = type(now) is kind
    items: Any
    if not is_there and kind in ONLY_FILLED:
        raise Unkept(kind.__name__)
    # Variables in a list become those of the list that is there.
    there = {} if not is_there else now if issubclass(kind, dict) else dict(enumerate(now))
    if issubclass(kind, dict):
        pairs = [(decode(key, None, read), item) for key, item in kept]
        items = {key: decode(item, there.get(key), read) for key, item in pairs}
    else:
        items = [decode(item, there.get(i), read) for i, item in enumerate(kept)]
    if kind in (tuple, frozenset) or not is_there:
        return kind(items)
    now.clear()
    (now.extend if hasattr(now, "extend") else now.update)(items)
    return now
