"""Wide & Deep on a table: a linear model of crossed categories beside a perceptron
(Cheng et al. 2016), the successor of the retired DNNLinearCombinedClassifier and -Regressor.

    kerastrain train --recipe=tabular_wide_deep --data=adult.parquet --target=income

The wide part sees all features and each pair of categories, hashed; both parts are added and
trained together, by one optimizer.
Settings (--set=NAME=VALUE): buckets=1000 that a pair's values are hashed to (0: no pairs);
hidden=256 units in each of layers=2 hidden layers, dropout=0.1 after each; embedding=12
features for each number in the deep part; numbers="standard" or "quantiles", how they are
scaled.
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
    from kerastrain.networks.bodies import perceptron
    from kerastrain.networks.features import encoded_inputs, joined_features
    from kerastrain.networks.heads import with_output
    from kerastrain.networks.wide import added, linear, pairs

    settings = options.settings
    inputs = encoded_inputs(data.columns)
    deep = joined_features(inputs, data.columns, embedding=settings["embedding"])
    deep = perceptron(
        deep, hidden=settings["hidden"], layers=settings["layers"], dropout=settings["dropout"]
    )
    parts = [linear(deep, data), linear(joined_features(inputs, data.columns), data)]
    parts += pairs(inputs, data, buckets=settings["buckets"])
    return with_output(inputs, added(parts), options, data)


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
        "buckets": 1000,
        "hidden": 256,
        "layers": 2,
        "dropout": 0.1,
        "embedding": 12,
        "numbers": "standard",
    },
)
