"""At which steps something happens."""

from hypothesis import given
from hypothesis import strategies as st

from kerastrain.options import Interval
from kerastrain.training.plan import Plan, in_steps


@given(
    evaluate=st.integers(1, 50),
    log=st.integers(1, 50),
    checkpoint=st.none() | st.integers(1, 50),
    last=st.integers(1, 300),
)
def test_going_from_stop_to_stop_misses_nothing_and_ends_at_the_last_step(
    evaluate, log, checkpoint, last
):
    plan = Plan(10, evaluate, log, last, checkpoint)
    step, stops = 0, []
    while step < last:
        step = plan.next_stop(step)
        stops.append(step)
    assert stops[-1] == last and stops == sorted(set(stops))
    periods = [p for p in (evaluate, log, checkpoint) if p]
    assert stops == [s for s in range(1, last + 1) if s == last or any(s % p == 0 for p in periods)]


def test_intervals_in_steps():
    assert in_steps(Interval.parse("500steps"), steps_per_epoch=430) == 500
    assert in_steps(Interval.parse("2epochs"), steps_per_epoch=430) == 860
    assert in_steps(Interval.parse("30s"), steps_per_epoch=430) is None
