"""An encoded table on disk: the same data again, and never those of other files or options."""

from __future__ import annotations

import errno
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerastrain.data.tables import loading, streaming
from kerastrain.data.tables.cache import TableCache
from kerastrain.data.tables.loading import load_table_data
from kerastrain.errors import DataError
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


def folder_of(tmp_path: Path) -> Path:
    """The only encoded table."""
    (folder,) = (path for path in (tmp_path / "runs" / ".tables").iterdir() if path.is_dir())
    return folder


def forbid_encoding(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("the table was encoded again")

    monkeypatch.setattr(loading, "fit_encoder", refuse)


@pytest.mark.parametrize("stream", [False, True])
def test_the_positive_class_is_read_again(options, stream):
    first = load_table_data(changed(options, positive="no", stream=stream))
    again = load_table_data(changed(options, positive="no", stream=stream))
    assert first.task.positive == again.task.positive == "no"
    assert load_table_data(changed(options, stream=stream)).task.positive == "yes"


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


@pytest.mark.parametrize(
    "file", ["table.json", "encoder.keras", "test.parquet", "train/meta.json", "splits.npz"]
)
def test_a_damaged_one_is_made_again(options, caplog, file, tmp_path):
    first = load_table_data(options).fingerprint()
    (folder,) = [p for p in (tmp_path / "runs" / ".tables").iterdir() if p.is_dir()]
    (folder / file).write_bytes(b"{")
    assert load_table_data(options).fingerprint() == first
    assert "made again" in caplog.text
    caplog.clear()
    assert load_table_data(options).fingerprint() == first
    assert "made again" not in caplog.text


@pytest.mark.parametrize("file", ["splits.npz", "encoder.keras", "validation.parquet"])
def test_one_that_was_cut_off_is_made_again(options, caplog, file, tmp_path):
    first = load_table_data(options).fingerprint()
    path = folder_of(tmp_path) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert load_table_data(options).fingerprint() == first
    assert "made again" in caplog.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("file", ["train/array-0.bin", "test/array-1.bin", "test.parquet"])
def test_a_flipped_bit_is_noticed(options, caplog, stream, file, tmp_path):
    options = changed(options, stream=stream)
    first = load_table_data(options).fingerprint()
    path = folder_of(tmp_path) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)
    assert load_table_data(options).fingerprint() == first
    assert "made again" in caplog.text
    caplog.clear()
    load_table_data(options)
    assert "made again" not in caplog.text


@pytest.mark.parametrize("stream", [True, False])
def test_of_several_starts_at_once_one_encodes_and_all_read_it(options, stream, monkeypatch):
    options = changed(options, stream=stream)
    module = streaming if stream else loading
    encode, encoded = module.fit_encoder, []

    def slowly(*arguments, **named):
        encoded.append(1)
        time.sleep(0.5)
        return encode(*arguments, **named)

    monkeypatch.setattr(module, "fit_encoder", slowly)
    with ThreadPoolExecutor(3) as starts:
        found = list(starts.map(lambda _: load_table_data(options), range(3)))
    assert len(encoded) == 1
    assert len({data.fingerprint() for data in found}) == 1
    for data in found:
        assert len(np.asarray(data.train.targets)) == len(data.train)


def test_a_damaged_one_is_removed_while_no_other_start_reads_it(tmp_path):
    cache = TableCache(tmp_path / "tables" / "key")
    inside: list[str] = []

    def make(name):
        def write(folder):
            inside.append(name)
            assert not cache.folder.exists() and inside == [name]
            time.sleep(0.2)
            inside.remove(name)
            raise DataError(f"{name} could not")

        return write

    cache.folder.mkdir(parents=True)
    (cache.folder / "table.json").write_text("{}")
    with ThreadPoolExecutor(2) as starts:
        tried = [starts.submit(cache.read_or_make, make(name)) for name in "ab"]
    assert sorted(str(one.exception()) for one in tried) == ["a could not", "b could not"]
    assert sorted(path.name for path in cache.folder.parent.iterdir()) == ["key.lock"]


def test_one_on_a_disk_that_cannot_be_written_is_read(options, monkeypatch, tmp_path):
    first = load_table_data(options)
    forbid_encoding(monkeypatch)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert load_table_data(options).fingerprint() == first.fingerprint()


def test_what_the_table_lacks_is_told_and_nothing_is_left(options, tmp_path):
    with pytest.raises(DataError, match="no column 'c'"):
        load_table_data(changed(options, ignore_columns=("c",)))
    assert not [path for path in (tmp_path / "runs" / ".tables").iterdir() if path.is_dir()]


def test_a_disk_that_takes_nothing_is_only_warned_of(options, caplog, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert len(load_table_data(options).train) == 256
    assert "could not be kept" in caplog.text
