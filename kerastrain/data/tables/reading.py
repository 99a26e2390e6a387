"""Reading a table: CSV (gzipped or not) and Parquet; a file, a folder of files, or a glob.

    table = read_table("housing.csv.gz")                  # pyarrow.Table, checked
    files = open_table("data/part-*.parquet")             # read in the order of their names
    for batch in files.batches(["age", "income"]): ...    # the same rows, in bounded memory

What a file is, is read from its first bytes and not from its name. How CSV is
understood, and what counts as missing in it, is in layout.py, header.py and delimited.py.
Types are the same however a table is read: those that fit all values of all files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from kerastrain.data.tables.columnar import ParquetFile
from kerastrain.data.tables.columns import plain_table
from kerastrain.data.tables.content import common_type
from kerastrain.data.tables.delimited import DelimitedFile
from kerastrain.data.tables.finding import find_files
from kerastrain.data.tables.layout import TableFormat
from kerastrain.errors import DataError, suggestion

__all__ = ["TableFiles", "TableFormat", "open_table", "read_table"]

_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive (or an Excel workbook)",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUM": "a NumPy file",
    b"SQLi": "an SQLite database",
    b"ARRO": "an Arrow file",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

Part = DelimitedFile | ParquetFile


def read_table(path: str | os.PathLike[str]) -> pa.Table:
    """Reads CSV or Parquet whole: `open_table(path).read()`."""
    return open_table(path).read()


def open_table(
    path: str | os.PathLike[str],
    *,
    table_format: TableFormat | None = None,
    column_types: Mapping[str, pa.DataType] | None = None,
) -> TableFiles:
    """Finds the files of a table and checks that they belong together; reads no rows yet.

    Args:
        path: a file; a folder, of which all .csv, .tsv, .txt, .data (gzipped or not),
            .parquet and .pq are read, in the order of their names; or a glob.
        table_format: of CSV, where it is not to be detected.
        column_types: the types of some columns. A name that the table lacks is ignored.

    Raises:
        DataError: nothing is there; a file is empty, damaged, in another format or
            encoding; CSV and Parquet are mixed; columns differ between files, or have
            the same name.
    """
    table_format = table_format or TableFormat()
    files = find_files(os.fspath(path))
    parts = [_opened(file, table_format) for file in files]
    for part in parts:
        _check_belongs(part, parts[0])
    return TableFiles(os.fspath(path), parts, table_format, column_types or {})


class TableFiles:
    """The files of one table, all CSV or all Parquet.

    Attributes:
        files: in the order in which they are read.
        column_names: of the first file; the others have the same, in any order.
        index_names: of those that pandas had as the index of its rows, in Parquet.
        nbytes_estimate: roughly, of the whole table in memory.
    """

    def __init__(
        self,
        source: str,
        parts: Sequence[Part],
        table_format: TableFormat,
        column_types: Mapping[str, pa.DataType],
    ):
        self._source = source
        self._parts = parts
        self._format = table_format
        self.files = tuple(part.path for part in parts)
        self.column_names = list(parts[0].names)
        self.index_names = list(getattr(parts[0], "index_names", ()))
        self.nbytes_estimate = sum(part.nbytes_estimate for part in parts)
        self._said = dict(column_types)
        # The types of columns, as far as they are known: said, or found in all files.
        self._types = {n: t for n, t in column_types.items() if n in self.column_names}

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of these columns (all), as `columns.plain_table` gives them: missing
        values are nulls.

        Raises:
            DataError: there is no such column; lines have a wrong number of fields (they
                are named); a value is not of the type said (column and row are named).
        """
        names = self._chosen(columns)
        # CSV finds its types while it is read; asked for them, it would be read twice.
        if isinstance(self._parts[0], ParquetFile):
            self._find_types(names)
        tables = [self._read_part(part, names) for part in self._parts]
        for name in names:
            if name not in self._types:
                self._types[name] = self._joined(name, [t.schema.field(name).type for t in tables])
        tables = [
            self._as_known(part, table) for part, table in zip(self._parts, tables, strict=True)
        ]
        return plain_table(pa.concat_tables(tables))

    def batches(
        self, columns: Sequence[str] | None = None, *, rows: int = 65_536
    ) -> Iterator[pa.Table]:
        """The rows of `read` in the same order and types, `rows` at a time; the last may
        be fewer. Memory is bounded; CSV is read twice the first time, once for its types.

        Raises:
            DataError: as `read`.
        """
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        names = self._chosen(columns)
        return _regrouped(self._blocks(names), rows)

    def with_text(self, names: Collection[str]) -> TableFiles:
        """The same files, these columns read as text: in CSV as written, 02134 for 02134."""
        types = {**self._said, **dict.fromkeys(names, pa.string())}
        return TableFiles(self._source, self._parts, self._format, types)

    def content_sha256(self) -> str:
        """A hash of the bytes of all files in order, of the format and the types said."""
        types = sorted((name, str(kind)) for name, kind in self._said.items())
        said = [self._format.separator, self._format.header, self._format.encoding, types]
        digest = hashlib.sha256(json.dumps(said).encode())
        with _readable(self._source):
            for file in self.files:
                digest.update(f"\n{file.stat().st_size}\n".encode())
                with file.open("rb") as stream:
                    while chunk := stream.read(1 << 20):
                        digest.update(chunk)
        return digest.hexdigest()

    def _chosen(self, columns: Sequence[str] | None) -> list[str]:
        if columns is None:
            return list(self.column_names)
        known = set(self.column_names)
        for name in columns:
            if name not in known:
                raise DataError(
                    f"'{self._source}' has no column '{name}'. Its columns: "
                    f"{', '.join(self.column_names)}.{suggestion(name, self.column_names)}"
                )
        return list(dict.fromkeys(columns))

    def _read_part(self, part: Part, names: Sequence[str]) -> pa.Table:
        known = {name: self._types[name] for name in names if name in self._types}
        with _readable(part.path):
            return part.read(names, known)

    def _as_known(self, part: Part, table: pa.Table) -> pa.Table:
        """The table; columns that other files need wider are read again, not converted:
        02134 that was read as a number would never be 02134 again."""
        other = [f.name for f in table.schema if not f.type.equals(self._types[f.name])]
        if not other:
            return table
        again = self._read_part(part, other)
        columns = dict(zip(table.column_names, table.columns, strict=True))
        return pa.table(columns | dict(zip(other, again.columns, strict=True)))

    def _blocks(self, names: Sequence[str]) -> Iterator[pa.Table]:
        self._find_types(names)
        types = {name: self._types[name] for name in names}
        for part in self._parts:
            with _readable(part.path):
                yield from map(plain_table, part.blocks(names, types))

    def _find_types(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self._types]
        if not unknown:
            return
        found = []
        for part in self._parts:
            with _readable(part.path):
                found.append(part.types(unknown))
        for name in unknown:
            self._types[name] = self._joined(name, [types[name] for types in found])

    def _joined(self, name: str, kinds: Sequence[pa.DataType]) -> pa.DataType:
        """The type for the column's values in all files."""
        joined = kinds[0]
        for kind, file in zip(kinds, self.files, strict=True):
            wider = common_type(joined, kind)
            if wider is None:
                raise DataError(
                    f"Column '{name}' is {kind} in '{file}', but {joined} in the files before it; "
                    "expected types that go together. Convert one of them."
                )
            joined = wider
        return joined


def _opened(path: Path, table_format: TableFormat) -> Part:
    start = _first_bytes(path, table_format)
    with _readable(path):
        is_parquet = start.startswith(_PARQUET)
        part = ParquetFile(path) if is_parquet else DelimitedFile(path, table_format)
    twice = [name for name, count in Counter(part.names).items() if count > 1]
    if twice:
        raise DataError(
            f"'{path}' has more than one column named {', '.join(map(repr, twice))}; "
            "rename or remove them."
        )
    return part


def _first_bytes(path: Path, table_format: TableFormat) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not start:
        raise DataError(f"'{path}' is empty (0 bytes).")
    foreign = _FOREIGN.get(start[:4])
    if foreign:
        raise DataError(f"'{path}' is {foreign}; expected CSV in UTF-8, or Parquet.")
    if start.startswith(_UTF16) and not table_format.encoding.startswith("utf-16"):
        raise DataError(
            f"'{path}' is UTF-16 text; expected CSV in UTF-8, or Parquet. Say --encoding=utf-16."
        )
    if path.suffix in (".parquet", ".pq") and not start.startswith(_PARQUET):
        raise DataError(
            f"'{path}' is named like a Parquet file but is none: it begins with "
            f"{start[:4]!r} instead of {_PARQUET!r}."
        )
    return start


def _check_belongs(part: Part, first: Part) -> None:
    if type(part) is not type(first):
        raise DataError(
            f"'{first.path}' and '{part.path}' are not both CSV or both Parquet; expected files "
            "of one format. Name those that are meant by a pattern, such as 'part-*.csv'."
        )
    ours, theirs = set(part.names), set(first.names)
    lacks = [repr(name) for name in first.names if name not in ours]
    besides = [repr(name) for name in part.names if name not in theirs]
    if lacks or besides:
        differences = [f"it lacks {', '.join(lacks)}"] * bool(lacks)
        differences += [f"it has besides {', '.join(besides)}"] * bool(besides)
        raise DataError(
            f"'{part.path}' has other columns than '{first.path}': {'; '.join(differences)}. "
            "All files of a table have the same columns."
        )


@contextlib.contextmanager
def _readable(path: object) -> Iterator[None]:
    """Errors of reading as DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise DataError(f"'{path}' cannot be read; it may be damaged: {error}") from error


def _regrouped(blocks: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows; the last may be shorter."""
    waiting: list[pa.Table] = []
    count = 0
    for block in blocks:
        while count + block.num_rows >= rows:
            taken = rows - count
            yield pa.concat_tables([*waiting, block.slice(0, taken)]).combine_chunks()
            block, waiting, count = block.slice(taken), [], 0
        if block.num_rows:
            waiting.append(block)
            count += block.num_rows
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
