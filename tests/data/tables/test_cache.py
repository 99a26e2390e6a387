"""An encoded table on disk: the same data again, and never those of other files or options."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerastrain.data.tables import loading
from kerastrain.data.tables.loading import load_table_data
from kerastrain.options import TableOptions, TrainOptions

N = 400


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Of a table that is kept although it is small."""
    monkeypatch.setattr(loading, "LEAST_BYTES", 0)
    random = np.random.default_rng(1)
    columns = {
        "a": random.normal(size=N),
        "b": pa.array(random.choice(["x", "y", ""], N)),
        "y": random.choice(["yes", "no"], N),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    return TrainOptions(
        data=str(tmp_path / "t.parquet"), target="y", workdir=str(tmp_path / "runs" / "one")
    )


def changed(options: TrainOptions, **table) -> TrainOptions:
    return TrainOptions(
        data=options.data, target="y", workdir=options.workdir, table=TableOptions(**table)
    )


def forbid_encoding(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("the table was encoded again")

    monkeypatch.setattr(loading, "fit_encoder", refuse)


def test_what_is_read_again_is_what_was_encoded(options, monkeypatch):
    first = load_table_data(options)
    forbid_encoding(monkeypatch)
    second = load_table_data(options)
    assert second.fingerprint() == first.fingerprint()
    assert second.task == first.task and second.columns == first.columns
    assert dict(second.description) == dict(first.description)
    for name, rows in first.split_rows.items():
        np.testing.assert_array_equal(second.split_rows[name], rows)
    for rows, again in (
        (first.test_rows, second.test_rows),
        (first.validation_rows, second.validation_rows),
    ):
        for name in rows:
            np.testing.assert_array_equal(rows[name], again[name])
            assert rows[name].dtype == again[name].dtype
    sent = {name: values[:50] for name, values in first.test_rows.items()}
    for name, array in first.encoder(tensors(sent)).items():
        np.testing.assert_array_equal(second.encoder(tensors(sent))[name], array)


def tensors(rows):
    import tensorflow as tf

    return {name: tf.constant(values) for name, values in rows.items()}


def test_another_run_beside_it_finds_it(options, monkeypatch, tmp_path):
    load_table_data(options)
    forbid_encoding(monkeypatch)
    beside = TrainOptions(data=options.data, target="y", workdir=str(tmp_path / "runs" / "two"))
    assert len(load_table_data(beside).train) == 256


@pytest.mark.parametrize("table", [{"ignore_columns": ("a",)}, {"balance": True}])
def test_other_options_are_another_table(options, table):
    first = load_table_data(options).fingerprint()
    assert load_table_data(changed(options, **table)).fingerprint() != first


def test_another_seed_and_other_bytes_are_another_table(options, tmp_path):
    first = load_table_data(options).fingerprint()
    seeded = TrainOptions(data=options.data, target="y", workdir=options.workdir, seed=7)
    assert load_table_data(seeded).fingerprint() != first
    table = pq.read_table(options.data)
    pq.write_table(table.slice(0, N - 1), options.data)
    assert len(load_table_data(options).split_rows["train"]) < 256


def test_other_test_rows_are_another_table(options, tmp_path):
    test = pq.read_table(options.data).slice(0, 50)
    pq.write_table(test, tmp_path / "test.parquet")
    own = changed(options, test_data=str(tmp_path / "test.parquet"))
    first = load_table_data(own).fingerprint()
    pq.write_table(test.slice(0, 40), tmp_path / "test.parquet")
    assert len(load_table_data(own).test) == 40
    assert load_table_data(own).fingerprint() != first


@pytest.mark.parametrize("file", ["table.json", "encoder.keras", "test.parquet", "train/meta.json"])
def test_a_damaged_one_is_made_again(options, caplog, file, tmp_path):
    first = load_table_data(options).fingerprint()
    (folder,) = [p for p in (tmp_path / "runs" / ".tables").iterdir() if p.is_dir()]
    (folder / file).write_bytes(b"{")
    assert load_table_data(options).fingerprint() == first
    assert "made again" in caplog.text
    caplog.clear()
    assert load_table_data(options).fingerprint() == first
    assert "made again" not in caplog.text


def test_a_disk_that_takes_nothing_is_only_warned_of(options, caplog, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert len(load_table_data(options).train) == 256
    assert "could not be kept" in caplog.text
