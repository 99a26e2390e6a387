"""A log file on a disk that fills up and has room again."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.callbacks.append_only import AppendOnlyFile


class Disk:
    """`os.write` on a disk with so many bytes of room."""

    def __init__(self, room):
        self.room, self.write = room, os.write

    def __call__(self, descriptor, content):
        fitting = content[: self.room]
        if not fitting:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(fitting)
        return self.write(descriptor, fitting)


def test_what_is_appended_is_in_the_file(tmp_path):
    file = AppendOnlyFile(tmp_path / "log")
    file.append(b"one\n")
    file.append(b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    file.close()
    AppendOnlyFile(tmp_path / "log").append(b"three\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\nthree\n"


@given(room=st.integers(0, 40), lines=st.lists(st.binary(min_size=1, max_size=9), min_size=1))
def test_a_full_disk_loses_and_doubles_no_byte(tmp_path_factory, room, lines):
    path = tmp_path_factory.mktemp("full") / "log"
    file, disk = AppendOnlyFile(path), Disk(room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", disk)
        for line in lines:
            file.append(line)
        whole = b"".join(lines)
        assert path.read_bytes() == whole[:room]
        if len(whole) > room:
            with pytest.raises(OSError, match="No space left"):
                file.commit()
        disk.room = 1000
        file.commit()
    file.close()
    assert path.read_bytes() == whole


def test_closing_on_a_full_disk_warns_and_does_not_raise(tmp_path, monkeypatch, caplog):
    file = AppendOnlyFile(tmp_path / "log")
    monkeypatch.setattr(os, "write", Disk(0))
    file.append(b"line\n")
    file.close()
    file.close()
    assert "could not be written (No space left on device)" in caplog.text
