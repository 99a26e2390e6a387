"""What columns are taken for, and what is predicted."""

from __future__ import annotations

import datetime
import logging
import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.schema import Column, Schema, infer_schema, input_names
from kerastrain.data.tables.schema_matching import matched
from kerastrain.errors import DataError

N = 40
TARGET = [row % 2 for row in range(N)]


def schema_of(target="y", **columns) -> Schema:
    table = plain_table(pa.table({**columns, **({"y": TARGET} if "y" not in columns else {})}))
    return infer_schema(table, target, source="table.csv")


def error_of(target="y", **columns) -> str:
    with pytest.raises(DataError) as caught:
        schema_of(target, **columns)
    return str(caught.value)


def test_a_column_is_what_its_values_are():
    schema = schema_of(
        floats=[row / 3 for row in range(N)],
        integers=[row % 7 for row in range(N)],
        flags=[row % 3 == 0 for row in range(N)],
        texts=["abc"[row % 3] for row in range(N)],
        days=[datetime.date(2020, 1, 1 + row % 20) for row in range(N)],
        zeros_and_ones=[(row // 2) % 2 for row in range(N)],
        zip=[10115 + row % 3 for row in range(N)],
    )
    kinds = {column.name: column.kind for column in schema.columns}
    assert kinds == {
        "floats": "number",
        "integers": "number",
        "flags": "boolean",
        "texts": "category",
        "days": "date",
        "zeros_and_ones": "boolean",
        "zip": "category",
    }
    assert {column.name for column in schema.columns if column.dtype == "string"} == {
        "texts",
        "days",
    }


def test_missing_values_are_counted():
    schema = schema_of(a=[None, *range(N - 1)], b=["", "x"] * (N // 2))
    assert [column.missing for column in schema.columns] == [1, N // 2]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pa.nulls(N), "no values"),
        (pa.nulls(N, pa.float64()), "no values"),
        ([5] * N, "one value only"),
        (["same"] * N, "one value only"),
        ([f"id-{row}" for row in range(N)], "identifier"),
        (list(range(1, N + 1)), "numbers the rows"),
        ([f"a long and winding story of row {row}" for row in range(N)], "free text"),
        ([[row] for row in range(N)], "list"),
    ],
)
def test_columns_of_no_use_are_left_out_and_it_is_said(caplog, values, reason):
    with caplog.at_level(logging.INFO, logger="kerastrain"):
        schema = schema_of(useless=values, used=[row % 5 for row in range(N)])
    assert [column.name for column in schema.columns] == ["used"]
    assert reason in dict(schema.left_out)["useless"]
    assert "'useless' is left out" in caplog.text


def test_a_number_that_is_different_in_each_row_and_named_so_is_an_identifier():
    schema = schema_of(customer_id=[7 * row**2 for row in range(N)], used=[1, 2] * (N // 2))
    assert "identifier" in dict(schema.left_out)["customer_id"]


@pytest.mark.parametrize("name", ["unnamed_1", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__"])
def test_whole_numbers_without_a_name_are_an_index(name, caplog):
    used = [row % 5 for row in range(N)]
    for values in (
        [row**2 for row in range(N)],
        [(row * 7) % 97 for row in range(N)],
        [float(row + row // 3) for row in range(N)],
        [row % 30 for row in range(N)],  # of two tables, one after the other
    ):
        schema = schema_of(**{name: values, "used": used})
        assert "the index of the rows" in dict(schema.left_out)[name]
    assert not caplog.text
    schema_of(**{name: [row % 10 for row in range(N)], "used": used})
    assert f"'{name}' has no name in the file" in caplog.text


def test_a_whole_number_that_orders_the_file_is_warned_of(caplog):
    schema_of(a=[row**2 for row in range(N)])
    schema_of(b=[-3.0 * row for row in range(N)])
    for name in "ab":
        assert f"'{name}' holds a different whole number in every row" in caplog.text
    caplog.clear()
    schema_of(a=[(row * 7) % 97 for row in range(N)], b=[row / 3 for row in range(N)])
    assert not caplog.text


def test_one_value_and_missing_ones_are_a_difference_worth_keeping():
    assert schema_of(a=["x", None] * (N // 2), b=[1.0, None] * (N // 2)).columns[1].name == "b"


def test_a_table_with_no_useful_column_is_refused_with_the_reasons():
    assert "'a': it has one value only" in error_of(a=[1] * N)


def test_a_table_with_the_target_alone_is_refused():
    assert "no column to predict 'y' from" in error_of()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e300])
def test_infinite_or_too_large_numbers_name_column_and_row(value):
    text = error_of(a=[1.0, 2.0, value, *map(float, range(N - 3))])
    assert "Column 'a'" in text and "row 3" in text


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.7e9 + 1000.5 * (row % 11) for row in range(N)], "float64"),
        ([1_700_000_001 + row % 11 for row in range(N)], "float64"),
        ([99_999_999.95 + row % 11 / 100 for row in range(N)], "float64"),
        ([None, *(1e7 + row / 7 for row in range(N - 1))], "float64"),
        ([2000 + row % 11 for row in range(N)], "float32"),  # float32 keeps them
        ([1.7e9 + 1e7 * (row % 11) for row in range(N)], "float32"),  # they are far apart
    ],
)
def test_numbers_too_close_for_float32_are_sent_in_float64(values, dtype, caplog):
    schema = schema_of(a=values)
    assert schema.columns[0].dtype == dtype
    given = Schema((Column("a", "a", "number", "float32"),), "y", schema.task)
    matched(given, plain_table(pa.table({"a": values})), source="table.csv")
    assert ("loses its differences in float32" in caplog.text) == (dtype == "float64")


def test_text_that_is_nearly_all_numbers_is_warned_of(caplog):
    schema_of(a=[str(row % 15) for row in range(N - 1)] + ["twelve"])
    assert "'twelve'" in caplog.text


def test_numbers_with_thousands_separators_are_warned_of(caplog):
    schema_of(a=[f"{row % 15},000" for row in range(N)])
    assert "thousands separators" in caplog.text


def test_ordinary_text_is_not_warned_of(caplog):
    schema_of(a=[f"kind {row % 15}" for row in range(N)])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# The target.


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["yes", "no"] * (N // 2), ("no", "yes")),
        ([True, False] * (N // 2), ("false", "true")),
        ([2, 1] * (N // 2), (1, 2)),
        ([3, 9, 5, 7] * (N // 4), (3, 5, 7, 9)),
        ([0.0, 1.0] * (N // 2), (0, 1)),
    ],
)
def test_text_bools_and_few_integers_are_classes(values, classes):
    assert schema_of(a=[row % 5 for row in range(N)], y=values).task == Classification(classes)


@pytest.mark.parametrize(
    "values",
    [
        [row / 3 for row in range(N)],
        [0.5, 1.0] * (N // 2),
        [0.0, 1.0, 2.0, 3.0] * (N // 4),
        list(range(N)),
        [row % 8 for row in range(N)],  # 5 rows for each are too few to be classes
    ],
)
def test_other_numbers_are_predicted_as_numbers(values):
    assert schema_of(a=[row % 5 for row in range(N)], y=values).task == Regression("y")


def test_a_target_that_is_not_there_is_answered_with_the_columns_and_a_suggestion():
    text = error_of("incme", income=TARGET, age=list(range(N)))
    assert "table.csv has no column 'incme'" in text
    assert "income, age" in text and "Did you mean 'income'?" in text


def test_a_target_with_missing_values_says_how_many_and_where():
    text = error_of(a=list(range(N)), y=[None, 1.5, None] + [2.5] * (N - 3))
    assert "missing in 2 of 40 rows" in text and "row 1, 3;" in text


@pytest.mark.parametrize("value", [1, "x", 2.5, True])
def test_a_target_of_one_value_is_refused(value):
    assert "same value in every row" in error_of(a=list(range(N)), y=[value] * N)


def test_a_target_with_as_many_texts_as_rows_is_refused():
    text = error_of(a=list(range(N)), y=[f"name {row}" for row in range(N)])
    assert "40 different texts in 40 rows" in text


def test_an_infinite_target_is_refused_with_its_row():
    text = error_of(a=list(range(N)), y=[1.5, float("inf"), *[2.5] * (N - 2)])
    assert "row 2" in text


def test_dates_cannot_be_predicted():
    dates = [datetime.date(2020, 1, 1 + row % 20) for row in range(N)]
    assert "date32" in error_of(a=list(range(N)), y=dates)


# Names in requests, JSON, hash.


def test_input_names_are_the_columns_names_wherever_tensorflow_takes_them():
    names = ["hours-per-week", "fixed acidity", "größe", "价格", "_id", "Age", "age"]
    assert input_names(names) == {name: name for name in names}


def test_input_names_differ_from_the_columns_where_tensorflow_cannot_take_them():
    assert input_names(["km/h", "self", "a b", "a_b", "a-b"]) == {
        "km/h": "km_h",
        "self": "self_2",
        "a b": "a b",
        "a_b": "a_b_2",
        "a-b": "a-b_3",
    }


@settings(max_examples=100)
@given(st.lists(st.text(min_size=1), unique=True, max_size=10))
def test_input_names_are_distinct_even_without_punctuation(names):
    inputs = list(input_names(names).values())
    assert len({re.sub(r"\W", "_", name) for name in inputs}) == len(names)
    assert not any("/" in name for name in inputs)


columns_of_any_kind = st.builds(
    Column,
    st.text(),
    st.text(),
    st.sampled_from(["number", "category"]),
    st.integers(0, 10**9),
)
tasks = st.one_of(
    st.builds(Regression, st.text()),
    st.lists(st.text(), min_size=2, max_size=5).map(lambda texts: Classification(tuple(texts))),
    st.lists(st.integers(), min_size=2, max_size=5).map(lambda n: Classification(tuple(n))),
)
schemas = st.builds(
    Schema,
    st.lists(columns_of_any_kind, max_size=5).map(tuple),
    st.text(),
    tasks,
    st.dictionaries(st.text(), st.text(), max_size=3).map(lambda d: tuple(d.items())),
)


@settings(max_examples=100, deadline=None)
@given(schemas)
def test_any_schema_survives_json(schema):
    import json

    restored = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert restored == schema
    assert restored.sha256() == schema.sha256()


def test_different_schemas_have_different_hashes():
    one = Schema((Column("a", "a", "number"),), "y", Regression("y"))
    two = Schema((Column("a", "a", "category"),), "y", Regression("y"))
    assert one.sha256() != two.sha256()
