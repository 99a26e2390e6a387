"""The range test: what is suggested from a curve, and that a real one is the same each time."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from small_runs import blobs, classifier, state_of

from kerastrain.training.range_test import (
    FIRST_RATE,
    LAST_RATE,
    has_diverged,
    range_test,
    suggested_rate,
)
from kerastrain.training.steps import supervised_step, unpack

RATES = np.geomspace(FIRST_RATE, LAST_RATE, 200).tolist()


def curve(*, falls_at=1e-3, rises_at=0.1, noise=0.0):
    """Flat at 2, falls to 0.5 around one rate, and rises steeply around another."""
    logs = np.log10(RATES)
    fall = 1.5 / (1 + np.exp(-6 * (logs - math.log10(falls_at))))
    rise = np.exp(8 * (logs - math.log10(rises_at)))
    random = np.random.default_rng(0).normal(size=len(RATES))
    return (2 - fall + np.minimum(rise, 50) + noise * random).tolist()


def test_the_suggestion_lies_where_most_of_the_fall_is_done():
    # It falls by half at 1e-3, by nine tenths at 2.3e-3; the mean lags behind by ten steps.
    found = suggested_rate(RATES, curve(falls_at=1e-3, rises_at=0.5))
    assert 1e-3 < found < 5e-3


def test_a_curve_that_is_shifted_shifts_the_suggestion():
    near, far = (
        suggested_rate(RATES, curve(falls_at=at, rises_at=100 * at)) for at in (1e-3, 1e-2)
    )
    assert far / near == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_does_not_lead_it_far_away(noise):
    quiet, noisy = (suggested_rate(RATES, curve(noise=n)) for n in (0.0, noise))
    assert 1 / 4 < noisy / quiet < 4


def test_what_comes_after_a_divergence_is_not_looked_at():
    losses = curve()
    spike = losses[:150] + [60.0] * 20 + [1.9] * 30
    assert suggested_rate(RATES, spike) == suggested_rate(RATES[:150], losses[:150])


def test_noise_alone_is_no_fall():
    for seed in range(50):
        noise = 2.3 + 0.1 * np.random.default_rng(seed).normal(size=len(RATES))
        assert suggested_rate(RATES, noise.tolist()) is None


@pytest.mark.parametrize(
    "losses",
    [[2.0] * 200, [2.0 + 0.01 * i for i in range(200)], [math.nan] * 5, [2.0, math.nan], [2.0]],
)
def test_a_loss_that_never_falls_suggests_nothing(losses):
    assert suggested_rate(RATES[: len(losses)], losses) is None


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=200))
def test_any_curve_gives_a_rate_within_the_range_or_none(losses):
    found = suggested_rate(RATES[: len(losses)], losses)
    assert found is None or FIRST_RATE / 11 < found < LAST_RATE


def test_divergence_is_a_rise_far_beyond_the_start():
    assert not has_diverged([2.0, 1.5, 1.0, 1.2])
    assert has_diverged([2.0, 1.0, 1.0, 60.0])
    assert has_diverged([2.0, math.inf]) and has_diverged([math.nan])
    # A loss below zero, or that begins at it, has no other scale than its fall.
    assert not has_diverged([-1.0, -2.0, -1.5])


def measured(examples=None, *, step=supervised_step, batch_size=32, **model_settings):
    examples = blobs() if examples is None else examples
    state = state_of(classifier(**model_settings), examples)
    return range_test(state, step, examples, batch_size=batch_size, seed=7)


def test_a_real_test_rises_from_the_first_rate_until_it_diverges_and_repeats_exactly():
    found = measured(dropout=0.2, optimizer="sgd")
    assert found == measured(dropout=0.2, optimizer="sgd")
    assert found.rates[0] == FIRST_RATE and len(found.rates) == len(found.losses)
    assert 0.01 < found.suggestion < 5


def test_the_losses_are_those_that_the_step_returns_whatever_becomes_of_the_metrics():
    def bare_step(state, batch):
        x, y, _ = unpack(batch)
        with tf.GradientTape() as tape:
            loss = state.model.compute_loss(x, y, state.predict(x, training=True))
        state.apply_gradients(tape.gradient(loss, state.trainable_values))
        return loss

    assert measured(step=bare_step) == measured()


def test_updates_that_loss_scaling_skips_do_not_hold_the_rate_up():
    def scaled():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**127)

    found = measured(optimizer=scaled())
    assert found.rates == measured(optimizer="sgd").rates[: len(found.rates)]
    assert found.suggestion is not None


def test_four_rows_are_enough():
    assert measured(blobs(4), batch_size=4).suggestion is not None
