"""A residual network on a table (Gorishniy et al. 2021).

    kerastrain train --recipe=tabular_resnet --data=housing.csv --target=median_house_value

Settings (--set=NAME=VALUE): blocks=3 of width=192, twice as wide inside, dropout=0.2 there;
embedding=12 features for each number (0: numbers go in as they are, as in the paper);
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
    from kerastrain.networks.bodies import residual
    from kerastrain.networks.features import encoded_inputs, joined_features
    from kerastrain.networks.heads import compiled

    settings = options.settings
    inputs = encoded_inputs(data.columns)
    x = joined_features(inputs, data.columns, embedding=settings["embedding"])
    x = residual(x, width=settings["width"], blocks=settings["blocks"], dropout=settings["dropout"])
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
        "width": 192,
        "blocks": 3,
        "dropout": 0.2,
        "embedding": 12,
        "numbers": "standard",
    },
)
