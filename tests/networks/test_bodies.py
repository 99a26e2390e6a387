"""Bodies of networks: what the papers write, against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kerastrain.errors import OptionsError
from kerastrain.networks.bodies import cross, perceptron, residual

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def model_of(body, **settings) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    return keras.Model(inputs, body(inputs, **settings))


def layers(model, kind) -> list:
    return [layer for layer in model.layers if isinstance(layer, kind)]


def weights_of(model) -> list[list[np.ndarray]]:
    return [layer.get_weights() for layer in layers(model, keras.layers.Dense)]


def test_a_perceptron_is_dense_layers_with_activation_and_dropout():
    model = model_of(perceptron, hidden=5, layers=2, dropout=0.25)
    x = X
    for kernel, bias in weights_of(model):
        x = np.maximum(x @ kernel + bias, 0)
    np.testing.assert_allclose(model(X), x, atol=1e-6)
    assert [layer.rate for layer in layers(model, keras.layers.Dropout)] == [0.25] * 2
    assert not layers(model_of(perceptron, hidden=5, layers=2, dropout=0), keras.layers.Dropout)


def test_a_perceptron_without_layers_is_what_it_is_given():
    np.testing.assert_array_equal(model_of(perceptron, hidden=5, layers=0, dropout=0)(X), X)


def test_a_residual_network_adds_blocks_to_what_goes_in():
    model = model_of(residual, width=3, blocks=2, dropout=0.2)

    def normal(x):  # as it is before any training: mean 0, variance 1, epsilon 1e-3
        return x / np.sqrt(1 + 1e-3)

    (first, first_bias), *inner = weights_of(model)
    x = X @ first + first_bias
    for (up, up_bias), (down, down_bias) in zip(inner[::2], inner[1::2], strict=True):
        assert up.shape == (3, 6)
        x = x + np.maximum(normal(x) @ up + up_bias, 0) @ down + down_bias
    np.testing.assert_allclose(model(X), np.maximum(normal(x), 0), atol=1e-5)
    assert len(layers(model, keras.layers.Dropout)) == 2


def test_the_cross_network_multiplies_by_what_went_in_first():
    model = model_of(cross, crosses=3)
    x = X
    for kernel, bias in weights_of(model):
        x = X * (x @ kernel + bias) + x  # Wang et al. (2021), eq. 1
    np.testing.assert_allclose(model(X), x, atol=1e-5)
    assert model.output_shape == (None, 4)


@pytest.mark.parametrize(
    ("body", "good", "bad"),
    [
        (perceptron, {"hidden": 2, "layers": 1, "dropout": 0.1}, {"hidden": 0}),
        (perceptron, {"hidden": 2, "layers": 1, "dropout": 0.1}, {"layers": -1}),
        (perceptron, {"hidden": 2, "layers": 1, "dropout": 0.1}, {"dropout": 1}),
        (perceptron, {"hidden": 2, "layers": 1, "dropout": 0.1}, {"dropout": float("nan")}),
        (residual, {"width": 2, "blocks": 1, "dropout": 0.1}, {"width": 0}),
        (residual, {"width": 2, "blocks": 1, "dropout": 0.1}, {"blocks": 0}),
        (residual, {"width": 2, "blocks": 1, "dropout": 0.1}, {"dropout": -0.1}),
        (cross, {"crosses": 1}, {"crosses": 0}),
        (cross, {"crosses": 1}, {"crosses": 1.5}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(body, good, bad):
    model_of(body, **good)
    with pytest.raises(OptionsError, match=f"{next(iter(bad))}=.*expected"):
        model_of(body, **{**good, **bad})


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        (perceptron, {"hidden": 3, "layers": 2, "dropout": 0.1}),
        (residual, {"width": 3, "blocks": 2, "dropout": 0.1}),
        (cross, {"crosses": 2}),
    ],
)
def test_bodies_work_in_mixed_precision_and_survive_saving(body, settings, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = model_of(body, **settings)
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "body.keras")
    loaded = keras.models.load_model(tmp_path / "body.keras")
    np.testing.assert_array_equal(loaded(X).numpy(), model(X).numpy())
