from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from kerastrain.data.source import Regression
from kerastrain.data.tables.columns import raw_rows
from kerastrain.data.tables.drift import (
    DriftCounts,
    drift_report,
    population_stability_index,
    unchanged_bound,
    verdict,
)
from kerastrain.data.tables.reading import read_table
from kerastrain.data.tables.schema import Column, Schema, infer_schema
from kerastrain.data.tables.statistics import table_statistics

SCHEMA = Schema(
    (
        Column("Age", "age", "number", "float32"),
        Column("Sort", "sort", "category", "string"),
        Column("Sold", "sold", "date", "string"),
        Column("New", "new", "boolean", "float32"),
    ),
    "price",
    Regression("price"),
)


def table_rows(count, seed=0):
    random = np.random.default_rng(seed)
    return {
        "age": random.integers(18, 80, count).astype(np.float32),
        "sort": random.choice(["plum", "pear", "fig"], count, p=[0.6, 0.3, 0.1]).astype(object),
        "sold": (np.datetime64("2020-01-01") + random.integers(0, 900, count))
        .astype(str)
        .astype(object),
        "new": random.integers(0, 2, count).astype(np.float32),
    }


STATISTICS = table_statistics(table_rows(4000), SCHEMA)


def counted(*batches, statistics=STATISTICS, schema=SCHEMA):
    counts = DriftCounts(statistics, schema)
    for rows in batches:
        counts.add(rows)
    return counts


def by_column(report):
    return {column["column"]: column for column in report["columns"]}


def changed(rows, name, value, places):
    values = rows[name].copy()
    values[places] = value
    return {**rows, name: values}


def test_the_index_is_the_formulas_value():
    expected, actual = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    by_hand = -0.25 * np.log(0.5) + 0.25 * np.log(1.5)
    assert population_stability_index(expected, actual) == pytest.approx(by_hand)
    assert population_stability_index(actual, expected) == pytest.approx(by_hand)
    assert population_stability_index(expected, expected) == 0


def test_an_empty_bin_counts_as_a_ten_thousandth():
    found = population_stability_index(np.array([0.9, 0.1]), np.array([1.0, 0.0]))
    assert found == pytest.approx(0.1 * np.log(1 / 0.9) + (1e-4 - 0.1) * np.log(1e-4 / 0.1))


def test_rows_like_those_of_training_are_stable():
    report = drift_report(counted(table_rows(3000, seed=1)))
    assert {column["verdict"] for column in report["columns"]} == {"stable"}
    assert report["rows"] == 3000
    assert report["training_rows"] == 4000
    assert counted(table_rows(3000)).remarks() == []


@pytest.mark.parametrize("rows", [20, 60])
def test_a_few_rows_like_those_of_training_look_changed_but_are_seldom_called_so(rows):
    samples = [drift_report(counted(table_rows(rows, seed))) for seed in range(1, 21)]
    columns = [column for report in samples for column in report["columns"]]
    assert np.mean([column["psi"] > 0.1 for column in columns]) > 0.3
    assert np.mean([column["verdict"] == "stable" for column in columns]) >= 0.9


def test_older_people_and_other_sorts_are_found_worst_first():
    rows = table_rows(2000, seed=1)
    rows["age"] += 4
    rows = changed(rows, "sort", "fig", slice(0, 500))
    report = drift_report(counted(rows))
    assert [column["column"] for column in report["columns"][:2]] == ["Sort", "Age"]
    found = by_column(report)
    assert found["Age"]["verdict"] == "moderate"
    assert found["Sort"]["verdict"] == "large"
    assert found["Age"]["out_of_range"] == pytest.approx(np.mean(rows["age"] > 79))
    assert found["Age"]["unseen"] is None
    assert found["New"]["verdict"] == "stable"
    json.dumps(report, allow_nan=False)


def test_values_never_seen_are_a_share_and_a_remark_with_the_first_row():
    rows = changed(table_rows(400), "sort", "kiwi", [7, 9])
    counts = counted(table_rows(100), rows)
    assert by_column(drift_report(counts))["Sort"]["unseen"] == 2 / 500
    assert counts.remarks() == [
        "Column 'Sort': of 500 rows, 2 values are not among those of training (row 108: 'kiwi')."
    ]


def test_what_is_outside_the_range_is_a_remark():
    rows = changed(table_rows(100), "age", 130, 4)
    rows = changed(rows, "sold", "2031-05-01T06:00:00", 5)
    rows = changed(rows, "new", 2, 6)
    assert counted(rows).remarks() == [
        "Column 'Age': of 100 rows, 1 value is outside of training's range, 18 to 79 (row 5: 130).",
        "Column 'Sold': of 100 rows, 1 value is outside of training's dates, 2020-01-01 to "
        "2022-06-18 (row 6: '2031-05-01T06:00:00').",
        "Column 'New': of 100 rows, 1 value is not among those of training (row 7: 2).",
    ]


def test_missing_values_where_training_had_none_are_a_remark_and_drift():
    rows = changed(table_rows(100), "age", np.nan, slice(0, 30))
    rows = changed(rows, "sort", "", slice(0, 1))
    counts = counted(rows)
    assert counts.remarks() == [
        "Column 'Age': of 100 rows, 30 values are missing, none was in training.",
        "Column 'Sort': of 100 rows, 1 value is missing, none was in training.",
    ]
    found = by_column(drift_report(counts))["Age"]
    assert found["missing"] == 0.3
    assert found["missing_in_training"] == 0
    assert found["verdict"] == "large"


def test_missing_values_are_no_remark_where_training_had_some():
    statistics = table_statistics(changed(table_rows(500), "age", np.nan, 0), SCHEMA)
    rows = changed(table_rows(100), "age", np.nan, slice(0, 30))
    assert counted(rows, statistics=statistics).remarks() == []


def test_of_categories_not_all_recorded_nothing_is_called_unseen():
    schema = Schema((Column("k", "k", "category", "string"),), "y", Regression("y"))
    many = np.array([f"k{number}" for number in range(150)] * 2, dtype=object)
    statistics = table_statistics({"k": many}, schema)
    counts = counted({"k": np.array(["k99", "other"])}, statistics=statistics, schema=schema)
    assert drift_report(counts)["columns"][0]["unseen"] is None
    assert counts.remarks() == []
    assert counts.columns[0].bins[-2] == 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_batches_of_any_size_count_alike(sizes):
    rows = changed(table_rows(sum(sizes), seed=3), "age", np.nan, slice(0, None, 5))
    ends = np.cumsum(sizes)
    parts = [
        {name: values[end - size : end] for name, values in rows.items()}
        for size, end in zip(sizes, ends, strict=True)
    ]
    assert drift_report(counted(*parts)) == drift_report(counted(rows))


@pytest.mark.parametrize("bins", [2, 10])
def test_with_many_rows_the_bound_is_that_of_chi_square(bins):
    # The 95 % quantiles of chi-square with 1 and 9 degrees of freedom.
    quantile = {2: 3.841, 10: 16.919}[bins]
    bound = unchanged_bound(np.full(bins, 1 / bins), rows=5000, training_rows=20_000)
    assert bound == pytest.approx(quantile * (1 / 5000 + 1 / 20_000), rel=0.1)


def test_unchanged_samples_are_below_the_bound_nineteen_times_of_twenty():
    shares = 1 / np.arange(1, 31)
    shares /= shares.sum()
    random = np.random.default_rng(5)
    trained = random.multinomial(20_000, shares) / 20_000
    bound = unchanged_bound(trained, rows=150, training_rows=20_000)
    samples = random.multinomial(150, shares, 2000) / 150
    share = np.mean(population_stability_index(trained, samples) <= bound)
    assert share == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(
    ("psi", "bound", "expected"),
    [(0.09, 0.01, "stable"), (0.1, 0.01, "moderate"), (0.25, 0.01, "large"), (0.5, 0.6, "stable")],
)
def test_the_verdict_is_the_rule_of_thumb_above_what_chance_explains(psi, bound, expected):
    assert verdict(psi, bound) == expected


def test_a_random_part_of_a_real_table_has_not_drifted_and_a_chosen_part_has(real_data):
    table = read_table(real_data / "tabular" / "adult.parquet")
    schema = infer_schema(table, "income")
    rows = raw_rows(table, schema)
    order = np.random.default_rng(0).permutation(table.num_rows)
    train, rest = order[:30_000], order[30_000:]
    statistics = table_statistics({name: v[train] for name, v in rows.items()}, schema)
    same = drift_report(
        counted({n: v[rest] for n, v in rows.items()}, statistics=statistics, schema=schema)
    )
    assert max(column["psi"] for column in same["columns"]) < 0.01
    young = rest[rows["age"][rest] < 25]
    report = drift_report(
        counted({n: v[young] for n, v in rows.items()}, statistics=statistics, schema=schema)
    )
    assert report["columns"][0]["column"] == "age"
    assert by_column(report)["marital-status"]["verdict"] == "large"
    assert by_column(report)["race"]["verdict"] == "stable"
