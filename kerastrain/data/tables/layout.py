"""How a CSV file is laid out: its separator, its names, its encoding.

    layout = read_layout(Path("housing.csv.gz"), TableFormat())
    layout.separator, layout.names      # ",", ("longitude", "latitude", …)

The separator (`,` `;` tab `|`, or runs of spaces and tabs) is detected unless it is
said. Whether there is a header is never guessed: a first line that looks like data is
an error until `header` says what it is.
"""

from __future__ import annotations

import codecs
import io
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kerastrain.data.tables.header import check_header
from kerastrain.data.tables.lines import (
    SPACES,
    describe_bad_lines,
    not_text,
    numbered_rows,
    open_bytes,
)
from kerastrain.errors import DataError, OptionsError

SEPARATORS = (",", ";", "\t", "|")

_SEPARATOR_NAMES = {"tab": "\t", "\\t": "\t", "space": SPACES, "spaces": SPACES}
_HEAD_BYTES = 1 << 18
_HEAD_ROWS = 1000


@dataclass(frozen=True)
class TableFormat:
    """What is said about CSV files; None is detected. Parquet needs none of it.

    Attributes:
        separator: one character, or "tab"; " " or "space" stands for runs of spaces and tabs.
        header: whether the first line names the columns. Without, they are column_1, …
        encoding: as Python names it: "utf-8", "latin-1", "utf-16", …

    Raises:
        OptionsError: the separator or the encoding cannot be used.
    """

    separator: str | None = None
    header: bool | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        separator = _SEPARATOR_NAMES.get(self.separator or "", self.separator)
        if separator is not None and (len(separator) != 1 or separator in '"\r\n'):
            raise OptionsError(
                f"The separator {self.separator!r} cannot be used; expected one character such as "
                '"," or ";" or "|", or: tab, space (for runs of spaces).'
            )
        object.__setattr__(self, "separator", separator)
        try:
            name = codecs.lookup(self.encoding).name
            "".encode(name)  # some codecs, such as hex, are none of text
        except LookupError as error:
            raise OptionsError(
                f"There is no encoding '{self.encoding}'; expected one that Python knows, such as "
                "utf-8, latin-1, windows-1252, utf-16."
            ) from error
        object.__setattr__(self, "encoding", "utf-8" if name == "utf-8-sig" else name)


@dataclass(frozen=True)
class Layout:
    """How one file is to be read.

    Attributes:
        names: of the columns, without spaces around them.
        blank_lines: how many there are before the first line.
        line_bytes: the longest of the first lines.
    """

    separator: str
    has_header: bool
    names: tuple[str, ...]
    encoding: str
    blank_lines: int
    line_bytes: int


def read_layout(path: Path, table_format: TableFormat) -> Layout:
    """Detects what is not said, from the first lines.

    Raises:
        DataError: the file is empty, binary, in another encoding, has no rows, or a first
            line that has another number of fields than the others, or looks like data.
    """
    try:
        return _detected(path, table_format)
    except UnicodeDecodeError as error:
        raise DataError(not_text(path, "the text", table_format.encoding)) from error


def _detected(path: Path, table_format: TableFormat) -> Layout:
    head, is_whole = _head(path, table_format.encoding)
    separator = table_format.separator or detect_separator(head)
    rows = _rows(head, separator)
    if not is_whole and 1 < len(rows) < _HEAD_ROWS:
        rows.pop()  # A quoted value may have been cut.
    if not rows:
        raise DataError(
            f"The first line of '{path}' cannot be read; is a quote in it never closed?"
        )
    expected = _expected_fields(rows)
    has_header = table_format.header is not False
    if has_header and is_whole and len(rows) == 1:
        raise DataError(f"'{path}' has a header but no rows.")
    if has_header:
        _check_text(path, rows[0], table_format.encoding)
    if has_header and len(rows[0]) != expected:
        raise DataError(
            describe_bad_lines(
                path, separator, expected, has_header=True, encoding=table_format.encoding
            )
        )
    if table_format.header is None:
        check_header(path, rows)
    names = [name.strip() for name in rows[0]] if has_header else [""] * expected
    word = "unnamed" if has_header else "column"
    named = tuple(name or f"{word}_{place}" for place, name in enumerate(names, start=1))
    lines = head.splitlines()
    blank = next((n for n, line in enumerate(lines) if line), 0)
    longest = max(len(line.encode(errors="surrogateescape")) for line in lines)
    return Layout(separator, has_header, named, table_format.encoding, blank, longest)


def detect_separator(head: str) -> str:
    """The separator that gives most lines, and if possible the first too, the most fields.

    Args:
        head: the first lines of a CSV file. With one column, `,` is returned.
    """
    best, best_score = ",", (False, 1)
    for separator in SEPARATORS:
        fields, share, first = _fields(_rows(head, separator))
        score = (first == fields, fields)
        if fields > 1 and 2 * share > 1 and score > best_score:
            best, best_score = separator, score
    fields, share, _ = _fields(_rows(head, SPACES))
    # Aligned columns may have a tab somewhere, as in the UCI archive's auto-mpg.data;
    # otherwise spaces only part where nothing else does.
    is_aligned = best == "\t" and "  " in head and fields > best_score[1]
    if share == 1 and fields > 1 and (best_score[1] == 1 or is_aligned):
        return SPACES
    return best


def _fields(rows: list[list[str]]) -> tuple[int, float, int]:
    """(the usual number of fields, the share of rows that have it, that of the first row)"""
    counts = Counter(len(row) for row in rows)
    fields, times = max(counts.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    return fields, times / max(len(rows), 1), len(rows[0]) if rows else 0


def _expected_fields(rows: list[list[str]]) -> int:
    fields, share, first = _fields(rows)
    return fields if 2 * share > 1 and len(rows) > 2 else first


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """The first whole lines, as text, and whether that is the whole file."""
    with open_bytes(path, encoding) as stream:
        head, wanted = b"", _HEAD_BYTES
        while head.count(b"\n") < 3 and len(head) < wanted:
            more = stream.read(wanted - len(head))
            head += more
            if len(head) == wanted:
                wanted *= 2  # Lines are longer than that.
            elif not more:
                break
        is_whole = not stream.read(1)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"'{path}' is empty: it has no header line.")
    text = head.decode("utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        raise DataError(
            f"'{path}' is a binary file; expected CSV in UTF-8, or Parquet. If it is text in "
            "UTF-16, say --encoding=utf-16."
        )
    return (text if is_whole else text[: text.rfind("\n") + 1] or text), is_whole


def _check_text(path: Path, names: list[str], encoding: str) -> None:
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:  # surrogates
        raise DataError(not_text(path, "the header", encoding)) from error


def _rows(head: str, separator: str) -> list[list[str]]:
    numbered = numbered_rows(io.StringIO(head, newline=""), separator)
    return [row for _, row in itertools.islice(numbered, _HEAD_ROWS)]
