"""Which way of calling a lane settles on."""

import pytest

from kerastrain.serving.lanes import Lane
from kerastrain.serving.servable import Signature

LIMIT = 0.001  # seconds; below it calls are made on the loop


def call(lane, calls, *, one_thread, many):
    """So many calls of a function that takes these seconds; for each whether it was in one."""
    ways = []
    for _ in range(calls):
        is_in_one = lane.in_one_thread.expected(1) < LIMIT or lane.suits_one_thread(1)
        ways.append(is_in_one)
        lane.learn(one_thread if is_in_one else many, 1, in_this_thread=is_in_one)
    return ways


def a_lane():
    return Lane(Signature("m", {}, {}, "tensorflow/serving/predict"))


@pytest.mark.parametrize(
    ("one_thread", "many", "least", "most"),
    [
        (0.0002, 0.0008, 0.95, 1.0),  # small
        (0.002, 0.003, 0.85, 1.0),
        (0.008, 0.004, 0.0, 0.05),  # branches that run beside each other
        (0.016, 0.002, 0.0, 0.02),
        (0.106, 0.057, 0.0, 0.0),  # too long to be tried
    ],
)
def test_calls_are_made_in_the_way_that_takes_less(one_thread, many, least, most):
    ways = call(a_lane(), 1000, one_thread=one_thread, many=many)
    assert ways[0] is False
    assert least <= sum(ways) / len(ways) <= most


def test_calls_that_had_to_wait_do_not_make_a_function_look_slow_for_ever():
    lane = a_lane()
    call(lane, 10, one_thread=0.0002, many=0.0008)
    call(lane, 30, one_thread=0.03, many=0.03)
    assert not lane.in_one_thread.expected(1) < LIMIT
    ways = call(lane, 1000, one_thread=0.0002, many=0.0008)
    assert all(ways[-500:])


@pytest.mark.parametrize("many", [0.004, 0.02])
def test_a_long_call_is_never_made_on_the_loop_however_long_its_time_was_not_measured(many):
    lane = a_lane()
    lane.learn(0.04, 1, in_this_thread=True)
    for _ in range(2000):
        assert lane.in_one_thread.expected(1) >= LIMIT
        is_in_one = lane.suits_one_thread(1)
        lane.learn(0.04 if is_in_one else many, 1, in_this_thread=is_in_one)
