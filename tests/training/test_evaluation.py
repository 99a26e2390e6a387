"""Evaluation: every example once, as Keras's own `evaluate` counts them."""

import pytest
import small_runs as small

from kerastrain.training.evaluation import Evaluator, as_floats


@pytest.mark.parametrize("examples", [5, 1000, 2307])
@pytest.mark.parametrize("jit", [False, True])
def test_metrics_agree_with_keras_evaluate(examples, jit):
    rows = small.blobs(examples, weights=True)
    state = small.state_of(small.classifier(dropout=0.5), rows)
    metrics = Evaluator(state, rows)(jit=jit)
    expected = state.model.evaluate(
        rows.inputs,
        rows.targets,
        sample_weight=rows.weights,
        verbose=0,
        return_dict=True,
        batch_size=1000,
    )
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_streamed_evaluation_gives_the_same_numbers():
    rows = small.blobs(2307)
    state = small.state_of(small.classifier(), rows)
    resident = Evaluator(state, rows)(jit=False)
    assert Evaluator(state, rows, budget_bytes=rows.nbytes // 2)(jit=False) == resident


def test_an_evaluation_leaves_the_metrics_reset():
    rows = small.blobs(100)
    state = small.state_of(small.classifier(), rows)
    Evaluator(state, rows)(jit=False)
    assert as_floats(state.model.get_metrics_result())["accuracy"] == 0.0


def test_a_metric_of_several_values_is_named_by_position():
    assert as_floats({"f1": [0.5, 0.75], "loss": 1}) == {"f1_0": 0.5, "f1_1": 0.75, "loss": 1.0}
