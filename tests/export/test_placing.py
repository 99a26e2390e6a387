from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading

from kerastrain.export import placing
from kerastrain.export.manifest import versions
from kerastrain.export.placing import (
    changing,
    closed_to_others,
    move_into_place,
    pending_folder,
    remove_leftovers,
    take_away,
)


def make(base):
    with pending_folder(base) as pending:
        folder = pending / "model"
        folder.mkdir()
        (folder / "file").write_text("whole")
        return move_into_place(folder, base)


def test_a_version_appears_under_the_next_number_and_leaves_nothing_beside_it(tmp_path):
    assert [make(tmp_path), make(tmp_path)] == [1, 2]
    assert take_away(tmp_path, 1)
    assert make(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    assert not take_away(tmp_path, 1)


def test_a_version_is_as_readable_as_the_umask_says_and_what_closes_it_is_found(tmp_path):
    with pending_folder(tmp_path) as pending:
        (pending / "model" / "variables").mkdir(parents=True, mode=0o700)
        (pending / "model").chmod(0o700)
        (pending / "model" / "file").write_text("whole")
        version = tmp_path / str(move_into_place(pending / "model", tmp_path))
    umask = os.umask(0o022)
    os.umask(umask)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (version, version / "variables")]
    assert modes == [0o777 & ~umask] * 2
    (version / "file").chmod(0o640)
    tmp_path.chmod(0o755)
    private = [p for p in reversed(tmp_path.parents) if not p.stat().st_mode & stat.S_IXOTH]
    assert closed_to_others(version) == [*private, version / "file"][0]


def is_without_files(version):
    """Whether the folder is empty and has that name: not one that was renamed while we looked."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(version, os.O_RDONLY)
        try:
            if os.listdir(descriptor):
                return False
            # The next version may have the same number by now, but not the same inode.
            return os.stat(version).st_ino == os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
    return False


def test_nobody_ever_sees_a_version_without_its_files(tmp_path):
    seen, done = [], threading.Event()

    def poll():
        while not done.is_set():
            for number in versions(tmp_path):
                if is_without_files(tmp_path / str(number)):
                    seen.append(number)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        for _ in range(20):
            number = make(tmp_path)
            assert take_away(tmp_path, number)
    finally:
        done.set()
        thread.join()
    assert seen == []


def test_what_killed_processes_left_goes_and_what_one_still_works_in_stays(tmp_path):
    for name in (".pending-killed", ".removed-killed", ".pending-running"):
        (tmp_path / name / "model").mkdir(parents=True)
    running = os.open(tmp_path / ".pending-running", os.O_RDONLY)
    try:
        fcntl.flock(running, fcntl.LOCK_EX)
        remove_leftovers(tmp_path)
    finally:
        os.close(running)
    assert [path.name for path in tmp_path.iterdir()] == [".pending-running"]


def test_a_folder_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    make_folder, made = placing.tempfile.mkdtemp, []

    def swept_once(**arguments):
        made.append(make_folder(**arguments))
        if len(made) == 1:
            os.rmdir(made[0])
        return made[-1]

    monkeypatch.setattr(placing.tempfile, "mkdtemp", swept_once)
    with pending_folder(tmp_path) as pending:
        assert pending.is_dir() and len(made) == 2


def test_changes_wait_for_each_other(tmp_path):
    order = []
    with changing(tmp_path):
        thread = threading.Thread(target=lambda: order.append(("second", waits(tmp_path))))
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", ("second", True)]


def waits(base):
    with changing(base):
        return True
