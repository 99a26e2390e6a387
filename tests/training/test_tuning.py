"""Measuring leaves no trace in the state, and decides what was asked for."""

import keras
import pytest
import small_runs as small
import tensorflow as tf

from kerastrain.errors import OptionsError
from kerastrain.training.tuning import Choice, measure


@pytest.mark.parametrize("jit", ["auto", "on", "off"])
def test_the_state_is_as_before(jit):
    state, executor = small.executor_of(dropout=0.3, batch_norm=True)
    executor.run(0, 3, jit=False)
    before = state.snapshot()
    choice = measure(executor, state, jit=jit, total_steps=10**9)
    assert small.same(before, state.snapshot())
    assert choice.step_seconds > 0
    assert choice.log_every >= 1
    if jit != "auto":
        assert choice.flag == jit


def test_a_run_shorter_than_compiling_is_not_compiled():
    state, executor = small.executor_of()
    choice = measure(executor, state, jit="auto", total_steps=10)
    assert not choice.jit and "shorter than compiling" in choice.reason


class Unjittable(keras.layers.Layer):
    """Uses a string op, for which XLA has no kernel."""

    def call(self, x):
        text = tf.strings.as_string(tf.reduce_sum(x))
        return x + tf.strings.to_number(text) * 0.0


def unjittable_run():
    features = keras.Input((8,))
    model = keras.Model(features, keras.layers.Dense(3)(Unjittable()(features)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    examples = small.blobs()
    state = small.state_of(model, examples)
    from kerastrain.training.executor import Executor
    from kerastrain.training.steps import supervised_step

    return state, Executor(state, supervised_step, examples, batch_size=32, seed=0)


def test_a_step_that_xla_cannot_compile_runs_without_it():
    state, executor = unjittable_run()
    choice = measure(executor, state, jit="auto", total_steps=10**9)
    assert not choice.jit and "cannot compile" in choice.reason


def test_xla_asked_for_where_it_cannot_compile_is_an_error():
    state, executor = unjittable_run()
    with pytest.raises(OptionsError, match=r"--jit=on: XLA cannot compile .* Use --jit=off"):
        measure(executor, state, jit="on", total_steps=100)


def test_a_choice_survives_json():
    choice = Choice(True, 200, 0.003, "XLA, as asked for")
    assert Choice.from_json(choice.to_json()) == choice
