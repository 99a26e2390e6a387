"""Checkpoints: committed whole, verified on the way back, never silently passed over."""

import errno
import json

import pytest
import tensorflow as tf

from kerastrain.errors import CheckpointError
from kerastrain.training import checkpoint_files
from kerastrain.training.checkpoints import CheckpointFolder, keep_newest


class Saved:
    """Two variables and their folder."""

    def __init__(self, folder, *, shape=(3,), keep=3):
        self.a = tf.Variable(tf.zeros(shape), name="a")
        self.b = tf.Variable("", dtype=tf.string)
        self.checkpoints = CheckpointFolder(
            folder,
            tf.train.Checkpoint(model=[self.a], host=self.b),
            describe=lambda: [["model", "a", list(self.a.shape), "float32"]],
            keep=keep_newest(keep),
        )

    def save(self, step):
        self.a.assign(tf.fill(self.a.shape, float(step)))
        self.b.assign(f"step {step}")
        self.checkpoints.save(step)
        return self

    def values(self):
        return self.a.numpy().tolist(), self.b.numpy().decode()


def test_what_is_saved_comes_back_whatever_the_folder_is_called(strange):
    Saved(strange).save(1).save(2)
    again = Saved(strange)
    assert again.checkpoints.restore_newest() == 2
    assert again.values() == ([2.0, 2.0, 2.0], "step 2")


def test_an_empty_folder_restores_nothing(tmp_path):
    assert Saved(tmp_path).checkpoints.restore_newest() is None


def test_only_the_newest_are_kept(tmp_path):
    saved = Saved(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        saved.save(step)
    assert saved.checkpoints.steps() == [3, 4]
    assert {path.name for path in tmp_path.glob("ckpt-*")} == {
        f"ckpt-{step}.{end}" for step in (3, 4) for end in ("index", "json", "data-00000-of-00001")
    }


def test_a_smaller_number_than_those_there_stays_when_it_is_the_newest(tmp_path):
    saved = Saved(tmp_path, keep=2).save(21).save(28).save(7)
    assert saved.checkpoints.steps() == [7, 28]
    saved.checkpoints.restore(7)


@pytest.mark.parametrize("file", ["ckpt-2.index", "ckpt-2.data-00000-of-00001", "ckpt-2.json"])
@pytest.mark.parametrize("harm", ["truncated", "one bit flipped", "deleted"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, caplog, file, harm):
    Saved(tmp_path).save(1).save(2)
    path = tmp_path / file
    content = bytearray(path.read_bytes())
    if harm == "deleted":
        path.unlink()
    elif harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    again = Saved(tmp_path)
    assert again.checkpoints.restore_newest() == 1
    assert again.values() == ([1.0, 1.0, 1.0], "step 1")
    assert not list(tmp_path.glob("ckpt-2.*"))
    if (file, harm) != ("ckpt-2.json", "deleted"):  # Without its record it was never committed.
        assert "step 2 is damaged" in caplog.text
        assert "from step 1 instead of 2" in caplog.text
        assert (tmp_path / "quarantine" / "ckpt-2" / "reason.txt").read_text()


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch):
    Saved(tmp_path).save(1)

    def refuse(file):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(checkpoint_files, "checksum_of", refuse)
    with pytest.raises(PermissionError):
        Saved(tmp_path).checkpoints.restore_newest()
    assert not (tmp_path.parent / "quarantine").exists() and Saved(tmp_path).checkpoints.steps()


def test_when_none_is_intact_nothing_is_trained_from_zero(tmp_path):
    Saved(tmp_path).save(1).save(2)
    for file in tmp_path.glob("ckpt-*.index"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="None of the checkpoints .* ckpt-1, ckpt-2 lie"):
        Saved(tmp_path).checkpoints.restore_newest()
    with pytest.raises(CheckpointError, match="Nothing was trained"):  # Nor the second time.
        Saved(tmp_path).checkpoints.restore_newest()


def test_checkpoints_without_their_records_are_no_new_beginning(tmp_path):
    Saved(tmp_path).save(1).save(2)
    for file in tmp_path.glob("ckpt-*.json"):
        file.unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="their records .* are gone. Nothing was changed"):
        Saved(tmp_path).checkpoints.restore_newest()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'model_checkpoint_path: "gone"'])
def test_tensorflows_own_state_file_is_not_trusted(tmp_path, content):
    Saved(tmp_path).save(1)
    (tmp_path / "checkpoint").write_bytes(content)
    again = Saved(tmp_path)
    assert again.checkpoints.restore_newest() == 1
    again.save(2)
    assert Saved(tmp_path).checkpoints.restore_newest() == 2


def test_leftovers_of_a_killed_save_are_removed_and_not_restored(tmp_path):
    Saved(tmp_path).save(1)
    (tmp_path / "ckpt-2_temp").mkdir()
    (tmp_path / "ckpt-2_temp" / "part-00000").write_bytes(b"half")
    for end in ("index", "data-00000-of-00001"):
        (tmp_path / f"ckpt-2.{end}").write_bytes((tmp_path / f"ckpt-1.{end}").read_bytes())
    assert Saved(tmp_path).checkpoints.restore_newest() == 1
    assert not list(tmp_path.glob("ckpt-2*"))


def test_a_checkpoint_of_another_model_is_refused_with_the_shapes(tmp_path):
    Saved(tmp_path).save(1)
    with pytest.raises(CheckpointError, match=r"model a float32\[3\]; model: model a float32\[4\]"):
        Saved(tmp_path, shape=(4,)).checkpoints.restore_newest()
    assert (tmp_path / "ckpt-1.json").exists()


def test_a_full_disk_is_an_error_that_leaves_the_earlier_ones(tmp_path, monkeypatch):
    saved = Saved(tmp_path).save(1)

    def no_space(*arguments, **settings):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", no_space)
    with pytest.raises(CheckpointError, match="step 2 could not be written.*the disk is full"):
        saved.save(2)
    assert Saved(tmp_path).checkpoints.restore_newest() == 1


def test_the_record_holds_a_checksum_of_every_file(tmp_path):
    Saved(tmp_path).save(1)
    record = json.loads((tmp_path / "ckpt-1.json").read_text())
    assert set(record["files"]) == {"ckpt-1.index", "ckpt-1.data-00000-of-00001"}
