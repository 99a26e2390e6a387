"""The bundled digits from disk, in blocks and windows so small that an epoch has many."""

import dataclasses
from pathlib import Path

import kerastrain
from kerastrain.data.bundled import load_digits_data
from kerastrain.data.stored import ExamplesWriter


def load_data(options):
    data = load_digits_data(options)
    folder = Path(options.workdir).with_name("rows")  # Written anew by every start of the run.
    with ExamplesWriter(folder, block_rows=16, window_blocks=8) as writer:
        writer.append(data.train)
        return dataclasses.replace(data, train=writer.finish())


def build_model(options, data):
    import keras

    image = keras.Input((8, 8), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 16)(image)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    x = keras.layers.Dropout(0.3)(x)
    model = keras.Model(image, keras.layers.Dense(10, name="logits")(x))
    model.compile(
        optimizer=kerastrain.build_optimizer(options),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


RECIPE = kerastrain.Recipe(
    load_data=load_data,
    build_model=build_model,
    defaults={"max_epochs": 60, "batch_size": 32, "learning_rate": 3e-3},
)
