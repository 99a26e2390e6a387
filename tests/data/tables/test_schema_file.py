"""A schema as a file: read back, edited, matched to other data; what is wrong in it is named."""

from __future__ import annotations

import datetime
import json
import logging

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.schema import Column, Schema, infer_schema, input_names
from kerastrain.data.tables.schema_file import read_schema, schema_text
from kerastrain.data.tables.schema_matching import matched
from kerastrain.errors import DataError
from kerastrain.workdir import write_json

N = 40
GOOD = {
    "columns": [{"name": "age", "kind": "number"}, {"name": "job", "kind": "category"}],
    "target": "y",
    "task": {"kind": "classification", "classes": ["no", "yes"]},
    "left_out": {"id": "it numbers the rows"},
}


@pytest.fixture
def written(tmp_path):
    """Writes JSON, or a text as it is, and returns the file."""

    def write(content):
        path = tmp_path / "schema.json"
        path.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
        return path

    return write


def table_of(**columns) -> pa.Table:
    return plain_table(pa.table({**columns, "y": ["no", "yes"] * (N // 2)}))


def schema_of(*columns) -> Schema:
    return Schema(columns, "y", Classification(("no", "yes")))


# Round trips.

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)
kinds = st.sampled_from(
    [
        ("number", "float32"),
        ("boolean", "float32"),
        ("category", "string"),
        ("category", "float32"),
        ("date", "string"),
    ]
)
levels = st.lists(st.floats(0.01, 0.99), max_size=4, unique=True).map(sorted).map(tuple)
classes = st.one_of(
    st.lists(st.text(), min_size=2, max_size=4, unique=True),
    st.lists(st.integers(), min_size=2, max_size=4, unique=True),
).map(tuple)


@st.composite
def schemas(draw) -> Schema:
    target, *used = ["the target", *(name for name in draw(names) if name != "the target")]
    inputs = input_names(used)
    columns = tuple(
        Column(name, inputs[name], *draw(kinds), draw(st.integers(0, 10**6))) for name in used
    )
    task = draw(
        st.one_of(
            st.builds(Regression, st.just(target), levels), st.builds(Classification, classes)
        )
    )
    left_out = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    return Schema(columns, target, task, tuple(left_out.items()))


@settings(max_examples=100)
@given(schemas())
def test_any_schema_is_read_back_from_its_file(tmp_path_factory, schema):
    path = tmp_path_factory.mktemp("schema") / "schema.json"
    write_json(path, schema.to_json())
    restored = read_schema(path)
    assert restored == schema and restored.sha256() == schema.sha256()


@pytest.mark.parametrize(
    ("file", "target"),
    [
        ("adult.parquet", "income"),
        ("bike-sharing-hour.csv.gz", "cnt"),
        ("titanic.csv", "Survived"),
        ("california-housing.csv.gz", "median_house_value"),
    ],
)
def test_the_schema_of_a_real_table_is_the_same_from_its_file(real_data, tmp_path, file, target):
    from kerastrain.data.tables.reading import read_table

    table = read_table(real_data / "tabular" / file)
    schema = infer_schema(table, target)
    write_json(tmp_path / "s.json", schema.to_json())
    assert matched(read_schema(tmp_path / "s.json"), table, source=file) == schema


# What is left out of the file is found; what is edited is honoured.


def test_name_and_kind_of_a_column_are_enough(written):
    schema = matched(
        read_schema(written(GOOD)),
        table_of(age=[None, *range(N - 1)], job=["a", "b"] * (N // 2), id=list(range(N))),
        source="t.csv",
    )
    assert schema.columns == (
        Column("age", "age", "number", "float32", 1),
        Column("job", "job", "category", "string", 0),
    )
    assert schema.left_out == (("id", "it numbers the rows"),)


def test_an_edited_kind_takes_the_dtype_that_goes_with_it(written):
    path = written(
        {
            **GOOD,
            "columns": [
                {"name": "age", "kind": "number", "dtype": "string"},
                {"name": "day", "kind": "date", "dtype": "float32"},
                {"name": "zip", "kind": "category", "dtype": "float32"},
            ],
        }
    )
    assert [c.dtype for c in read_schema(path).columns] == ["float32", "string", "float32"]


# What is wrong in a file.


def edited(*, column) -> dict:
    return {**GOOD, "columns": [{**GOOD["columns"][0], **column}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no JSON"),
        ("{'columns': []}", "is no JSON"),
        ("[]", "holds no object"),
        ("null", "holds no object"),
        ({}, "has null as 'columns'; expected a list"),
        ({**GOOD, "columns": {"age": "number"}}, "as 'columns'; expected a list"),
        ({**GOOD, "target": 3}, "has 3 as 'target'; expected a text"),
        ({**GOOD, "task": "regression"}, "as 'task'; expected an object"),
        ({**GOOD, "left_out": ["id"]}, "as 'left_out'; expected an object"),
        (edited(column={"kind": "numbr"}), "'numbr'.*expected one of.*mean 'number'"),
        (edited(column={"kind": None}), "of kind None; expected one of"),
        (edited(column={"kind": ["number"]}), "expected one of number"),
        (edited(column={"knd": "number"}), "expected an object with name.*mean 'kind'"),
        (edited(column={"name": 3}), "expected an object with name"),
        (edited(column={"dtype": "flaot32"}), '"flaot32" as its dtype; expected float32, '),
        (edited(column={"input": 3}), "has 3 as its input; expected a text"),
        (edited(column={"missing": "many"}), "as its missing; expected a whole number"),
        ({**GOOD, "columns": ["age"]}, 'a column is "age"; expected an object'),
        ({**GOOD, "columns": [3]}, "a column is 3; expected an object"),
        ({**GOOD, "columns": [{"kind": "number"}]}, "expected an object with name"),
        ({**GOOD, "columns": GOOD["columns"] * 2}, "has the column 'age' twice"),
        ({**GOOD, "target": "age"}, "has the target 'age' among the columns"),
        ({**GOOD, "task": {"kind": "clasification"}}, "expected the kind classification or"),
        ({**GOOD, "task": {}}, "expected the kind classification or regression"),
        ({**GOOD, "task": {"kind": "classification"}}, "expected classes, a list of two or more"),
        ({**GOOD, "task": {"kind": "classification", "classes": "ab"}}, "expected classes"),
        ({**GOOD, "task": {"kind": "classification", "classes": ["a"]}}, "expected classes"),
        ({**GOOD, "task": {"kind": "classification", "classes": ["a", "a"]}}, "expected classes"),
        ({**GOOD, "task": {"kind": "classification", "classes": ["a", 1]}}, "expected classes"),
        ({**GOOD, "task": {"kind": "classification", "classes": [0.5, 1.5]}}, "expected classes"),
        ({**GOOD, "task": {"kind": "classification", "classes": [[1], [2]]}}, "expected classes"),
        ({**GOOD, "task": {"kind": "regression", "quantiles": [0.9, 0.1]}}, "that rise, between"),
        ({**GOOD, "task": {"kind": "regression", "quantiles": [0.5, 1]}}, "that rise, between"),
        ({**GOOD, "task": {"kind": "regression", "quantiles": ["0.5"]}}, "that rise, between"),
        ({**GOOD, "task": {"kind": "regression", "quantiles": 0.5}}, "that rise, between"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused_with_what_is_expected(written, content, says):
    with pytest.raises(DataError, match=says) as caught:
        read_schema(written(content))
    assert str(caught.value).startswith("--schema=")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file"):
        read_schema(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_schema(tmp_path)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="is no JSON"):
        read_schema(tmp_path / "binary.json")


def test_the_target_of_a_regression_need_not_be_said_twice(written):
    assert read_schema(written({**GOOD, "task": {"kind": "regression"}})).task == Regression("y")


# As a table for people.


def test_the_text_has_a_line_for_each_column_of_the_table():
    table = table_of(
        age=[row % 7 for row in range(N)],
        zip=[10115 + row % 2 for row in range(N)],
        note=["long \n text that goes on"] * N,
        when=[datetime.date(2020, 1, 1), None] * (N // 2),
        parts=[[1]] * N,
        raw=[b"\xff"] * N,
        none=pa.nulls(N),
    )
    schema = infer_schema(table, "y")
    lines = schema_text(schema, table).splitlines()
    assert len(lines) == 1 + table.num_columns
    text = {line.split()[0]: " ".join(line.split()) for line in lines}
    assert text["age"] == "age number 0 7 0, 1, 2"
    assert text["zip"].startswith("zip category of codes 0 2 10115")
    assert "left out: it has one value only 0 1 long text that go…" in text["note"]
    assert text["when"] == f"when date {N // 2} 1 2020-01-01"
    assert "left out: its type" in text["parts"] and "left out" in text["raw"]
    assert text["none"] == f"none left out: it has no values {N}"
    assert text["y"] == "y target: 2 classes 0 2 no, yes"


def test_the_text_says_what_is_predicted():
    table = plain_table(pa.table({"a": [1.5, 2.5] * 20, "y": [float(row) for row in range(N)]}))
    assert "target: a number" in schema_text(infer_schema(table, "y"), table)
    schema = infer_schema(table, "y", quantiles=(0.1, 0.5))
    assert "target: quantiles 0.1, 0.5" in schema_text(schema, table)


def test_reading_says_nothing_of_itself(written, caplog):
    with caplog.at_level(logging.INFO):
        read_schema(written(GOOD))
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (pa.array([-70_000_000_000, 0] * (N // 2), pa.timestamp("s")), "-0249-10-15 19:33"),
        (pa.array([-(10**15), 0] * (N // 2), pa.timestamp("ms")), "-29719-04-05 22:1"),
        (pa.array([-(10**6), 0] * (N // 2), pa.date32()), "-0768-02-04, 1970-01-01"),
        (pa.array([1_500_000_000_123_456, 0] * (N // 2), pa.timestamp("us")), "2017-07-14 02:40"),
    ],
)
def test_dates_that_python_does_not_know_are_shown(values, shown):
    table = table_of(when=values)
    schema = schema_of(Column("when", "when", "date"))
    assert shown in schema_text(schema, table)
