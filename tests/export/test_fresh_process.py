from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from kerastrain.errors import ExportError
from kerastrain.export.fresh_process import FreshProcess


def test_a_process_that_cannot_be_started_is_an_error_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(ExportError, match="cannot be started .*No such file"), FreshProcess():
        pass


@pytest.mark.parametrize("dies_before", [False, True])
def test_the_process_takes_its_children_with_it(tmp_path, monkeypatch, dies_before):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path / 'child'}\nwait\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    child = tmp_path / "child"
    with FreshProcess() as process:
        while not (child.exists() and child.read_text().endswith("\n")):
            time.sleep(0.01)
        if dies_before:  # for want of memory, say
            os.kill(process._process.pid, signal.SIGKILL)
    state = Path(f"/proc/{int(child.read_text())}/stat")
    for _ in range(500):
        try:
            is_waited_for = ") Z " in state.read_text()
        except FileNotFoundError:
            return
        if is_waited_for:
            return
        time.sleep(0.01)
    pytest.fail("it still runs")
