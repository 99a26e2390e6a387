"""Smoothing, plateaus, significance and divergence, on sequences computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_values import ACCURACY, measured, stop_index

from kerastrain.errors import OptionsError
from kerastrain.training.stopping import (
    Divergence,
    Evidence,
    Patience,
    Plateau,
    Significance,
    Smoothed,
    Target,
)
from kerastrain.training.stopping.noise import Moments


def test_smoothing_is_the_exponential_mean_without_bias_to_zero():
    # m: 0.5·0 + 0.5·4 = 2, /0.5 = 4; 0.5·2 + 0.5·2 = 2, /0.75 = 2.6667; 0.5·2 + 0.5·6 = 4, /0.875
    rule = Smoothed(Target(-1.0), beta=0.5)
    assert measured(rule, [4.0, 2.0, 6.0]) == pytest.approx([4, 8 / 3, 4 / 0.875])


def test_without_smoothing_a_criterion_is_what_it_was():
    values = [1.0, 0.8, 0.9, 0.7, 0.8, 0.9]
    assert stop_index(Smoothed(Patience(2), beta=0), values) == stop_index(Patience(2), values)


def test_smoothing_passes_over_a_single_bad_evaluation():
    values = [1.0, 0.8, 0.6, 0.65, 0.3, 0.2]
    assert stop_index(Patience(1), values) == 3
    assert stop_index(Smoothed(Patience(1), beta=0.9), values) is None


def test_what_is_not_finite_does_not_spoil_the_mean():
    assert measured(Smoothed(Target(-1.0), beta=0.5), [4.0, math.nan, 2.0])[2] == pytest.approx(
        8 / 3
    )


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    beta=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_mean_and_deviation_are_those_of_weights_that_fade(values, beta):
    moments = Moments(beta)
    for value in values:
        moments.add(value)
    weights = np.array([beta ** (len(values) - 1 - i) for i in range(len(values))])
    mean = np.average(values, weights=weights)
    deviation = math.sqrt(np.average((np.array(values) - mean) ** 2, weights=weights))
    # The deviation is a root, so what is lost by rounding is a root of the precision.
    scale = max(map(abs, values))
    assert moments.mean == pytest.approx(mean, rel=1e-9, abs=1e-12 * scale)
    assert moments.deviation == pytest.approx(deviation, rel=1e-6, abs=1e-6 * scale)


def test_a_plateau_is_a_small_sample_deviation_of_the_last_values():
    # (1, 2, 3): 1; (2, 3, 3): 0.577; (3, 3, 3): 0
    values = [1.0, 2.0, 3.0, 3.0, 3.0]
    assert measured(Plateau(3, epsilon=0.5), values) == [
        None, None, pytest.approx(1), pytest.approx(math.sqrt(1 / 3)), 0,
    ]  # fmt: skip
    assert stop_index(Plateau(3, epsilon=0.6), values) == 3


def test_values_that_are_not_finite_are_no_plateau():
    assert stop_index(Plateau(2, epsilon=1.0), [math.inf, math.inf, 1.0, 1.0]) == 3


def test_only_what_exceeds_the_standard_errors_counts_as_an_improvement():
    # Gains on the reference: -, 0.05, 0.25 (new reference 0.75), 0.05, 0.1; errors 0.1 each.
    values, errors = [1.0, 0.95, 0.75, 0.7, 0.65], [math.nan, 0.1, 0.1, 0.1, 0.1]
    rule = Significance(z=2, patience=2)
    assert stop_index(rule, values, val_loss_difference_error=errors) == 4
    assert stop_index(
        Significance(z=0.4, patience=2), values, val_loss_difference_error=errors
    ) is (None)


def test_many_small_gains_are_significant_together():
    # Each is below two errors on the one before, the third is beyond them on the reference.
    values, errors = [1.0, 0.9, 0.8, 0.7], [math.nan] + [0.14] * 3
    assert stop_index(Significance(2, patience=3), values, val_loss_difference_error=errors) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_no_reference(bad):
    errors = [math.nan, math.nan, 0.1]
    rule = Significance(2, patience=2)
    assert stop_index(rule, [bad, 1.0, 0.5], val_loss_difference_error=errors) is None
    assert stop_index(rule, [bad, bad, 0.5], val_loss_difference_error=errors) == 1


def test_a_value_that_is_not_finite_is_divergence():
    assert stop_index(Divergence(), [1.0, 9e9, math.nan]) == 2
    assert stop_index(Divergence(), [1.0, math.inf]) == 1


def test_a_threshold_is_divergence_on_the_bad_side_of_it():
    assert stop_index(Divergence(threshold=5), [6.0, 1.0][::-1]) == 1
    assert stop_index(Divergence(threshold=0.1), [0.5, 0.05], objective=ACCURACY) == 1


def test_a_value_far_off_the_smoothed_course_is_divergence():
    # Mean 1.5 and deviation 0.5 of 1, 2, 1, 2 with equal weights nearly: 3 deviations are 3.
    values = [1.0, 2.0, 1.0, 2.0, 2.9, 3.5]
    rule = Divergence(deviations=3, beta=0.999999, start_from=4)
    assert stop_index(rule, values[:4] + [3.1]) == 4
    assert stop_index(rule, values[:5]) is None


def test_it_needs_some_evaluations_for_a_deviation():
    assert stop_index(Divergence(deviations=1, start_from=5), [1.0, 1.0, 100.0]) is None


def test_evidence_stops_when_the_gradient_is_only_noise():
    assert stop_index(Evidence(), [1.0] * 3, evidence=[-5.0, 0.0, 0.01]) == 2
    assert stop_index(Evidence(), [1.0] * 2, evidence=[math.nan, -1.0]) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Smoothed(5),
        lambda: Smoothed(Patience(5), beta=1.0),
        lambda: Smoothed(Significance() | Patience(2)),
        lambda: Smoothed(Patience(5), beta=-0.1),
        lambda: Plateau(1, 0.1),
        lambda: Significance(z=-1),
        lambda: Divergence(deviations=-1),
        lambda: Divergence(threshold="high"),
    ],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(OptionsError, match="expected"):
        make()
