"""Tables read in batches: every row once, encoded as in memory, whatever the batches are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from kerastrain.data.stored import StoredExamples
from kerastrain.data.tables import streaming
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
    monkeypatch.setattr(streaming, "BATCH_ROWS", 700)


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
    monkeypatch.setattr(streaming, "BATCH_ROWS", 1111)
    shutil.rmtree(tmp_path / ".tables")
    again = load(written, "kind")
    for name, array in first.train.inputs.items():
        np.testing.assert_allclose(again.train.inputs[name], array, atol=1e-6)


def test_a_small_sample_still_knows_every_class(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SAMPLE_ROWS", 100)
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
    weights, targets = np.asarray(data.train.weights), np.asarray(data.train.targets)
    sums = np.bincount(targets, weights=weights)
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)
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
