"""Folders and policies."""

from __future__ import annotations

import pytest

from kerastrain.errors import UsageError
from kerastrain.serving.versions import found_versions, parse_policy


def test_only_folders_named_by_integers_are_versions(tmp_path):
    for name in ("1", "007", "12", "12.partial", "-3", "v2", ".4", "²", "9" * 25):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file")
    assert found_versions(tmp_path) == {
        1: tmp_path / "1", 7: tmp_path / "007", 12: tmp_path / "12"
    }  # fmt: skip


def test_a_name_without_zeros_counts_before_one_with(tmp_path):
    (tmp_path / "07").mkdir()
    (tmp_path / "7").mkdir()
    assert found_versions(tmp_path) == {7: tmp_path / "7"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latest", {10}),
        ("latest:2", {9, 10}),
        ("latest:99", {1, 9, 10}),
        ("all", {1, 9, 10}),
        ("specific:1,9,77", {1, 9}),
    ],
)
def test_policies_choose(text, wanted):
    assert parse_policy(text).wanted([9, 10, 1]) == wanted
    assert parse_policy(text).wanted([]) == set()


@pytest.mark.parametrize("text", ["", "newest", "latest:0", "latest:1,2", "all:3", "specific:",
                                  "specific:x", "latest:-1", "specific:1,,2"])  # fmt: skip
def test_other_policies_are_refused(text):
    with pytest.raises(UsageError, match="expected latest, latest:N"):
        parse_policy(text)
