"""What can be known before the first step is checked before it (promise 7 of the design).

check_objective(objective, model, data)
check_labels(model, data)
"""

from __future__ import annotations

import keras
import numpy as np

from kerastrain.data.source import Data
from kerastrain.errors import DataError
from kerastrain.objective import Objective
from kerastrain.training.evaluation import as_floats


def check_objective(objective: Objective, model: keras.Model, data: Data) -> None:
    """Raises ObjectiveError unless the model, compiled and built, reports the objective."""
    names = list(as_floats(model.get_metrics_result()))
    validated = [f"val_{name}" for name in names] if data.validation is not None else []
    objective.check_reported([*names, *validated])


def check_labels(model: keras.Model, data: Data) -> None:
    """Raises DataError when a class number is not one of the model's outputs.

    Only where Keras takes targets for class numbers: sparse categorical crossentropy. A label
    beyond the outputs gives NaN on a GPU and under XLA, and nothing says why.
    """
    loss = model.loss if isinstance(model.loss, str) else type(model.loss).__name__
    if "sparsecategoricalcrossentropy" not in loss.lower().replace("_", ""):
        return
    classes = model.compute_output_shape(_batch_shape(data))[-1]
    for name, split in (("train", data.train), ("validation", data.validation)):
        if split is None:
            continue
        lowest, highest = np.min(split.targets), np.max(split.targets)
        if not (lowest >= 0 and highest < classes):
            raise DataError(
                f"The labels of {name} go from {lowest} to {highest}; the model has {classes} "
                f"outputs, so they must lie in 0 to {classes - 1}."
            )


def _batch_shape(data: Data) -> object:
    inputs = data.train.inputs
    if isinstance(inputs, np.ndarray):
        return (None, *inputs.shape[1:])
    return {name: (None, *array.shape[1:]) for name, array in inputs.items()}
