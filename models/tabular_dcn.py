"""DCN-v2 on a table: a cross network, then a perceptron (Wang et al. 2021).

    kerastrain train --recipe=tabular_dcn --data=adult.parquet --target=income

The cross network multiplies features with each other, one degree more a layer; the stacked form
of the paper. Numbers go in as they are, unless embedding says otherwise.
Settings (--set=NAME=VALUE): crosses=2 cross layers; hidden=256 units in each of layers=2
hidden layers, dropout=0.1 after each; embedding=0 features for each number; numbers="standard"
or "quantiles", how they are scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kerastrain import Data, Recipe, TrainOptions

if TYPE_CHECKING:
    import keras


def load_data(options: TrainOptions) -> Data:
    # Here, because it imports TensorFlow and pyarrow, which `--help` must not wait for.
    from kerastrain.data.tables.loading import load_table_data

    return load_table_data(options, numbers=options.settings["numbers"])


def build_model(options: TrainOptions, data: Data) -> keras.Model:
    from kerastrain.networks.bodies import cross, perceptron
    from kerastrain.networks.features import encoded_inputs, joined_features
    from kerastrain.networks.heads import compiled

    settings = options.settings
    inputs = encoded_inputs(data.columns)
    x = joined_features(inputs, data.columns, embedding=settings["embedding"])
    x = cross(x, crosses=settings["crosses"])
    x = perceptron(
        x, hidden=settings["hidden"], layers=settings["layers"], dropout=settings["dropout"]
    )
    return compiled(inputs, x, options, data)


RECIPE = Recipe(
    load_data=load_data,
    build_model=build_model,
    defaults={
        "learning_rate": 1e-3,
        "batch_size": 256,
        "max_epochs": 100,
        "patience": 10,
    },
    reads=("data", "target", "table"),
    settings={
        "crosses": 2,
        "hidden": 256,
        "layers": 2,
        "dropout": 0.1,
        "embedding": 0,
        "numbers": "standard",
    },
)
