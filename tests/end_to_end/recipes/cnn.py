"""A convolutional network with augmentation and dropout, whose evaluations take their time.

Each evaluation touches the file named by EVALUATION_MARKER, so that a test can kill it there.
"""

import os
import time
from pathlib import Path

import keras
import tensorflow as tf

import kerastrain
from kerastrain.data.bundled import load_digits_data


@keras.saving.register_keras_serializable(package="kerastrain_tests")
class SlowlyEvaluated(keras.Model):
    def test_step(self, data):
        if "EVALUATION_MARKER" in os.environ:
            tf.py_function(_mark, [], [])
        return super().test_step(data)


def _mark():
    Path(os.environ["EVALUATION_MARKER"]).touch()
    time.sleep(0.05)


def build_model(options, data):
    image = keras.Input((8, 8), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 16)(image)
    x = keras.layers.Reshape((8, 8, 1))(x)
    x = keras.layers.RandomTranslation(0.1, 0.1)(x)
    x = keras.layers.Conv2D(8, 3, activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.2)(x)
    model = SlowlyEvaluated(image, keras.layers.Dense(10, name="logits")(x))
    model.compile(
        optimizer=kerastrain.build_optimizer(options),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


RECIPE = kerastrain.Recipe(
    load_data=load_digits_data,
    build_model=build_model,
    defaults={"max_epochs": 50, "batch_size": 32, "patience": 50, "learning_rate": 3e-3},
)
