from __future__ import annotations

import datetime

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.source import Regression
from kerastrain.data.tables.columns import date_texts, plain_table, raw_rows
from kerastrain.data.tables.content import MISSING
from kerastrain.data.tables.reading import read_table
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.errors import DataError

VALUES = [*MISSING, " ? ", "\tNA", "  ", " fig ", "Nan ", "na", "pear"]
PLAIN = [*[None] * (len(MISSING) + 3), "fig", "Nan", "na", "pear"]


def plain(values):
    return plain_table(pa.table({"a": values}))["a"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_lose_the_spaces_around_them_and_missing_ones_are_nulls(kind):
    values = plain(pa.array(VALUES).cast(kind))
    assert values.type == pa.string()
    assert values.to_pylist() == PLAIN


def test_what_is_no_text_stays_and_nan_is_missing():
    assert plain([1.5, float("nan"), None]).to_pylist() == [1.5, None, None]
    assert plain([True, None]).to_pylist() == [True, None]
    assert plain([b"\xff", b"NA"]).to_pylist() == [b"\xff", b"NA"]
    assert plain(pa.chunked_array([], pa.string())).to_pylist() == []


@settings(max_examples=50)
@given(st.lists(st.sampled_from(VALUES) | st.text(max_size=4), max_size=8))
def test_a_plain_table_is_plain_already(values):
    once = plain(pa.array(values, pa.string()))
    assert plain(once) == once


def test_a_column_is_the_same_from_csv_and_from_parquet(tmp_path):
    table = pa.table({"a": VALUES, "b": range(len(VALUES))})
    pyarrow.csv.write_csv(table, tmp_path / "table.csv")
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    assert read_table(tmp_path / "table.csv") == read_table(tmp_path / "table.parquet")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 1.5], "'a' is of type double; .* decimals can be written .* make it text"),
        ([True, False], r"'a' is of type bool; .* several ways \(True, true, 1\); make it text"),
    ],
)
def test_values_that_can_be_written_in_several_ways_are_no_text(values, message):
    schema = Schema((Column("a", "a", "category", "string"),), "y", Regression("y"))
    with pytest.raises(DataError, match=message):
        raw_rows(pa.table({"a": values}), schema)
    assert raw_rows(pa.table({"a": [7, 8]}), schema)["a"].tolist() == ["7", "8"]


def test_times_with_a_zone_are_given_in_utc():
    time = datetime.datetime(2020, 1, 31, 13, tzinfo=datetime.UTC)
    values = pa.chunked_array([pa.array([time, None], pa.timestamp("ms", "Europe/Berlin"))])
    assert date_texts(values).to_pylist() == ["2020-01-31T13:00:00", None]
