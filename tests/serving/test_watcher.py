"""Versions come and go; `look` is what the thread does every second."""

from __future__ import annotations

import types

import pytest

from kerastrain.serving.failures import ServingError
from kerastrain.serving.models import Models, ModelSpec
from kerastrain.serving.versions import VersionPolicy
from kerastrain.serving.watcher import Watcher


class Loader:
    """Stands for TensorFlow: a version whose folder holds "bad" cannot be loaded."""

    def __init__(self):
        self.loaded = []

    def __call__(self, model, folder):
        self.loaded.append(int(folder.name))
        if (folder / "bad").exists():
            raise ServingError("DATA_LOSS", f"version {folder.name} is bad")
        return types.SimpleNamespace(model=model, version=int(folder.name))


def watcher(base, **settings):
    loader = Loader()
    made = Watcher("m", base, load=loader, **settings)
    made.loader = loader
    return made


def states(watched):
    return {status.version: status.state for status in watched.statuses()}


def add(base, version, *, bad=False):
    (base / str(version)).mkdir()
    if bad:
        (base / str(version) / "bad").write_text("")


def test_the_newest_version_takes_the_place_of_the_old_one(tmp_path):
    watched = watcher(tmp_path)
    add(tmp_path, 1)
    watched.look()
    assert states(watched) == {1: "AVAILABLE"}
    add(tmp_path, 2)
    watched.look()
    assert states(watched) == {2: "AVAILABLE", 1: "END"}
    assert watched.newest == 2
    watched.look()
    assert watched.loader.loaded == [1, 2]


def test_a_request_keeps_its_version_until_it_is_done(tmp_path):
    watched = watcher(tmp_path)
    add(tmp_path, 1)
    watched.look()
    held = watched.acquire(None)
    add(tmp_path, 2)
    watched.look()
    assert states(watched)[1] == "UNLOADING"
    assert held.servable.version == 1
    assert watched.acquire(1) is None  # no new requests
    watched.release(held)
    watched.look()
    assert states(watched)[1] == "END"
    assert held.servable is None


def test_a_version_that_fails_to_load_leaves_the_old_one_serving(tmp_path):
    watched = watcher(tmp_path)
    add(tmp_path, 1)
    watched.look()
    add(tmp_path, 2, bad=True)
    watched.look()
    watched.look()
    assert watched.newest == 1
    failed = watched.statuses()[0]
    assert (failed.version, failed.state, failed.error_code) == (2, "END", "DATA_LOSS")
    assert "version 2 is bad" in failed.error_message
    assert watched.loader.loaded == [1, 2]  # not tried every second
    add(tmp_path, 3)
    watched.look()
    assert states(watched) == {3: "AVAILABLE", 2: "END", 1: "END"}


def test_a_damaged_newest_version_at_the_start_is_passed_over(tmp_path):
    watched = watcher(tmp_path)
    add(tmp_path, 1)
    add(tmp_path, 2)
    add(tmp_path, 3, bad=True)
    watched.look()
    assert states(watched) == {3: "END", 2: "AVAILABLE"}


def test_a_failed_version_is_tried_again_when_its_files_change(tmp_path):
    watched = watcher(tmp_path)
    add(tmp_path, 1, bad=True)
    watched.look()
    assert watched.newest is None
    (tmp_path / "1" / "bad").unlink()
    watched.look()
    assert states(watched) == {1: "AVAILABLE"}


def test_what_is_loaded_stays_while_the_folder_cannot_be_read(tmp_path, caplog):
    base = tmp_path / "base"
    base.mkdir()
    add(base, 1)
    watched = watcher(base)
    watched.look()
    base.rename(tmp_path / "away")
    watched.look()
    watched.look()
    assert watched.newest == 1
    assert caplog.text.count("cannot be read") == 1


def test_versions_that_are_taken_away_are_unloaded_and_older_ones_come_back(tmp_path):
    watched = watcher(tmp_path)
    add(tmp_path, 1)
    add(tmp_path, 2)
    watched.look()
    (tmp_path / "2").rmdir()
    watched.look()
    assert states(watched) == {2: "END", 1: "AVAILABLE"}
    add(tmp_path, 2)
    watched.look()
    assert states(watched) == {2: "AVAILABLE", 1: "END"}
    assert watched.loader.loaded == [2, 1, 2]


def test_labelled_versions_are_served_whatever_the_policy_says(tmp_path):
    watched = watcher(tmp_path, pinned=frozenset({1, 5}))
    for version in (1, 2, 3):
        add(tmp_path, version)
    watched.look()
    assert states(watched) == {3: "AVAILABLE", 1: "AVAILABLE"}
    add(tmp_path, 4, bad=True)
    watched.look()
    assert states(watched) == {4: "END", 3: "AVAILABLE", 1: "AVAILABLE"}


def test_all_versions_can_be_served_the_newest_is_loaded_first(tmp_path):
    watched = watcher(tmp_path, policy=VersionPolicy(latest=None))
    for version in (1, 3, 2):
        add(tmp_path, version)
    watched.look()
    assert set(states(watched).values()) == {"AVAILABLE"}
    assert watched.loader.loaded == [3, 2, 1]
    assert watched.newest == 3


@pytest.fixture
def models(tmp_path):
    made = Models(
        [ModelSpec("m", tmp_path, {"stable": 1, "gone": 9})], poll_seconds=60, load=Loader()
    )
    add(tmp_path, 1)
    add(tmp_path, 4)
    made._watchers["m"].look()
    return made


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        (("n",), "NOT_FOUND", "Servable not found for request: Latest(n)"),
        (("m", 7), "NOT_FOUND", "Servable not found for request: Specific(m, 7)"),
        (("m", None, "gone"), "NOT_FOUND", "Servable not found for request: Specific(m, 9)"),
        (("m", None, "x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
    ],
)
def test_what_is_not_served_is_told_in_tensorflow_servings_words(models, asked, code, text):
    with pytest.raises(ServingError) as raised:
        models.use(*asked)
    assert (raised.value.code, raised.value.message) == (code, text)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("n",), "Could not find any versions of model n"),
        (("m", 7), "Could not find version 7 of model m"),
    ],
)
def test_status_of_what_was_never_seen_is_not_found(models, asked, text):
    with pytest.raises(ServingError, match=text) as raised:
        models.statuses(*asked)
    assert raised.value.code == "NOT_FOUND"


def test_versions_are_found_by_number_and_label(models):
    with models.use("m") as newest, models.use("m", None, "stable") as stable:
        assert (newest.version, stable.version) == (4, 1)
    assert [status.version for status in models.statuses("m")] == [4, 1]
    assert [status.version for status in models.statuses("m", label="stable")] == [1]
    assert models.is_ready
    assert models.names() == ["m"]


def test_two_models_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one name"):
        Models([ModelSpec("m", tmp_path), ModelSpec("m", tmp_path / "x")])
