"""The access log: one line of JSON for each request."""

from __future__ import annotations

import json
import sys

import pytest

from kerastrain.errors import OptionsError
from kerastrain.serving.access_log import AccessLog


def test_each_request_is_one_line_whatever_it_holds(tmp_path):
    path = tmp_path / "access.log"
    log = AccessLog.open(str(path))
    log.write(path='/v1/models/"\n\u2028ü', status=404)
    log.write(path="/", status=200, model=None)
    log.close()
    first, second = map(json.loads, path.read_bytes().split(b"\n")[:-1])
    assert (first["path"], first["status"]) == ('/v1/models/"\n\u2028ü', 404)
    assert second["model"] is None and second["time"].endswith("+00:00")


def test_a_file_is_appended_to(tmp_path):
    path = tmp_path / "access.log"
    for status in (200, 404):
        log = AccessLog.open(str(path))
        log.write(status=status)
        log.close()
    assert len(path.read_text().splitlines()) == 2


def test_lines_go_to_stderr_or_nowhere(capfdbinary):
    AccessLog.open("stderr").write(status=200)
    AccessLog.open("off").write(status=404)
    AccessLog.open("stderr").close()
    assert not sys.stderr.closed
    assert json.loads(capfdbinary.readouterr().err)["status"] == 200


def test_a_file_that_cannot_be_opened_is_told():
    with pytest.raises(OptionsError, match="/nowhere/access.log"):
        AccessLog.open("/nowhere/access.log")


def test_a_full_disk_ends_the_log_and_not_the_request(caplog):
    log = AccessLog.open("/dev/full")
    log.write(status=200)
    log.write(status=200)
    assert caplog.text.count("The access log ends here") == 1
