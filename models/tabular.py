"""Tables, CSV or Parquet: the best network for the number of rows; says which it takes.

    kerastrain train --recipe=tabular --data=housing.csv --target=median_house_value \
        --workdir=runs/housing

Up to 100,000 training rows it is tabular_tabm, an ensemble of eight perceptrons; beyond them
tabular_mlp's network, wider and deeper, which learns from many rows in a fraction of the time.
Settings (--set=NAME=VALUE): network="auto", "tabm" or "mlp".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kerastrain import Data, Recipe, TrainOptions
from kerastrain.errors import OptionsError

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("kerastrain.models.tabular")

NETWORKS = ("auto", "tabm", "mlp")
MANY_ROWS = 100_000


def load_data(options: TrainOptions) -> Data:
    # Here, because it imports TensorFlow and pyarrow, which `--help` must not wait for.
    from kerastrain.data.tables.loading import load_table_data

    return load_table_data(options)


def build_model(options: TrainOptions, data: Data) -> keras.Model:
    from kerastrain.networks.bodies import perceptron
    from kerastrain.networks.features import encoded_inputs, joined_features
    from kerastrain.networks.heads import compiled, compiled_ensemble

    network = options.settings["network"]
    if network not in NETWORKS:
        raise OptionsError(f"--set=network={network}; expected one of {', '.join(NETWORKS)}.")
    rows = len(data.train)
    if network == "auto":
        network = "tabm" if rows <= MANY_ROWS else "mlp"
        logger.info(
            "For %s training rows the network is %s (recipe tabular_%s by itself).",
            f"{rows:,}",
            network,
            network,
        )
    inputs = encoded_inputs(data.columns)
    x = joined_features(inputs, data.columns, embedding=12)
    if network == "tabm":
        return compiled_ensemble(
            inputs, x, options, data, members=8, hidden=128, layers=2, dropout=0.1
        )
    x = perceptron(x, hidden=512, layers=3, dropout=0.0)
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
    settings={"network": "auto"},
)
