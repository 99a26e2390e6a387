"""`kerastrain serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_what_it_serves_and_ends_with_0_when_it_is_told_to(
    publish, tmp_path, stop
):
    (tmp_path / "tiny").mkdir()
    publish(tmp_path / "tiny", 1)
    command = [sys.executable, "-m", "kerastrain", "serve", f"--model={tmp_path / 'tiny'}"]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    with subprocess.Popen(
        [*command, "--rest_port=-1", "--grpc_port=-1", "--access_log=stderr"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        said = ""
        while "gRPC:" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        assert "Model tiny: version 1\n" in said
        url = re.search(r"REST: (\S+):predict", said)[1]
        asked_for = urllib.request.Request(f"{url}:predict", b'{"instances": [[1, 2]]}')
        with urllib.request.urlopen(asked_for, timeout=60) as answer:
            assert json.load(answer)["predictions"][0]["total"] == 3.0
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Stopped.\n" in rest
        # Nothing but the access log: no traceback, none of TensorFlow's chatter.
        assert [json.loads(line)["status"] for line in errors.splitlines()] == [200]


@pytest.mark.slow
def test_a_port_in_use_is_one_line_and_status_1(publish, tmp_path, run_kerastrain):
    (tmp_path / "tiny").mkdir()
    publish(tmp_path / "tiny", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_kerastrain("serve", "--model=tiny", f"--rest_port={port}")
    assert result.returncode == 1
    assert re.fullmatch(r"kerastrain: error: .* cannot be listened on: .*\n", result.stderr)
