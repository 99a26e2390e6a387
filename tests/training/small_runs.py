"""Small states and examples for tests of the training layers."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.training.executor import Executor
from kerastrain.training.randomness import deterministic_initializers
from kerastrain.training.state import TrainState
from kerastrain.training.steps import supervised_step


def blobs(examples: int = 203, *, weights: bool = False) -> Examples:
    """Three classes of points in eight dimensions, separable but not trivially."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, examples).astype(np.int32)
    centres = rng.normal(size=(3, 8))
    points = (centres[labels] + rng.normal(size=(examples, 8))).astype(np.float32)
    return Examples(points, labels, rng.random(examples, np.float32) if weights else None)


def classifier(
    *, dropout: float = 0.0, batch_norm: bool = False, optimizer="adam", seed: int = 0, **compiled
) -> keras.Model:
    with deterministic_initializers(seed):
        features = keras.Input((8,), name="features")
        x = keras.layers.Dense(16, activation="relu")(features)
        if batch_norm:
            x = keras.layers.BatchNormalization()(x)
        if dropout:
            x = keras.layers.Dropout(dropout)(x)
        model = keras.Model(features, keras.layers.Dense(3, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"], **compiled)
    return model


def state_of(model: keras.Model, examples: Examples, *, seed: int = 0) -> TrainState:
    first = examples.take(np.arange(4)).structure()
    return TrainState(model, strategy=tf.distribute.get_strategy(), seed=seed, batch=first)


def executor_of(
    examples: Examples | None = None,
    *,
    batch_size: int = 32,
    step=supervised_step,
    **model_settings,
) -> tuple[TrainState, Executor]:
    examples = blobs() if examples is None else examples
    state = state_of(classifier(**model_settings), examples)
    return state, Executor(state, step, examples, batch_size=batch_size, seed=7)


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Whether two snapshots are the same bytes."""
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))
