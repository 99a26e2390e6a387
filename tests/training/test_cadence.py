"""How often to save: against the published values, and by a clock that is made up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.training.cadence import (
    LARGEST_OVERHEAD,
    PRIOR_SECONDS,
    REMEMBERED_SAVES,
    Cadence,
    daly_interval,
    least_interval,
    mean_seconds_between,
    save_interval,
    young_interval,
)

MINUTE = 60.0
HOUR = 3600.0
DAY = 24 * HOUR

costs = st.floats(1e-6, 1e4)
means = st.floats(1.0, 1e7)


# The published formulas


def test_youngs_interval_is_the_root_of_twice_cost_times_mean_time():
    assert young_interval(5 * MINUTE, DAY) == pytest.approx(120 * MINUTE)
    assert young_interval(5 * MINUTE, 6 * HOUR) == pytest.approx(60 * MINUTE)


@pytest.mark.parametrize(
    ("mean_between", "minutes"), [(DAY, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)]
)
def test_dalys_interval_is_that_of_his_figures(mean_between, minutes):
    """Daly (2006), figures 3 to 5: a save takes 5 minutes."""
    digits = 1 if minutes < 10 else 0
    assert round(daly_interval(5 * MINUTE, mean_between) / MINUTE, digits) == minutes


@pytest.mark.parametrize("cost", [20.0, 20.001, 1e6])
def test_a_save_that_takes_twice_the_mean_time_or_more_is_made_once_in_the_mean_time(cost):
    assert daly_interval(cost, 10.0) == 10.0


def test_dalys_branches_are_the_published_ones_on_both_sides_of_twice_the_mean_time():
    # At δ = 2M the first is 2M·(1 + ⅓ + 1/9) − 2M = (8/9)·M, the second M.
    assert daly_interval(math.nextafter(20.0, 0), 10.0) == pytest.approx(80 / 9)
    assert daly_interval(20.0, 10.0) == 10.0


@given(means)
def test_daly_comes_to_young_as_saves_get_cheap(mean_between):
    cost = mean_between * 1e-10
    assert daly_interval(cost, mean_between) == pytest.approx(
        young_interval(cost, mean_between), rel=1e-4
    )


def expected_loss(interval: float, *, cost: float, mean_between: float) -> float:
    """Run time for a unit of work, restarts free, under Daly's exponential interruptions."""
    return mean_between * math.expm1((interval + cost) / mean_between) / interval


@given(st.floats(1e-5, 0.5), st.floats(0.2, 5.0))
def test_no_other_interval_loses_noticeably_less_than_dalys(ratio, factor):
    cost = ratio * HOUR
    best = daly_interval(cost, HOUR)
    at_best = expected_loss(best, cost=cost, mean_between=HOUR)
    elsewhere = expected_loss(best * factor, cost=cost, mean_between=HOUR)
    assert at_best <= elsewhere * 1.01


# What is added to them


@given(costs, means)
def test_saving_never_holds_the_training_up_for_more_than_two_percent(blocking, mean_between):
    interval = save_interval(blocking=blocking, writing=0.0, mean_between=mean_between)
    assert blocking / (interval + blocking) <= LARGEST_OVERHEAD + 1e-12
    assert LARGEST_OVERHEAD == 0.02


@given(costs, costs, means)
def test_the_interval_is_never_shorter_than_a_write(blocking, writing, mean_between):
    interval = save_interval(blocking=blocking, writing=writing, mean_between=mean_between)
    assert interval >= writing
    assert interval >= least_interval(blocking, writing)


def test_where_neither_bound_matters_the_interval_is_dalys():
    interval = save_interval(blocking=0.01, writing=1.0, mean_between=4 * HOUR)
    assert interval == daly_interval(0.01, 4 * HOUR)
    assert 16 < interval < 17


def test_four_hours_between_interruptions_are_assumed_of_a_machine_that_is_not_known():
    assert mean_seconds_between(interruptions=0, seconds=0.0) == PRIOR_SECONDS == 4 * HOUR


@pytest.mark.parametrize(
    ("interruptions", "hours", "expected_hours"),
    [(1, 0, 2), (3, 0, 1), (0, 96, 100), (9, 6, 1), (99, 96, 1)],
)
def test_interruptions_and_hours_without_one_move_what_is_assumed(
    interruptions, hours, expected_hours
):
    mean = mean_seconds_between(interruptions=interruptions, seconds=hours * HOUR)
    assert mean == pytest.approx(expected_hours * HOUR)


def test_after_many_interruptions_the_mean_time_is_the_measured_one():
    assert mean_seconds_between(interruptions=1000, seconds=1000 * HOUR) == pytest.approx(
        HOUR, rel=0.01
    )


# By the clock


def test_the_first_save_is_due_at_once_and_the_next_after_the_interval():
    cadence = Cadence(mean_seconds_between_interruptions=4 * HOUR)
    assert cadence.is_due(now=100.0)
    cadence.saved(blocking_seconds=0.01, writing_seconds=None, now=100.0)
    expected = daly_interval(0.01, 4 * HOUR)
    assert cadence.interval == expected
    assert not cadence.is_due(now=100.0 + expected - 0.001)
    assert cadence.is_due(now=100.0 + expected + 0.001)


def test_more_interruptions_mean_more_saves():
    intervals = []
    for interruptions in (0, 1, 10):
        mean = mean_seconds_between(interruptions=interruptions, seconds=HOUR)
        cadence = Cadence(mean_seconds_between_interruptions=mean)
        cadence.saved(blocking_seconds=0.01, writing_seconds=0.1, now=0.0)
        intervals.append(cadence.interval)
    assert intervals == sorted(intervals, reverse=True)
    assert intervals[0] > 2 * intervals[-1]


def test_a_slow_disk_spaces_saves_out():
    cadence = Cadence(mean_seconds_between_interruptions=4 * HOUR)
    cadence.saved(blocking_seconds=0.01, writing_seconds=90.0, now=0.0)
    assert cadence.interval == 90.0
    cadence.saved(blocking_seconds=0.01, writing_seconds=2.0, now=90.0)
    assert cadence.interval == 90.0  # The slowest of the last few: it may happen again.
    for save in range(REMEMBERED_SAVES):
        cadence.saved(blocking_seconds=0.01, writing_seconds=2.0, now=180.0 + save)
    assert cadence.interval < 20.0


def test_one_slow_save_does_not_space_out_the_next_ones():
    cadence = Cadence(mean_seconds_between_interruptions=4 * HOUR)
    for blocking in (30.0, 0.01, 0.01):  # The first save is slow.
        cadence.saved(blocking_seconds=blocking, writing_seconds=None, now=0.0)
    assert cadence.interval == daly_interval(0.01, 4 * HOUR)


def test_a_fixed_interval_is_kept_whatever_a_save_costs():
    cadence = Cadence(mean_seconds_between_interruptions=4 * HOUR, fixed_seconds=30.0)
    cadence.saved(blocking_seconds=10.0, writing_seconds=100.0, now=0.0)
    assert cadence.interval == 30.0
    assert not cadence.is_due(now=29.9)
    assert cadence.is_due(now=30.0)


def test_with_an_infinite_interval_the_clock_never_asks_for_a_save():
    cadence = Cadence(mean_seconds_between_interruptions=4 * HOUR, fixed_seconds=math.inf)
    assert not cadence.is_due(now=1e9)
    cadence.saved(blocking_seconds=0.01, writing_seconds=0.1, now=0.0)
    assert not cadence.is_due(now=1e9)


@pytest.mark.parametrize("fixed_seconds", [None, math.inf])
def test_a_save_that_is_not_due_is_affordable_within_the_largest_overhead(fixed_seconds):
    cadence = Cadence(mean_seconds_between_interruptions=4 * HOUR, fixed_seconds=fixed_seconds)
    cadence.saved(blocking_seconds=0.01, writing_seconds=0.2, now=0.0)
    assert not cadence.is_affordable(now=0.48)  # 0.01 s of 0.49 s
    assert cadence.is_affordable(now=0.5)
    assert not cadence.is_due(now=0.5)
