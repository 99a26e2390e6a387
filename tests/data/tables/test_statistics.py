from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from kerastrain.data.source import Regression
from kerastrain.data.tables.columns import Texts, raw_rows
from kerastrain.data.tables.reading import read_table
from kerastrain.data.tables.schema import Column, Schema, infer_schema
from kerastrain.data.tables.statistics import (
    bin_indices,
    days,
    is_complete,
    iso_date,
    present_values,
    table_statistics,
)


def statistics_of(values, kind="number"):
    dtype = "float32" if values.dtype.kind == "f" else "string"
    column = Column("x", "x", kind, dtype)
    schema = Schema((column,), "y", Regression("y"))
    found = table_statistics({"x": values}, schema)
    assert found["rows"] == len(values)
    return found["columns"]["x"], column


def texts(*values):
    return np.array(values, dtype=object)


def test_a_number_has_its_range_and_a_tenth_of_the_rows_in_each_bin():
    found, _ = statistics_of(np.arange(1, 101, dtype=np.float32))
    assert found["min"] == 1
    assert found["max"] == 100
    assert found["mean"] == pytest.approx(50.5)
    assert found["std"] == pytest.approx(np.std(np.arange(100)))
    assert found["edges"] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert found["shares"] == [0.1] * 10
    assert found["missing"] == 0


def test_missing_values_are_a_share_of_all_rows():
    values = np.array([1, np.nan, 2, np.nan], np.float32)
    found, _ = statistics_of(values)
    assert found["missing"] == 0.5
    assert sum(found["shares"]) == 0.5


def test_a_frequent_number_gets_a_bin_of_its_own():
    values = np.concatenate([np.zeros(90), np.arange(1, 6), -np.arange(1, 6)]).astype(np.float32)
    found, column = statistics_of(values)
    assert found["shares"] == [0.05, 0.9, 0.05]
    assert bin_indices(np.array([-1e-6, 0.0, 1e-6]), found).tolist() == [0, 1, 2]
    assert present_values(np.array([-0.0], np.float32), column).tolist() == [0]


@pytest.mark.parametrize("values", [[7.0] * 30, [0.0] * 95 + [1.0] * 5, [1.0] * 5 + [2.0] * 95])
def test_no_bin_is_empty_in_training(values):
    found, _ = statistics_of(np.array(values, np.float32))
    assert min(found["shares"]) > 0
    assert sum(found["shares"]) == pytest.approx(1)


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)))
def test_bins_hold_every_value_once_and_their_edges_rise(values):
    found, _ = statistics_of(values)
    assert np.all(np.diff(found["edges"]) > 0)
    assert len(found["shares"]) == len(found["edges"]) + 1
    assert sum(found["shares"]) == pytest.approx(1)
    assert min(found["shares"]) > 0


def test_a_column_without_values_has_no_range():
    found, _ = statistics_of(np.full(3, np.nan, np.float32))
    assert found["missing"] == 1
    assert found["min"] is None
    assert found["shares"] == [0]


def test_dates_are_counted_in_days():
    found, column = statistics_of(texts("1970-01-02", "1970-01-03T12:00:00", ""), kind="date")
    assert (found["min"], found["max"]) == (1, 2.5)
    assert found["missing"] == pytest.approx(1 / 3)
    assert present_values(texts("", "1970-01-05"), column).tolist() == [4]


@given(st.datetimes())
def test_a_day_and_its_date_are_the_same_instant(instant):
    text = instant.replace(microsecond=0).isoformat()
    (day,) = days(texts(text))
    assert iso_date(day) == text.removesuffix("T00:00:00")


@pytest.mark.parametrize("text", ["yesterday", "2011-02-30", "2011", "2011-1-3", "1e3", " "])
def test_what_is_no_date_is_missing_as_it_is_for_the_encoder(text):
    found, _ = statistics_of(texts("1970-01-02", text), kind="date")
    assert found["missing"] == 0.5
    assert found["max"] == 1


def test_texts_may_be_given_once_each_with_codes():
    column = Column("x", "x", "category", "string")
    schema = Schema((column,), "y", Regression("y"))
    coded = Texts(texts("a", "b", ""), np.array([0, 1, 2, 1], np.int32))
    assert table_statistics({"x": coded}, schema) == table_statistics(
        {"x": coded.expanded()}, schema
    )


def test_categories_are_ordered_by_count_then_by_value():
    found, _ = statistics_of(texts("b", "a", "c", "c", ""), kind="category")
    assert found["values"] == ["c", "a", "b"]
    assert found["shares"] == [0.4, 0.2, 0.2]
    assert found["missing"] == 0.2
    assert found["rest"] == 0
    assert is_complete(found)
    assert bin_indices(texts("b", "?", "c"), found).tolist() == [2, 3, 0]


def test_of_many_categories_the_frequent_ones_are_kept_and_the_others_are_the_rest():
    many = [f"{number:03}" for number in range(150)]
    found, _ = statistics_of(texts(*many, *many[:100]), kind="category")
    assert found["values"] == many[:100]
    assert found["distinct"] == 150
    assert found["rest"] == pytest.approx(50 / 250)
    assert not is_complete(found)


@pytest.mark.parametrize("kind", ["boolean", "category"])
def test_bools_and_codes_are_counted_by_value(kind):
    values = np.array([1, 0, 0, np.nan], np.float32)
    found, column = statistics_of(values, kind=kind)
    assert found["values"] == [0, 1]
    assert found["shares"] == [0.5, 0.25]
    assert bin_indices(present_values(values, column), found).tolist() == [1, 0, 0]


def test_statistics_of_a_real_table_are_json_and_the_same_each_time(real_data):
    table = read_table(real_data / "tabular" / "adult.parquet")
    schema = infer_schema(table, "income")
    rows = raw_rows(table, schema)
    found = table_statistics(rows, schema)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert json.dumps(table_statistics(rows, schema)) == text
    assert len(text) < 20_000
    for name, column in found["columns"].items():
        total = column["missing"] + sum(column["shares"]) + column.get("rest", 0)
        assert total == pytest.approx(1), name
    assert found["columns"]["age"]["max"] == 90
    assert found["columns"]["sex"]["values"] == ["Male", "Female"]
