"""Gradient descent, SGD and Adam as the textbook has them, in NumPy, over 1,000 steps."""

import keras
import numpy as np
import pytest
from checked_here import check_here

import kerastrain
from kerastrain.data.order import epoch_order

X = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
Y = np.array([[1.0], [2.0], [3.0]])
STEPS = 1000
# Exact in float32, in which Keras keeps a learning rate.
RATE = 1 / 64


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    check_here(monkeypatch)


def line():
    """y = x · w + b in float64, from zero."""
    inputs = keras.Input((2,), dtype="float64")
    outputs = keras.layers.Dense(1, kernel_initializer="zeros", dtype="float64")(inputs)
    return keras.Model(inputs, outputs)


def trained(tmp_path, optimizer, batch_size):
    """kernel and bias after 1,000 steps, as one vector of three."""
    net = line()
    # Keras computes a loss in float32 unless it is told otherwise.
    net.compile(optimizer, keras.losses.MeanSquaredError(dtype="float64"))
    kerastrain.train(
        net,
        (X, Y),
        workdir=tmp_path / "run",
        max_steps=STEPS,
        max_epochs=STEPS,
        batch_size=batch_size,
        evaluate_every=f"{STEPS}steps",
        jit="off",
        verbose=0,
    )
    kernel, bias = (np.asarray(weights) for weights in net.get_weights())
    assert kernel.dtype == np.float64
    return np.append(kernel, bias)


def gradient(theta, rows):
    """Of the mean over the rows of (x · w + b - y)²."""
    inputs = np.hstack([X[rows], np.ones((len(rows), 1))])
    errors = inputs @ theta - Y[rows, 0]
    return 2 * inputs.T @ errors / len(rows)


def batches(batch_size):
    """The row numbers of each step, as the run takes them."""
    for epoch in range(STEPS):
        order = epoch_order(seed=0, epoch=epoch, examples=3).numpy()
        yield from np.split(order, range(batch_size, 3, batch_size))


def descended(batch_size, update):
    theta = np.zeros(3)
    for step, rows in zip(range(1, STEPS + 1), batches(batch_size), strict=False):
        theta = theta + update(gradient(theta, rows), step)
    return theta


def test_gradient_descent_on_the_full_batch(tmp_path):
    # theta <- theta - rate · gradient of the whole loss
    expected = descended(3, lambda g, t: -RATE * g)
    found = trained(tmp_path, keras.optimizers.SGD(RATE), "all")
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch_size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stochastic_gradient_descent_in_the_runs_order(tmp_path, batch_size):
    # The same with the gradient of a few rows; of three, two leave a batch of one.
    expected = descended(batch_size, lambda g, t: -RATE * g)
    found = trained(tmp_path, keras.optimizers.SGD(RATE), batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_momentum(tmp_path):
    velocity = np.zeros(3)

    def update(g, t):
        nonlocal velocity
        velocity = 0.5 * velocity - RATE * g  # Polyak (1964)
        return velocity

    found = trained(tmp_path, keras.optimizers.SGD(RATE, momentum=0.5), 1)
    np.testing.assert_allclose(found, descended(1, update), rtol=1e-12, atol=1e-14)


def test_adam(tmp_path):
    """Kingma & Ba (2015), algorithm 1, in the order of computation of the end of section 2."""
    m, v = np.zeros(3), np.zeros(3)
    # Keras corrects the bias with betas rounded to float32; these are exact in it.
    beta_1, beta_2, epsilon = 1 - 2**-3, 1 - 2**-10, 1e-7

    def update(g, t):
        nonlocal m, v
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        rate = RATE * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        return -rate * m / (np.sqrt(v) + epsilon)

    found = trained(tmp_path, keras.optimizers.Adam(RATE, beta_1, beta_2), 1)
    np.testing.assert_allclose(found, descended(1, update), rtol=1e-12, atol=1e-14)
