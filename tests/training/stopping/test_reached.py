"""Targets, baselines, budgets."""

import math

import pytest
from recorded_values import ACCURACY, stop_index

from kerastrain.errors import ObjectiveError, OptionsError
from kerastrain.training.stopping import After, Baseline, Budget, Evaluation, Never, Target


def test_it_stops_when_the_metric_is_at_least_the_target():
    assert stop_index(Target(0.99), [0.9, 0.98, 0.99, 1.0], objective=ACCURACY) == 2


def test_a_metric_to_minimise_must_be_at_most_the_target():
    assert stop_index(Target(0.1), [0.5, 0.11, 0.1]) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_reaches_nothing(bad):
    assert stop_index(Target(0.99), [bad, 0.9], objective=ACCURACY) is None


def test_a_run_that_is_not_at_the_baseline_in_time_is_given_up():
    rule = Baseline(0.8, steps=30)
    assert stop_index(rule, [0.5, 0.6, 0.7, 0.9], objective=ACCURACY) == 2
    # It was there once, so it may go on.
    assert stop_index(rule, [0.5, 0.8, 0.7, 0.7], objective=ACCURACY) is None


def test_a_run_that_was_never_finite_is_below_every_baseline():
    assert stop_index(Baseline(10.0, epochs=2), [math.nan] * 3) == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [(After(3), 2), (After(epochs=2.5), 2), (After(steps=20), 1), (Budget(seconds=7.9), 3)],
)
def test_a_length_is_reached_in_its_own_unit(rule, expected):
    assert stop_index(rule, [1.0] * 6) == expected


def test_a_large_number_of_steps_is_written_out():
    (verdict,) = Budget(steps=2_000_000).verdicts(
        iter([Evaluation(0, 2_345_678, 1.0, 1.0, {})]), ACCURACY
    )
    assert verdict.says == "2,345,678 steps of 2,000,000 steps had passed"


def test_never_is_never():
    assert stop_index(Never(), [math.nan, 1.0, 2.0]) is None


def test_what_makes_no_sense_is_refused():
    with pytest.raises(OptionsError, match="no length"):
        After()
    with pytest.raises(OptionsError, match="finite"):
        Target(math.nan)
    with pytest.raises(ObjectiveError, match="not known"):
        Target(1.0, monitor="val_fancy")
