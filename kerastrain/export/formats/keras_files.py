"""Keras's further files: weights, architecture, and the legacy HDF5 format.

    make(served, "weights", path)                # from the live model
    outputs = ask(stage, "weights", folder)(arrays)

All three are the network as `.keras` holds it, without optimizer; behind an encoder it takes
the encoder's arrays. `model.json` and `model.weights.h5` go together:

    network = keras.models.model_from_json(open("model.json").read())
    network.load_weights("model.weights.h5")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain.export.clean_environment import without_this_package
from kerastrain.export.formats.stage import Stage

if TYPE_CHECKING:
    import keras

    from kerastrain.export.serving import ServedModel

ARCHITECTURE, WEIGHTS, LEGACY = "model.json", "model.weights.h5", "model.h5"


def make(served: ServedModel, name: str, path: Path) -> None:
    """Writes the file. Raises whatever Keras raises for a model that it cannot save so."""
    import h5py

    from kerastrain.export.quiet import quiet_tensorflow
    from kerastrain.export.serving import uncompiled

    model = served.network
    if name == "weights":
        with uncompiled(model):  # The optimizer's would come along.
            model.save_weights(path)
    elif name == "architecture":
        path.write_text(architecture(model))
    else:
        with quiet_tensorflow():  # It warns that the format is legacy.
            model.save(path, include_optimizer=False)
        if not _is_of_layers(model):
            with h5py.File(path, "r+") as file:
                # The legacy form knows layers alone; read with it, the newer one is understood.
                file.attrs["model_config"] = architecture(model)


def _is_of_layers(model: keras.Model) -> bool:
    """No operation of keras.ops is a part of its graph, or of a model's in it."""
    import keras

    layers = model._flatten_layers(include_self=True, recursive=True)
    parts = (part for layer in layers for part in getattr(layer, "operations", ()))
    return all(isinstance(part, keras.layers.Layer) for part in parts)


def architecture(model: keras.Model) -> str:
    """The model's layers as JSON, without loss, metrics and optimizer."""
    from kerastrain.export.serving import uncompiled

    # Loading it would look for the classes of the loss, which a client does not need.
    with uncompiled(model):
        config = json.loads(model.to_json())
    config.pop("compile_config", None)
    return json.dumps(config, indent=1)


def why_unloadable(model: keras.Model, said: str) -> str:
    """Why Keras alone cannot load a file of the model, in one line.

    Args:
        said: what is known of it; told when all classes and functions are Keras's own.
    """
    own = dict.fromkeys(_own_code(json.loads(architecture(model))))
    if not own:
        return said
    needed = ", ".join(own)
    return f"Keras cannot load it by itself: it needs {needed}. The SavedModel needs none of it."


def _own_code(config: Any) -> Iterator[str]:
    """The classes and functions that a configuration names and Keras does not have."""
    if isinstance(config, dict):
        yield from _own_name(config)
        config = list(config.values())
    if isinstance(config, list):
        for part in config:
            yield from _own_code(part)


def _own_name(config: Mapping[str, Any]) -> Iterator[str]:
    import keras

    # An activation's is nothing but its code.
    is_activation = list(config) == ["value"] and isinstance(config["value"], list)
    if is_activation or config.get("class_name") == "__lambda__":
        yield "a Python lambda (which safe mode refuses)"
    elif config.get("registered_name"):
        is_function = config["class_name"] == "function"
        registered = config["config" if is_function else "registered_name"]
        known = keras.saving.get_registered_object(registered)
        # Keras leaves the module out where it is the script itself.
        module = getattr(known, "__module__", config["module"]) or "__main__"
        name = registered if is_function else config["class_name"]
        if not module.startswith("keras."):
            yield name if module == "builtins" else f"{name} of {_place(module)}"


def _place(module: str) -> str:
    """A file's name, where it is no part of a package: a recipe's module has a made-up name."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).name if file and "." not in module else module


def ask(stage: Stage, name: str, folder: Path) -> Callable[[Mapping[str, np.ndarray]], Any]:
    """Loads the network by Keras alone; gives its own outputs, in `keras.tree.flatten`'s order.

    Raises whatever Keras raises for files that it cannot load.
    """
    import keras
    import tensorflow as tf

    from kerastrain.export.rows import as_tensor

    with without_this_package():
        model = _load(name, folder)

    def answer(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors: Any = {
            stage.own_names[n]: as_tensor(arrays[n], tf.as_dtype(one["dtype"]))
            for n, one in stage.inputs.items()
        }
        if not stage.is_named:
            (tensors,) = tensors.values()
        outputs = keras.tree.flatten(model(tensors, training=False))
        return {str(i): tf.cast(output, tf.float32).numpy() for i, output in enumerate(outputs)}

    return answer


def _load(name: str, folder: Path) -> keras.Model:
    import keras

    if name == "h5":
        return keras.saving.load_model(folder / LEGACY)
    # A file of the other kind was made to check this one by.
    model = keras.models.model_from_json((folder / ARCHITECTURE).read_text())
    model.load_weights(folder / WEIGHTS)
    return model
