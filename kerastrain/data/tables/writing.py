"""Writing a table part by part: a file that is complete, or not there.

    with TableWriter(Path("predictions.parquet")) as writer:
        writer.write(table)        # as often as need be; all of the same columns

What is written goes to a hidden file beside the output, and gets the output's name
when everything is in it. An error leaves nothing; so does Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from kerastrain.errors import DataError, UsageError
from kerastrain.workdir import check_file, sync

PARQUET, CSV = (".parquet", ".pq"), (".csv",)
# Readers of Parquet work by row groups, and small ones cost them much.
ROW_GROUP_ROWS = 65_536


def check_output(path: Path, *, flag: str, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """Raises UsageError when a file cannot or must not be written there."""
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"--{flag}={path} must end in {' or '.join(suffixes)}.")
    check_file(path, flag=flag)
    if path.exists() and not overwrite:
        raise UsageError(
            f"--{flag}={path} is there already. Give another name, or --overwrite to replace it."
        )


class TableWriter:
    """Writes Parquet, or CSV to a name that ends in .csv; used as a context.

    Raises:
        DataError: from any call: the disk is full, a type cannot be written, a part differs
            from the first one in its columns.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows = 0
        # With the process's number, so that two at once do not write into one file.
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._schema = pa.schema([])
        self._writer: Any = None
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> TableWriter:
        return self

    def write(self, table: pa.Table) -> None:
        """Adds rows; they have the columns and types of the first ones."""
        with self._errors_told():
            if self._writer is None:
                self._schema = table.schema
                self._writer = self._open()
            self._waiting.append(table.cast(self._schema))
            self.rows += table.num_rows
            if sum(len(part) for part in self._waiting) >= ROW_GROUP_ROWS:
                self._flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._writer is not None:
                self._finish()
        finally:
            self._discard()

    def _open(self) -> Any:
        is_csv = self.path.suffix.lower() in CSV
        kind = pyarrow.csv.CSVWriter if is_csv else pyarrow.parquet.ParquetWriter
        return kind(self._partial, self._schema)

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []

    def _finish(self) -> None:
        with self._errors_told():
            self._flush()
            self._writer.close()
            sync(self._partial)
            os.replace(self._partial, self.path)
            sync(self.path.absolute().parent)

    def _discard(self) -> None:
        """Nothing is left of what was not finished."""
        with contextlib.suppress(OSError, pa.ArrowException):
            if self._writer is not None:
                self._writer.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{self.path} cannot be written: {reason}.") from error
