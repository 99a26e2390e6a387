"""What ends a network: outputs, loss and metrics for classes, numbers and quantiles."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.data.tables.encoded import EncodedColumns
from kerastrain.networks.ensemble import Ensemble
from kerastrain.networks.features import encoded_inputs
from kerastrain.networks.heads import (
    PinballLoss,
    compiled,
    compiled_ensemble,
    units,
    with_output,
)
from kerastrain.options import TrainOptions

RANDOM = np.random.default_rng(0)
X = {"numbers": RANDOM.normal(size=(64, 3)).astype(np.float32)}
PRICES = (5000 + 1000 * X["numbers"][:, :1]).astype(np.float32)
KINDS = (X["numbers"][:, 0] > 0).astype(np.int32) + (X["numbers"][:, 1] > 0)
OPTIONS = TrainOptions(optimizer="adam", learning_rate=0.01)


def data(task, targets) -> Data:
    columns = EncodedColumns(numbers=("a", "b", "c")).with_bins(X["numbers"])
    if isinstance(task, Regression):
        columns = columns.with_target(targets)
    return Data(train=Examples(X, targets), task=task, columns=columns)


CLASSES = data(Classification(("a", "b", "c")), KINDS)
NUMBER = data(Regression("price"), PRICES)
LEVELS = data(Regression("price", (0.1, 0.5, 0.9)), PRICES)


def build(of, *, ensemble=False):
    keras.utils.set_random_seed(0)
    inputs = encoded_inputs(of.columns)
    x = inputs["numbers"]
    if ensemble:
        shape = {"members": 3, "hidden": 8, "layers": 1, "dropout": 0.0}
        return compiled_ensemble(inputs, x, OPTIONS, of, **shape)
    return compiled(inputs, x, OPTIONS, of)


def test_the_number_of_outputs_follows_the_task():
    assert [units(CLASSES), units(NUMBER), units(LEVELS)] == [3, 1, 3]


def test_classes_are_answered_by_float32_logits():
    model = build(CLASSES)
    assert model.output_shape == (None, 3) and model.output_names == ["logits"]
    assert model.loss.from_logits
    assert set(model.evaluate(X, KINDS, verbose=0, return_dict=True)) == {"loss", "accuracy"}


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("of", [CLASSES, NUMBER, LEVELS])
def test_outputs_stay_float32_in_mixed_precision(of, ensemble):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert build(of, ensemble=ensemble)(X).dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("of", [NUMBER, LEVELS])
def test_untrained_numbers_are_about_the_mean_of_the_target(of, ensemble):
    predicted = build(of, ensemble=ensemble).predict(X, verbose=0)
    assert predicted.shape == (64, units(of))
    assert abs(predicted.mean() - 5000) < 1000


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_loss_is_in_variances_and_the_metrics_in_units(ensemble):
    metrics = build(NUMBER, ensemble=ensemble).evaluate(X, PRICES, verbose=0, return_dict=True)
    assert set(metrics) == {"loss", "rmse", "mae"}
    assert metrics["loss"] == pytest.approx(metrics["rmse"] ** 2 / PRICES.var(), rel=1e-4)


def test_the_loss_of_quantiles_is_in_deviations():
    model = build(LEVELS)
    loss = model.evaluate(X, PRICES, verbose=0, return_dict=True)["loss"]
    missed = (PRICES - model.predict(X, verbose=0)) / PRICES.std()
    levels = np.array([0.1, 0.5, 0.9])
    assert loss == pytest.approx(
        np.maximum(levels * missed, (levels - 1) * missed).mean(), rel=1e-4
    )


def test_a_target_that_does_not_vary_is_no_division_by_zero():
    same = data(Regression("price"), np.full((64, 1), 7, np.float32))
    assert np.isfinite(build(same).evaluate(X, same.train.targets, verbose=0)[0])


def test_an_output_that_is_there_is_put_into_units():
    inputs = encoded_inputs(NUMBER.columns)
    zero = keras.layers.Dense(1, kernel_initializer="zeros")(inputs["numbers"])
    model = with_output(inputs, zero, OPTIONS, NUMBER)
    np.testing.assert_allclose(model.predict(X, verbose=0), PRICES.mean(), rtol=1e-6)


def test_an_ensemble_averages_probabilities_of_classes_and_numbers():
    assert build(CLASSES, ensemble=True).averages == "probabilities"
    assert build(NUMBER, ensemble=True).averages == "numbers"
    assert isinstance(build(LEVELS, ensemble=True), Ensemble)


def test_the_optimizer_is_that_of_the_options():
    optimizer = build(CLASSES).optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


# The pinball loss.

levels = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True).map(sorted)


@settings(max_examples=60)
@given(st.data(), levels, st.sampled_from([1.0, 250.0]))
def test_the_pinball_loss_is_that_of_koenker_and_bassett(drawn, levels, scale):
    n = drawn.draw(st.integers(1, 6))
    floats = st.floats(-1000, 1000, width=32)
    y = drawn.draw(arrays.arrays(np.float32, (n, 1), elements=floats))
    predicted = drawn.draw(arrays.arrays(np.float32, (n, len(levels)), elements=floats))
    loss = PinballLoss(levels, scale=scale, reduction="none")(y, predicted)
    expected = [
        np.mean(
            [q * (a - p) if a >= p else (1 - q) * (p - a) for q, p in zip(levels, row, strict=True)]
        )
        for (a,), row in zip(y.astype(float), predicted.astype(float), strict=True)
    ]
    np.testing.assert_allclose(loss, np.array(expected) / scale, rtol=1e-4, atol=1e-4)


def test_the_pinball_loss_is_least_at_the_quantile():
    y = np.arange(101, dtype=np.float32)[:, np.newaxis]
    guesses = np.arange(101, dtype=np.float32)
    losses = [float(PinballLoss((0.9,))(y, np.full((101, 1), guess))) for guess in guesses]
    assert guesses[int(np.argmin(losses))] == 90


def test_the_pinball_loss_weighs_rows_and_survives_its_config():
    loss = PinballLoss((0.1, 0.9), scale=2.0)
    again = PinballLoss.from_config(loss.get_config())
    y, predicted = PRICES[:4] / 1000, np.ones((4, 2), np.float32)
    weights = np.array([0, 1, 2, 0], np.float32)
    rows = PinballLoss((0.1, 0.9), scale=2.0, reduction="none")(y, predicted)
    assert float(again(y, predicted, weights)) == pytest.approx((rows * weights).numpy().sum() / 4)


@pytest.mark.parametrize("of", [CLASSES, NUMBER, LEVELS])
def test_a_saved_model_is_the_same_when_it_is_loaded(tmp_path, of):
    model = build(of)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    measured = [m.evaluate(X, of.train.targets, verbose=0) for m in (loaded, model)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)
