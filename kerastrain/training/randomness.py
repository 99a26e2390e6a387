"""Random numbers that need no saving: every draw is a function of (seed, step, replica, layer).

    with deterministic_initializers(seed):      # initial weights
        model = build_model()
    seed_generators = SeedStreams(model, seed)
    seed_generators.set(step, replica)          # inside a step, before the forward pass

Keras's layers (Dropout, augmentation) draw from seed generators whose state is a
counter. Setting that state from the step at its start makes a resumed run draw
the same numbers, and replicas different ones, whatever happened before.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator
from tensorflow.python.ops import random_ops_util


@contextlib.contextmanager
def deterministic_initializers(seed: int) -> Iterator[None]:
    """Initial weights that depend on `seed` alone; Python's and NumPy's state come back after.

    Keras's initializers without a seed of their own draw one from Python's `random`.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


class SeedStreams:
    """The seed generators of a model, set anew at each step."""

    def __init__(self, model: keras.Model, seed: int, *, replicas: int = 1):
        # Seed states are found by name: Keras has no public list of seed generators.
        self.states = [v for v in model.variables if v.name == "seed_generator_state"]
        if replicas == 1:
            # What `keras.random` uses without a seed; over replicas it is one for all of them.
            self.states.append(global_seed_generator().state)
        self._seed = seed

    def set(self, step: tf.Tensor, replica: tf.Tensor) -> None:
        """Sets every generator from fold_in(seed, step, replica, layer).

        Args:
            step: int64 scalar, the global step.
            replica: int64 scalar, the replica's number.
        """
        fold_in = tf.random.experimental.stateless_fold_in
        at_step = fold_in(tf.constant([self._seed, 0], tf.int64), step)
        at_replica = fold_in(at_step, replica)
        for layer, state in enumerate(self.states):
            state.value.assign(
                tf.cast(fold_in(at_replica, tf.constant(layer, tf.int64)), state.dtype)
            )


@contextlib.contextmanager
def random_algorithm(name: str | None) -> Iterator[None]:
    """While a step is traced: the algorithm for random ops that leave it to TensorFlow.

    Under XLA on CPU the automatic choice makes a Dropout layer cost ten times the rest
    of a small network; "threefry" costs next to nothing. Ops traced outside (the user's
    own use of the model, the export) keep TensorFlow's choice. None: change nothing.
    """
    original = random_ops_util.get_key_counter_alg
    if name is None:
        yield
        return

    def chosen(seed: tf.Tensor, alg: object) -> object:
        automatic = alg is None or alg == "auto_select"
        return original(seed, name if automatic else alg)

    random_ops_util.get_key_counter_alg = chosen
    try:
        yield
    finally:
        random_ops_util.get_key_counter_alg = original
