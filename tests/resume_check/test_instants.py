import random
from collections import Counter

import pytest

from kerastrain.resume_check.instants import SHARES, Instant, Timeline, choose_instant

TIMELINE = Timeline(starting=6.0, training=20.0, exporting=4.0)


def instants(count, *, saves=15.0, seed=0):
    rng = random.Random(seed)
    return [choose_instant(rng, TIMELINE, saves=saves) for _ in range(count)]


def test_every_phase_gets_its_share_of_the_kills():
    counts = Counter(instant.phase for instant in instants(4000))
    shares = {phase: 100 * count / 4000 for phase, count in counts.items()}
    assert shares == pytest.approx(SHARES, abs=3)


def test_instants_lie_all_over_their_phase():
    longest = {"starting": 6.0, "training": 5.0, "saved": 5.0, "exporting": 4.0}
    for phase, limit in longest.items():
        seconds = [instant.seconds for instant in instants(4000) if instant.phase == phase]
        assert 0 <= min(seconds) < 0.1 * limit and 0.9 * limit < max(seconds) <= limit


def test_a_run_that_seldom_saves_is_given_more_time_between_kills():
    few = max(i.seconds for i in instants(4000, saves=2.0) if i.phase == "saved")
    many = max(i.seconds for i in instants(4000, saves=100.0) if i.phase == "saved")
    assert few > TIMELINE.training > 3 * many


def test_the_same_seed_chooses_the_same_instants():
    assert instants(20, seed=3) == instants(20, seed=3) != instants(20, seed=4)


@pytest.mark.parametrize(
    ("instant", "reached", "is_due"),
    [
        (Instant("starting", 2.0), {"starting": 10.0}, False),
        (Instant("starting", 1.0), {"starting": 10.0}, True),
        (Instant("training", 0.0), {"starting": 10.0}, False),
        (Instant("training", 0.5), {"starting": 1.0, "training": 10.0}, True),
        (Instant("saved", 0.5), {"starting": 1.0, "training": 10.0}, False),
        (Instant("saved", 0.5), {"starting": 1.0, "training": 9.0, "saved": 10.0}, True),
        (Instant("exporting", 0.5), {"starting": 1.0, "training": 10.0}, False),
        (Instant("exporting", 0.5), {"starting": 1.0, "exporting": 10.0}, True),
    ],
)
def test_an_instant_is_so_long_after_its_phase_was_reached(instant, reached, is_due):
    assert instant.is_due(reached, now=11.0) is is_due


def test_an_instant_in_training_comes_too_late_when_the_export_has_begun():
    reached = {"starting": 1.0, "training": 5.0, "saved": 6.0, "exporting": 7.0}
    assert not Instant("training", 0.5).is_due(reached, now=20.0)
    assert not Instant("saved", 0.5).is_due(reached, now=20.0)


def test_the_timeline_of_a_run_is_told_by_when_it_reached_what():
    reached = {"starting": 100.0, "training": 106.0, "saved": 107.0, "exporting": 126.0}
    assert Timeline.measured(reached, ended=130.0) == TIMELINE
    assert TIMELINE.total == 30.0


def test_a_run_that_was_over_before_anybody_looked_has_no_time_of_training():
    assert Timeline.measured({"starting": 1.0}, ended=3.0) == Timeline(2.0, 0.0, 0.0)
    late = {"starting": 1.0, "exporting": 2.0, "training": 2.5}
    assert Timeline.measured(late, ended=3.0) == Timeline(1.0, 0.0, 1.0)


def test_the_killed_run_saves_fifteen_times_but_not_all_the_time():
    assert TIMELINE.save_interval == pytest.approx(20.0 / 15)
    assert Timeline(6.0, 0.1, 4.0).save_interval == 0.05
