"""Patience: Keras's rule, in any unit, except that NaN is never best."""

import math

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_values import ACCURACY, evaluations, stop_index

from kerastrain.errors import OptionsError
from kerastrain.objective import Objective
from kerastrain.training.stopping import Evaluation, Patience, StoppingProgress


@given(
    values=st.lists(
        st.sampled_from([0.1, 0.2, 0.3, 0.35, 0.5, 1.0, -1.0]), min_size=1, max_size=30
    ),
    patience=st.integers(0, 4),
    min_delta=st.sampled_from([0.0, 0.06]),
    baseline=st.sampled_from([None, 0.25, 0.9]),
    start_from=st.integers(0, 3),
    mode=st.sampled_from(["min", "max"]),
)
def test_finite_values_stop_as_keras_early_stopping_does(
    values, patience, min_delta, baseline, start_from, mode
):
    keras_own = keras.callbacks.EarlyStopping(
        monitor="score",
        patience=patience,
        min_delta=min_delta,
        baseline=baseline,
        start_from_epoch=start_from,
        mode=mode,
    )

    class Model:
        stop_training = False

    keras_own.set_model(Model())
    keras_own.on_train_begin()
    for epoch, value in enumerate(values):
        keras_own.on_epoch_end(epoch, {"score": value})
        if keras_own.model.stop_training:
            break
    rule = Patience(patience, min_delta=min_delta, baseline=baseline, start_from=start_from)
    progress = StoppingProgress(
        rule, Objective("score", mode), min_delta=min_delta, start_from=start_from
    )
    for evaluation in evaluations(values[: epoch + 1], name="score"):
        progress.tell(evaluation)
    assert progress.stopped == keras_own.model.stop_training
    assert progress.verdict.readings[0].value == keras_own.wait
    best = progress.best
    assert (None if best is None else best.values["score"]) == keras_own.best
    if best is not None:
        assert best.index == keras_own.best_epoch


def test_it_stops_after_so_many_evaluations_without_an_improvement():
    assert stop_index(Patience(2), [1.0, 0.8, 0.9, 0.7, 0.7, 0.75, 0.6]) == 5


def test_patience_zero_stops_at_the_first_evaluation_that_is_worse_than_the_best():
    assert stop_index(Patience(0), [1.0, 0.5, 0.6, 0.4]) == 2


def test_patience_zero_stops_at_an_equal_value_too_as_in_keras():
    assert stop_index(Patience(0), [1.0, 0.5, 0.5]) == 2


def test_the_first_evaluation_never_stops():
    assert stop_index(Patience(0), [math.nan]) is None


def test_nan_and_infinity_are_evaluations_without_improvement():
    assert stop_index(Patience(2), [math.nan, 0.5, math.inf, 0.4, math.nan, -math.inf]) == 5


def test_values_that_are_never_finite_use_up_the_patience():
    assert stop_index(Patience(2), [math.nan, math.nan, math.nan]) == 1


def test_a_min_delta_is_absolute_by_itself():
    # 0.95 is no improvement on 1.0 by more than 0.1, 0.85 is.
    assert stop_index(Patience(2, min_delta=0.1), [1.0, 0.95, 0.85, 0.8, 0.76]) == 4


def test_a_relative_min_delta_is_a_share_of_the_best_value():
    # 10 % of 100 is 10: 91 does not count, 89 does; then 10 % of 89 is 8.9: 81 does not.
    values = [100.0, 91.0, 89.0, 81.0, 80.2]
    assert stop_index(Patience(2, min_delta=0.1, relative=True), values) == 4
    assert stop_index(Patience(2, min_delta=0.1), values) is None


def test_a_relative_min_delta_works_for_negative_values():
    # 10 % of 10 is 1: -10.5 does not count, -11.5 does.
    assert stop_index(Patience(1, min_delta=0.1, relative=True), [-10.0, -11.5, -12.0]) == 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Patience(epochs=2), 3),
        (Patience(steps=25), 4),
        (Patience(seconds=6), 4),
        (Patience(evaluations=1), 2),
    ],
)
def test_it_is_counted_in_the_unit_that_is_said(rule, expected):
    # One epoch, 10 steps and 2 seconds from one evaluation to the next; the best is the second.
    assert stop_index(rule, [1.0, 0.5, 0.6, 0.7, 0.8, 0.9]) == expected


def test_epochs_count_by_their_length_and_not_by_evaluations():
    values = {"val_loss": 1.0}
    told = [Evaluation(i, i, 0.25 * (i + 1), 0.0, values) for i in range(12)]
    verdicts = list(Patience(epochs=1).verdicts(iter(told), Objective("val_loss", "min")))
    assert [v.stops for v in verdicts].index(True) == 4  # 0.25, the best, and a whole epoch on


def test_fractions_of_epochs_that_make_up_one_are_one():
    # As floating-point numbers, the difference of 1.4 and 0.4 is not quite one.
    for first in range(1, 30):
        told = [
            Evaluation(i, 43 * (i + 1), 43 * (i + 1) / 430, 0.0, {"val_loss": float(i != first)})
            for i in range(first + 11)
        ]
        verdicts = Patience(epochs=1).verdicts(iter(told), Objective("val_loss", "min"))
        stops = [i for i, verdict in enumerate(verdicts) if verdict.stops and i > first]
        assert stops[0] == first + 10


def test_start_from_passes_over_the_first_evaluations():
    assert stop_index(Patience(1, start_from=3), [0.1, 0.2, 0.3, 0.9, 0.8, 0.85]) == 5


def test_only_beating_the_baseline_begins_the_wait_anew():
    values = [0.9, 0.8, 0.7, 0.6, 0.65]
    assert stop_index(Patience(3, baseline=0.5), values) == 4
    assert stop_index(Patience(3, baseline=0.75), values) is None


def test_a_metric_of_its_own_may_be_monitored_beside_the_objective():
    rule = Patience(1, monitor="val_accuracy")
    assert stop_index(rule, [3.0, 2.0, 1.0], val_accuracy=[0.5, 0.6, 0.55]) == 2


def test_what_rises_is_better_for_an_objective_to_maximise():
    assert stop_index(Patience(1), [0.5, 0.6, 0.55], objective=ACCURACY) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "no length"),
        ({"evaluations": 5, "epochs": 3}, "evaluations and epochs"),
        ({"evaluations": -1}, "evaluations=-1"),
        ({"evaluations": 2.5}, "whole number"),
        ({"steps": 1, "min_delta": -0.1}, "min_delta=-0.1"),
        ({"steps": 1, "min_delta": math.nan}, "finite"),
        ({"steps": True}, "steps=True"),
        ({"steps": 1, "relative": "false"}, "relative='false'"),
        ({"steps": 1, "monitor": 5}, "monitor=5"),
        ({"epochs": 10**400, "steps": 1}, "epochs and steps"),
        ({"steps": 1, "baseline": "low"}, "baseline='low'"),
        ({"steps": 1, "start_from": 0.5}, "start_from=0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, says):
    with pytest.raises(OptionsError, match=says):
        Patience(**arguments)
