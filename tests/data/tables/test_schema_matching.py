"""A given schema and other data: what is found anew, what does not fit."""

from __future__ import annotations

import datetime

import pyarrow as pa
import pytest

from kerastrain.data.source import Classification
from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.data.tables.schema_matching import check_column, matched, without
from kerastrain.errors import DataError

N = 40


def table_of(**columns) -> pa.Table:
    return plain_table(pa.table({**columns, "y": ["no", "yes"] * (N // 2)}))


def schema_of(*columns) -> Schema:
    return Schema(columns, "y", Classification(("no", "yes")))


def test_numbers_can_be_made_a_category_of_codes_or_of_texts():
    table = table_of(a=[row % 3 for row in range(N)])
    for dtype in ("float32", "string"):
        schema = schema_of(Column("a", "a", "category", dtype))
        assert matched(schema, table, source="t").columns[0].dtype == dtype


def test_columns_that_the_schema_does_not_name_are_left_out_with_a_warning(caplog):
    schema = schema_of(Column("a", "a", "number"))
    result = matched(schema, table_of(a=[1.5, 2] * 20, new=[1, 2] * 20), source="new.csv")
    assert result.left_out == (("new", "the schema does not name it"),)
    assert "new.csv has columns that the schema does not name" in caplog.text


def test_an_own_input_name_is_kept():
    schema = schema_of(Column("km/h", "speed", "number"))
    table = table_of(**{"km/h": [1.5, 2] * 20})
    assert matched(schema, table, source="t").columns[0].input == "speed"


def test_columns_can_be_taken_out():
    schema = schema_of(Column("a", "a", "number"), Column("b", "b", "number"))
    less = without(schema, {"b": "you said so"})
    assert [c.name for c in less.columns] == ["a"] and less.left_out == (("b", "you said so"),)
    assert without(schema, {}) == schema
    with pytest.raises(DataError, match="no column to predict 'y' from"):
        without(schema, {"a": "x", "b": "x"})


# Other data.


def refused(schema, **columns) -> str:
    with pytest.raises(DataError) as caught:
        matched(schema, table_of(**columns), source="new.csv")
    return str(caught.value)


def test_a_column_that_is_gone_or_renamed_is_named_with_the_nearest():
    schema = schema_of(Column("income", "income", "number"))
    text = refused(schema, incomes=[1.0, 2.0] * 20)
    assert "new.csv lacks 1 of the 1 columns that are used" in text
    assert "'income' (Did you mean 'incomes'?)" in text


A_DAY = datetime.date(2020, 1, 1)


@pytest.mark.parametrize(
    ("kind", "dtype", "values", "says"),
    [
        ("number", "", ["a", "b"], "is a number, but its values are of type string"),
        ("number", "", [A_DAY, A_DAY], "is a number, but its values are of type date32"),
        ("number", "", [1.0, float("inf")], "infinite or too large numbers, the first in row 2"),
        ("boolean", "", ["yes", "no"], "is a boolean, but its values are of type string"),
        ("boolean", "", [0, 2], "is a boolean, but row 2 holds 2; expected 0 and 1"),
        ("boolean", "", [0.5, 1.0], "is a boolean, but row 1 holds 0.5"),
        ("category", "", [A_DAY, A_DAY], "is a category, but its values are of type date32"),
        ("category", "", [[1], [2]], "is a category, but its values are of type list"),
        ("category", "float32", [0.5, 1.0], 'row 1 holds 0.5. Say "dtype": "string"'),
        ("category", "float32", [1, 2**24 + 1], "row 2 holds"),
        ("category", "float32", ["a", "b"], "but it holds text"),
        ("date", "", [1, 2], "is a date, but its values are of type int64"),
        ("date", "", ["2020-01-01", "01.02.2020"], "row 2 holds '01.02.2020'; expected such as"),
        ("date", "", ["2020-01-01", "2020-02-30"], "row 2 holds '2020-02-30'"),
    ],
)
def test_values_that_are_not_of_the_schemas_kind_are_refused(kind, dtype, values, says):
    assert says in refused(schema_of(Column("a", "a", kind, dtype)), a=values * (N // 2))


@pytest.mark.parametrize("kind", ["number", "boolean", "category", "date"])
def test_a_column_with_no_values_here_can_be_anything(kind, recwarn):
    schema = schema_of(Column("a", "a", kind))
    for values in (pa.nulls(N), pa.nulls(N, pa.string() if kind == "date" else pa.float64())):
        assert matched(schema, table_of(a=values), source="t").columns[0].missing == N
    assert not recwarn.list


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (("x", "x"), "'x'.*expected for instance 'x_2'"),
        (("a b", "a_b"), "'a_b'.*for instance 'a_b_2'"),
        (("a/b", "c"), "'a/b'.*for instance 'a_b'"),
        (("self", "c"), "'self'.*for instance 'self_2'"),
        (("second", ""), "column 'first'.*'second'"),
    ],
)
def test_inputs_that_cannot_be_names_beside_each_other_are_refused(inputs, says):
    columns = (Column("first", inputs[0], "number"), Column("second", inputs[1], "number"))
    with pytest.raises(DataError, match=says):
        matched(schema_of(*columns), table_of(first=[1, 2] * 20, second=[1, 2] * 20), source="t")


@pytest.mark.parametrize(
    ("kind", "dtype", "values", "says"),
    [
        ("number", "", [1.0, float("inf")], "row 2,002: inf"),
        ("boolean", "", [0, 7], "row 2,002 holds 7"),
        ("category", "float32", [1, 2.5], "row 2,002 holds 2.5"),
        ("date", "", ["2020-01-01", "soon"], "row 2,002 holds 'soon'"),
    ],
)
def test_a_row_is_named_by_its_number_in_the_whole_table(kind, dtype, values, says):
    column = Column("a", "a", kind, dtype)
    with pytest.raises(DataError, match=says):
        check_column(column, pa.chunked_array([values]), first_row=2000)
