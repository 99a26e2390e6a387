"""Saving beside the training: what is written is the snapshot, and no error is lost."""

import errno
import os
import threading

import numpy as np
import pytest
import small_runs as small
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.errors import CheckpointError
from kerastrain.training.checkpoint_files import checksum_of
from kerastrain.training.checkpoints import CheckpointFolder, keep_newest
from kerastrain.training.saving import Saver
from kerastrain.training.staging import Staging

FACTS = {"epoch": 0.0, "seconds": 0.0, "objective": None}
STATE = small.state_of(small.classifier(), small.blobs())


def saver_in(folder, *, keep=3, **settings):
    staging = Staging(STATE)
    checkpoints = CheckpointFolder(
        folder, staging.checkpoint, describe=STATE.describe, keep=keep_newest(keep)
    )
    return Saver(staging, checkpoints, **settings), checkpoints, staging


def save(saver, step, *writes):
    STATE.step = step
    saver.save(step, facts=FACTS, prepare=lambda: writes)


def full_disk(*arguments, **settings):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_training_goes_on_while_the_snapshot_is_written(tmp_path):
    saver, checkpoints, staging = saver_in(tmp_path)
    is_training_on = threading.Event()
    before = STATE.snapshot()
    save(saver, 1, lambda: is_training_on.wait(60))
    STATE.assign([value + np.ones((), value.dtype) for value in before])
    is_training_on.set()
    saver.finish()
    checkpoints.restore_newest()
    staging.give_back()
    assert small.same(STATE.snapshot(), before)


def test_what_a_state_refers_to_is_written_before_it_and_named_in_its_record(tmp_path):
    (tmp_path / "best").mkdir()
    best = tmp_path / "best" / "weights"
    folder = tmp_path / "latest"
    seen = []

    def write_best():
        seen.append(sorted(path.name for path in folder.glob("ckpt-*")))
        best.write_bytes(b"weights")

    saver, checkpoints, _ = saver_in(folder, needs=lambda: {"../best/weights": checksum_of(best)})
    save(saver, 1, write_best)
    saver.finish()
    assert seen == [[]]
    assert checkpoints.files.damage(1) is None
    best.write_bytes(b"weightz")
    assert "../best/weights" in checkpoints.files.damage(1)


def test_an_error_of_the_thread_is_raised_by_the_next_save(tmp_path):
    saver, _, _ = saver_in(tmp_path)

    def fail():
        raise PermissionError(errno.EACCES, "Permission denied", "metrics.jsonl")

    save(saver, 1, fail)
    with pytest.raises(CheckpointError, match=r"could not be saved: .*Permission denied"):
        save(saver, 2)


def test_an_error_of_the_thread_is_raised_at_the_end_at_the_latest(tmp_path):
    saver, _, _ = saver_in(tmp_path)
    save(saver, 1, lambda: (tmp_path / "gone" / "file").write_text("x"))
    with pytest.raises(CheckpointError, match="No such file"):
        saver.finish()


def test_an_error_that_another_one_kept_from_being_raised_is_told(tmp_path, caplog):
    saver, _, _ = saver_in(tmp_path)
    save(saver, 1, lambda: (tmp_path / "gone" / "file").write_text("x"))
    saver.close()
    saver.close()
    assert caplog.text.count("The last checkpoint could not be saved") == 1


def test_a_full_disk_does_not_end_the_run_and_the_next_save_tries_again(tmp_path, caplog):
    saver, checkpoints, _ = saver_in(tmp_path)
    save(saver, 1)
    save(saver, 2, full_disk)
    saver.wait()
    assert checkpoints.steps() == [1]
    assert "The run goes on and tries again; step 1 is saved" in caplog.text
    save(saver, 3)
    saver.finish()
    assert checkpoints.steps() == [1, 3]
    assert "There is room on the disk again; step 3 is saved" in caplog.text


def test_a_last_state_that_found_no_room_is_an_error_that_says_where_the_run_goes_on(tmp_path):
    saver, _, _ = saver_in(tmp_path)
    save(saver, 1)
    save(saver, 2, full_disk)
    with pytest.raises(CheckpointError, match="the newest checkpoint is of step 1. Make room"):
        saver.finish()


def test_room_is_made_by_removing_what_retention_would_drop(tmp_path, caplog):
    saver, checkpoints, _ = saver_in(tmp_path, keep=2)
    save(saver, 1)
    save(saver, 2)
    saver.wait()

    def needs_room():
        if 1 in checkpoints.steps():
            full_disk()

    save(saver, 3, needs_room)
    saver.finish()
    assert checkpoints.steps() == [2, 3]
    assert "to make room, checkpoint 1 was removed" in caplog.text


def test_the_only_checkpoint_is_not_removed_to_make_room_for_one_that_may_never_come(tmp_path):
    saver, checkpoints, _ = saver_in(tmp_path, keep=1)
    save(saver, 1)
    for step in (2, 3):
        save(saver, step, full_disk)
        saver.wait()
        assert checkpoints.steps() == [1]


def test_an_error_of_the_thread_is_raised_as_soon_as_it_is_asked_for(tmp_path):
    saver, _, _ = saver_in(tmp_path)
    saver.raise_error()
    save(saver, 1, lambda: (tmp_path / "gone" / "file").write_text("x"))
    with pytest.raises(CheckpointError, match="No such file"):
        while True:
            saver.raise_error()


@settings(max_examples=15)
@given(share=st.floats(0, 1), file=st.sampled_from(["data-00000-of-00001", "index"]))
def test_a_disk_that_is_full_at_any_byte_leaves_the_earlier_checkpoint_and_no_ruins(
    tmp_path_factory, share, file
):
    folder = tmp_path_factory.mktemp("full")
    saver, checkpoints, _ = saver_in(folder)
    save(saver, 1)
    saver.wait()
    whole = (folder / f"ckpt-1.{file}").read_bytes()

    def cut(manager, checkpoint_number, **settings):
        (folder / f"ckpt-{checkpoint_number}.{file}").write_bytes(whole[: int(share * len(whole))])
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", cut)
        save(saver, 2)
        saver.wait()
    assert {path.name.partition(".")[0] for path in folder.glob("ckpt-*")} == {"ckpt-1"}
    assert checkpoints.restore_newest() == 1
    save(saver, 3)
    saver.finish()
    assert checkpoints.steps() == [1, 3]
