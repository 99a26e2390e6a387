from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.errors import ExportError, OptionsError
from kerastrain.export import manifest
from kerastrain.export.placing import move_into_place, pending_folder
from kerastrain.export.version_folders import promote, remove_old, rollback
from kerastrain.export.version_list import deployments, list_versions


def publish(base, content):
    """A version that holds one text."""
    with pending_folder(base) as pending:
        folder = pending / "model"
        (folder / "variables").mkdir(parents=True)
        (folder / "assets").mkdir()
        (folder / "saved_model.pb").write_text(content)
        (folder / "variables" / "variables.index").write_text(f"of {content}")
        manifest.write_manifest(
            folder, {"step": 10, "metrics": {"accuracy": 0.5}, "created": "2026-01-02T03:04:05Z"}
        )
        return move_into_place(folder, base)


def content(base, number):
    return (base / str(number) / "saved_model.pb").read_text()


def deployed(base):
    return content(base, manifest.versions(base)[-1])


@pytest.fixture
def base(tmp_path):
    """Versions 1 (a), 2 (b) and 3 (c)."""
    for name in "abc":
        publish(tmp_path, name)
    return tmp_path


def test_versions_are_listed_with_what_they_are(base):
    first, _, last = list_versions(base)
    assert (first.number, first.damage, first.is_deployed, first.copy_of) == (1, None, False, None)
    assert last.is_deployed and last.metrics == {"accuracy": 0.5}
    assert first.bytes == sum(p.stat().st_size for p in (base / "1").rglob("*") if p.is_file())
    plain = json.loads(json.dumps(first.to_json()))
    assert plain["version"] == 1 and plain["step"] == 10 and plain["created"].startswith("2026")


def test_a_changed_file_a_missing_manifest_and_an_empty_one_are_damage(base):
    (base / "1" / "saved_model.pb").write_text("other")
    (base / "2" / manifest.NAME).unlink()
    (base / "3" / manifest.NAME).write_text("{}")
    damages = [version.damage for version in list_versions(base)]
    assert "is not the file that was published" in damages[0]
    assert "is missing" in damages[1]
    assert "lists no files" in damages[2]


def test_other_names_in_the_folder_are_passed_over(base):
    (base / "notes.txt").write_text("x")
    (base / ".pending-x").mkdir()
    assert [version.number for version in list_versions(base)] == [1, 2, 3]


def test_promote_publishes_a_copy_as_the_newest_and_says_of_what(base):
    copy = promote(base, 1)
    assert copy.number == 4 and deployed(base) == "a"
    written = manifest.read_manifest(base / "4")  # its digests fit
    before = manifest.read_manifest(base / "1")
    assert (written["copy_of"], written["reason"]) == (1, "promote")
    assert written["created"] != before["created"]
    assert (written["digest"], written["step"]) == (before["digest"], before["step"])
    assert (base / "4" / "assets").is_dir()
    assert sorted(path.name for path in base.iterdir()) == ["1", "2", "3", "4"]


def test_copies_take_no_space_and_outlive_their_original(base):
    promote(base, 1)
    inodes = [(base / number / "saved_model.pb").stat().st_ino for number in ("1", "4")]
    assert inodes[0] == inodes[1]
    assert (base / "1" / manifest.NAME).stat().st_ino != (base / "4" / manifest.NAME).stat().st_ino
    shutil.rmtree(base / "1")
    assert list_versions(base)[-1].damage is None


def test_without_hard_links_the_files_are_copied(base, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    promote(base, 2)
    assert deployed(base) == "b" and list_versions(base)[-1].damage is None


def test_files_that_were_not_published_are_not_deployed(base):
    (base / "1" / "saved_model.pbtxt").write_text("put here later")
    promote(base, 1)
    assert not (base / "4" / "saved_model.pbtxt").exists()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (3, "Version 3 is deployed already: it is the newest of 1, 2, 3"),
        (7, "There is no version 7 in .*; there is 1, 2, 3"),
    ],
)
def test_what_cannot_be_promoted_is_told_with_what_there_is(base, number, says):
    with pytest.raises(ExportError, match=says):
        promote(base, number)


def test_a_version_whose_copy_is_deployed_is_deployed_already(base):
    promote(base, 1)
    with pytest.raises(ExportError, match="deployed already: 4, the newest, is a copy of it"):
        promote(base, 1)


def test_a_damaged_version_is_neither_promoted_nor_gone_back_to(base):
    (base / "2" / "variables" / "variables.index").write_text("broken")
    for change in (lambda: promote(base, 2), lambda: rollback(base)):
        with pytest.raises(ExportError, match=r"Version 2 is damaged and was not deployed.*sha256"):
            change()
    assert manifest.versions(base) == [1, 2, 3]
    assert not list(base.glob(".*"))


def test_rollbacks_go_further_and_further_back_until_nothing_is_left(base):
    copy = rollback(base)
    assert (copy.number, copy.copy_of, copy.reason) == (4, 2, "rollback")
    assert rollback(base).copy_of == 1
    assert deployed(base) == "a"
    with pytest.raises(ExportError, match="Nothing that was deployed before version 5"):
        rollback(base)
    publish(base, "d")
    assert rollback(base).copy_of == 1


def test_a_rollback_undoes_a_promotion(base):
    promote(base, 1)
    rollback(base)
    assert deployed(base) == "c"
    rollback(base)
    assert deployed(base) == "b"


def test_an_empty_folder_and_none_at_all_are_told(tmp_path):
    with pytest.raises(ExportError, match="holds no version"):
        rollback(tmp_path)
    with pytest.raises(ExportError, match="cannot be changed"):
        promote(tmp_path / "nowhere", 1)


def test_the_newest_stay(base):
    assert remove_old(base, keep=2) == [1]
    assert remove_old(base, keep=2) == []
    assert remove_old(base, keep=1) == [2]
    assert [path.name for path in base.iterdir()] == ["3"]
    with pytest.raises(OptionsError, match="keep_versions=0; expected 1 or more"):
        remove_old(base, keep=0)


def test_what_a_rollback_leads_to_stays_rather_than_what_one_has_left_behind(base):
    rollback(base)  # 4 of 2: version 3 was left behind, 1 is next
    assert remove_old(base, keep=2) == [2, 3]
    rollback(base)
    assert deployed(base) == "a"


CHANGES = st.sampled_from(["publish", "promote", "rollback"])


def change_deployed(base, stack, change, step, choice):
    """Does one change, and the same to the model: the contents that were deployed, as a stack."""
    if change == "publish":
        publish(base, str(step))
        stack.append(str(step))
    elif change == "promote":
        numbers = manifest.versions(base)
        chosen = numbers[choice % len(numbers)]
        wanted = content(base, chosen)
        if wanted == stack[-1]:
            with pytest.raises(ExportError, match="deployed already"):
                promote(base, chosen)
        else:
            promote(base, chosen)
            stack.append(wanted)
    elif len(stack) == 1:
        with pytest.raises(ExportError, match="Nothing that was deployed before"):
            rollback(base)
    else:
        rollback(base)
        stack.pop()


@settings(max_examples=25)
@given(st.lists(st.tuples(CHANGES, st.integers(0, 20)), min_size=1, max_size=9))
def test_what_is_deployed_is_the_top_of_a_stack_of_everything_deployed(changes):
    with tempfile.TemporaryDirectory() as folder:
        base, stack = Path(folder), ["0"]
        publish(base, "0")
        for step, (change, choice) in enumerate(changes, start=1):
            change_deployed(base, stack, change, step, choice)
            assert deployed(base) == stack[-1]
            assert all(version.damage is None for version in list_versions(base))


@settings(max_examples=25)
@given(
    st.lists(st.tuples(CHANGES, st.integers(0, 20)), min_size=2, max_size=7),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_removals_change_neither_what_is_deployed_nor_where_a_rollback_leads(
    changes, keep, published_later
):
    with tempfile.TemporaryDirectory() as folder:
        base, stack = Path(folder), ["0"]
        publish(base, "0")
        for step, (change, choice) in enumerate(changes, start=1):
            change_deployed(base, stack, change, step, choice)
        count, newest = len(manifest.versions(base)), manifest.versions(base)[-1]
        remove_old(base, keep=keep)
        assert len(manifest.versions(base)) == min(keep, count)
        assert manifest.versions(base)[-1] == newest
        # Publishing and going back again only touches the upper part of the stack.
        upper = stack[-2:] if keep > 1 else stack[-1:]
        for step in range(100, 100 + published_later):
            change_deployed(base, upper, "publish", step, 0)
        while len(upper) > 1:
            change_deployed(base, upper, "rollback", 0, 0)
            assert deployed(base) == upper[-1]


def test_the_stack_after_removals_is_the_upper_part_of_the_whole_one(base):
    rollback(base)
    publish(base, "d")
    promote(base, 3)
    assert deployments(list_versions(base)) == [1, 2, 5, 6]
    shutil.rmtree(base / "2")
    assert deployments(list_versions(base)) == [1, 2, 5, 6]  # 4 stands for it
    shutil.rmtree(base / "4")
    assert deployments(list_versions(base)) == [1, 3, 5, 6]
