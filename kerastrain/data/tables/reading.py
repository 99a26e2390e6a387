"""Reading a table: CSV (gzipped or not) and Parquet, by pyarrow with all threads.

    table = read_table("housing.csv.gz")     # pyarrow.Table, checked

What a file is, is read from its first bytes and not from its name. How CSV is
understood, and what counts as missing in it, is in delimited.py.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.delimited import read_csv
from kerastrain.errors import DataError, suggestion

_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook)",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUM": "a NumPy file",
    b"SQLi": "an SQLite database",
    b"ARRO": "an Arrow file",
}
_FOREIGN_START = {b"\xff\xfe": "UTF-16 text", b"\xfe\xff": "UTF-16 text"}


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """Reads a CSV or Parquet file whole.

    Returns:
        A table with at least one row and distinctly named columns, as
        `columns.plain_table` gives it: missing values are nulls.

    Raises:
        DataError: the file is missing, a folder, empty, damaged, in another
            format or encoding; it has no rows, columns of the same name, or lines
            with a wrong number of fields (the lines are named).
    """
    path = Path(path)
    start = _first_bytes(path)
    try:
        if start.startswith(_PARQUET):
            table = pyarrow.parquet.ParquetFile(path).read()
        elif path.suffix in (".parquet", ".pq"):
            raise DataError(
                f"'{path}' is named like a Parquet file but is none: it begins with "
                f"{start[:4]!r} instead of {_PARQUET!r}."
            )
        else:
            table = read_csv(path)
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' cannot be read; it may be damaged: {error}") from error
    return plain_table(_checked(table, path))


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; expected one CSV or Parquet file.")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.glob("*")] if path.parent.is_dir() else []
        raise DataError(f"There is no file '{path}'.{suggestion(path.name, siblings)}")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not start:
        raise DataError(f"'{path}' is empty (0 bytes).")
    foreign = _FOREIGN.get(start[:4]) or _FOREIGN_START.get(start[:2])
    if foreign:
        raise DataError(f"'{path}' is {foreign}; expected CSV in UTF-8, or Parquet.")
    return start


def _checked(table: pa.Table, path: Path) -> pa.Table:
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataError(
            f"'{path}' has more than one column named {', '.join(map(repr, twice))}; "
            "rename or remove them."
        )
    if table.num_rows == 0:
        raise DataError(f"'{path}' has a header but no rows.")
    return table
