"""Keras's further files: weights, architecture, and the legacy HDF5 format.

    make(served, "weights", path)                # from the live model
    outputs = ask(stage, "weights", folder)(arrays)

All three are the network as it was trained, without its optimizer; behind an encoder it takes
the encoder's arrays. `model.json` and `model.weights.h5` go together:

    network = keras.models.model_from_json(open("model.json").read())
    network.load_weights("model.weights.h5")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain.export.formats.stage import Stage

if TYPE_CHECKING:
    import keras

    from kerastrain.export.serving import ServedModel

ARCHITECTURE, WEIGHTS, LEGACY = "model.json", "model.weights.h5", "model.h5"


def make(served: ServedModel, name: str, path: Path) -> None:
    """Writes the file. Raises whatever Keras raises for a model that it cannot save so."""
    from kerastrain.export.quiet import quiet_tensorflow
    from kerastrain.export.serving import uncompiled

    model = served.model
    if name == "weights":
        with uncompiled(model):  # The optimizer's would come along.
            model.save_weights(path)
    elif name == "architecture":
        path.write_text(architecture(model))
    else:
        with quiet_tensorflow():  # It warns that the format is legacy.
            model.save(path, include_optimizer=False)


def architecture(model: keras.Model) -> str:
    """The model's layers as JSON, without loss, metrics and optimizer."""
    config = json.loads(model.to_json())
    # Loading it would look for the classes of the loss, which a client does not need.
    config.pop("compile_config", None)
    return json.dumps(config, indent=1)


def ask(stage: Stage, name: str, folder: Path) -> Callable[[Mapping[str, np.ndarray]], Any]:
    """Loads the network by Keras alone; gives its own outputs, in `keras.tree.flatten`'s order.

    Raises whatever Keras raises for files that it cannot load.
    """
    import keras
    import tensorflow as tf

    from kerastrain.export.rows import as_tensor

    model = _load(name, folder)

    def answer(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors: Any = {
            n: as_tensor(arrays[n], tf.as_dtype(one["dtype"])) for n, one in stage.inputs.items()
        }
        if not stage.is_named:
            (tensors,) = tensors.values()
        outputs = keras.tree.flatten(model(tensors, training=False))
        return {str(i): tf.cast(output, tf.float32).numpy() for i, output in enumerate(outputs)}

    return answer


def _load(name: str, folder: Path) -> keras.Model:
    import keras

    if name == "h5":
        return keras.saving.load_model(folder / LEGACY, compile=False)
    # A file of the other kind was made to check this one by.
    model = keras.models.model_from_json((folder / ARCHITECTURE).read_text())
    model.load_weights(folder / WEIGHTS)
    return model
