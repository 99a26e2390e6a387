"""What a model is, so that a resumed run is known to train the same one.

    recorded = describe_model(model)
    model_differences(recorded, describe_model(other))    # ["optimizer learning_rate: …", …]

The strict match of variables (`checkpoints`) cannot see a dropout rate, a
learning rate or a loss; their configurations can.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend.common import global_state


def describe_model(model: keras.Model) -> dict[str, Any]:
    """{"layers": digest, "optimizer …": setting, …, "loss …": setting, …}, plain values.

    What cannot be serialised (a class without `get_config`, say) is left out, and so is
    the optimizer of a model that was trained before, whose learning rate may be on its way.
    """
    compiled = _serialised(model.get_compile_config) or {}
    layers = _serialised(model.get_config)
    parts = {"loss": compiled.get("loss")}
    # By NumPy, since over several replicas it is no plain variable.
    if int(model.optimizer.iterations.numpy()) == 0:
        parts["optimizer"] = compiled.get("optimizer")
    described = {} if layers is None else {"layers": _digest(layers)}
    for name, part in parts.items():
        described.update(_flat(name, part))
    return described


def model_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "optimizer learning_rate: 0.01 recorded, 0.5 now" for what both say differently."""
    return [
        f"{name}: {recorded[name]} recorded, {value} now"
        for name, value in now.items()
        if name in recorded and recorded[name] != value
    ]


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
        return {prefix: re.sub(r"_\d+$", "", value)}
    else:
        return {prefix: float(f"{value:.6g}") if isinstance(value, float) else value}
    flat: dict[str, Any] = {}
    for name, item in pairs:
        flat.update(_flat(name, item))
    return flat


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
