from __future__ import annotations

import os
import resource
import signal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from kerastrain.data.tables.writing import ROW_GROUP_ROWS, TableWriter, check_output
from kerastrain.errors import DataError, UsageError

PART = pa.table({"id": ["a", "b"], "p": [0.5, 1.5]})


def check(path, overwrite=False):
    check_output(path, flag="output", suffixes=(".parquet", ".csv"), overwrite=overwrite)


@pytest.mark.parametrize("name", ["out.parquet", "out.PQ", "out.csv"])
def test_parts_become_one_file(tmp_path, name):
    with TableWriter(tmp_path / name) as writer:
        writer.write(PART)
        writer.write(PART)
        assert writer.rows == 4
    is_csv = name.endswith("csv")
    read = pyarrow.csv.read_csv if is_csv else pyarrow.parquet.read_table
    assert read(tmp_path / name) == pa.concat_tables([PART, PART]).combine_chunks()
    assert os.listdir(tmp_path) == [name]


def test_small_parts_are_gathered_into_row_groups(tmp_path):
    part = pa.table({"x": pa.array(range(ROW_GROUP_ROWS // 4))})
    with TableWriter(tmp_path / "x.parquet") as writer:
        for _ in range(6):
            writer.write(part)
    metadata = pyarrow.parquet.read_metadata(tmp_path / "x.parquet")
    sizes = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS // 2]


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
@pytest.mark.parametrize("error", [DataError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_before(tmp_path, name, error):
    (tmp_path / name).write_text("before")
    with pytest.raises(error), TableWriter(tmp_path / name) as writer:
        writer.write(PART)
        raise error("row 3 is bad")
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "before"


def test_the_file_is_not_there_before_it_is_complete(tmp_path):
    with TableWriter(tmp_path / "out.parquet") as writer:
        writer.write(PART)
        assert not (tmp_path / "out.parquet").exists()
    assert (tmp_path / "out.parquet").exists()


def test_without_rows_no_file_is_made(tmp_path):
    with TableWriter(tmp_path / "out.parquet"):
        pass
    assert os.listdir(tmp_path) == []


def test_later_parts_get_the_types_of_the_first(tmp_path):
    with TableWriter(tmp_path / "out.parquet") as writer:
        writer.write(PART)
        writer.write(pa.table({"id": pa.array([None], pa.null()), "p": [2]}))
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()[2:] == [
        {"id": None, "p": 2.0}
    ]


def test_a_part_that_does_not_fit_is_an_error(tmp_path):
    with (
        pytest.raises(DataError, match=r"out.parquet cannot be written: .*x"),
        TableWriter(tmp_path / "out.parquet") as writer,
    ):
        writer.write(PART)
        writer.write(pa.table({"id": ["c"], "p": ["x"]}))
    assert os.listdir(tmp_path) == []


def test_a_type_that_csv_has_not_is_an_error(tmp_path):
    with (
        pytest.raises(DataError, match=r"out.csv cannot be written"),
        TableWriter(tmp_path / "out.csv") as writer,
    ):
        writer.write(pa.table({"x": [[1, 2], [3]]}))
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with (
            pytest.raises(DataError, match=r"out.parquet cannot be written"),
            TableWriter(tmp_path / "out.parquet") as writer,
        ):
            writer.write(pa.table({"x": [os.urandom(20_000)]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_or_must_not_be_written_are_refused(tmp_path):
    (tmp_path / "there.csv").write_text("")
    check(tmp_path / "new.parquet")
    check(tmp_path / "there.csv", overwrite=True)
    with pytest.raises(UsageError, match="is there already"):
        check(tmp_path / "there.csv")
    with pytest.raises(UsageError, match=r"must end in \.parquet or \.csv"):
        check(tmp_path / "new.txt")
    with pytest.raises(UsageError, match="there is no folder"):
        check(tmp_path / "nowhere" / "new.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check(tmp_path / "folder.csv")
