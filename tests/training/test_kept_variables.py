"""What belongs to a model although Keras does not track it."""

import collections
import functools
import types

import keras
import pytest
import tensorflow as tf

from kerastrain.training.kept_variables import kept_variables, untracked_variables

GLOBAL = tf.Variable(1.0)
SETTINGS = types.ModuleType("settings_of_a_recipe")
SETTINGS.scale = tf.Variable(2.0)
Pair = collections.namedtuple("Pair", ["left", "right"])


class Slotted:
    __slots__ = ("scale",)


def slotted(variable):
    held = Slotted()
    held.scale = variable
    return held


@tf.function
def times_global(x):
    return x * GLOBAL


class Holding(keras.layers.Layer):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def call(self, x):
        return x


class Calling(keras.layers.Layer):
    def call(self, x):
        return times_global(x) * SETTINGS.scale


@pytest.mark.parametrize(
    "hold",
    [
        lambda v: v,
        lambda v: [0, {"a": (v,)}],
        lambda v: Pair(None, v),
        slotted,
        lambda v: types.SimpleNamespace(scale=v),
        lambda v: functools.partial(max, v),
        lambda v: lambda x: x * v,
        lambda v: keras.layers.Lambda(lambda x: x * v),
        lambda v: tf.Module() if setattr(module := tf.Module(), "v", v) else module,
    ],
    ids=[
        "plain",
        "nested",
        "namedtuple",
        "slots",
        "namespace",
        "partial",
        "closure",
        "lambda",
        "module",
    ],
)
def test_a_variable_that_a_layer_holds_is_found_however_it_is_held(hold):
    variable = tf.Variable(3.0)
    model = keras.Sequential([keras.Input((2,)), Holding(hold(variable))])
    assert [found for _, found in untracked_variables(model)] == [variable]


def test_what_functions_read_from_globals_and_modules_is_found():
    model = keras.Sequential([keras.Input((2,)), Calling()])
    found = [id(variable) for _, variable in untracked_variables(model)]
    assert found == [id(GLOBAL), id(SETTINGS.scale)]


def test_what_keras_tracks_comes_once_and_first():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1), Holding(tf.Variable(3.0))])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(tf.ones((2, 2)), tf.ones((2, 1)), verbose=0)
    paths = [path.rpartition("/")[2] for path, _ in kept_variables(model)]
    assert paths == ["kernel", "bias", "held"]
