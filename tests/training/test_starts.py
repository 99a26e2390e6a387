"""The starts of a run: those that ended, and one that was killed without a word."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kerastrain.errors import WorkdirError
from kerastrain.training.cadence import PRIOR_SECONDS
from kerastrain.training.starts import BEAT_BYTES, Start, Starts, read_heartbeat, read_starts
from kerastrain.workdir import Workdir, read_json, write_json

KILLED_WHILE_EVALUATING = """
import os, signal, sys
from kerastrain.training.starts import Starts
from kerastrain.workdir import Workdir

starts = Starts(Workdir(sys.argv[1]))
starts.begin()
starts.beat("training", step=1233)
starts.beat("evaluating", step=1234)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def workdir(tmp_path):
    made = Workdir(tmp_path / "run")
    made.create()
    return made


def start_and_kill(workdir) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_EVALUATING, str(workdir)], check=False
    )
    assert result.returncode == -signal.SIGKILL


def start_and_end(workdir, how) -> None:
    starts = Starts(workdir)
    starts.begin()
    starts.end(how)


def test_the_first_start_finds_none_before_it(workdir):
    starts = Starts(workdir)
    assert starts.earlier == []
    assert starts.killed_before is None
    assert starts.seconds_before == 0
    assert starts.mean_seconds_between_interruptions == PRIOR_SECONDS


def test_a_start_that_is_killed_leaves_when_and_where(workdir):
    start_and_kill(workdir)
    killed = Starts(workdir).killed_before
    assert killed is not None
    assert (killed.step, killed.phase, killed.ended) == (1234, "evaluating", "killed")
    assert killed.began.startswith("20") and killed.began.endswith("Z")
    assert killed.seconds >= 0


def test_a_killed_start_is_recorded_by_the_next_one(workdir):
    start_and_kill(workdir)
    start_and_kill(workdir)
    assert [(s.step, s.ended) for s in read_starts(workdir)] == [(1234, "killed")] * 2
    start_and_end(workdir, "finished")
    assert [s.ended for s in read_starts(workdir)] == ["killed", "killed", "finished"]
    assert not workdir.heartbeat_file.exists()


def test_every_end_is_recorded_with_its_place(workdir):
    for step, (phase, how) in enumerate([("training", "SIGTERM"), ("exporting", "finished")]):
        starts = Starts(workdir)
        starts.begin()
        starts.beat(phase, step=step)
        assert starts.where == (f"at step {step}" if phase == "training" else f"while {phase}")
        starts.end(how)
    first, second = read_starts(workdir)
    assert (first.step, first.phase, first.ended) == (0, "training", "SIGTERM")
    assert (second.step, second.phase, second.ended) == (1, "exporting", "finished")


def test_only_the_start_just_before_counts_as_killed_before(workdir):
    start_and_kill(workdir)
    start_and_end(workdir, "SIGINT")
    assert Starts(workdir).killed_before is None


def test_a_sign_of_life_without_a_step_is_of_the_step_before(workdir):
    starts = Starts(workdir)
    starts.begin()
    starts.beat("training", step=12_345)
    starts.beat("saving")
    assert starts.where == "at step 12,345"
    last = read_heartbeat(workdir)
    assert last is not None
    assert (last.step, last.phase) == (12_345, "saving")


def test_ending_twice_or_before_the_beginning_records_nothing_more(workdir):
    starts = Starts(workdir)
    starts.end("error")
    assert not workdir.starts_file.exists()
    starts.begin()
    starts.end("finished")
    starts.end("error")
    assert [start.ended for start in read_starts(workdir)] == ["finished"]


def test_a_kill_between_record_and_removal_of_the_heartbeat_counts_once(workdir):
    start_and_kill(workdir)
    # As the next start leaves it that is killed after the record, before the removal.
    write_json(workdir.starts_file, {"starts": [vars(s) for s in read_starts(workdir)]})
    assert workdir.heartbeat_file.exists()
    assert len(read_starts(workdir)) == 1
    start_and_end(workdir, "finished")
    assert [start.ended for start in read_starts(workdir)] == ["killed", "finished"]


def test_a_start_that_ended_is_not_counted_as_killed_when_its_heartbeat_stays(workdir):
    starts = Starts(workdir)
    starts.begin()
    heartbeat = workdir.heartbeat_file.read_bytes()
    starts.end("finished")
    workdir.heartbeat_file.write_bytes(heartbeat)
    assert [start.ended for start in read_starts(workdir)] == ["finished"]


def test_starts_within_one_second_are_told_apart(workdir):
    for _ in range(3):
        start_and_end(workdir, "finished")
    starts = Starts(workdir)
    starts.begin()  # and is killed
    assert [s.ended for s in read_starts(workdir)] == ["finished", "finished", "finished", "killed"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" " * BEAT_BYTES,
        b"\xff" * BEAT_BYTES,
        b"2026-01-02T03:04:05.000006Z 12.5",
        b"2026-01-02T03:04:05.000006Z x s step 3 training",
        b"2026-01-02T03:04:05.000006Z 1.000 s step -3 training",
    ],
)
def test_a_damaged_heartbeat_says_nothing(workdir, content):
    start_and_end(workdir, "SIGTERM")
    workdir.heartbeat_file.write_bytes(content)
    assert read_heartbeat(workdir) is None
    assert [start.ended for start in read_starts(workdir)] == ["SIGTERM"]
    start_and_end(workdir, "finished")
    assert [start.ended for start in read_starts(workdir)] == ["SIGTERM", "finished"]


def test_a_phase_that_is_too_long_is_cut_off(workdir):
    starts = Starts(workdir)
    starts.begin()
    starts.beat("x" * 1000, step=7)
    last = read_heartbeat(workdir)
    assert last is not None
    assert last.step == 7
    assert workdir.heartbeat_file.stat().st_size == BEAT_BYTES


def test_interruptions_and_running_time_make_the_mean_time_between(workdir):
    starts = [
        Start("a", 3600.0, 10, "training", "killed"),
        Start("b", 3600.0, 20, "training", "SIGTERM"),  # It was heard: nothing was lost.
        Start("c", 7200.0, 30, "training", "killed"),
    ]
    write_json(workdir.starts_file, {"starts": [vars(start) for start in starts]})
    now = Starts(workdir)
    assert now.seconds_before == 14_400
    assert now.mean_seconds_between_interruptions == (PRIOR_SECONDS + 14_400) / 3


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"starts": [{}]}', b'{"starts": 3}', b'{"starts": ["a"]}']
)
def test_a_record_that_cannot_be_read_is_named(workdir, content):
    workdir.starts_file.write_bytes(content)
    with pytest.raises(WorkdirError, match=r"starts\.json"):
        Starts(workdir)


def test_the_record_is_a_file_for_people(workdir):
    start_and_end(workdir, "finished")
    (start,) = read_json(workdir.starts_file)["starts"]
    assert set(start) == {"began", "seconds", "step", "phase", "ended"}


def test_a_heartbeat_that_cannot_be_written_is_named(workdir, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkdirError, match="heartbeat cannot be written: No space left"):
        Starts(workdir).begin()
