"""A table before it is encoded: schema, targets, weights and splits, as the options say."""

from __future__ import annotations

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.survey import survey_table
from kerastrain.data.tables.table import Loaded, load_table, open_data
from kerastrain.errors import DataError, OptionsError
from kerastrain.options import TableOptions, TrainOptions

N = 100
SPLITS = ("train", "validation", "test")


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file of some usual columns, and those that are given; returns its path."""

    def write(name="table.csv", n=N, **columns) -> str:
        columns = {
            "size": [row % 13 for row in range(n)],
            "kind": ["abc"[row % 3] for row in range(n)],
            "price": [row * 1.5 for row in range(n)],
            "sold": ["no" if row % 4 else "yes" for row in range(n)],
            **columns,
        }
        lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        path = tmp_path / name
        path.write_text("\n".join([",".join(columns), *lines]) + "\n")
        return str(path)

    return write


@pytest.fixture
def schema_file(tmp_path, table):
    """Writes the inferred schema, edited, and returns its path."""

    def write(target="sold", edit=lambda schema: None, **columns) -> str:
        schema = load(table("for_schema.csv", **columns), target).schema.to_json()
        edit(schema)
        path = tmp_path / "schema.json"
        path.write_text(json.dumps(schema))
        return str(path)

    return write


def load(path, target=None, seed=0, **options) -> Loaded:
    return load_table(
        TrainOptions(data=path, target=target, seed=seed, table=TableOptions(**options))
    )


def names(loaded) -> list[str]:
    return [column.name for column in loaded.schema.columns]


def row_sets(loaded) -> list[list[int]]:
    return [loaded.splits[split].tolist() for split in SPLITS]


def test_every_row_is_in_one_split_and_has_its_target(table):
    loaded = load(table(), "sold")
    assert sorted(itertools.chain(*row_sets(loaded))) == list(range(N))
    assert loaded.targets.tolist() == [int(row % 4 == 0) for row in range(N)]
    assert loaded.weights is None


def test_columns_can_be_ignored(table):
    loaded = load(table(), "sold", ignore_columns=("price", "kind"))
    assert names(loaded) == ["size"]
    assert dict(loaded.schema.left_out)["price"] == "--ignore_columns names it"


def labelled(first: str, second: str, share: float) -> list[str]:
    """`share` of them are the first."""
    return [first if row % 20 < 20 * share else second for row in range(N)]


@pytest.mark.parametrize(
    ("labels", "wanted", "positive", "says"),
    [
        (labelled("fraud", "ok", 0.1), None, "fraud", "'fraud' (the rarer, 0.0"),
        (labelled("fraud", "ok", 0.1), "ok", "ok", "'ok' (--positive)"),
        (labelled("ok", "sick", 0.35), None, "ok", "the rarer"),
        (labelled("no", "yes", 0.1), None, "yes", "'yes' (as usual)"),
        (labelled("NO", "Yes", 0.1), None, "Yes", "as usual"),
        (labelled("TRUE", "FALSE", 0.8), None, "TRUE", "as usual"),
        (labelled("1", "0", 0.9), None, 1, "as usual"),
        (labelled("-1", "1", 0.1), None, 1, "as usual"),
        (labelled("1", "2", 0.7), None, 2, "the rarer"),
        (labelled("+", "-", 0.9), None, "+", "as usual"),
        (labelled("a", "b", 0.45), None, "b", "the last; neither is rare or usual"),
        (labelled("a", "b", 0.45), "a", "a", "--positive"),
    ],
)
def test_the_positive_one_of_two_classes_is_said_usual_or_rarer(
    table, caplog, labels, wanted, positive, says
):
    with caplog.at_level(logging.INFO, logger="kerastrain"):
        loaded = load(table(label=labels), "label", positive=wanted)
    assert loaded.task.positive == positive and says in caplog.text
    is_guess = "the last" in says
    told = [record for record in caplog.records if "positive class" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING if is_guess else logging.INFO]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("sold", "--positive=yse is none of the classes, no and yes. Did you mean 'yes'?"),
        ("kind", "--positive=yse is one of two classes; the target has 'a', 'b', 'c'."),
        ("price", "--positive=yse is one of two classes; the target has numbers."),
    ],
)
def test_a_positive_class_that_is_none_is_refused(table, target, says):
    with pytest.raises(OptionsError) as caught:
        load(table(), target, positive="yse")
    assert str(caught.value) == says


@pytest.mark.parametrize("stream", [False, True])
def test_the_index_of_a_pandas_table_is_left_out_of_what_is_learned(tmp_path, stream):
    columns = {"size": [row % 13 for row in range(N)], "sold": ["no", "yes"] * (N // 2)}
    columns |= {"shop": [row // 10 for row in range(N)], "__index_level_1__": list(range(N))}
    pandas = {"index_columns": ["shop", "__index_level_1__", {"kind": "range", "name": None}]}
    table = pa.table(columns).replace_schema_metadata({"pandas": json.dumps(pandas)})
    path = tmp_path / "table.parquet"
    pq.write_table(table, path)
    if stream:
        options = TrainOptions(data=str(path), target="sold")
        schema = survey_table(open_data(options, None), options, None).schema
    else:
        schema = load(str(path), "sold").schema
    assert [column.name for column in schema.columns] == ["size"]
    reason = "pandas had it as the index of the rows"
    assert dict(schema.left_out) == dict.fromkeys(["shop", "__index_level_1__"], reason)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weights": "extra"}, "it holds the rows' weights"),
        ({"split_group": "extra"}, "it holds the groups that are kept together"),
    ],
)
def test_a_column_used_otherwise_is_not_learned_from(table, options, reason):
    loaded = load(table(extra=[row % 7 for row in range(N)]), "sold", **options)
    assert "extra" not in names(loaded)
    assert dict(loaded.schema.left_out)["extra"] == reason


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_columns": ("sise",)},
        {"weights": "sise"},
        {"split_column": "sise"},
        {"split_time": "sise"},
        {"split_group": "sise"},
    ],
)
def test_a_column_that_is_not_there_is_named_with_the_nearest(table, options):
    with pytest.raises(DataError, match="no column 'sise'.*Did you mean 'size'"):
        load(table(), "sold", **options)


@pytest.mark.parametrize("option", ["weights", "split_column", "split_group"])
def test_the_target_is_not_used_otherwise(table, option):
    with pytest.raises(OptionsError, match="'sold' is the target"):
        load(table(), "sold", **{option: "sold"})
    with pytest.raises(OptionsError, match="'sold' is the target"):
        load(table(), "sold", ignore_columns=("sold",))


# The task.


def test_the_task_can_be_said(table):
    grades = [row % 4 for row in range(N)]
    path = table(grade=grades)
    assert load(path, "grade").schema.task == Classification((0, 1, 2, 3))
    as_numbers = load(path, "grade", task="regression")
    assert as_numbers.schema.task == Regression("grade")
    assert as_numbers.targets[:, 0].tolist() == grades
    assert load(path, "size", task="classification").schema.task == Classification(tuple(range(13)))
    assert load(path, "grade", quantiles=(0.1, 0.9)).schema.task.quantiles == (0.1, 0.9)


def test_a_task_that_the_target_cannot_have_is_refused(table):
    path = table()
    with pytest.raises(DataError, match="cannot be predicted as a number: it is of type string"):
        load(path, "sold", task="regression")
    with pytest.raises(DataError, match="cannot be predicted as a number"):
        load(path, "kind", quantiles=(0.5,))
    with pytest.raises(DataError, match="holds 1.5, which is no class"):
        load(path, "price", task="classification")


# Weights.


def test_weights_have_the_mean_one_over_the_training_rows(table):
    weights = [float(row % 5) for row in range(N)]
    loaded = load(table(w=weights), "sold", weights="w")
    assert loaded.weights.dtype == np.float32
    assert loaded.weights[loaded.splits["train"]].mean() == pytest.approx(1)
    np.testing.assert_allclose(loaded.weights / loaded.weights[1], weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("-1", "row 8 holds -1; expected numbers of at least 0"),
        ("", "row 8 holds nan"),
        ("inf", "row 8 holds inf"),
        ("heavy", "is a column of type string; expected numbers"),
    ],
)
def test_weights_that_are_none_are_refused_with_their_row(table, bad, says):
    weights = ["0.5"] * N
    weights[7] = bad
    with pytest.raises(DataError, match=f"--weights=w.*{says}"):
        load(table(w=weights), "sold", weights="w")


def test_a_split_without_weight_is_refused(table):
    splits = ["train"] * 60 + ["val"] * 20 + ["test"] * 20
    for split, first in (("train", 0), ("validation", 60), ("test", 80)):
        weights = [1.0] * N
        last = {"train": 60, "validation": 80, "test": 100}[split]
        weights[first:last] = [0.0] * (last - first)
        with pytest.raises(DataError, match=f"--weights=w is 0 in every {split} row"):
            load(table(w=weights, s=splits), "sold", weights="w", split_column="s")
    with pytest.raises(DataError, match="is 0 in every"):
        load(table(w=[0] * N), "sold", weights="w")


# Files for each split.


def test_files_for_each_split_are_those_splits(table):
    loaded = load(
        table(),
        "sold",
        validation_data=table("val.csv", n=30),
        test_data=table("test.csv", n=20),
    )
    assert row_sets(loaded) == [list(range(100)), list(range(100, 130)), list(range(130, 150))]
    assert loaded.table.num_rows == 150 == len(loaded.targets)


def test_without_a_file_to_validate_on_a_fifth_of_the_training_rows_does(table):
    loaded = load(table(), "sold", test_data=table("test.csv", n=20))
    assert [len(rows) for rows in row_sets(loaded)] == [80, 20, 20]
    assert row_sets(loaded)[2] == list(range(100, 120))


def test_columns_of_the_files_may_have_another_order_and_more(table):
    other = Path(table("test.csv", n=20, extra=range(20)))
    lines = other.read_text().splitlines()
    other.write_text("\n".join(",".join(reversed(line.split(","))) for line in lines))
    loaded = load(table(), "sold", test_data=str(other))
    assert loaded.table.column_names == ["size", "kind", "price", "sold"]
    assert loaded.table["size"].to_pylist()[100:] == [row % 13 for row in range(20)]


def test_whole_numbers_in_one_file_and_others_in_another_are_numbers(table):
    loaded = load(table(), "price", test_data=table("t.csv", n=20, size=[0.5] * 20))
    assert loaded.table["size"].type == "double"
    assert names(loaded) == ["size", "kind", "sold"]


def test_a_column_that_a_file_lacks_is_named(table, tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("size,kinds,price,sold\n1,a,2.5,no\n")
    with pytest.raises(DataError, match=r"test\.csv has no column 'kind', which .*mean 'kinds'"):
        load(table(), "sold", test_data=str(path))


def test_numbers_in_one_file_and_text_in_another_are_text_as_it_is_written(table):
    codes = [f"0{row % 3}" for row in range(N)]
    test = table("test.csv", n=20, size=["many"] * 20)
    loaded = load(table(size=codes), "sold", test_data=test)
    assert loaded.table["size"].to_pylist() == [*codes, *["many"] * 20]
    kinds = {column.name: column.kind for column in loaded.schema.columns}
    assert kinds == {"size": "category", "kind": "category", "price": "number"}


def parquet(path, **columns) -> str:
    n = len(next(iter(columns.values())))
    pq.write_table(pa.table({**columns, "sold": ["no", "yes"] * (n // 2)}), path)
    return str(path)


def test_dates_of_one_file_and_times_of_another_are_times(tmp_path):
    days = pa.array(range(N), pa.date32())
    times = pa.array([row * 3600 for row in range(20)], pa.timestamp("ms"))
    train = parquet(tmp_path / "train.parquet", when=days)
    for split in ({}, {"validation_data": parquet(tmp_path / "val.parquet", when=days[:10])}):
        test = parquet(tmp_path / "test.parquet", when=times)
        loaded = load(train, "sold", test_data=test, **split)
        assert loaded.table["when"].type == pa.timestamp("ms")
        assert loaded.table.num_rows == N + 20 + 10 * len(split)


def test_types_that_do_not_go_together_are_named_with_both_files(tmp_path):
    train = parquet(tmp_path / "train.parquet", size=[[row] for row in range(N)])
    test = parquet(tmp_path / "test.parquet", size=list(range(20)))
    says = r"'size' is int64 in .*test\.parquet, but list.* in .*train\.parquet; expected .*Convert"
    with pytest.raises(DataError, match=says):
        load(train, "sold", test_data=test)


def test_a_class_that_only_the_test_file_has_is_a_class(table):
    test = table("test.csv", n=20, sold=["maybe"] * 20)
    assert load(table(), "sold", test_data=test).schema.task.classes == ("maybe", "no", "yes")


# A schema that is given.


def test_an_edited_schema_is_honoured(table, schema_file):
    def edit(schema):
        size, kind, _ = schema["columns"]
        size["kind"] = "category"
        kind["input"] = "what"
        schema["columns"] = [size, kind]
        schema["left_out"]["price"] = "not known before the sale"
        schema["task"]["classes"] = ["yes", "no"]

    loaded = load(table(), schema=schema_file(edit=edit))
    size, kind = loaded.schema.columns
    assert (size.name, size.kind, size.dtype) == ("size", "category", "float32")
    assert kind.input == "what"
    assert dict(loaded.schema.left_out) == {"price": "not known before the sale"}
    assert loaded.targets[:2].tolist() == [0, 1]


def test_without_edits_the_schema_is_the_inferred_one(table, schema_file):
    assert load(table(), schema=schema_file()).schema == load(table(), "sold").schema


def test_texts_that_look_like_numbers_stay_texts_when_the_schema_says_so(table, schema_file):
    codes = ["007", "08", "x1"]
    schema = schema_file(code=[codes[row % 3] for row in range(N)])
    loaded = load(table(code=["007"] * N), schema=schema)
    assert loaded.table["code"].to_pylist() == ["007"] * N


def test_columns_are_ignored_beside_a_schema_too(table, schema_file):
    extra = {"w": [1 + row % 2 for row in range(N)]}
    schema = schema_file(**extra)
    loaded = load(table(**extra), schema=schema, weights="w", ignore_columns=("price",))
    assert names(loaded) == ["size", "kind"]
    assert dict(loaded.schema.left_out) == {
        "price": "--ignore_columns names it",
        "w": "it holds the rows' weights",
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "kind"}, "--target is 'kind', but the schema's target is 'sold'"),
        ({"task": "regression"}, "--task is 'regression', but the schema's task is 'classif"),
        ({"quantiles": (0.5,)}, r"--quantiles is \(0.5,\), but the schema's quantiles is"),
    ],
)
def test_what_contradicts_the_schema_is_refused_and_not_passed_over(
    table, schema_file, options, says
):
    with pytest.raises(OptionsError, match=says):
        load(table(), schema=schema_file(), **options)


def test_what_agrees_with_the_schema_may_be_said_again(table, schema_file):
    load(table(), "sold", schema=schema_file(), task="classification")

    def edit(schema):
        schema["task"]["quantiles"] = [0.1, 0.9]

    schema = schema_file("price", edit)
    assert load(table(), "price", schema=schema, quantiles=(0.1, 0.9)).schema.task == Regression(
        "price", (0.1, 0.9)
    )


@pytest.mark.parametrize(
    ("target", "values", "says"),
    [
        ("price", ["dear"] * N, "'price' is of type string; it is to be predicted as a number"),
        ("price", ["", *["1.5"] * (N - 1)], r"'price' is missing in 1 of 100 rows \(row 1;"),
        ("price", ["1.5", "inf", *["1.5"] * (N - 2)], "is infinite or too large.* row 2"),
        ("sold", ["maybe", *["no"] * (N - 1)], "holds 'maybe', which is none of the classes"),
        ("sold", ["", *["no"] * (N - 1)], "holds None, which is none of the classes"),
        ("sold", [0.5, *[1] * (N - 1)], "of type double; the classes are 'no', 'yes'"),
        ("sold", [0, *[1] * (N - 1)], "of type int64; the classes are 'no', 'yes'"),
    ],
)
def test_a_target_that_is_not_the_schemas_is_refused(table, schema_file, target, values, says):
    schema = schema_file(target)
    with pytest.raises(DataError, match=says):
        load(table(**{target: values}), schema=schema)


def test_bools_are_not_taken_for_other_classes(schema_file, tmp_path):
    rows = {"size": [1.5, 2.5] * 50, "kind": ["a", "b"] * 50, "price": [1.0, 2.0] * 50}
    pq.write_table(pa.table({**rows, "sold": [True, False] * 50}), tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="holds .*none of the classes 'no', 'yes'"):
        load(path, schema=schema_file())
    swapped = schema_file(edit=lambda s: s["task"].update(classes=["true", "false"]))
    assert load(path, schema=swapped).targets[:2].tolist() == [0, 1]


def test_every_kind_of_split_can_be_asked_for(table):
    days = [f"2020-{1 + row // 28:02d}-{1 + row % 28:02d}" for row in range(N)]
    words = ["train"] * 50 + ["test"] * 50
    path = table(day=days, words=words, who=[row // 10 for row in range(N)])
    by_time = load(path, "sold", split_time="day")
    assert row_sets(by_time)[2] == list(range(80, 100))
    by_column = load(path, "sold", split_column="words")
    assert row_sets(by_column)[2] == list(range(50, 100)) and len(row_sets(by_column)[1]) == 10
    by_group = load(path, "sold", split_group="who")
    assert {len({row // 10 for row in rows}) * 10 == len(rows) for rows in row_sets(by_group)} == {
        True
    }


def test_a_column_that_names_splits_is_told_of_unless_it_is_used(table, caplog):
    path = table(part=["Train" if row % 5 else "test" for row in range(N)])
    load(path, "sold")
    assert "--split_column=part" in caplog.text
    caplog.clear()
    load(path, "sold", split_column="part")
    load(path, "sold", ignore_columns=("part",))
    assert "part" not in caplog.text


def test_codes_too_large_for_numbers_are_learned_as_they_are_written(table):
    codes = [f"036000291{row % 3}52" for row in range(N)]
    loaded = load(table(product_code=codes), "sold")
    (column,) = [column for column in loaded.schema.columns if column.name == "product_code"]
    assert (column.kind, column.dtype) == ("category", "string")
    assert loaded.table["product_code"].to_pylist() == codes


def test_so_are_those_of_test_rows_in_a_file_of_their_own(table):
    codes = [f"036000291{row % 3}52" for row in range(N)]
    test = table("test.csv", n=30, product_code=codes[:30])
    loaded = load(table(product_code=codes), "sold", test_data=test)
    assert loaded.table["product_code"].to_pylist() == codes + codes[:30]
