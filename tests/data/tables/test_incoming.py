from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pyarrow as pa
import pytest

from kerastrain.data.source import Regression
from kerastrain.data.tables.columns import check_columns, plain_table
from kerastrain.data.tables.incoming import arrow_types, incoming_rows
from kerastrain.data.tables.schema import Column, Schema, infer_schema
from kerastrain.data.tables.schema_matching import matched
from kerastrain.errors import DataError

SCHEMA = Schema(
    (
        Column("Age", "age", "number", "float32"),
        Column("Sort", "sort", "category", "string"),
        Column("Zone", "zone", "category", "float32"),
        Column("New", "new", "boolean", "float32"),
        Column("Sold", "sold", "date", "string"),
    ),
    "price",
    Regression("price"),
)
GOOD = {
    "Age": [30.5, None, 40],
    "Sort": ["fig", None, "pear"],
    "Zone": [1, 2, None],
    "New": [True, False, None],
    "Sold": ["2020-01-31", None, "2020-02-01T06:00:00"],
}


def rows_of(rows_before=0, **changed):
    table = plain_table(pa.table({**GOOD, **changed}))
    return incoming_rows(table, SCHEMA, rows_before=rows_before)


def test_rows_are_what_a_client_sends():
    rows = rows_of()
    np.testing.assert_array_equal(rows["age"], np.array([30.5, np.nan, 40], np.float32))
    np.testing.assert_array_equal(rows["zone"], np.array([1, 2, np.nan], np.float32))
    np.testing.assert_array_equal(rows["new"], np.array([1, 0, np.nan], np.float32))
    assert rows["sort"].tolist() == ["fig", "", "pear"]
    assert rows["sold"].tolist() == ["2020-01-31", "", "2020-02-01T06:00:00"]


def test_other_columns_are_ignored():
    assert set(rows_of(price=["?", "?", "?"])) == {"age", "sort", "zone", "new", "sold"}


@pytest.mark.parametrize(
    ("column", "given", "expected"),
    [
        ("Age", [1, 2, 3], [1, 2, 3]),
        ("Age", [" 1.5", "2e3", None], [1.5, 2000, np.nan]),
        ("Zone", ["7", "8", "9"], [7, 8, 9]),
        ("New", ["True", "false", "1"], [1, 0, 1]),
        ("New", [0, 1, 1], [0, 1, 1]),
        ("Sort", [7, 8, 9], ["7", "8", "9"]),
        ("Sort", [7.0, None, -8.0], ["7", "", "-8"]),
        ("Sold", [datetime.date(2020, 1, 31)] * 3, ["2020-01-31"] * 3),
        ("Age", [None, None, None], [np.nan] * 3),
        ("Sort", [None, None, None], [""] * 3),
        ("Sold", [None, None, None], [""] * 3),
    ],
)
def test_the_same_values_in_another_type_are_taken(column, given, expected):
    rows = rows_of(**{column: given})
    np.testing.assert_array_equal(
        rows[column.lower()], np.array(expected, rows[column.lower()].dtype)
    )


@pytest.mark.parametrize(
    ("column", "given", "message"),
    [
        ("Age", ["1", "many", "3"], "Column 'Age' holds 'many' in row 102 .* trained on numbers"),
        ("Zone", ["1", "2", "B"], "Column 'Zone' holds 'B' in row 103 .* trained on numbers"),
        ("New", ["true", None, "perhaps"], "Column 'New' holds 'perhaps' in row 103 .* bools"),
        ("New", [0, 2, 1], "Column 'New' holds 2 in row 102 .* expected 0 or 1"),
        ("Age", [1, np.inf, 3], "Column 'Age' holds inf in row 102 .* float32 can hold"),
        ("Age", [1, 2, 1e39], r"Column 'Age' holds 1e\+39 in row 103"),
        ("Age", ["1", "-inf", "3"], "Column 'Age' holds '-inf' in row 102"),
        ("Sold", ["2020-01-31", "2020-02-30", None], "Column 'Sold' holds '2020-02-30' in row 102"),
        ("Age", [datetime.date(2020, 1, 31)] * 3, "'Age' has the type date32.* on numbers"),
        ("Sort", [1, 2.5, 3], "'Sort' has the type double; .* on text.* 2.5 in row 102 .* Convert"),
        ("Sort", [True, False, None], "'Sort' has the type bool; .* on text.*True, true.* as in"),
        ("Sort", [datetime.date(2020, 1, 31)] * 3, r"'Sort' has .* on text\. Convert the"),
        ("Sold", [1, 2, 3], "'Sold' has the type int64; .* on dates"),
    ],
)
def test_what_cannot_be_is_named_with_column_row_and_value(column, given, message):
    with pytest.raises(DataError, match=message):
        rows_of(rows_before=100, **{column: given})


def test_times_with_a_zone_become_utc_and_others_are_taken_as_they_are():
    time = datetime.datetime(2020, 1, 31, 13)
    east = datetime.timezone(datetime.timedelta(hours=2))
    with_zone = pa.array([time.replace(tzinfo=east)] * 3, pa.timestamp("s", "+02:00"))
    assert rows_of(Sold=with_zone)["sold"].tolist() == ["2020-01-31T11:00:00"] * 3
    assert rows_of(Sold=[time] * 3)["sold"].tolist() == ["2020-01-31T13:00:00"] * 3


@pytest.mark.parametrize("trained_with_zone", [False, True])
def test_times_with_a_zone_are_no_times_without_one(tmp_path, trained_with_zone):
    hours = [datetime.datetime(2020, 1, 1 + i % 28, i % 24) for i in range(40)]
    zoned = [time.replace(tzinfo=datetime.timezone.utc) for time in hours]
    tables = [
        pa.table({"sold": times, "price": [float(i) for i in range(40)]})
        for times in (hours, zoned)
    ]
    schema = infer_schema(tables[trained_with_zone], "price")
    schema = Schema.from_json(schema.to_json())
    # A schema that does not say it, one written by hand for instance, learns it from the table.
    columns = tuple(dataclasses.replace(column, has_zone=None) for column in schema.columns)
    unsaid = dataclasses.replace(schema, columns=columns)
    assert matched(unsaid, tables[trained_with_zone], source="train.csv") == schema
    rows = incoming_rows(tables[trained_with_zone], schema)
    assert rows["sold"][1] == "2020-01-02T01:00:00"
    words = "without a zone .* with one" if trained_with_zone else "with a zone .* without one"
    with pytest.raises(DataError, match=f"Column 'sold' has times {words}"):
        incoming_rows(tables[not trained_with_zone], schema)
    with pytest.raises(DataError, match=f"Column 'sold' has times {words}"):
        matched(schema, tables[not trained_with_zone], source="new.csv")


@pytest.mark.parametrize("marker", ["?", "NA", " null ", " "])
def test_what_stands_for_a_missing_value_is_missing_in_every_column(marker):
    rows = rows_of(Age=["1", marker, "3"], Sort=["fig", marker, " fig "], Sold=[marker] * 3)
    np.testing.assert_array_equal(rows["age"], np.array([1, np.nan, 3], np.float32))
    assert rows["sort"].tolist() == ["fig", "", "fig"]
    assert rows["sold"].tolist() == ["", "", ""]


def test_missing_columns_are_named_with_the_nearest_others():
    check_columns(list(GOOD), SCHEMA, source="new.csv")
    with pytest.raises(DataError) as caught:
        check_columns(["id", "age", "Sort", "New", "Sold"], SCHEMA, source="new.csv")
    assert str(caught.value) == (
        "new.csv lacks 2 of the 5 columns that are used: 'Age' (Did you mean 'age'?), "
        "'Zone'. Its columns: id, age, Sort, New, Sold."
    )


def test_categories_are_read_as_text_and_numbers_as_numbers():
    assert arrow_types(SCHEMA) == {
        "Age": pa.float64(),
        "Sort": pa.string(),
        "Zone": pa.float64(),
    }
