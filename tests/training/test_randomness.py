"""Initial weights and draws depend on the seed and on nothing else."""

import random

import numpy as np
import small_runs as small
import tensorflow as tf
from tensorflow.python.ops import random_ops_util

from kerastrain.training.randomness import deterministic_initializers, random_algorithm


def test_initial_weights_depend_on_the_seed_alone():
    first = small.classifier(seed=3).get_weights()
    random.seed(99)
    assert small.same(first, small.classifier(seed=3).get_weights())
    assert not small.same(first, small.classifier(seed=4).get_weights())


def test_the_callers_random_state_is_left_alone():
    random.seed(5)
    np.random.seed(5)
    with deterministic_initializers(1):
        random.random()
        np.random.random()
    drawn = random.random(), np.random.random()
    random.seed(5)
    np.random.seed(5)
    assert drawn == (random.random(), np.random.random())


def test_the_algorithm_is_replaced_only_inside_and_only_where_it_is_left_open():
    original = random_ops_util.get_key_counter_alg
    with random_algorithm("philox"):
        assert random_ops_util.get_key_counter_alg is not original
        free = tf.random.stateless_uniform([3], seed=[1, 2])
        named = tf.random.stateless_uniform([3], seed=[1, 2], alg="philox")
        assert (free == named).numpy().all()
    assert random_ops_util.get_key_counter_alg is original
