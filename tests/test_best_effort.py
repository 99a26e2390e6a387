"""What is printed and cannot be written: dropped, remembered, and never an error."""

import io
import os
import subprocess
import sys

import pytest

from kerastrain.best_effort import best_effort_output

# A command in the place of `train` or `checkpoints` that prints much and then does its work.
COMMAND = """
import sys, types, warnings, logging
from absl import flags
def run(values):
    for number in range(3000):
        print("line", number, flush=number % 2 == 0)
    print("to stderr", file=sys.stderr)
    warnings.warn("a warning")
    logging.getLogger("kerastrain").warning("a message")
    with open("work", "w") as file:
        file.write(str(file.fileno() > 2))
    return 0
module = types.SimpleNamespace(SUMMARY="", FLAGS=flags.FlagValues(), run=run)
sys.modules["kerastrain.cli." + sys.argv[1]] = module
from kerastrain.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def run(tmp_path):
    """Runs the command with redirections, as a shell does; (status, stderr)."""

    def run(name, redirected):
        script = f'set -o pipefail; "$0" -c "$1" {name} {redirected}'
        ended = subprocess.run(
            ["bash", "-c", script, sys.executable, COMMAND],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (tmp_path / "work").read_text() == "True", "the work was not done"
        return ended.returncode, ended.stderr

    return run


@pytest.mark.parametrize(
    "redirected",
    [">/dev/full", "2>/dev/full >/dev/null", ">/dev/full 2>&1", "| head -1 >/dev/null", ">&-",
     "2>&- >/dev/null", ">&- 2>&-", "<&- >&- 2>&-"],
)  # fmt: skip
def test_work_is_done_and_keeps_its_status_whatever_becomes_of_the_output(run, redirected):
    status, told = run("train", redirected)
    assert status == 0
    is_told = redirected in (">/dev/full", "| head -1 >/dev/null", ">&-")
    assert told.count("what is printed is lost from here on, the work goes on (") == is_told
    assert "Traceback" not in told and "Exception" not in told


@pytest.mark.parametrize(
    ("redirected", "status", "reason"),
    [
        (">/dev/full", 1, "No space left on device"),
        (">&-", 1, "Bad file descriptor"),
        (">&- 2>&-", 1, ""),
        ("2>/dev/full >/dev/null", 0, ""),
        ("| head -1 >/dev/null", 141, ""),
    ],
)
def test_a_product_that_is_lost_is_an_error_but_in_front_of_head(run, redirected, status, reason):
    ended, told = run("checkpoints", redirected)
    assert ended == status
    expected = f"kerastrain: error: The output could not be written: {reason}.\n"
    assert ("The output could not be written" in told) == (expected in told) == bool(reason)


def test_what_a_full_disk_took_is_lost_and_what_comes_after_is_not(tmp_path, monkeypatch):
    path = tmp_path / "log"
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with best_effort_output() as file:
            print("lost", flush=True)
            with path.open("w") as room:
                os.dup2(room.fileno(), full.fileno())
            print("kept …", flush=True)
        assert sys.stdout is full
    assert file.lost.strerror == "No space left on device"
    assert path.read_text() == "kept …\n"


def test_a_stream_of_a_notebook_or_a_test_is_left_as_it_is(monkeypatch):
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    with best_effort_output() as file:
        assert file is None and sys.stdout is own
        print("shown")
    assert own.getvalue() == "shown\n"


def test_a_closed_stream_is_none_that_ends_a_training(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    with best_effort_output() as file:
        print("lost")
        assert file.lost is not None
    assert sys.stdout is closed


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    copied = tmp_path / "copied"
    with (
        copied.open("wb") as file,
        subprocess.Popen(["bash", "-c", "sleep 0.2; cat"], stdin=reading, stdout=file),
        open(writing, "w") as stdout,
    ):
        os.close(reading)
        monkeypatch.setattr(sys, "stdout", stdout)
        with best_effort_output() as output:
            print("x" * 300_000)
        assert output.lost is None
        stdout.close()
    assert copied.stat().st_size == 300_001
