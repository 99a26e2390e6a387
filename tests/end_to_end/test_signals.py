"""Ctrl-C and SIGTERM: saved, said, and gone on with exactly."""

import signal
from pathlib import Path

import killing
import pytest
from killing import MLP, assert_same


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_the_same_command_goes_on_exactly(tmp_path, undisturbed, number, status):
    workdir = tmp_path / "run"
    flags = (MLP[0], MLP[1], "--checkpoint_every=1000s", "--max_epochs=150")
    process = killing.start(workdir, *flags)
    killing.wait_until(killing.after(0.3, killing.training_has_begun(workdir)), process)
    process.send_signal(number)
    assert process.wait(60) == status
    log = (tmp_path / "run.log").read_text()
    assert "everything is saved. Run the same command to go on." in log
    assert "Traceback" not in log
    killing.finish(workdir, *flags)
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


def test_ctrl_c_during_start_up_leaves_without_a_traceback(tmp_path):
    process = killing.start(tmp_path / "run", "--recipe=digits")
    maps = Path(f"/proc/{process.pid}/maps")
    killing.wait_until(lambda: "libtensorflow" in maps.read_text(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "Traceback" not in (tmp_path / "run.log").read_text()


@pytest.mark.slow  # the lock has fast tests of its own
def test_a_second_trainer_is_told_who_trains_here(tmp_path, run_kerastrain):
    workdir = tmp_path / "run"
    process = killing.start(workdir, *MLP)
    try:
        killing.wait_until(killing.training_has_begun(workdir), process)
        second = run_kerastrain("train", f"--workdir={workdir}", *MLP)
        assert second.returncode == 1
        assert f"Another process already trains in {workdir} (pid {process.pid}" in second.stderr
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_the_same_command_goes_on(tmp_path, undisturbed):
    workdir = tmp_path / "run"
    process = killing.start(workdir, *MLP)
    killing.wait_until(killing.training_has_begun(workdir), process)
    process.send_signal(signal.SIGINT)
    deadline = killing.after(0.05, lambda: True)
    killing.wait_until(deadline, process)
    process.send_signal(signal.SIGINT)
    # By the system itself (what a shell reports as 130), or before it came.
    assert process.wait(60) in (-signal.SIGINT, 130)
    killing.finish(workdir, *MLP)
    assert_same(killing.what_remains(workdir), undisturbed(*MLP))
