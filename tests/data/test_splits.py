"""Splits: complete, without overlap, repeatable, and fair to every class."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.splits import split_rows
from kerastrain.errors import DataError

THREE = {"train": 0.64, "validation": 0.16, "test": 0.2}


def assert_every_row_once(rows, n):
    assert all(part.dtype == np.int64 for part in rows.values())
    assert all((np.diff(part) > 0).all() for part in rows.values())
    assert np.array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(n))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 12), min_size=3, max_size=200),
    test=st.floats(0.01, 0.5),
    validation=st.floats(0.01, 0.45),
    seed=st.integers(0, 2**31 - 1),
    stratify=st.booleans(),
)
def test_no_row_is_lost_or_used_twice_whatever_the_labels(labels, test, validation, seed, stratify):
    fractions = {"train": 1 - test - validation, "validation": validation, "test": test}
    given_labels = np.array(labels) if stratify else None
    rows = split_rows(len(labels), fractions=fractions, seed=seed, labels=given_labels)
    assert list(rows) == list(fractions)
    assert_every_row_once(rows, len(labels))
    assert all(len(part) > 0 for part in rows.values())


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(10, 60), min_size=2, max_size=6), seed=st.integers(0, 10**6))
def test_every_class_has_its_share_of_every_split(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = split_rows(len(labels), fractions=THREE, seed=seed, labels=labels)
    for label, count in enumerate(counts):
        held = {name: int((labels[part] == label).sum()) for name, part in rows.items()}
        # Drawn first: within a row of its share. The others divide what that rounding left.
        assert abs(held["test"] - count * len(rows["test"]) / len(labels)) < 1
        assert abs(held["validation"] - count * len(rows["validation"]) / len(labels)) < 2
        assert abs(held["train"] - count * len(rows["train"]) / len(labels)) < 2


@pytest.mark.parametrize("labels", [None, np.arange(300) % 7])
def test_the_same_seed_gives_the_same_rows_and_another_seed_others(labels):
    first, again, other = (
        split_rows(300, fractions=THREE, seed=seed, labels=labels) for seed in (5, 5, 6)
    )
    assert all(np.array_equal(first[name], again[name]) for name in THREE)
    assert not np.array_equal(first["test"], other["test"])


def test_sizes_are_the_nearest_whole_numbers():
    rows = split_rows(1797, fractions=THREE, seed=0)
    assert {name: len(part) for name, part in rows.items()} == {
        "train": 1150,
        "validation": 288,
        "test": 359,
    }
    halves = split_rows(100, fractions={"train": 0.71, "test": 0.29}, seed=0)
    assert len(halves["test"]) == 29


def test_the_test_split_does_not_depend_on_how_the_rest_is_divided():
    labels = np.arange(500) % 5
    with_validation = split_rows(500, fractions=THREE, seed=3, labels=labels)
    without = split_rows(500, fractions={"train": 0.8, "test": 0.2}, seed=3, labels=labels)
    assert np.array_equal(with_validation["test"], without["test"])


def test_classes_of_a_single_row_stay_in_training_with_a_warning(caplog):
    labels = np.array(["common"] * 50 + ["other"] * 50 + ["once", "unique"])
    with caplog.at_level(logging.WARNING, logger="kerastrain"):
        rows = split_rows(len(labels), fractions=THREE, seed=0, labels=labels)
    assert_every_row_once(rows, len(labels))
    assert {100, 101} <= set(rows["train"].tolist())
    assert "2 of 4 classes have one row only ('once', 'unique')" in caplog.text


def test_more_classes_than_rows_to_draw_is_a_plain_draw_with_a_warning(caplog):
    labels = np.repeat(np.arange(40), 3)
    with caplog.at_level(logging.WARNING, logger="kerastrain"):
        rows = split_rows(120, fractions={"train": 0.9, "test": 0.1}, seed=0, labels=labels)
    assert_every_row_once(rows, 120)
    assert "12 row(s) cannot be shared out among 40 classes" in caplog.text
    assert set(labels[rows["train"]]) == set(range(40))


def test_labels_that_are_all_different_do_not_stop_the_split():
    rows = split_rows(30, fractions=THREE, seed=0, labels=np.arange(30))
    assert_every_row_once(rows, 30)


def test_a_share_of_zero_gives_an_empty_split():
    rows = split_rows(20, fractions={"train": 0.8, "validation": 0.0, "test": 0.2}, seed=0)
    assert len(rows["validation"]) == 0
    assert_every_row_once(rows, 20)


def test_three_rows_are_enough_for_three_splits():
    rows = split_rows(3, fractions=THREE, seed=0, labels=np.array([0, 0, 1]))
    assert [len(part) for part in rows.values()] == [1, 1, 1]
    assert_every_row_once(rows, 3)


def test_fewer_rows_than_splits_are_refused():
    with pytest.raises(DataError, match="2 row.* into train, validation, test; expected 3"):
        split_rows(2, fractions=THREE, seed=0)


@pytest.mark.parametrize(
    "fractions",
    [{"train": 0.8, "test": 0.3}, {"train": 1.2, "test": -0.2}, {"train": float("nan")}],
)
def test_shares_that_are_none_are_refused_with_what_was_received(fractions):
    with pytest.raises(DataError, match="expected numbers from 0 to 1, in sum 1"):
        split_rows(10, fractions=fractions, seed=0)


def test_a_wrong_number_of_labels_is_refused():
    with pytest.raises(DataError, match="10 rows cannot be stratified by 9 labels"):
        split_rows(10, fractions=THREE, seed=0, labels=np.zeros(9))
