"""Prechelt's criteria on sequences computed by hand."""

import math

import pytest
from recorded_values import ACCURACY, measured, stop_index

from kerastrain.errors import ObjectiveError, OptionsError
from kerastrain.objective import Objective
from kerastrain.training.stopping import GL, PQ, UP, Progress


def test_gl_is_the_excess_over_the_least_error_in_percent():
    # 100 · (0.55 / 0.5 - 1) = 10, 100 · (0.6 / 0.4 - 1) = 50
    values = [1.0, 0.5, 0.55, 0.4, 0.6]
    assert measured(GL(10), values) == pytest.approx([0, 0, 10, 0, 50])
    assert stop_index(GL(11), values) == 4


def test_gl_stops_only_above_alpha():
    # Exact in binary: 100 · (0.5625 / 0.5 - 1) = 12.5
    assert stop_index(GL(12.5), [0.5, 0.5625]) is None
    assert stop_index(GL(12.4), [0.5, 0.5625]) == 1


def test_the_error_of_a_metric_to_maximise_is_what_is_missing_to_one():
    # Errors 0.2, 0.1, 0.12: 100 · (0.12 / 0.1 - 1) = 20
    assert measured(GL(1), [0.8, 0.9, 0.88], objective=ACCURACY) == pytest.approx([0, 0, 20])


def test_the_value_of_a_perfect_model_can_be_said():
    # A BLEU of up to 100: errors 60, 50, 55: 10 %.
    bleu = Objective("val_bleu", "max")
    assert measured(GL(1, ideal=100), [40.0, 50.0, 45.0], objective=bleu) == pytest.approx(
        [0, 0, 10]
    )
    # A loss that cannot fall below 2: errors 2, 1, 1.5.
    assert measured(GL(1, ideal=2), [4.0, 3.0, 3.5]) == pytest.approx([0, 0, 50])


def test_gl_is_defined_where_the_objective_changes_its_sign():
    # 100 · (-3 - -4) / |-4| = 25
    assert measured(GL(1), [1.0, -4.0, -3.0]) == pytest.approx([0, 0, 25])


def test_gl_against_a_perfect_best_is_infinite():
    assert measured(GL(1), [0.0, 0.0, 1e-9]) == [0, 0, math.inf]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gl_of_a_value_that_is_not_finite_is_infinite_and_it_is_never_the_best(bad):
    assert measured(GL(1), [0.5, bad, 0.5, 0.4]) == [0, math.inf, 0, 0]


def test_progress_is_the_excess_of_the_mean_training_loss_over_its_least():
    # (4 + 2 + 3) / 3 = 3; 1000 · (3 / 2 - 1) = 500
    losses = [9.0, 8.0, 7.0, 4.0, 2.0, 3.0]
    found = measured(Progress(k=3), [1.0] * 6, loss=losses)
    assert found == [None, None, pytest.approx(1000 * (8 / 7 - 1))] + [found[2]] * 2 + [500]


def test_progress_stops_at_the_end_of_a_strip_in_which_the_loss_hardly_falls():
    losses = [1.0, 1.0, 1.0, 0.5, 0.49999, 0.49999]
    # The second strip's mean is 0.493327 above... its excess over the least: 6.67e-3 per mille.
    assert stop_index(Progress(k=3, least=0.1), [1.0] * 6, loss=losses) == 2
    falling = [1.0, 0.9, 0.8, 0.5, 0.49999, 0.49999]
    assert stop_index(Progress(k=3, least=0.1), [1.0] * 6, loss=falling) == 5


def test_progress_of_a_training_loss_that_reached_zero_is_infinite():
    assert measured(Progress(k=2), [1.0] * 4, loss=[0.5, 0.0, 0.0, 0.0])[-1] == 0
    assert measured(Progress(k=2), [1.0] * 2, loss=[0.5, 0.0])[-1] == math.inf


def test_pq_sets_the_generalization_loss_against_the_progress():
    # At the strip's end GL = 100 · (0.6 / 0.5 - 1) = 20; P_2 = 1000 · (0.9 / 0.8 - 1) = 125.
    values, losses = [0.5, 0.5, 0.7, 0.6], [2.0, 1.0, 1.0, 0.8]
    assert measured(PQ(1, k=2), values, loss=losses)[-1] == pytest.approx(20 / 125)
    assert stop_index(PQ(0.15, k=2), values, loss=losses) == 3
    assert stop_index(PQ(0.17, k=2), values, loss=losses) is None


def test_pq_decides_only_at_the_ends_of_strips():
    # GL is 100 at the third evaluation, in the middle of a strip of two, and 0 at the fourth.
    assert stop_index(PQ(0.01, k=2), [0.5, 0.5, 1.0, 0.5], loss=[2.0, 1.0, 1.0, 0.8]) is None


def test_what_is_decided_at_the_end_of_a_strip_is_met_there_alone():
    # At the second evaluation PQ is above alpha; at the third the value is as good as the best.
    rule = "pq(0.5, k=2) and after(evaluations=3)"
    assert stop_index(rule, [1.0, 2.0, 1.0], loss=[2.0, 1.0, 1.0]) is None
    assert stop_index("up(1, k=2) and after(5)", [9.0, 1.0, 9.0, 2.0, 0.5]) is None


def test_pq_without_any_progress_stops_at_any_generalization_loss():
    assert stop_index(PQ(100, k=2), [0.5, 0.5, 0.5, 0.51], loss=[1.0] * 4) == 3
    assert stop_index(PQ(100, k=2), [0.5, 0.5, 0.5, 0.5], loss=[1.0] * 4) is None


def test_up_stops_when_the_error_rose_over_so_many_strips_in_a_row():
    # Strips of two end with 1, 2, 3: two rises in a row.
    values = [9.0, 1.0, 9.0, 2.0, 9.0, 3.0]
    assert stop_index(UP(2, k=2), values) == 5
    assert stop_index(UP(1, k=2), values) == 3
    assert stop_index(UP(3, k=2), values) is None


def test_a_fall_in_between_begins_the_count_anew():
    assert stop_index(UP(2, k=1), [1.0, 2.0, 1.5, 1.6, 1.7]) == 4


def test_up_looks_at_the_direction_of_the_objective():
    assert stop_index(UP(2, k=1), [0.9, 0.8, 0.7], objective=ACCURACY) == 2
    assert stop_index(UP(2, k=1), [0.7, 0.8, 0.9], objective=ACCURACY) is None


def test_a_value_that_is_not_finite_counts_as_a_rise():
    assert stop_index(UP(2, k=1), [1.0, math.nan, math.nan]) == 2


def test_pq_needs_the_training_loss_and_says_so():
    with pytest.raises(ObjectiveError, match="needs 'loss'"):
        stop_index(PQ(1), [1.0])


@pytest.mark.parametrize(
    "make",
    [lambda: GL(-1), lambda: PQ(1, k=1), lambda: UP(0), lambda: UP(1.5), lambda: Progress(1)],
)
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(OptionsError, match="expected a"):
        make()
