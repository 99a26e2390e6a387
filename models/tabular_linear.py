"""A linear model of a table: logistic regression, or least squares.

    kerastrain train --recipe=tabular_linear --data=adult.parquet --target=income

One feature for each value of a category. What a model with a hidden layer must beat.
Settings (--set=NAME=VALUE): numbers="standard" or "quantiles", how numbers are scaled;
embedding=0 piecewise-linear features for each number (Gorishniy et al. 2022), by which the
model becomes additive in curves.
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
    from kerastrain.networks.heads import compiled

    inputs = encoded_inputs(data.columns)
    x = joined_features(inputs, data.columns, embedding=options.settings["embedding"])
    return compiled(inputs, x, options, data)


RECIPE = Recipe(
    load_data=load_data,
    build_model=build_model,
    defaults={
        "learning_rate": 3e-3,
        "batch_size": 256,
        "max_epochs": 100,
        "patience": 10,
    },
    reads=("data", "target", "table"),
    settings={
        "numbers": "standard",
        "embedding": 0,
    },
)
