"""Steps in chunks: the same bytes however they are cut, compiled, or fed."""

import math

import keras
import numpy as np
import pytest
import small_runs as small
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.errors import DataError
from kerastrain.training.executor import Batches, Executor
from kerastrain.training.placement import Streamed
from kerastrain.training.steps import own_train_step, supervised_step, unpack


@given(
    examples=st.integers(1, 300),
    batch_size=st.integers(1, 80),
    first=st.integers(0, 500),
    count=st.integers(1, 200),
)
def test_segments_cover_every_step_once_and_every_row_of_an_epoch(
    examples, batch_size, first, count
):
    batches = Batches.of(examples=examples, batch_size=batch_size)
    segments = list(batches.segments(first, count))
    steps = [s.first_step + i for s in segments for i in range(s.steps)]
    assert steps == list(range(first, first + count))
    rows = sum(s.steps * s.batch_size for s in batches.segments(0, batches.steps_per_epoch))
    assert rows == examples


@given(examples=st.integers(2, 300), batch_size=st.integers(2, 80), replicas=st.integers(2, 4))
def test_over_replicas_each_step_divides_evenly_and_fewer_rows_than_replicas_wait(
    examples, batch_size, replicas
):
    if min(examples, batch_size) < replicas:
        with pytest.raises(DataError, match="larger --batch_size"):
            Batches.of(examples=examples, batch_size=batch_size, replicas=replicas)
        return
    batches = Batches.of(examples=examples, batch_size=batch_size, replicas=replicas)
    segments = list(batches.segments(0, batches.steps_per_epoch))
    assert all(s.batch_size % replicas == 0 for s in segments)
    assert examples - sum(s.steps * s.batch_size for s in segments) < replicas


@pytest.mark.parametrize("jit", [False, True])
def test_chunks_of_any_size_give_the_same_bytes(jit):
    whole, executor = small.executor_of(dropout=0.3, batch_norm=True)
    executor.run(0, 20, jit=jit)
    pieces, executor = small.executor_of(dropout=0.3, batch_norm=True)
    for first, count in ((0, 1), (1, 6), (7, 2), (9, 11)):
        executor.run(first, count, jit=jit)
    assert small.same(whole.snapshot(), pieces.snapshot())


@pytest.mark.parametrize("jit", [False, True])
def test_streamed_examples_give_the_same_bytes_as_resident_ones(jit):
    examples = small.blobs(weights=True)
    snapshots = []
    for budget in (None, 4 * examples.nbytes // 7):
        state = small.state_of(small.classifier(dropout=0.3), examples)
        executor = Executor(
            state, supervised_step, examples, batch_size=32, seed=7, budget_bytes=budget
        )
        executor.run(0, 18, jit=jit)
        snapshots.append(state.snapshot())
    assert isinstance(executor.place, Streamed)
    assert small.same(*snapshots)


def test_the_standard_step_gives_the_bytes_of_keras_own_train_step():
    ours, executor = small.executor_of(dropout=0.3, batch_norm=True, step=supervised_step)
    executor.run(0, 15, jit=False)
    keras_own, executor = small.executor_of(dropout=0.3, batch_norm=True, step=own_train_step)
    executor.run(0, 15, jit=False)
    assert small.same(ours.snapshot(), keras_own.snapshot())


def test_every_example_is_seen_once_an_epoch():
    seen = []

    def counting_step(state, batch):
        tf.py_function(lambda rows: seen.extend(rows.numpy().tolist()), [batch[1]], [])
        return tf.zeros([])

    examples = small.blobs()
    numbered = type(examples)(examples.inputs, np.arange(len(examples), dtype=np.int32))
    state = small.state_of(small.classifier(), examples)
    executor = Executor(state, counting_step, numbered, batch_size=32, seed=0)
    executor.run(0, executor.batches.steps_per_epoch, jit=False)
    assert sorted(seen) == list(range(203))
    assert seen != list(range(203))


def test_the_first_step_whose_loss_is_not_finite_is_named():
    examples = small.blobs()
    inputs = np.array(examples.inputs)
    inputs[:] = 1.0
    state = small.state_of(small.classifier(optimizer=keras.optimizers.SGD(1e30)), examples)
    executor = Executor(
        state, supervised_step, type(examples)(inputs, examples.targets), batch_size=32, seed=0
    )
    assert executor.run(0, 1, jit=False) is None
    first_bad = executor.run(1, 6, jit=False)
    assert first_bad is not None and 1 <= first_bad < 7


def test_dropout_draws_other_numbers_at_every_step_and_the_same_when_a_step_is_repeated():
    state, executor = small.executor_of(dropout=0.5, optimizer=keras.optimizers.SGD(0.0))
    losses = []
    for step in (0, 1, 0):
        state.model.reset_metrics()
        before = state.snapshot()
        executor.run(step, 1, jit=False)
        losses.append(float(state.model.get_metrics_result()["loss"]))
        state.assign(before)
    assert losses[0] == losses[2] != losses[1]


def test_a_custom_step_of_ten_lines_trains():
    def half_batch_step(state, batch):
        x, y = batch[0][::2], batch[1][::2]
        with tf.GradientTape() as tape:
            predictions = state.predict(x, training=True)
            loss = state.model.compute_loss(x, y, predictions)
        state.apply_gradients(tape.gradient(loss, state.trainable_values))
        return state.update_metrics(loss, x, y, predictions, None)

    state, executor = small.executor_of(step=half_batch_step, optimizer=keras.optimizers.Adam(0.05))
    executor.run(0, 60, jit=False)
    assert state.model.get_metrics_result()["accuracy"] > 0.6


# Loss scaling


def spoilt(*, after, what):
    """A step of which the loss and its gradient, or the gradient alone, is NaN from then on."""

    def step(state, batch):
        x, y, _ = unpack(batch)
        with tf.GradientTape() as tape:
            loss = state.model.compute_loss(x, y, state.predict(x, training=True), training=True)
            scaled = state.optimizer.scale_loss(loss)
        late = state.optimizer.iterations.value >= after
        nan = tf.where(late, math.nan, 0.0)
        gradients = [g + nan for g in tape.gradient(scaled, state.trainable_values)]
        state.apply_gradients(gradients)
        return loss + nan if what == "loss" else loss

    return step


@pytest.mark.parametrize(("what", "first_bad"), [("loss", 5 + 3), ("gradient", 5 + 27)])
def test_steps_that_loss_scaling_leaves_out_are_harm_once_that_cannot_help(what, first_bad):
    def run(chunks):
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=8.0)
        _, executor = small.executor_of(step=spoilt(after=5, what=what), optimizer=optimizer)
        at, found = 0, None
        for count in chunks:
            found = executor.run(at, count, jit=False) if found is None else found
            at += count
        return found

    # 8 is halved to below 1 in 4 steps, and to below the least float16 in 28.
    assert run([40]) == run([3, 4, 2, 1, 10, 20]) == first_bad


def test_a_loss_that_is_not_finite_and_was_trained_on_is_harm_at_once():
    def step(state, batch):
        loss = supervised_step(state, batch)
        return tf.where(state.optimizer.iterations.value == 3, math.nan, loss)

    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    _, executor = small.executor_of(step=step, optimizer=optimizer)
    assert executor.run(0, 8, jit=False) == 2
