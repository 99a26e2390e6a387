"""CSV: separator and header, missing values, and which lines are wrong.

    table = read_csv(Path("housing.csv.gz"))     # `reading.read_table` does, for CSV

The separator (`,` `;` tab `|`) is detected; the first line names the columns; spaces
around values are removed; an empty field, NA, ?, nan and NULL are missing values.
True and False stay text, as they are in the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from kerastrain.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
MISSING = ("", "NA", "N/A", "n/a", "?", "nan", "NaN", "NAN", "NULL", "null")

_GZIP = b"\x1f\x8b"
_HEAD_BYTES = 1 << 18


def read_csv(path: Path) -> pa.Table:
    """A CSV file in UTF-8, gzipped or not, whole.

    Raises:
        DataError: it has no header or no rows, is not UTF-8, or has lines with a
            wrong number of fields (they are named).
    """
    head = _head(path)
    separator = detect_separator(head)
    # Lines such as "39, ?, Private" are common: pyarrow does not trim before it compares.
    missing = [*MISSING, *(f" {text}" for text in MISSING)]
    try:
        with _open_bytes(path) as stream:
            table = pyarrow.csv.read_csv(
                stream,
                # Without newlines_in_values a quoted line break at the border of two
                # blocks would be read wrongly.
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=separator, newlines_in_values=True
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    null_values=missing,
                    strings_can_be_null=True,
                    # Clients send what is in the file, so True and False stay text.
                    true_values=[],
                    false_values=[],
                ),
            )
        names = [name.strip() for name in table.column_names]
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(path, "the header")) from error
    except pa.ArrowInvalid as error:
        raise DataError(_described(path, separator, error)) from error
    names = [name or f"unnamed_{place}" for place, name in enumerate(names, start=1)]
    _check_header(path, names)
    _check_last_quote(path, table)
    return _trimmed(path, table.rename_columns(names))


def detect_separator(head: str) -> str:
    """The separator under which the header has the most fields and most lines have as many.

    Args:
        head: the first lines of a CSV file. With one column, `,` is returned.
    """
    best, best_fields = ",", 1
    for separator in SEPARATORS:
        numbered = itertools.islice(_numbered_rows(io.StringIO(head, newline=""), separator), 1000)
        counts = [len(row) for _, row in numbered]
        fields = counts[0] if counts else 0
        if fields > best_fields and 2 * counts.count(fields) > len(counts):
            best, best_fields = separator, fields
    return best


def _head(path: Path) -> str:
    """The first whole lines, as text; undecodable bytes are found by the reader later."""
    with _open_bytes(path) as stream:
        head = stream.read(_HEAD_BYTES)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"'{path}' is empty: it has no header line.")
    if b"\x00" in head:
        raise DataError(f"'{path}' is a binary file; expected CSV in UTF-8, or Parquet.")
    if len(head) < _HEAD_BYTES and len(head.strip().splitlines()) == 1:
        raise DataError(f"'{path}' has a header but no rows.")
    if len(head) == _HEAD_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head
    return head.decode("utf-8-sig", errors="replace")


def _open_bytes(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
    return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]


def _check_header(path: Path, names: list[str]) -> None:
    if all(_is_number(name) for name in names):
        raise DataError(
            f"The first line of '{path}' holds numbers only ({', '.join(names[:5])}…); "
            "expected the names of the columns. Add a header line."
        )


def _check_last_quote(path: Path, table: pa.Table) -> None:
    """pyarrow takes the end of the file for the end of a quoted value. When that value is
    the last of its row, all that follows an unclosed quote would be lost without a word."""
    if table.num_rows == 0 or not pa.types.is_string(table.schema[-1].type):
        return
    value = table.column(table.num_columns - 1)[-1].as_py()
    if value is None or "\n" not in value:
        return
    last_line = b""
    with _open_bytes(path) as lines:
        for line in lines:
            last_line = line.strip() or last_line
    if not last_line.endswith(b'"'):
        raise DataError(
            f"'{path}' ends within a quoted value: a quote in its row {table.num_rows} is never "
            f"closed, and all that follows would belong to the value {value[:60]!r}…"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _trimmed(path: Path, table: pa.Table) -> pa.Table:
    """Removes spaces around text; bytes that are no text are an error."""
    for place, field in enumerate(table.schema):
        if pa.types.is_binary(field.type):
            # That is how pyarrow marks text that is not UTF-8.
            raise DataError(_not_utf8(path, f"column '{field.name}'"))
        if pa.types.is_string(field.type):
            trimmed = pc.utf8_trim_whitespace(table.column(place))
            table = table.set_column(place, field.name, trimmed)
    return table


def _not_utf8(path: Path, where: str) -> str:
    return (
        f"'{path}' is not UTF-8: {where} holds other bytes. "
        f"Convert it, for instance: iconv -f WINDOWS-1252 -t UTF-8 '{path}' > utf8.csv"
    )


def _described(path: Path, separator: str, error: Exception) -> str:
    """Names the lines with a wrong number of fields; pyarrow's own message if there are none."""
    bad = list(itertools.islice(_bad_lines(path, separator), 3))
    if not bad:
        return f"'{path}' cannot be read as CSV: {str(error)[:300]}"
    shown = [
        f"line {line} has {fields} field{'s' * (fields != 1)}: {text[:60]!r}"
        for line, fields, _, text in bad
    ]
    return (
        f"'{path}' has lines with a wrong number of fields. The header has {bad[0][2]}, "
        f"separated by {separator!r}; {'; '.join(shown)}. Correct or remove them."
    )


def _bad_lines(path: Path, separator: str) -> Iterator[tuple[int, int, int, str]]:
    """(line number, fields, fields expected, text) of lines that differ from the header."""
    with io.TextIOWrapper(_open_bytes(path), "utf-8-sig", errors="replace", newline="") as lines:
        expected = 0
        for line, row in _numbered_rows(lines, separator):
            expected = expected or len(row)
            if len(row) != expected:
                yield line, len(row), expected, separator.join(row)


def _numbered_rows(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of each row that is not blank, up to the first
    that the csv module refuses: an unclosed quote makes a field of all that follows."""
    reader = csv.reader(lines, delimiter=separator)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error:
            return
        if row is None:
            return
        if row:
            yield line, row
