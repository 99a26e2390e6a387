import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from kerastrain.errors import WorkdirError
from kerastrain.workdir import Workdir, read_json, write_bytes, write_json

HOLDER = """
import sys, time
from kerastrain.workdir import Workdir
with Workdir(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workdir(tmp_path):
    made = Workdir(tmp_path / "run")
    made.create()
    return made


@pytest.fixture
def other_trainer(workdir):
    """A process that holds the lock of the work directory."""
    command = [sys.executable, "-c", HOLDER, str(workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


# The folder


def test_a_work_directory_is_made_with_its_parents(tmp_path):
    workdir = Workdir(tmp_path / "a" / "b")
    workdir.create()
    workdir.create()  # an empty one is taken as it is
    assert workdir.path.is_dir()


def test_every_path_lies_below_the_folder(tmp_path):
    workdir = Workdir(tmp_path)
    properties = [name for name, value in vars(Workdir).items() if isinstance(value, property)]
    paths = [getattr(workdir, name) for name in properties]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert len(set(paths)) == len(paths)


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    for name in ("thesis.tex", "b", "c", "d"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(
        WorkdirError, match=r"something else .*\(b, c, d, …\)\. Nothing was changed"
    ):
        Workdir(tmp_path).create()
    assert sorted(os.listdir(tmp_path)) == ["b", "c", "d", "thesis.tex"]


def test_a_folder_with_a_run_is_taken(workdir):
    write_json(workdir.run_file, {})
    (workdir.path / "notes.txt").write_text("mine")
    workdir.create()


def test_what_a_start_killed_early_leaves_is_no_obstacle(workdir):
    (workdir.path / "lock").touch()
    (workdir.path / ".run.json.partial").write_text("{")
    workdir.create()


def test_a_file_in_the_place_of_the_folder_or_above_it_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(WorkdirError, match=rf"cannot be made: {tmp_path}/file is a file"):
            Workdir(path).create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WorkdirError, match="cannot be read and written to"):
        Workdir(tmp_path).create()
    with pytest.raises(WorkdirError, match=r"cannot be read and written to \(Permission denied"):
        Workdir(tmp_path / "below").create()
    tmp_path.chmod(0o700)


# The lock


def test_a_second_trainer_is_told_pid_host_and_since_when(workdir, other_trainer):
    with (
        pytest.raises(WorkdirError, match="Another process already trains") as raised,
        workdir.lock(),
    ):
        pytest.fail("the lock was given twice")
    owner = (
        rf"pid {other_trainer.pid} on {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d"
    )
    assert re.search(owner, str(raised.value))


def test_the_lock_is_free_once_its_holder_was_killed(workdir, other_trainer):
    other_trainer.send_signal(signal.SIGKILL)
    other_trainer.wait()
    with workdir.lock():
        assert f"pid {os.getpid()} " in (workdir.path / "lock").read_text()


def test_the_lock_is_free_after_an_error_inside(workdir):
    with pytest.raises(ZeroDivisionError), workdir.lock():
        _ = 1 / 0
    with workdir.lock():
        pass


def test_a_process_started_meanwhile_does_not_keep_the_lock(workdir):
    with workdir.lock():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with workdir.lock():
            pass
    finally:
        child.kill()
        child.wait()


def test_a_file_system_without_locks_is_named(workdir, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(WorkdirError, match=r"without locks \(No locks available\)"), workdir.lock():
        pytest.fail("trained without a lock")


def test_a_start_that_wrote_nothing_leaves_nothing(tmp_path):
    workdir = Workdir(tmp_path / "a" / "b")
    workdir.create()
    with pytest.raises(ZeroDivisionError), workdir.lock():
        _ = 1 / 0
    assert not os.listdir(tmp_path)


def test_a_folder_that_was_there_or_is_used_stays(tmp_path):
    (tmp_path / "there").mkdir()
    for name, used in (("there", False), ("used", True)):
        workdir = Workdir(tmp_path / name)
        workdir.create()
        with workdir.lock():
            if used:
                write_json(workdir.run_file, {})
    assert not os.listdir(tmp_path / "there")
    assert sorted(os.listdir(tmp_path / "used")) == ["lock", "run.json"]


def test_a_start_whose_folder_another_took_away_makes_it_again(tmp_path):
    one, other = Workdir(tmp_path / "run"), Workdir(tmp_path / "run")
    one.create()
    other.create()
    with one.lock():
        pass
    assert not (tmp_path / "run").exists()
    with other.lock():
        write_json(other.run_file, {})
        with pytest.raises(WorkdirError, match="Another process"), one.lock():
            pytest.fail("the lock was given twice")


# A run that makes room for a new one


def run_with_an_export(workdir):
    for name in ("run", "starts", "stopped"):
        write_json(workdir.path / f"{name}.json", {"starts": [{"began": "2026-01-02T03:04:05.6Z"}]})
    version = workdir.exports / "m" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"model")
    (workdir.path / "notes.txt").write_text("mine")
    write_json(workdir.result_file, {"export": "export/m/1"})


@pytest.mark.parametrize("killed_after", [None, *range(4)])
def test_a_run_set_aside_is_whole_whenever_that_was_killed(workdir, monkeypatch, killed_after):
    run_with_an_export(workdir)
    moves, replace = iter(range(99)), os.replace

    def killed(source, target):
        if next(moves) == killed_after:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt), workdir.lock():
        patch.setattr(os, "replace", killed)
        workdir.set_aside()
    workdir.create()  # Still known for a run's folder.
    with workdir.lock():
        if killed_after == 0:
            assert workdir.run_file.exists()  # It had not begun.
            workdir.set_aside()
    assert sorted(os.listdir(workdir)) == ["earlier", "export", "lock", "notes.txt"]
    earlier = Workdir(workdir.earlier / "2026-01-02T03-04-05")
    assert sorted(os.listdir(earlier)) == [
        "export", "result.json", "run.json", "starts.json", "stopped.json"
    ]  # fmt: skip
    assert (earlier.exports / "m" / "1" / "saved_model.pb").read_bytes() == b"model"
    assert (workdir.exports / "m" / "1" / "saved_model.pb").exists()


# Files


def test_json_reads_back_as_it_was_written(tmp_path):
    value = {"name": "münchen", "list": [1, 2.5, None], "nested": {"a": True}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", {"version": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkdirError, match=r"x\.json cannot be written: No space left on device"):
        write_json(tmp_path / "x.json", {"version": 2})
    assert read_json(tmp_path / "x.json") == {"version": 1}


def test_a_reader_never_sees_half_a_file_however_the_writer_is_killed(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"n": 0, "padding": "x" * 100_000})
    writer = (
        "import sys, pathlib; from kerastrain.workdir import write_json\n"
        "for n in range(10**9): write_json(pathlib.Path(sys.argv[1]), "
        "{'n': n, 'padding': 'x' * 100_000})"
    )
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", writer, str(path)]) as process:
            before = path.stat().st_mtime_ns
            while path.stat().st_mtime_ns == before:  # it has started to write
                time.sleep(0.001)
            process.kill()
        assert len(read_json(path)["padding"]) == 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b'{"a": 1', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1]", "holds list; expected a JSON object"),
    ],
)
def test_a_damaged_json_file_is_named(tmp_path, content, message):
    write_bytes(tmp_path / "x.json", content)
    with pytest.raises(WorkdirError, match=rf"x\.json {message}"):
        read_json(tmp_path / "x.json")


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(WorkdirError, match=r"x\.json is missing"):
        read_json(tmp_path / "x.json")


def test_json_is_written_as_utf_8_whatever_the_locale(tmp_path):
    write_json(tmp_path / "x.json", {"name": "münchen"})
    assert json.loads((tmp_path / "x.json").read_bytes().decode("utf-8"))["name"] == "münchen"
