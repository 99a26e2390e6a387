"""The range test: what is suggested from a curve, and that a real one is the same each time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import blobs, executor_of

from kerastrain.training.range_test import (
    FIRST_RATE,
    LAST_RATE,
    has_diverged,
    range_test,
    suggested_rate,
)

RATES = np.geomspace(FIRST_RATE, LAST_RATE, 200).tolist()


def curve(*, falls_at=1e-3, rises_at=0.1, noise=0.0):
    """Flat at 2, falls to 0.5 around one rate, and rises steeply around another."""
    logs = np.log10(RATES)
    fall = 1.5 / (1 + np.exp(-6 * (logs - math.log10(falls_at))))
    rise = np.exp(8 * (logs - math.log10(rises_at)))
    random = np.random.default_rng(0).normal(size=len(RATES))
    return (2 - fall + np.minimum(rise, 50) + noise * random).tolist()


def test_the_suggestion_lies_where_the_loss_falls_fastest():
    # The least loss is near 0.03, so a third of it does not cut the steepest point off.
    found = suggested_rate(RATES, curve(falls_at=6e-3, rises_at=0.1))
    assert found == pytest.approx(6e-3, rel=0.35)


def test_it_is_never_far_below_the_rate_of_the_least_loss():
    # It falls fastest at 1e-5, and goes on falling a little up to 1e-2.
    losses = [loss - 0.02 * i for i, loss in enumerate(curve(falls_at=1e-5, rises_at=0.1))]
    assert suggested_rate(RATES, losses) > 50 * 1e-5


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_does_not_lead_it_far_away(noise):
    quiet, noisy = (suggested_rate(RATES, curve(noise=n)) for n in (0.0, noise))
    assert 1 / 4 < noisy / quiet < 4


def test_what_comes_after_the_least_loss_is_not_looked_at():
    losses = curve()
    # It diverged and came down again from there, more steeply than it ever fell before.
    spike = losses[:150] + [60.0] * 20 + [1.9] * 30
    assert suggested_rate(RATES, spike) == suggested_rate(RATES[:150], losses[:150])


@pytest.mark.parametrize(
    "losses",
    [[2.0] * 200, [2.0 + 0.01 * i for i in range(200)], [math.nan] * 5, [2.0, math.nan], [2.0]],
)
def test_a_loss_that_never_falls_suggests_nothing(losses):
    assert suggested_rate(RATES[: len(losses)], losses) is None


def test_a_loss_that_falls_to_the_end_suggests_a_third_of_the_last_rate_at_most():
    losses = [2.0 - 0.01 * i for i in range(200)]
    assert LAST_RATE / 10 <= suggested_rate(RATES, losses) <= LAST_RATE / 3


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=200))
def test_any_curve_gives_a_rate_within_the_range_or_none(losses):
    found = suggested_rate(RATES[: len(losses)], losses)
    assert found is None or FIRST_RATE / 11 < found < LAST_RATE


def test_divergence_is_a_rise_far_beyond_the_start():
    assert not has_diverged([2.0, 1.5, 1.0, 1.2])
    assert has_diverged([2.0, 1.0, 1.0, 60.0])
    assert has_diverged([2.0, math.inf])
    # A loss below zero, or that begins at it, has no other scale than its fall.
    assert not has_diverged([-1.0, -2.0, -1.5])


def test_a_real_test_rises_from_the_first_rate_until_it_diverges_and_repeats_exactly():
    def tested():
        state, executor = executor_of(blobs(), batch_size=32, dropout=0.2, optimizer="sgd")
        return range_test(executor, state)

    found = tested()
    assert found == tested()
    assert found.rates[0] == FIRST_RATE and len(found.rates) == len(found.losses)
    assert 0.01 < found.suggestion < 5


def test_four_rows_are_enough():
    state, executor = executor_of(blobs(4), batch_size=4)
    assert range_test(executor, state).suggestion is not None
