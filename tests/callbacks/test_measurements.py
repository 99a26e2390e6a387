"""Standard errors and gradient evidence, held against NumPy and by hand."""

import json

import keras
import numpy as np
import pytest

from kerastrain import EarlyStopping, Examples
from kerastrain.callbacks.measurements import (
    GradientEvidence,
    LossDifference,
    evidence,
    example_losses,
    measurements_for,
)
from kerastrain.errors import OptionsError
from kerastrain.training.stopping import parse_criterion

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 2)).astype(np.float32)
Y = (X @ [[1.0], [2.0]] + 0.1 * RNG.normal(size=(64, 1))).astype(np.float32)
ROWS = Examples(X, Y)


def linear(loss="mse"):
    net = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    net.compile(keras.optimizers.SGD(0.05), loss)
    return net


def test_evidence_is_the_papers_formula_by_hand():
    # Gradients of two examples for two elements: (1, 2) and (3, 2): mean (2, 2), variance (2, 0).
    # Only the first varies: 1 - (2 / 1) · (4 / 2) = -3.
    assert evidence([np.array([4.0, 4.0])], [np.array([10.0, 8.0])], examples=2) == -3


def test_evidence_without_any_variance_is_not_known():
    assert np.isnan(evidence([np.array([4.0])], [np.array([8.0])], examples=2))


def test_the_gradients_of_single_examples_are_those_of_the_loss():
    callback, logs = GradientEvidence(ROWS, batch_size=64, seed=0), {}
    net = linear()
    callback.set_model(net)
    callback.on_epoch_end(0, logs)
    # The whole data set in every batch: one value, of gradients 2 x (x·w - y).
    weights = np.ones((2, 1))
    gradients = 2 * X * (X @ weights - Y)
    mean, variance = gradients.mean(axis=0), gradients.var(axis=0, ddof=1)
    assert logs["evidence"] == pytest.approx(1 - 64 / 2 * np.sum(mean**2 / variance), rel=1e-4)


@pytest.mark.parametrize(
    "loss",
    ["mse", keras.losses.MeanSquaredError(), keras.losses.Huber(reduction="sum"),
     keras.losses.mean_squared_error, lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1)],
)  # fmt: skip
def test_the_losses_of_single_examples_make_up_the_loss(loss):
    net = linear(loss)
    losses = example_losses(net, ROWS)
    assert losses.shape == (64,) and losses.dtype == np.float32
    whole = net.evaluate(X, Y, batch_size=64, verbose=0)
    total = losses.sum() if getattr(loss, "reduction", None) == "sum" else losses.mean()
    assert total == pytest.approx(whole, rel=1e-4)


def test_the_reference_survives_a_restart():
    net, whole, before = linear(), LossDifference(ROWS, z=0), LossDifference(ROWS, z=0)
    for callback in (whole, before):
        callback.set_model(net)
        callback.on_epoch_end(0, {"val_loss": 1.0})
    state = json.loads(json.dumps(before.get_state()))
    resumed = LossDifference(ROWS, z=0)
    resumed.set_model(net)
    resumed.on_train_begin()
    resumed.set_state(state)
    net.set_weights([np.array([[1.5], [1.5]])])
    first, second = {"val_loss": 0.5}, {"val_loss": 0.5}
    whole.on_epoch_end(1, first)
    resumed.on_epoch_end(1, second)
    assert first == second and first["val_loss_difference_error"] > 0


def test_both_work_in_fit():
    net = linear()
    callbacks = [LossDifference(ROWS, z=2), GradientEvidence(ROWS, batch_size=16, seed=0),
                 EarlyStopping(stop="significance(z=2, patience=3) or evidence")]  # fmt: skip
    history = net.fit(X, Y, validation_data=(X, Y), epochs=200, verbose=0, callbacks=callbacks)
    assert len(history.epoch) < 200
    assert len(history.history["evidence"]) == len(history.epoch)


def test_only_what_a_rule_needs_is_measured():
    def names(text):
        rule = parse_criterion(text)
        made = measurements_for(rule, train=ROWS, validation=ROWS, batch_size=8, seed=0)
        return [type(callback).__name__ for callback in made]

    assert names("patience(5)") == []
    assert names("smoothed(evidence, beta=0.5) or gl(2)") == ["GradientEvidence"]
    assert names("significance and evidence") == ["LossDifference", "GradientEvidence"]


def test_standard_errors_are_measured_for_one_z_only():
    rule = parse_criterion("significance(z=1) or significance(z=2)")
    with pytest.raises(OptionsError, match="z of 1 and 2"):
        measurements_for(rule, train=ROWS, validation=ROWS, batch_size=8, seed=0)


def test_a_standard_error_needs_two_examples_at_least():
    with pytest.raises(OptionsError, match="only one. Give more"):
        measurements_for(parse_criterion("significance"), train=ROWS,
                         validation=ROWS.take(np.arange(1)), batch_size=8, seed=0)  # fmt: skip


def test_evidence_needs_batches_of_two_at_least():
    with pytest.raises(OptionsError, match="larger --batch_size"):
        measurements_for(parse_criterion("evidence"), train=ROWS, validation=None, batch_size=1,
                         seed=0)  # fmt: skip
