"""Tables read in batches: every row once, encoded as in memory, whatever the batches are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from kerastrain.data.stored import StoredExamples
from kerastrain.data.tables import survey
from kerastrain.data.tables.loading import load_table_data
from kerastrain.errors import DataError, OptionsError
from kerastrain.options import TableOptions, TrainOptions

N = 3000


def table(rows: int = N) -> pa.Table:
    random = np.random.default_rng(0)
    height = random.normal(30, 5, rows).round(2)
    return pa.table(
        {
            "row": np.arange(rows) * 1.5,
            "height": pa.array(height, mask=random.random(rows) < 0.1),
            "soil": random.choice(["clay", "sand", "peat"], rows),
            "weight": random.integers(1, 4, rows),
            "split": np.array(["train", "train", "val", "test"])[np.arange(rows) % 4],
            "kind": np.array(["iris", "rose"])[(height > 30).astype(int)],
            "price": height * 2,
        }
    )


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "flowers.parquet"
    pq.write_table(table(), path, row_group_size=500)
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(survey, "BATCH_ROWS", 700)


def load(path: Path, target: str, **options):
    ignored = options.pop("ignore_columns", ("price",))
    table_options = TableOptions(stream=True, ignore_columns=ignored, **options)
    return load_table_data(
        TrainOptions(
            data=str(path), target=target, workdir=str(path.parent / "run"), table=table_options
        )
    )


def rows_of(data) -> dict[str, np.ndarray]:
    """The raw "row" column of each split, whose values tell which rows they are."""
    held = {
        "validation": data.validation_rows["row"] / 1.5,
        "test": data.test_rows["row"] / 1.5,
    }
    return {name: np.rint(values).astype(int) for name, values in held.items()}


def test_every_row_is_in_one_split(written):
    data = load(written, "kind")
    assert isinstance(data.train, StoredExamples)
    held = rows_of(data)
    assert len(data.train) + len(held["validation"]) + len(held["test"]) == N
    assert not set(held["validation"]) & set(held["test"])
    for split, rows in held.items():
        assert data.split_rows[split].tolist() == rows.tolist()
    assert len(held["test"]) == pytest.approx(0.2 * N, rel=0.15)
    assert len(held["validation"]) == pytest.approx(0.16 * N, rel=0.15)


def test_rows_are_encoded_as_the_exported_encoder_encodes_them(written):
    data = load(written, "kind")
    encoded = data.encoder({name: tf.constant(v) for name, v in data.test_rows.items()})
    np.testing.assert_allclose(encoded["numbers"], data.test.inputs["numbers"], atol=1e-6)
    np.testing.assert_array_equal(encoded["categories"], data.test.inputs["categories"])
    kinds = table()["kind"].take(pa.array(data.split_rows["test"])).to_pylist()
    assert [data.task.classes[index] for index in data.test.targets] == kinds


def test_training_rows_are_those_that_no_other_split_has(written):
    data = load(written, "price", ignore_columns=())
    held = np.concatenate(list(data.split_rows.values()))
    prices = np.delete(table()["price"].to_numpy(), held)
    np.testing.assert_allclose(np.asarray(data.train.targets)[:, 0], prices, rtol=1e-6)


def test_the_size_of_batches_and_the_kind_of_file_make_no_difference(
    written, monkeypatch, tmp_path
):
    first = load(written, "kind")
    other = tmp_path / "other" / "flowers.csv"
    other.parent.mkdir()
    pyarrow.csv.write_csv(table(), other)
    assert load(other, "kind").fingerprint() == first.fingerprint()
    monkeypatch.setattr(survey, "BATCH_ROWS", 1111)
    shutil.rmtree(tmp_path / ".tables")
    again = load(written, "kind")
    for name, array in first.train.inputs.items():
        np.testing.assert_allclose(again.train.inputs[name], array, atol=1e-6)


def test_a_small_sample_still_knows_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 100)
    rare = (
        table()
        .drop_columns(["kind"])
        .append_column(
            "kind", pa.array(["rare" if row == 1234 else "ab"[row % 2] for row in range(N)])
        )
    )
    path = tmp_path / "rare.parquet"
    pq.write_table(rare, path)
    data = load(path, "kind")
    assert data.task.classes == ("a", "b", "rare")
    assert 40 < data.description["sample_rows"] < 200
    assert len(data.train) + len(data.validation) + len(data.test) == N


def test_a_split_column_decides(written):
    data = load(written, "kind", split_column="split")
    held = rows_of(data)
    assert held["test"].tolist() == list(range(3, N, 4))
    assert held["validation"].tolist() == list(range(2, N, 4))


def test_weights_and_balance_reach_the_training_rows(written):
    data = load(written, "kind", weights="weight", balance=True, split_column="split")
    # Classes are counted over all rows, of which the training rows are a part.
    whole = table()
    own, kinds = whole["weight"].to_numpy(), (np.array(whole["kind"].to_pylist()) == "rose")
    factors = own.sum() / (2 * np.bincount(kinds, weights=own))
    train = np.delete(np.arange(N), np.concatenate(list(data.split_rows.values())))
    expected = own[train] / own[train].mean() * factors[kinds[train].astype(int)]
    np.testing.assert_allclose(np.asarray(data.train.weights), expected, rtol=1e-4)
    assert len(set(data.test.weights.round(4))) == 3


def test_a_missing_target_is_named_by_its_row_of_the_whole_table(tmp_path):
    kinds = [None if row == 2345 else "ab"[row % 2] for row in range(N)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": np.arange(N) * 0.5, "kind": kinds}), path)
    with pytest.raises(DataError, match="missing in row 2,346"):
        load(path, "kind", ignore_columns=())


def test_an_infinity_is_named_by_its_row_of_the_whole_table(tmp_path):
    x = np.arange(N) * 0.5
    x[2999] = np.inf
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": x, "kind": np.array(["a", "b"])[np.arange(N) % 2]}), path)
    with pytest.raises(DataError, match=r"row 3,?000"):
        load(path, "kind", ignore_columns=())
    assert not list((tmp_path / ".tables").glob("*.partial"))


@pytest.mark.parametrize("option", ["split_time", "split_group"])
def test_what_needs_the_whole_table_is_refused(written, option):
    with pytest.raises(OptionsError, match=f"--{option} needs the whole table"):
        load(written, "kind", **{option: "row"})


# What only rows outside of the sample show.


@pytest.fixture
def small_sample(monkeypatch):
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 100)


def with_last(path: Path, column: str, values: list, last) -> Path:
    """A table whose column is `values` again and again, but in row 2,901."""
    values = [values[row % len(values)] for row in range(N)]
    values[2900] = last
    kinds = np.array(["a", "b"])[np.arange(N) % 2]
    pq.write_table(pa.table({column: values, "x": np.arange(N) * 0.5, "kind": kinds}), path)
    return path


@pytest.mark.parametrize(
    ("column", "values", "last", "says"),
    [
        ({"kind": "boolean"}, [0, 1], 7, "row 2,901 holds 7; expected 0 and 1"),
        (
            {"kind": "category", "dtype": "float32"},
            [1.0, 2.0],
            2.5,
            r"row 2,901 holds 2\.5",
        ),
        ({"kind": "date"}, ["2020-01-01"], "soon", "row 2,901 holds 'soon'"),
    ],
)
@pytest.mark.usefixtures("small_sample")
def test_every_row_is_compared_with_a_given_schema(tmp_path, column, values, last, says):
    schema = {
        "columns": [{"name": "a", **column}, {"name": "x", "kind": "number"}],
        "target": "kind",
        "task": {"kind": "classification", "classes": ["a", "b"]},
        "left_out": {},
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    path = with_last(tmp_path / "t.parquet", "a", values, last)
    with pytest.raises(DataError, match=says):
        load(path, "kind", ignore_columns=(), schema=str(tmp_path / "schema.json"))
    path = with_last(tmp_path / "t.parquet", "a", values, values[0])
    data = load(path, "kind", ignore_columns=(), schema=str(tmp_path / "schema.json"))
    assert len(data.train) > 0


@pytest.mark.parametrize(
    ("name", "values", "last", "kind", "dtype"),
    [
        ("flag", [0, 1], 5, "number", "float32"),
        ("flag", [0, 1], -1, "number", "float32"),
        ("flag", [0, 1], None, "boolean", "float32"),
        ("flag", [False, True], True, "boolean", "float32"),
        ("type", [1, 2, 3], 4, "category", "float32"),
        ("type", [1, 2, 3], 2**24 + 1, "category", "string"),
    ],
)
@pytest.mark.usefixtures("small_sample")
def test_the_range_of_all_rows_decides_what_a_column_is(tmp_path, name, values, last, kind, dtype):
    path = with_last(tmp_path / "t.parquet", name, values, last)
    data = load(path, "kind", ignore_columns=())
    (column,) = (c for c in data.description["schema"]["columns"] if c["name"] == name)
    assert (column["kind"], column["dtype"]) == (kind, dtype)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_without_weight_is_refused_as_in_memory(tmp_path, split):
    called = {"val": "validation"}
    splits = [called.get(name, name) for name in table()["split"].to_pylist()]
    weights = [0.0 if name == split else 1.0 for name in splits]
    path = tmp_path / "t.parquet"
    pq.write_table(table().append_column("w", pa.array(weights)), path)
    with pytest.raises(DataError, match=f"--weights=w is 0 in every {split} row"):
        load(path, "kind", weights="w", split_column="split")


def test_a_fifth_of_the_training_rows_validates_where_the_split_column_names_none(tmp_path):
    path = tmp_path / "t.parquet"
    names = pa.array(["train" if row < 2500 else "test" for row in range(N)])
    pq.write_table(table().drop_columns(["split"]).append_column("split", names), path)
    data = load(path, "kind", split_column="split")
    held = rows_of(data)
    assert held["test"].tolist() == list(range(2500, N))
    assert held["validation"].max() < 2500
    assert len(held["validation"]) == pytest.approx(500, rel=0.15)
    assert len(data.train) + len(held["validation"]) == 2500


@pytest.mark.parametrize("lacking", ["train", "test"])
def test_a_split_column_without_training_or_test_rows_is_refused(tmp_path, lacking):
    path = tmp_path / "t.parquet"
    other = {"train": "test", "test": "train"}[lacking]
    names = pa.array([other, "val"] * (N // 2))
    pq.write_table(table().drop_columns(["split"]).append_column("split", names), path)
    with pytest.raises(DataError, match=f"'split' gives no row to '{lacking}'"):
        load(path, "kind", split_column="split")


def test_a_split_column_that_is_not_there_is_named(written):
    with pytest.raises(DataError, match="no column 'splits'.*mean 'split'"):
        load(written, "kind", split_column="splits")


def test_a_disk_that_takes_nothing_is_told_without_a_traceback(written):
    (written.parent / ".tables").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written to .*choose another --workdir"):
        load(written, "kind")


def test_a_class_that_is_rare_has_its_share_with_balance(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "SAMPLE_ROWS", 100)
    kinds = ["rare" if row % 300 == 7 else "ab"[row % 2] for row in range(N)]
    path = tmp_path / "rare.parquet"
    pq.write_table(pa.table({"x": np.arange(N) * 0.5, "kind": kinds}), path)
    data = load(path, "kind", ignore_columns=(), balance=True)
    counts = np.array([kinds.count(kind) for kind in data.task.classes])
    expected = (N / (3 * counts))[np.asarray(data.train.targets)]
    np.testing.assert_allclose(np.asarray(data.train.weights), expected, rtol=1e-6)


def test_codes_too_large_for_numbers_are_learned_as_they_are_written(tmp_path):
    lines = [f"036000291{row % 3}52,{'ab'[row % 2]}" for row in range(N)]
    path = tmp_path / "codes.csv"
    path.write_text("\n".join(["product_code,kind", *lines]))
    data = load(path, "kind", ignore_columns=())
    assert set(data.test_rows["product_code"]) == {f"036000291{i}52" for i in range(3)}
