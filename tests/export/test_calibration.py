from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.export.calibration import bin_numbers, expected_calibration_error, reliability


def test_each_bin_has_its_mean_probability_and_what_happened():
    probabilities = np.array([0.01, 0.02, 0.5, 0.98, 1.0, 1.0])
    happened = np.array([False, True, True, True, True, False])
    low, middle, high = reliability(probabilities, happened)
    assert (low.low, low.high, low.rows) == (0, 1 / 15, 2)
    assert (low.mean, low.share) == pytest.approx((0.015, 0.5))
    assert (middle.mean, middle.share, middle.rows) == (0.5, 1.0, 1)
    assert (high.mean, high.share) == pytest.approx(((0.98 + 2) / 3, 2 / 3))


def test_a_bin_holds_its_upper_end_and_the_first_one_zero_too():
    assert bin_numbers(np.array([0.0, 0.5, 0.500001, 1.0]), bins=2).tolist() == [0, 0, 1, 1]


def test_certain_answers_that_are_half_wrong_have_an_error_of_one_half():
    right = np.array([True, False])
    assert expected_calibration_error(np.ones(2), right) == 0.5
    weighted = expected_calibration_error(np.ones(2), right, weights=np.array([3.0, 1.0]))
    assert weighted == 0.25


def test_probabilities_that_come_true_have_hardly_any_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    right = rng.random(200_000) < confidence
    assert expected_calibration_error(confidence, right) < 0.01


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_error_is_the_tables_distances_by_rows(rows):
    probabilities, happened = (np.array(column) for column in zip(*rows, strict=True))
    table = reliability(probabilities, happened)
    assert sum(each.rows for each in table) == len(rows)
    error = sum(each.rows * abs(each.mean - each.share) for each in table) / len(rows)
    assert expected_calibration_error(probabilities, happened) == pytest.approx(error, abs=1e-12)
