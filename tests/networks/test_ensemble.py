"""TabM: members that learn each for itself and answer together, against NumPy; saved and loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kerastrain.errors import OptionsError
from kerastrain.networks.ensemble import Ensemble, member_outputs
from kerastrain.networks.heads import PinballLoss

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(10, 4)).astype(np.float32)
CLASSES = (np.arange(10) % 3).astype(np.int32)
NUMBERS = RANDOM.normal(size=(10, 1)).astype(np.float32)
WEIGHTS = RANDOM.random(10).astype(np.float32)


def ensemble(averages="probabilities", units=3, members=4, dropout=0.0, **compiled) -> Ensemble:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    outputs = member_outputs(
        inputs, units=units, members=members, hidden=5, layers=2, dropout=dropout
    )
    model = Ensemble(keras.Model(inputs, outputs), averages=averages)
    if compiled:
        model.compile(optimizer="sgd", **compiled)
    return model


def of_classes() -> Ensemble:
    return ensemble(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_each_member_is_a_perceptron_with_factors_and_biases_of_its_own():
    model = ensemble().members
    scale, kernel, unscale, bias, scale_2, kernel_2, unscale_2, bias_2, last, last_bias = (
        model.get_weights()
    )
    assert kernel.shape == (4, 5) and scale.shape == (4, 4) and last.shape == (4, 5, 3)
    outputs = model(X).numpy()
    for member in range(4):
        # BatchEnsemble (Wen et al. 2020): s ⊙ (W (r ⊙ x)) + b.
        x = ((X * scale[member]) @ kernel) * unscale[member] + bias[member]
        x = np.maximum(x, 0)
        x = ((x * scale_2[member]) @ kernel_2) * unscale_2[member] + bias_2[member]
        x = np.maximum(x, 0) @ last[member] + last_bias[member]
        np.testing.assert_allclose(outputs[:, member], x, atol=1e-5)


def test_members_differ_from_the_first_step_on():
    outputs = ensemble().members(X).numpy()
    assert np.abs(outputs[:, 0] - outputs[:, 1]).max() > 1e-3


def test_asked_it_answers_with_the_mean_of_the_members_probabilities():
    model = ensemble()
    of_members = model.members(X).numpy()
    np.testing.assert_allclose(np.exp(model(X)), softmax(of_members).mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(softmax(model(X).numpy()), np.exp(model(X)), atol=1e-6)
    assert model(X, training=True).shape == (10, 4, 3)
    assert model.predict(X, verbose=0).shape == (10, 3)


def test_asked_for_numbers_it_answers_with_their_mean():
    model = ensemble("numbers", units=2)
    np.testing.assert_allclose(model(X), model.members(X).numpy().mean(axis=1), atol=1e-6)


def test_extreme_logits_stay_finite():
    inputs = keras.Input((2, 3))
    outputs = keras.layers.Identity()(inputs)
    model = Ensemble(keras.Model(inputs, outputs), averages="probabilities")
    logits = np.array([[[1e4, -1e4, 0], [-1e4, 1e4, 0]]], np.float32)
    np.testing.assert_allclose(np.exp(model(logits)), [[0.5, 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_training_loss_is_the_mean_of_the_members_losses(weights):
    model = of_classes()
    outputs = model(X, training=True)
    loss = float(model.compute_loss(X, CLASSES, outputs, weights))
    chosen = softmax(outputs.numpy())[np.arange(10), :, CLASSES]
    expected = -np.log(chosen) * (1 if weights is None else weights[:, np.newaxis])
    assert loss == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_training_loss_of_numbers_too(weights):
    model = ensemble("numbers", units=1, loss="mse")
    outputs = model(X, training=True)
    loss = float(model.compute_loss(X, NUMBERS, outputs, weights))
    expected = (outputs.numpy()[:, :, 0] - NUMBERS) ** 2
    expected = expected * (1 if weights is None else weights[:, np.newaxis])
    assert loss == pytest.approx(expected.mean(), rel=1e-5)


def test_the_training_loss_of_quantiles_too():
    model = ensemble("numbers", units=2, loss=PinballLoss((0.2, 0.8)))
    outputs = model(X, training=True)
    missed = NUMBERS[:, np.newaxis] - outputs.numpy()
    levels = np.array([0.2, 0.8])
    expected = np.maximum(levels * missed, (levels - 1) * missed).mean()
    assert float(model.compute_loss(X, NUMBERS, outputs)) == pytest.approx(expected, rel=1e-5)


def test_measured_it_is_the_loss_of_the_mean_that_counts():
    model = of_classes()
    measured = model.evaluate(X, CLASSES, verbose=0, return_dict=True)
    mean = softmax(model.members(X).numpy()).mean(axis=1)
    assert measured["loss"] == pytest.approx(-np.log(mean[np.arange(10), CLASSES]).mean(), rel=1e-5)
    assert measured["accuracy"] == pytest.approx((mean.argmax(1) == CLASSES).mean())
    assert measured["loss"] <= float(model.compute_loss(X, CLASSES, model(X, training=True)))


def test_metrics_while_training_are_of_the_mean():
    model = of_classes()
    model.optimizer.learning_rate = 0.0
    history = model.fit(X, CLASSES, batch_size=10, verbose=0).history
    accuracy = model.evaluate(X, CLASSES, verbose=0, return_dict=True)["accuracy"]
    assert history["accuracy"] == [pytest.approx(accuracy)]


def test_each_member_is_trained_as_if_it_were_alone():
    """The gradient of a member's own weights is its own loss's, by the number of members."""
    import tensorflow as tf

    model = of_classes()
    last = model.members.trainable_variables[-1].value
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(X, training=True)
        together = model.compute_loss(X, CLASSES, outputs)
        alone = keras.ops.mean(
            keras.losses.sparse_categorical_crossentropy(CLASSES, outputs[:, 2], from_logits=True)
        )
    np.testing.assert_allclose(
        4 * tape.gradient(together, last)[2], tape.gradient(alone, last)[2], atol=1e-6
    )


@pytest.mark.parametrize("averages", ["probabilities", "numbers"])
def test_it_survives_saving_and_loading_with_weights_loss_and_optimizer(tmp_path, averages):
    if averages == "numbers":
        model, targets = (
            ensemble("numbers", units=2, loss=PinballLoss((0.1, 0.9), scale=3)),
            NUMBERS,
        )
    else:
        model, targets = of_classes(), CLASSES
    model.fit(X, targets, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, Ensemble) and loaded.averages == averages
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert len(loaded.weights) == len(model.weights)
    assert loaded.evaluate(X, targets, verbose=0) == pytest.approx(
        model.evaluate(X, targets, verbose=0)
    )
    history = [
        m.fit(X, targets, epochs=2, shuffle=False, verbose=0).history for m in (loaded, model)
    ]
    assert history[0]["loss"] == pytest.approx(history[1]["loss"])


@pytest.mark.parametrize("averages", ["probabilities", "numbers"])
def test_without_own_classes_it_answers_the_same_by_the_same_weights(averages):
    model = ensemble(averages, dropout=0.5)
    answering = model.without_own_classes()
    np.testing.assert_array_equal(answering(X), model(X))
    np.testing.assert_array_equal(answering(X, training=False), model(X))
    assert [v.path for v in answering.weights] == [v.path for v in model.members.weights]
    assert "kerastrain" not in answering.to_json()


def test_its_config_makes_the_same_again():
    model = ensemble()
    assert Ensemble.from_config(model.get_config()).get_config() == model.get_config()


def test_dropout_is_drawn_for_each_member():
    model = ensemble(dropout=0.5, members=2)
    outputs = model.members(np.repeat(X[:1], 200, axis=0), training=True).numpy()
    assert np.abs(np.corrcoef(outputs[:, 0, 0], outputs[:, 1, 0])[0, 1]) < 0.3
    assert np.ptp(model(X).numpy() - model(X).numpy()) == 0


def test_outputs_stay_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = ensemble()
        assert model(X).dtype == "float32" and model(X, training=True).dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "bad", [{"members": 0}, {"hidden": 0}, {"layers": 0}, {"dropout": 1.0}, {"members": 2.5}]
)
def test_a_setting_out_of_range_is_refused_by_name(bad):
    good = {"units": 2, "members": 2, "hidden": 2, "layers": 1, "dropout": 0.0}
    with pytest.raises(OptionsError, match=f"{next(iter(bad))}=.*expected"):
        member_outputs(keras.Input((4,)), **{**good, **bad})
