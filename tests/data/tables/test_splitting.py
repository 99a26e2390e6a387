"""Every row in one split: by chance, by a column, by time, by group, and what cannot be split."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.tables.splitting import NAMES, hold_out, split_table
from kerastrain.errors import DataError
from kerastrain.options import TableOptions

SPLITS = ("train", "validation", "test")


def split(values=None, *, labels=None, seed=0, by=None, n=None) -> dict[str, np.ndarray]:
    """Splits a table with the column "c" of these values."""
    table = pa.table({"c": values if values is not None else range(n)})
    options = TableOptions(**{f"split_{by}": "c"}) if by else TableOptions()
    return split_table(table, labels, options, seed=seed)


def is_partition(splits, n) -> bool:
    assert tuple(splits) == SPLITS
    for rows in splits.values():
        assert len(rows) > 0 and (np.diff(rows) > 0).all()
    return sorted(np.concatenate(list(splits.values())).tolist()) == list(range(n))


def shares(splits) -> list[float]:
    n = sum(map(len, splits.values()))
    return [len(rows) / n for rows in splits.values()]


def error_of(*args, **options) -> str:
    with pytest.raises(DataError) as caught:
        split(*args, **options)
    return str(caught.value)


# By chance.


@settings(max_examples=60)
@given(st.integers(10, 300), st.integers(1, 5), st.integers(0, 1000))
def test_chance_gives_each_row_to_one_split_the_same_for_the_same_seed(n, classes, seed):
    labels = np.arange(n) % classes
    splits = split(n=n, labels=labels, seed=seed)
    assert is_partition(splits, n)
    again = split(n=n, labels=labels, seed=seed)
    assert all(np.array_equal(splits[name], again[name]) for name in SPLITS)


def test_another_seed_gives_another_split():
    one, other = split(n=200, seed=1), split(n=200, seed=2)
    assert not np.array_equal(one["test"], other["test"])


def test_classes_have_their_shares_in_every_split():
    labels = np.random.default_rng(0).choice(3, 1000, p=[0.9, 0.07, 0.03])
    for rows in split(n=1000, labels=labels).values():
        np.testing.assert_allclose(
            np.bincount(labels[rows]) / len(rows), np.bincount(labels) / 1000, atol=0.01
        )


def test_a_fifth_of_training_rows_can_be_held_out():
    rows = np.arange(100, 200)
    held = hold_out(rows, np.arange(200) % 2, seed=0)
    assert len(held["validation"]) == 20 and len(held["train"]) == 80
    assert sorted(np.concatenate(list(held.values()))) == rows.tolist()
    assert (held["validation"] % 2).sum() == 10


# By a column.


def test_a_column_says_it_in_any_spelling():
    words = [" Train ", "TRAINING", "Val", "dev", "valid", "Validation", "test", "Testing"]
    splits = split(words, by="column")
    assert [rows.tolist() for rows in splits.values()] == [[0, 1], [2, 3, 4, 5], [6, 7]]
    assert set(NAMES.values()) == set(SPLITS)


def test_a_column_in_several_chunks_is_one_column():
    chunks = pa.chunked_array([["test", "train"], ["val", "train"], []], pa.string())
    splits = split_table(pa.table({"c": chunks}), None, TableOptions(split_column="c"), seed=0)
    assert [rows.tolist() for rows in splits.values()] == [[1, 3], [2], [0]]


def test_without_validation_rows_a_fifth_of_the_training_rows_validates():
    splits = split(["train"] * 50 + ["test"] * 10, by="column", labels=np.arange(60) % 2)
    assert is_partition(splits, 60)
    assert [len(rows) for rows in splits.values()] == [40, 10, 10]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["train", "Holdout", "test"], "'Holdout'; expected train, validation or test"),
        (["train", "val"], "gives no row to 'test'"),
        (["test", "val"], "gives no row to 'train'"),
        (["train", None, "test"], "missing in 1 of 3 rows"),
        ([0, 1, 2], "of type int64; expected train, validation or test"),
        ([True, False, True], "of type bool"),
        ([["train"], ["test"]], "of type list"),
        ([b"\xff", b"test"], "of type binary"),
    ],
)
def test_a_column_that_does_not_say_it_is_refused(values, says):
    assert says in error_of(values, by="column")


# By time.

days = st.dates(datetime.date(2020, 1, 1), datetime.date(2020, 1, 15))
times = st.one_of(
    st.lists(days, min_size=3, max_size=60),
    st.lists(st.integers(-5, 5), min_size=3, max_size=60),
    st.lists(st.sampled_from([0.5, -0.0, 0.0, 1e9, float("inf")]), min_size=3, max_size=60),
    st.lists(days.map(str), min_size=3, max_size=60),
)


@settings(max_examples=200)
@given(times.filter(lambda values: len(set(values)) >= 3))
def test_any_three_times_are_divided_in_their_order_and_ties_stay_together(values):
    splits = split(values, by="time")
    assert is_partition(splits, len(values))
    train, validation, test = ([values[row] for row in splits[name]] for name in SPLITS)
    assert max(train) < min(validation) and max(validation) < min(test)


def test_without_ties_the_newest_fifth_tests_and_a_fifth_of_the_rest_validates():
    order = np.random.default_rng(0).permutation(1000)
    splits = split(order, by="time")
    assert [order[rows].min() for rows in splits.values()] == [0, 640, 800]


def test_with_many_ties_the_shares_come_as_near_as_they_can():
    # Nine of ten rows have one time: they must not take the others' splits.
    values = [1] * 5 + [2] * 90 + [3] * 5
    splits = split(values, by="time")
    assert [len(rows) for rows in splits.values()] == [5, 90, 5]
    months = np.repeat(np.arange(10), 100)
    assert shares(split(months, by="time")) == pytest.approx([0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    "values",
    [
        [datetime.datetime(2020, 1, 1, hour) for hour in range(10)],
        pa.array([10 * hour for hour in range(10)], pa.timestamp("s", "Europe/Berlin")),
        [f"2020-01-{day:02d}" for day in range(1, 11)],
        list(range(10)),
    ],
)
def test_dates_times_numbers_and_iso_texts_are_times(values):
    assert split(values, by="time")["test"].tolist() == [8, 9]


def test_texts_are_ordered_by_the_time_they_mean_however_it_is_written(caplog):
    hours = [f"2020-01-06{'T '[hour % 2]}{hour:02d}:00" for hour in range(24)]
    mixed = ["2020-01-06", *hours, "2020-01-07", "2020-01-07 00:00:00.5", "2020-01-07T00:00:01"]
    order = np.random.default_rng(0).permutation(len(mixed))
    with caplog.at_level("INFO", logger="kerastrain"):
        splits = split([mixed[place] for place in order], by="time")
    # One time written in several ways stays together.
    assert sorted(order[splits["train"]]) == list(range(18))
    assert sorted(order[splits["test"]]) == list(range(22, 28))
    assert "validation before 2020-01-06T21:00:00, then test" in caplog.text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1, 1, 1, 1], "has 1 different times; expected 3 or more"),
        ([1] * 50 + [2] * 50, "has 2 different times"),
        ([True, False] * 10, "has 2 different times"),
        ([1, None, 3, 4], "missing in 1 of 4 rows"),
        ([f"{day}/01/2011" for day in range(10, 20)], "holds '10/01/2011'"),
        (["2011-01-31", "2011-01-31T09:00Z", "2011-02-30"], "holds '2011-01-31T09:00Z'"),
        (["2011-01-31", "2011-02-29", "2011-02-28"], "holds '2011-02-29'"),
        ([[1], [2]], "expected dates, or numbers that rise"),
    ],
)
def test_a_column_that_is_no_time_is_refused(values, says):
    assert says in error_of(values, by="time")


# By group.


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 12), min_size=3, max_size=80).filter(lambda v: len(set(v)) >= 3),
    st.integers(0, 99),
)
def test_any_three_groups_are_divided_and_none_is_torn(values, seed):
    splits = split(values, by="group", seed=seed)
    assert is_partition(splits, len(values))
    groups = [{values[row] for row in rows} for rows in splits.values()]
    assert sum(map(len, groups)) == len(set(values))


def test_many_groups_have_the_usual_shares_whatever_their_sizes():
    random = np.random.default_rng(0)
    groups = random.zipf(1.5, 20_000) % 500
    assert shares(split(groups, by="group")) == pytest.approx([0.64, 0.16, 0.2], abs=0.15)
    groups = random.integers(0, 500, 20_000)
    assert shares(split(groups, by="group")) == pytest.approx([0.64, 0.16, 0.2], abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_one_huge_group_trains_and_the_others_are_shared_out(seed):
    values = ["huge"] * 900 + [f"small {row % 50}" for row in range(100)]
    splits = split(values, by="group", seed=seed)
    assert splits["train"][:900].tolist() == list(range(900))
    assert len(splits["validation"]) > 30 and len(splits["test"]) > 30


def test_another_seed_gives_other_groups():
    values = np.repeat(np.arange(100), 5)
    tests = [split(values, by="group", seed=seed)["test"].tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_too_few_groups_are_refused():
    assert "has 2 groups; expected 3 or more" in error_of(["a", "b"] * 10, by="group")
    assert "missing in 1" in error_of(["a", "b", "c", None], by="group")


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    table = pa.table({"customer": [1, 2, 3], "y": [1, 2, 3]})
    with pytest.raises(DataError, match="no column 'costumer' to split by.*mean 'customer'"):
        split_table(table, None, TableOptions(split_group="costumer"), seed=0)
