"""TabM on a table: an ensemble of perceptrons that share nearly all weights
(Gorishniy, Kotelnikov and Babenko 2025), on piecewise-linear embeddings of the numbers.

    kerastrain train --recipe=tabular_tabm --data=housing.csv --target=median_house_value

Settings (--set=NAME=VALUE): members=8; hidden=128 units in each of layers=2 hidden layers,
dropout=0.1 after each; embedding=12 features for each number (0: numbers go in as they are);
numbers="standard" or "quantiles", how they are scaled.
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
    from kerastrain.networks.features import encoded_inputs, joined_features
    from kerastrain.networks.heads import compiled_ensemble

    settings = options.settings
    inputs = encoded_inputs(data.columns)
    x = joined_features(inputs, data.columns, embedding=settings["embedding"])
    return compiled_ensemble(
        inputs,
        x,
        options,
        data,
        members=settings["members"],
        hidden=settings["hidden"],
        layers=settings["layers"],
        dropout=settings["dropout"],
    )


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
        "members": 8,
        "hidden": 128,
        "layers": 2,
        "dropout": 0.1,
        "embedding": 12,
        "numbers": "standard",
    },
)
