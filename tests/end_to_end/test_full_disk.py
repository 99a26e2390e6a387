"""A disk that is really full: a small tmpfs, in a mount namespace of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "on_a_small_disk.py"


@pytest.fixture
def on_a_small_disk(tmp_path):
    """Runs a command with a folder on a tmpfs of 6 MB; skipped where mounting is not allowed."""
    small = tmp_path / "small"
    small.mkdir()

    def run(*command):
        mount = f"mount -t tmpfs -o size=6m tmpfs {small}"
        namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
        try:
            subprocess.run([*namespace, mount], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a tmpfs cannot be mounted here: {error}")
        return subprocess.run(
            [*namespace, f'{mount} && exec "$@"', "sh", *command, str(small), str(tmp_path)],
            capture_output=True,
            text=True,
        )

    return run


def test_a_run_survives_a_full_disk_and_ends_as_one_that_had_room(on_a_small_disk):
    ended = on_a_small_disk(sys.executable, str(SCRIPT))
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["freed"] and seen["every line once"]
    assert any("The disk is full" in warning for warning in seen["warnings"])
    # Without room to the end: an error, an intact checkpoint, and the same command goes on.
    assert "last state is not saved; the newest checkpoint is of step" in seen["error"]
    assert seen["left"] and max(seen["left"]) < 96
    assert seen["went on"]
