"""Tables, CSV or Parquet: classification or regression, decided from the target.

    kerastrain train --recipe=tabular --data=housing.csv --target=median_house_value \
        --workdir=runs/housing

Test split (20 %), seed 0, defaults; the whole command on 2 cores of an Intel Xeon:
    California housing (median_house_value): RMSE 50,600, 79 epochs, 22 s
    Adult (income): accuracy 0.860, 14 epochs

A multilayer perceptron on columns that were encoded once (numbers standardised,
categories one-hot). Settings (--set=NAME=VALUE): hidden=256 units in each of
layers=2 hidden layers, dropout=0.1 after each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain import Classification, Data, Recipe, TrainOptions, build_optimizer
from kerastrain.errors import OptionsError

if TYPE_CHECKING:
    import keras


def load_data(options: TrainOptions) -> Data:
    # Here, because it imports TensorFlow and pyarrow, which `--help` must not wait for.
    from kerastrain.data.tables.loading import load_table_data

    return load_table_data(options)


def build_model(options: TrainOptions, data: Data) -> keras.Model:
    """float32 [batch, features] to logits [batch, classes], or to a number [batch, 1]."""
    import keras

    assert isinstance(data.train.inputs, np.ndarray)  # as load_data gives them
    features = keras.Input((data.train.inputs.shape[1],), name="features")
    x = features
    for units, dropout in hidden_layers(options.settings):
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(dropout)(x)
    if isinstance(data.task, Classification):
        output = keras.layers.Dense(len(data.task.classes), dtype="float32", name="logits")(x)
        how = classification()
    else:
        mean, deviation = mean_and_deviation(data.train.targets)
        standardised = keras.layers.Dense(1, dtype="float32", name="standardised")(x)
        output = keras.layers.Rescaling(
            scale=deviation, offset=mean, dtype="float32", name="prediction"
        )(standardised)
        how = regression(deviation)
    model = keras.Model(features, output, name="tabular_model")
    model.compile(optimizer=build_optimizer(options), **how)
    return model


def hidden_layers(settings: Any) -> list[tuple[int, float]]:
    """(units, dropout) of each hidden layer, checked."""
    hidden, layers, dropout = settings["hidden"], settings["layers"], settings["dropout"]
    if hidden < 1 or layers < 0 or not 0 <= dropout < 1:
        raise OptionsError(
            f"--set: hidden={hidden}, layers={layers}, dropout={dropout}; expected hidden of at "
            "least 1, layers of at least 0, and dropout from 0 to below 1."
        )
    return [(hidden, dropout)] * layers


def classification() -> dict[str, Any]:
    import keras

    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    }


def regression(deviation: float) -> dict[str, Any]:
    """Metrics in the target's units; the loss in its variances, so that one learning rate fits."""
    import keras

    return {
        "loss": "mse",
        "loss_weights": 1 / deviation**2,
        "metrics": [
            keras.metrics.RootMeanSquaredError(name="rmse"),
            keras.metrics.MeanAbsoluteError(name="mae"),
        ],
    }


def mean_and_deviation(targets: np.ndarray) -> tuple[float, float]:
    """Of the training targets; a deviation of 0 becomes 1."""
    values = targets.astype(np.float64)
    return float(values.mean()), float(values.std()) or 1.0


RECIPE = Recipe(
    load_data=load_data,
    build_model=build_model,
    defaults={
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "batch_size": 256,
        "max_epochs": 100,
        "patience": 10,
    },
    reads=("data", "target"),
    settings={"hidden": 256, "layers": 2, "dropout": 0.1},
)
