"""What a user would run instead: `model.fit`, and a loop written by hand for this one model.

    fit = Fit(mlp(), x, y)
    fit.seconds(epochs=2)         # of the epochs alone
    bare = BareLoop(mlp(), x, y, jit=True)
    bare.seconds(epochs=5)

All get the same compiled model and the same arrays in memory.
"""

from __future__ import annotations

import time

import keras
import numpy as np
import tensorflow as tf

BATCH_SIZE = 128


def mlp() -> keras.Model:
    """784-128-10, as in the issue's table; inputs float32 [batch, 784]."""
    return _compiled([keras.Input((784,)), keras.layers.Dense(128, activation="relu")])


def cnn() -> keras.Model:
    """Two convolutions of 32 and 64 filters; inputs float32 [batch, 28, 28, 1]."""
    return _compiled(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
        ]
    )


def _compiled(layers: list) -> keras.Model:
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    return model


class Fit:
    """`model.fit` with its defaults (without its progress bar, which would slow it down)."""

    def __init__(
        self, model: keras.Model, x: np.ndarray, y: np.ndarray, *, batch_size: int = BATCH_SIZE
    ):
        self.model, self.x, self.y, self.batch_size = model, x, y, batch_size
        self.examples = len(x)

    def seconds(self, *, epochs: int) -> float:
        """Time of the epochs alone: what `fit` does once before the first is not counted."""
        timer = _EpochTimer()
        self.model.fit(
            self.x, self.y, batch_size=self.batch_size, epochs=epochs, verbose=0, callbacks=[timer]
        )
        return timer.seconds


class _EpochTimer(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds += time.perf_counter() - self._began


class BareLoop:
    """As fast as one can make it by hand: a whole epoch in one compiled call, data in a tensor.

    No checkpoints, no evaluation, no display, and the last, smaller batch is dropped.
    """

    def __init__(self, model: keras.Model, x: np.ndarray, y: np.ndarray, *, jit: bool):
        self.steps = len(x) // BATCH_SIZE
        self.examples = self.steps * BATCH_SIZE
        self._rows = tf.range(len(x))
        self._run = _compiled_epoch(model, tf.constant(x), tf.constant(y), jit=jit)

    def seconds(self, *, epochs: int) -> float:
        began = time.perf_counter()
        for _ in range(epochs):
            loss, _accuracy = self._run(tf.random.shuffle(self._rows))
            float(loss)  # waits until it is done
        return time.perf_counter() - began


def _compiled_epoch(model: keras.Model, x: tf.Tensor, y: tf.Tensor, *, jit: bool):
    steps = len(x) // BATCH_SIZE
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    loss_function = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile=jit)
    def run_epoch(order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss_sum, correct = tf.constant(0.0), tf.constant(0.0)
        for i in tf.range(steps):
            # tf.slice and not order[a:b]: under XLA the size must be static.
            rows = tf.slice(order, [i * BATCH_SIZE], [BATCH_SIZE])
            inputs, targets = tf.gather(x, rows), tf.gather(y, rows)
            with tf.GradientTape() as tape:
                logits = model(inputs, training=True)
                loss = loss_function(targets, logits)
            optimizer.apply(tape.gradient(loss, model.trainable_variables))
            hits = tf.equal(tf.argmax(logits, axis=1), tf.cast(targets, tf.int64))
            loss_sum += loss
            correct += tf.reduce_sum(tf.cast(hits, tf.float32))
        return loss_sum / steps, correct / (steps * BATCH_SIZE)

    return run_epoch
