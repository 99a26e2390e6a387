"""The files of checkpoints, without TensorFlow: small made-up files take the place of its own."""

import fcntl
import os
import threading

import pytest

from kerastrain.errors import CheckpointError
from kerastrain.training.checkpoint_files import CheckpointFiles, Record, checksum_of
from kerastrain.workdir import read_json, write_json

ENDS = ("data-00000-of-00002", "data-00001-of-00002", "index")


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "checkpoints" / "latest"
    folder.mkdir(parents=True)
    return CheckpointFiles(folder)


def write(files, step, *, needs=False, **facts):
    """A committed checkpoint; with `needs` it refers to a file in another folder."""
    for end in ENDS:
        (files.folder / f"ckpt-{step}.{end}").write_bytes(f"{end} of {step}".encode())
    needed = {}
    if needs:
        best = files.folder.parent / "best"
        best.mkdir(exist_ok=True)
        (best / "ckpt-1.index").write_bytes(b"the best weights")
        needed = {"../best/ckpt-1.index": checksum_of(best / "ckpt-1.index")}
    files.commit(
        step, {"epoch": step / 100, "seconds": 1.5, "objective": None} | facts, needs=needed
    )


def files_of(files, step):
    """Every file that the checkpoint consists of, in other folders too."""
    own = sorted(files.folder.glob(f"ckpt-{step}.*"))
    return [*own, *sorted((files.folder.parent / "best").glob("*"))]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b"")


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip_first_bit(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def flip_middle_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def delete(path):
    path.unlink()


# What is known of a checkpoint


def test_a_record_says_what_was_committed(files):
    write(files, 500, epoch=1.25, objective=0.5, seconds=12.5, rollbacks=2)
    (record,) = files.records()
    size = sum(path.stat().st_size for path in files_of(files, 500))
    written = files.record_file(500).stat().st_mtime
    assert record == Record(500, 1.25, 12.5, 0.5, 2, size, written, pinned=False)


def test_checkpoints_are_sorted_by_number_and_not_by_name(files):
    for step in (1000, 0, 90, 500):
        write(files, step)
    assert files.steps() == [0, 90, 500, 1000]
    assert [record.step for record in files.records()] == [0, 90, 500, 1000]


def test_what_has_no_record_is_no_checkpoint(files):
    write(files, 500)
    (files.folder / "ckpt-600.index").write_bytes(b"not committed")
    assert files.steps() == [500]
    assert files.record(600) is None


def test_other_files_are_not_taken_for_checkpoints(files):
    for name in ("checkpoint", "ckpt-x.json", "notes.json", "ckpt.json"):
        (files.folder / name).write_text("{}")
    assert files.steps() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, None, [0.5]])
def test_an_objective_that_is_no_finite_number_is_none(files, value):
    write(files, 500, objective=value)
    assert files.records()[0].objective is None
    assert files.damage(500) is None


def test_a_damaged_record_still_counts_as_a_checkpoint(files):
    write(files, 500)
    empty(files.record_file(500))
    (record,) = files.records()
    assert (record.step, record.epoch, record.objective) == (500, 0.0, None)
    assert record.bytes > 0


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_left_out(files, monkeypatch):
    write(files, 500)
    monkeypatch.setattr(files, "steps", lambda: [400, 500])
    assert [record.step for record in files.records()] == [500]


# Damage


def test_an_intact_checkpoint_has_no_damage(files):
    write(files, 500, needs=True)
    assert files.damage(500) is None


@pytest.mark.parametrize(
    "harm", [truncate, empty, lengthen, flip_first_bit, flip_middle_bit, delete]
)
@pytest.mark.parametrize("number", range(5))
def test_harm_to_any_file_is_seen(files, harm, number):
    write(files, 500, needs=True)
    path = files_of(files, 500)[number]
    harm(path)
    reason = files.damage(500)
    assert reason is not None
    assert path.name in reason or "its record" in reason


def test_every_file_was_tried(files):
    write(files, 500, needs=True)
    ends = [*ENDS, "json"]
    assert {path.name for path in files_of(files, 500)} == {
        *(f"ckpt-500.{end}" for end in ends), "ckpt-1.index"
    }  # fmt: skip
    assert len(files_of(files, 500)) == 5


def test_every_single_flipped_bit_of_a_record_is_seen_or_changes_nothing(files):
    """1e-05 and 1E-05 are the same number; nothing else may pass."""
    variables = [["model", "dense/kernel", [64, 10], "float32"]]
    write(files, 500, needs=True, epoch=1e-05, objective=0.375, rollbacks=1, variables=variables)
    path = files.record_file(500)
    content, original = path.read_bytes(), read_json(path)
    unseen = 0
    for bit in range(8 * len(content)):
        harmed = bytearray(content)
        harmed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(harmed)
        if files.damage(500) is None:
            unseen += 1
            assert read_json(path) == original, f"bit {bit} was not seen"
    assert unseen <= 1


def test_a_record_that_ends_too_early_is_seen_wherever_it_ends(files):
    write(files, 500, needs=True)
    path = files.record_file(500)
    content = path.read_bytes()
    for length in range(len(content) - 1):  # The last byte is a line feed after the object.
        path.write_bytes(content[:length])
        assert files.damage(500) is not None


def test_the_reason_names_file_and_checksums(files):
    write(files, 500)
    path = files.folder / "ckpt-500.index"
    recorded = checksum_of(path)
    path.write_bytes(b"other")
    assert files.damage(500) == (f"ckpt-500.index has {checksum_of(path)}, recorded was {recorded}")
    path.unlink()
    assert files.damage(500) == "ckpt-500.index is missing"


def test_a_record_without_files_is_damage(files):
    files.commit(500, {})
    assert files.damage(500) == "its record names no files"


@pytest.mark.parametrize("content", [{}, {"files": None}, {"files": {"ckpt-500.index": "x"}}])
def test_a_record_that_nobody_committed_is_damage(files, content):
    write_json(files.record_file(500), content)
    assert files.damage(500) is not None


def test_a_checkpoint_that_was_moved_with_its_folder_is_intact(files):
    write(files, 500, needs=True)
    moved = files.folder.parent.rename(files.folder.parent.with_name("elsewhere"))
    assert CheckpointFiles(moved / "latest").damage(500) is None


# Committing and removing


def test_a_checkpoint_counts_from_its_commit_on(files):
    for end in ENDS:
        (files.folder / f"ckpt-500.{end}").write_bytes(b"half")
    assert files.steps() == []
    files.commit(500, {"epoch": 1.0})
    assert files.steps() == [500]
    assert set(files.checksums(500)) == {f"ckpt-500.{end}" for end in ENDS}


def test_discarding_removes_every_file_and_the_record_first(files, monkeypatch):
    write(files, 500)
    write(files, 50)
    files.pin(500)

    def kill(files, step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(files), "data_files", kill)
        with pytest.raises(KeyboardInterrupt):
            files.discard(500)
    assert files.steps() == [50]  # Killed in the middle, it is no checkpoint any more.
    files.discard(500)
    assert names(files.folder) == sorted(f"ckpt-50.{end}" for end in [*ENDS, "json"])


def test_discarding_what_is_not_there_is_no_error(files):
    files.discard(500)


def test_all_but_the_wanted_are_removed(files):
    for step in (1, 2, 3, 4):
        write(files, step, objective=step / 10)
    asked = []

    def wanted(records):
        asked.extend(records)
        return {2, 4, 99}

    assert files.discard_all_but(wanted) == [1, 3]
    assert files.steps() == [2, 4]
    assert [record.objective for record in asked] == [0.1, 0.2, 0.3, 0.4]


def test_nothing_is_pinned_while_it_is_decided_what_goes(files):
    write(files, 1)
    refused = []

    def pin():
        try:
            files.pin(1)
        except CheckpointError as error:
            refused.append(error)

    pinning = threading.Thread(target=pin)

    def wanted(records):
        pinning.start()
        pinning.join(timeout=0.2)
        assert pinning.is_alive()
        assert not records[0].pinned
        return set()

    assert files.discard_all_but(wanted) == [1]
    pinning.join()
    assert len(refused) == 1
    assert names(files.folder) == []


def test_files_that_are_needed_are_known_also_of_checkpoints_set_aside(files):
    assert files.needed_elsewhere() == set()
    write(files, 1)
    write(files, 2, needs=True)
    files.go_back_to(1)
    assert files.needed_elsewhere() == {"../best/ckpt-1.index"}


def test_leftovers_of_a_killed_save_are_removed_and_nothing_else(files):
    write(files, 7)
    write(files, 70)
    files.pin(70)
    kept = [*names(files.folder), "checkpoint", "notes.txt"]
    for name in ("checkpoint", "notes.txt"):
        (files.folder / name).write_text("mine")
    for name in ("ckpt-8.index", "ckpt-8.data-00000-of-00001", "ckpt-9.index.tempstate123"):
        (files.folder / name).write_bytes(b"half")
    for name in (".ckpt-8.json.partial", ".ckpt-70.json.partial", "ckpt-6.pinned"):
        (files.folder / name).write_bytes(b"{")
    (files.folder / "ckpt-8_temp").mkdir()
    (files.folder / "ckpt-8_temp" / "part-00000-of-00001").write_bytes(b"half")
    files.remove_leftovers()
    assert names(files.folder) == sorted(kept)
    assert files.damage(7) is None and files.damage(70) is None


def test_removing_leftovers_leaves_quarantine_and_what_was_set_aside(files):
    for step in (1, 2, 3):
        write(files, step)
    files.put_in_quarantine(2, "for a test")
    files.go_back_to(1)
    files.remove_leftovers()
    assert files.quarantined() == ["ckpt-2"]
    assert files.steps_set_aside() == [3]


# Pins


def test_a_pin_stays_with_the_checkpoint_until_it_is_taken_off(files):
    write(files, 500)
    files.pin(500)
    files.pin(500)  # Twice is once.
    assert files.records()[0].pinned
    assert files.damage(500) is None
    files.unpin(500)
    assert not files.records()[0].pinned


def test_a_checkpoint_that_is_written_again_stays_pinned(files):
    write(files, 500)
    files.pin(500)
    files.discard_files(500)
    assert files.steps() == []
    write(files, 500)
    assert files.records()[0].pinned


def test_a_removed_checkpoints_pin_goes_with_it(files):
    write(files, 500)
    files.pin(500)
    files.discard(500)
    write(files, 500)
    assert not files.records()[0].pinned


def test_pinning_what_is_not_there_names_what_is(files):
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5 in .*: none\."):
        files.pin(5)
    write(files, 500)
    write(files, 600)
    for act in (files.pin, files.unpin, files.go_back_to):
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 5 in .*: 500, 600\."):
            act(5)


def test_unpinning_what_is_not_pinned_is_an_error(files):
    write(files, 500)
    with pytest.raises(CheckpointError, match="of step 500 is not pinned"):
        files.unpin(500)


def test_the_folders_own_lock_is_free_after_every_use(files):
    write(files, 500)
    files.pin(500)
    with pytest.raises(CheckpointError):
        files.pin(5)
    descriptor = os.open(files.folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


# Quarantine


def test_a_damaged_checkpoint_lies_in_quarantine_with_its_reason(files, caplog):
    write(files, 500)
    write(files, 600)
    files.pin(600)
    truncate(files.folder / "ckpt-600.index")
    files.put_in_quarantine(600, "ckpt-600.index is too short")
    assert files.steps() == [500]
    assert files.quarantined() == ["ckpt-600"]
    place = files.quarantine / "ckpt-600"
    assert names(place) == sorted(
        ["reason.txt", "ckpt-600.pinned", *(f"ckpt-600.{end}" for end in [*ENDS, "json"])]
    )
    assert (place / "reason.txt").read_text() == "ckpt-600.index is too short\n"
    assert f"step 600 is damaged (ckpt-600.index is too short); moved to {place}." in caplog.text


@pytest.mark.parametrize("missing", [*ENDS, "json"])
def test_a_checkpoint_of_which_files_are_missing_can_be_put_in_quarantine(files, missing):
    write(files, 500)
    (files.folder / f"ckpt-500.{missing}").unlink()
    files.put_in_quarantine(500, "gone")
    assert not list(files.folder.glob("ckpt-500*"))


def test_a_second_damaged_checkpoint_of_a_step_takes_the_place_of_the_first(files):
    for content in (b"first", b"second"):
        write(files, 500)
        (files.folder / "ckpt-500.index").write_bytes(content)
        files.put_in_quarantine(500, content.decode())
    place = files.quarantine / "ckpt-500"
    assert (place / "ckpt-500.index").read_bytes() == b"second"
    assert (place / "reason.txt").read_text() == "second\n"
    assert files.quarantined() == ["ckpt-500"]


# Going back, and forward again


def test_going_back_sets_newer_checkpoints_aside_and_going_forward_fetches_them(files):
    for step in (100, 200, 300):
        write(files, step)
    files.pin(300)
    before = {name: (files.folder / name).read_bytes() for name in names(files.folder)}

    assert files.go_back_to(100) == [200, 300]
    assert files.steps() == [100]
    assert files.steps_set_aside() == [200, 300]

    assert files.go_back_to(300) == []
    assert files.steps() == [100, 300]
    assert files.steps_set_aside() == [200]
    assert files.records()[-1].pinned

    assert files.go_back_to(200) == [300]
    assert files.go_back_to(300) == []
    assert files.steps_set_aside() == []
    after = {path.name: path.read_bytes() for path in files.folder.iterdir() if path.is_file()}
    assert after == before
    assert all(files.damage(step) is None for step in (100, 200, 300))


def test_going_back_to_the_newest_changes_nothing(files):
    write(files, 100)
    assert files.go_back_to(100) == []
    assert files.steps() == [100]
    assert files.steps_set_aside() == []


def test_going_back_to_a_damaged_checkpoint_changes_nothing(files):
    write(files, 100)
    write(files, 200)
    truncate(files.folder / "ckpt-100.index")
    with pytest.raises(CheckpointError, match=r"step 100 is damaged: ckpt-100\.index has"):
        files.go_back_to(100)
    assert files.steps() == [100, 200]


def test_a_damaged_checkpoint_that_is_set_aside_stays_there(files):
    write(files, 100)
    write(files, 200)
    files.go_back_to(100)
    truncate(files.set_aside / "ckpt-200" / "ckpt-200.index")
    with pytest.raises(CheckpointError, match=r"step 200 is damaged: ckpt-200\.index has"):
        files.go_back_to(200)
    assert files.steps() == [100]
    assert files.steps_set_aside() == [200]


def test_what_is_trained_after_going_back_takes_the_place_of_what_was_set_aside(files):
    write(files, 100)
    write(files, 200, epoch=2.0)
    files.go_back_to(100)
    write(files, 200, epoch=2.5)
    files.go_back_to(100)
    files.go_back_to(200)
    assert files.records()[-1].epoch == 2.5
    assert files.damage(200) is None


def test_going_back_that_was_killed_in_the_middle_loses_nothing_when_it_is_done_again(files):
    write(files, 100)
    write(files, 200)
    # Killed before the record was moved, which goes last.
    place = files.set_aside / "ckpt-200"
    place.mkdir(parents=True)
    for end in ENDS:
        (files.folder / f"ckpt-200.{end}").rename(place / f"ckpt-200.{end}")
    assert files.steps() == [100, 200]
    assert files.damage(200) is not None

    assert files.go_back_to(100) == [200]
    assert files.go_back_to(200) == []
    assert files.damage(200) is None


def test_fetching_that_was_killed_in_the_middle_is_completed_when_it_is_done_again(files):
    write(files, 100)
    write(files, 200)
    files.go_back_to(100)
    place = files.set_aside / "ckpt-200"
    for end in ENDS[:2]:
        (place / f"ckpt-200.{end}").rename(files.folder / f"ckpt-200.{end}")
    assert files.steps() == [100]
    assert files.go_back_to(200) == []
    assert files.damage(200) is None
    assert files.steps_set_aside() == []
