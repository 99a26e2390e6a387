"""Exclusive or: four rows that no single layer can tell apart.

    kerastrain train --recipe=xor --workdir=runs/xor

Test accuracy 100 % (30 seeds tried) after 100 steps; 16 s for the whole command, nearly all of it
start and export, on 2 cores of an Intel Xeon.

The four rows train, validate and test: what is shown is that training works, not that
anything was learned beyond them. Settings (`--set=NAME=VALUE`): `hidden` units.
"""

import numpy as np

import kerastrain

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TARGETS = np.array([0, 1, 1, 0], np.int32)


def load_data(options):
    rows = kerastrain.Examples(INPUTS, TARGETS)
    return kerastrain.Data(
        train=rows,
        validation=rows,
        test=rows,
        task=kerastrain.Classification((0, 1)),
        split_rows={name: np.arange(4) for name in ("train", "validation", "test")},
        description={"data_set": "xor", "source": "the truth table", "rows": 4, "classes": [0, 1]},
    )


def build_model(options, data):
    # Imported here: to name or list a recipe takes no TensorFlow.
    import keras
    from keras import layers

    inputs = keras.Input(shape=(2,), name="inputs")
    x = layers.Dense(options.settings["hidden"], activation="tanh")(inputs)
    logits = layers.Dense(2, dtype="float32", name="logits")(x)
    model = keras.Model(inputs, logits, name="xor")
    model.compile(
        optimizer=kerastrain.build_optimizer(options),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


RECIPE = kerastrain.Recipe(
    load_data=load_data,
    build_model=build_model,
    objective="val_loss",
    defaults={"max_epochs": 100, "patience": 100, "batch_size": 4, "learning_rate": 0.1},
    reads=(),
    settings={"hidden": 8},
)
