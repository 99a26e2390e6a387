"""Evaluation: every example once, as Keras's own `evaluate` counts them."""

import keras
import pytest
import small_runs as small

from kerastrain.training.evaluation import Evaluator, as_floats


@pytest.mark.parametrize("examples", [5, 1000, 2307])
@pytest.mark.parametrize("jit", [False, True])
def test_metrics_agree_with_keras_evaluate(examples, jit):
    rows = small.blobs(examples, weights=True)
    state = small.state_of(small.classifier(dropout=0.5), rows)
    metrics = Evaluator(state, rows, batch_size=1000)(jit=jit)
    expected = state.model.evaluate(
        rows.inputs,
        rows.targets,
        sample_weight=rows.weights,
        verbose=0,
        return_dict=True,
        batch_size=1000,
    )
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_a_loss_over_a_whole_batch_is_the_one_of_keras_evaluate_in_the_same_batches():
    def spread(targets, outputs):
        return keras.ops.max(outputs) - keras.ops.min(outputs)

    rows = small.blobs(203)
    state = small.state_of(small.classifier(), rows)
    state.model.compile(optimizer="adam", loss=spread)
    found = {size: Evaluator(state, rows, batch_size=size)(jit=False)["loss"] for size in (32, 203)}
    for size, loss in found.items():
        expected = state.model.evaluate(
            rows.inputs, rows.targets, batch_size=size, verbose=0, return_dict=True
        )
        assert loss == pytest.approx(expected["loss"], rel=1e-5)
    assert found[32] < 0.9 * found[203]


def test_an_evaluation_that_draws_random_numbers_is_a_function_of_the_step():
    class Sampling(keras.layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs))

    rows = small.blobs(100)
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(3)(Sampling()(inputs)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    state = small.state_of(model, rows)
    evaluate = Evaluator(state, rows, batch_size=32)
    first = evaluate(jit=False)
    model(rows.inputs[:7])  # Whatever was drawn in between.
    assert evaluate(jit=False) == first
    state.step = 1
    assert evaluate(jit=False) != first


def test_streamed_evaluation_gives_the_same_numbers():
    rows = small.blobs(2307)
    state = small.state_of(small.classifier(), rows)
    resident = Evaluator(state, rows, batch_size=1000)(jit=False)
    streamed = Evaluator(state, rows, batch_size=1000, budget_bytes=rows.nbytes // 2)
    assert streamed(jit=False) == resident


def test_an_evaluation_leaves_the_metrics_reset():
    rows = small.blobs(100)
    state = small.state_of(small.classifier(), rows)
    Evaluator(state, rows, batch_size=32)(jit=False)
    assert as_floats(state.model.get_metrics_result())["accuracy"] == 0.0


def test_a_metric_of_several_values_is_named_by_position():
    assert as_floats({"f1": [0.5, 0.75], "loss": 1}) == {"f1_0": 0.5, "f1_1": 0.75, "loss": 1.0}
