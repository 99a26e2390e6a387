"""CSV by pyarrow: whole with all threads, or block by block with the same types.

    file = DelimitedFile(Path("housing.csv.gz"), TableFormat())
    table = file.read(file.names, types={})                      # types are inferred
    for block in file.blocks(file.names, file.types(file.names)): ...

Spaces around values are removed; an empty field, NA, ?, nan and NULL are missing
values. True and False stay text, as they are in the file. How a file is laid out is
found in layout.py and header.py.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from kerastrain.data.tables.content import MISSING, Place, cast_column, widened
from kerastrain.data.tables.layout import TableFormat, read_layout
from kerastrain.data.tables.lines import (
    SPACES,
    describe_bad_lines,
    is_gzip,
    not_text,
    open_bytes,
    open_lines,
    tabbed,
)
from kerastrain.errors import DataError

# Lines such as "39, ?, Private" are common: pyarrow does not trim before it compares.
_MISSING_PADDED = [
    " " * before + text + " " * after
    for text in MISSING
    for before in range(5)
    for after in range(3)
]
_BLOCK_BYTES = 1 << 20
_GZIP_RATIO = 5


class DelimitedFile:
    """One CSV file. Types are Arrow's: int64, double, date32, time32, timestamp, string.

    Attributes:
        names: of its columns.

    Raises (all methods too):
        DataError: as `layout.read_layout`; lines have a wrong number of fields (they are
            named); a value has not the type that is given; the text has another encoding.
    """

    def __init__(self, path: Path, table_format: TableFormat):
        self.path = path
        self._layout = read_layout(path, table_format)
        self.names = list(self._layout.names)

    @property
    def nbytes_estimate(self) -> int:
        """Of the table in memory: about as large as the text."""
        return self.path.stat().st_size * (_GZIP_RATIO if is_gzip(self.path) else 1)

    def read(self, names: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        """These columns whole; the types of those not in `types` are inferred from all values."""
        try:
            table = self._parsed(names, types)
        except pa.ArrowInvalid:  # as in `blocks`
            table = self._parsed(names, dict.fromkeys(types, pa.string()))
        self._check_end(table, table.num_rows)
        return self._finished(table, names, types)

    def blocks(self, names: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        """The same rows in blocks of some megabytes. `types` has every name."""
        done = 0
        try:
            for rows_before, table in self._parsed_blocks(names, types):
                yield self._finished(table, names, types, rows_before)
                done = rows_before + table.num_rows
            return
        except pa.ArrowInvalid:
            # A value has not its type, or has it only without the spaces around it, which
            # pyarrow does not remove from all types. Casting tells, and names the value.
            texts = dict.fromkeys(names, pa.string())
        for rows_before, table in self._parsed_blocks(names, texts):
            skipped = max(done - rows_before, 0)
            if skipped < table.num_rows:
                rest = table.slice(skipped)
                yield self._finished(rest, names, types, rows_before + skipped)

    def types(self, names: Sequence[str]) -> dict[str, pa.DataType]:
        """The types that `read` would infer, found in bounded memory."""
        found = dict.fromkeys(names, pa.null())
        for block in self.blocks(names, dict.fromkeys(names, pa.string())):
            for name in names:
                found[name] = widened(found[name], block[name])
        return found

    def _parsed(self, names: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
        with self._described_errors(), self._stream() as stream:
            return pyarrow.csv.read_csv(stream, **self._settings(names, types))

    def _parsed_blocks(
        self, names: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> Iterator[tuple[int, pa.Table]]:
        """(rows before, table as pyarrow gives it), block by block."""
        rows, table = 0, None
        with self._described_errors(), self._stream() as stream:
            for batch in pyarrow.csv.open_csv(stream, **self._settings(names, types)):
                table = pa.Table.from_batches([batch])
                yield rows, table
                rows += table.num_rows
        self._check_end(table, rows)

    def _settings(
        self, names: Sequence[str], types: Mapping[str, pa.DataType]
    ) -> dict[str, object]:
        layout = self._layout
        # The last column shows whether a quote was never closed.
        last = {self.names[-1]: pa.string()} if self.names[-1] not in set(names) else {}
        return {
            "read_options": pyarrow.csv.ReadOptions(
                column_names=self.names,
                skip_rows=layout.blank_lines,
                skip_rows_after_names=int(layout.has_header),
                block_size=max(_BLOCK_BYTES, 4 * layout.line_bytes),
            ),
            "parse_options": pyarrow.csv.ParseOptions(
                delimiter="\t" if layout.separator == SPACES else layout.separator,
                # Otherwise a quoted line break at the border of two blocks is read wrongly.
                newlines_in_values=True,
            ),
            "convert_options": pyarrow.csv.ConvertOptions(
                include_columns=[*names, *last],
                column_types={name: _parsed_type(kind) for name, kind in types.items()} | last,
                null_values=_MISSING_PADDED,
                strings_can_be_null=True,
                # Clients send what is in the file, so True and False stay text.
                true_values=[],
                false_values=[],
            ),
        }

    def _stream(self) -> pa.NativeFile | IO[bytes]:
        if self._layout.separator == SPACES:
            return io.BufferedReader(_TabbedLines(open_lines(self.path, self._layout.encoding)))
        return open_bytes(self.path, self._layout.encoding)

    def _finished(
        self,
        table: pa.Table,
        names: Sequence[str],
        types: Mapping[str, pa.DataType],
        rows_before: int = 0,
    ) -> pa.Table:
        """Without spaces around text, of the types given, or else of the narrowest."""
        columns = []
        for name in names:
            column = table[name]
            if pa.types.is_binary(column.type):
                # That is how pyarrow marks text that is not UTF-8.
                raise DataError(self._not_text(f"column '{name}'"))
            kind = types.get(name, column.type)
            if pa.types.is_string(column.type):
                column = _trimmed(column)
                kind = types.get(name) or widened(pa.null(), column)
            columns.append(cast_column(column, kind, Place(self.path, name, rows_before)))
        return pa.table(columns, names=list(names))

    def _check_end(self, table: pa.Table | None, rows: int) -> None:
        """Raises DataError if there are no rows, or the file ends within a quoted value.

        pyarrow takes the end of the file for the end of a quoted value. When that value is
        the last of its row, all that follows an unclosed quote would be lost without a word.
        """
        if table is None or rows == 0:
            raise DataError(f"'{self.path}' has a header but no rows.")
        value = table[self.names[-1]][-1].as_py() if self.names[-1] in table.column_names else None
        if not isinstance(value, str) or "\n" not in value:
            return
        with open_lines(self.path, self._layout.encoding) as lines:
            last_line = ""
            for line in lines:
                last_line = line.strip() or last_line
        if not last_line.endswith('"'):
            raise DataError(
                f"'{self.path}' ends within a quoted value: a quote in its row {rows} is never "
                f"closed, and all that follows would belong to the value {value[:60]!r}…"
            )

    @contextlib.contextmanager
    def _described_errors(self) -> Iterator[None]:
        """Errors as DataError, but for values that have not the type that is given."""
        layout = self._layout
        try:
            yield
        except UnicodeDecodeError as error:
            raise DataError(self._not_text("the text")) from error
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error):
                raise DataError(self._not_text("the header or a column")) from error
            if "conversion error" in str(error):
                raise
            bad = describe_bad_lines(
                self.path,
                layout.separator,
                len(self.names),
                has_header=layout.has_header,
                encoding=layout.encoding,
            )
            other = f"'{self.path}' cannot be read as CSV: {str(error)[:300]}"
            raise DataError(bad or other) from error

    def _not_text(self, where: str) -> str:
        return not_text(self.path, where, self._layout.encoding)


class _TabbedLines(io.RawIOBase):
    """Lines with runs of spaces as bytes with one tab for each run."""

    def __init__(self, lines: io.TextIOWrapper):
        self._lines = lines
        self._waiting = bytearray()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._waiting) < len(buffer):
            line = self._lines.readline()
            if not line:
                break
            self._waiting += tabbed(line).encode("utf-8", errors="surrogateescape")
        taken = self._waiting[: len(buffer)]
        del self._waiting[: len(buffer)]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._lines.close()
        super().close()


def _parsed_type(kind: pa.DataType) -> pa.DataType:
    """What pyarrow parses itself; all else is cast from text."""
    parsed = (
        pa.types.is_null(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_timestamp(kind)
    )
    return kind if parsed else pa.string()


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(column)
    is_missing = pc.is_in(trimmed, pa.array(MISSING))
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed)
