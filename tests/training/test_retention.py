"""Which checkpoints stay: each wish by itself, and their union."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.objective import Objective
from kerastrain.options import Interval
from kerastrain.training.checkpoint_files import Record
from kerastrain.training.retention import Retention

LOSS = Objective.parse("val_loss")
ACCURACY = Objective.parse("val_accuracy")

# Saved every 250 steps; 500 steps are an epoch, after which it is evaluated.
RECORDS = [
    Record(step, epoch=step / 500, seconds=step / 10, objective=objective)
    for step, objective in [
        (250, None),
        (500, 0.9),
        (750, None),
        (1000, 0.5),
        (1250, None),
        (1500, 0.7),
        (1750, None),
        (2000, 0.6),
        (2250, None),
    ]
]


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (Retention(), {1750, 2000, 2250}),
        (Retention(last=1), {2250}),
        (Retention(last=100), {record.step for record in RECORDS}),
        (Retention(last=1, best=1, objective=LOSS), {1000, 2250}),
        (Retention(last=1, best=3, objective=LOSS), {1000, 2000, 1500, 2250}),
        (Retention(last=1, best=100, objective=LOSS), {500, 1000, 1500, 2000, 2250}),
        (Retention(last=1, best=1, objective=ACCURACY), {500, 2250}),
        (Retention(last=1, best=1), {2250}),
        (Retention(last=1, every=Interval.parse("1000steps")), {1000, 2000, 2250}),
        (Retention(last=1, every=Interval.parse("600steps")), {750, 1250, 2000, 2250}),
        (Retention(last=1, every=Interval.parse("1epoch")), {500, 1000, 1500, 2000, 2250}),
        (Retention(last=1, every=Interval.parse("2epochs")), {1000, 2000, 2250}),
        (Retention(last=1, every=Interval.parse("60s")), {750, 1250, 2000, 2250}),
        (Retention(last=1, every=Interval.parse("60min")), {2250}),
        (Retention(last=1, last_evaluated=True), {2000, 2250}),
        (
            Retention(last=2, best=1, every=Interval.parse("3epochs"), objective=LOSS),
            {1000, 1500, 2000, 2250},
        ),
    ],
    ids=str,
)
def test_what_is_kept_is_the_union_of_the_wishes(retention, kept):
    assert retention.kept(RECORDS, newest=2250) == kept


def test_the_order_of_the_records_does_not_matter():
    retention = Retention(last=2, best=2, every=Interval.parse("2epochs"), objective=LOSS)
    expected = retention.kept(RECORDS, newest=2250)
    assert retention.kept(RECORDS[::-1], newest=2250) == expected


def test_a_pinned_checkpoint_stays_until_it_is_unpinned():
    pinned = [dataclasses.replace(r, pinned=r.step == 250) for r in RECORDS]
    assert Retention(last=1).kept(pinned, newest=2250) == {250, 2250}
    assert Retention(last=1).kept(RECORDS, newest=2250) == {2250}


def test_the_newest_may_have_a_smaller_number_than_others():
    assert Retention(last=2).kept(RECORDS, newest=250) == {250, 2250}


def test_of_equal_objectives_the_earlier_is_the_better():
    records = [Record(step, objective=0.5) for step in (1, 2, 3)]
    assert Retention(last=1, best=1, objective=LOSS).kept(records, newest=3) == {1, 3}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_finite_number_is_never_the_best(value):
    records = [Record(1, objective=0.5), Record(2, objective=value), Record(3, objective=0.9)]
    for ordered in (records, records[::-1]):
        assert Retention(last=1, best=1, objective=LOSS).kept(ordered, newest=3) == {1, 3}
    for known in ([], records):
        assert not Retention(best=5, objective=LOSS).is_among_best(value, known)


def test_before_anything_is_evaluated_the_first_checkpoint_stays_to_go_back_to():
    records = [Record(step) for step in (0, 10, 20, 30)]
    assert Retention(last=1, last_evaluated=True).kept(records, newest=30) == {0, 30}


@pytest.mark.parametrize(
    ("value", "best", "is_among"),
    [(0.4, 1, True), (0.5, 1, False), (0.6, 1, False), (0.65, 2, False), (0.55, 2, True)]
    + [(5.0, 4, False), (5.0, 5, True), (0.1, 0, False)],
)
def test_whether_a_value_would_be_among_the_best_is_known_beforehand(value, best, is_among):
    assert Retention(best=best, objective=LOSS).is_among_best(value, RECORDS) is is_among


def test_without_an_objective_nothing_is_among_the_best():
    assert not Retention(best=1).is_among_best(0.1, RECORDS)


# Properties


@st.composite
def runs(draw):
    """Records of a run: steps, epochs and seconds all grow; some evaluated, some pinned."""
    steps = sorted(draw(st.sets(st.integers(0, 2000), min_size=1, max_size=12)))
    values = st.none() | st.floats(-5, 5) | st.sampled_from([math.nan, math.inf])
    return [
        Record(
            step,
            epoch=step / 100,
            seconds=step * 0.7,
            objective=draw(values),
            pinned=draw(st.booleans()),
        )
        for step in steps
    ]


intervals = st.none() | st.builds(
    Interval, st.sampled_from([1.0, 7.0, 100.0]), st.sampled_from(["steps", "epochs", "seconds"])
)
retentions = st.builds(
    Retention,
    last=st.integers(1, 5),
    best=st.integers(0, 4),
    every=intervals,
    objective=st.sampled_from([None, LOSS, ACCURACY]),
    last_evaluated=st.booleans(),
)


@given(runs(), retentions, st.data())
def test_the_newest_and_the_pinned_stay_and_nothing_is_made_up(records, retention, data):
    steps = [record.step for record in records]
    newest = data.draw(st.sampled_from(steps))
    kept = retention.kept(records, newest=newest)
    assert newest in kept
    assert kept >= {record.step for record in records if record.pinned}
    assert kept <= set(steps)
    assert len(kept) >= min(retention.last, len(steps))


@given(runs(), retentions)
def test_every_wish_is_granted_as_if_it_were_the_only_one(records, retention):
    newest = records[-1].step
    alone = {
        "last": Retention(last=retention.last),
        "best": Retention(last=1, best=retention.best, objective=retention.objective),
        "every": Retention(last=1, every=retention.every),
        "evaluated": Retention(last=1, last_evaluated=retention.last_evaluated),
    }
    union = set().union(*(wish.kept(records, newest=newest) for wish in alone.values()))
    assert retention.kept(records, newest=newest) == union


@given(runs(), retentions)
def test_what_was_kept_once_is_kept_when_it_is_asked_again(records, retention):
    newest = records[-1].step
    kept = retention.kept(records, newest=newest)
    left = [record for record in records if record.step in kept]
    assert retention.kept(left, newest=newest) == kept


@given(runs(), st.integers(1, 4), st.floats(-5, 5), st.sampled_from([LOSS, ACCURACY]))
def test_what_is_said_to_be_among_the_best_is_kept(records, best, value, objective):
    retention = Retention(last=1, best=best, objective=objective)
    coming = Record(records[-1].step + 1, objective=value)
    # One newer still, so that it is not kept for being the newest.
    newer = Record(coming.step + 1)
    kept = retention.kept([*records, coming, newer], newest=newer.step)
    known = [r for r in records if r.objective is not None and math.isfinite(r.objective)]
    assert (coming.step in kept) is retention.is_among_best(value, known)


@given(runs(), retentions)
def test_removing_after_every_save_keeps_whatever_removing_at_the_end_would(records, retention):
    there: list[Record] = []
    for record in records:
        there.append(record)
        kept = retention.kept(there, newest=record.step)
        there = [r for r in there if r.step in kept]
    # Before there is an evaluation, `last_evaluated` holds on to the first there is.
    retention = dataclasses.replace(retention, last_evaluated=False)
    assert {r.step for r in there} >= retention.kept(records, newest=records[-1].step)
