"""A dense network with dropout and batch normalisation on the bundled digits."""

import kerastrain
from kerastrain.data.bundled import load_digits_data


def build_model(options, data):
    import keras

    image = keras.Input((8, 8), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 16)(image)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.3)(x)
    model = keras.Model(image, keras.layers.Dense(10, name="logits")(x))
    model.compile(
        optimizer=kerastrain.build_optimizer(options),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


RECIPE = kerastrain.Recipe(
    load_data=load_digits_data,
    build_model=build_model,
    defaults={"max_epochs": 600, "batch_size": 32, "patience": 80, "learning_rate": 3e-3},
)
