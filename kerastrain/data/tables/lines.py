"""CSV as lines and rows of text: unpacked, decoded, numbered, and the wrong ones named.

    with open_lines(path, "utf-8") as lines:
        for line, fields in numbered_rows(lines, ","): ...
    print(describe_bad_lines(path, ",", 15, has_header=True, encoding="utf-8"))

Tables themselves are read by pyarrow, in delimited.py.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

SPACES = " "  # stands for runs of spaces and tabs

_GZIP = b"\x1f\x8b"
_QUOTED_OR_SPACES = re.compile(r'"(?:[^"]|"")*"|[ \t]+')


def is_gzip(path: Path) -> bool:
    """By its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def open_bytes(path: Path, encoding: str) -> pa.NativeFile:
    """The file's text as UTF-8, unpacked. Bytes of UTF-8 itself are not looked at."""
    stream = pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None)
    return stream if encoding == "utf-8" else pa.transcoding_input_stream(stream, encoding, "utf-8")


def open_lines(path: Path, encoding: str) -> io.TextIOWrapper:
    """The same as text, line by line. Bytes that are no text come as surrogates."""
    return io.TextIOWrapper(
        io.BufferedReader(open_bytes(path, encoding)),
        "utf-8-sig",
        errors="surrogateescape",
        newline="",
    )


def tabbed(line: str) -> str:
    """A line with runs of spaces and tabs, with one tab in place of each."""
    end = "\n" if line.endswith(("\n", "\r")) else ""
    return _QUOTED_OR_SPACES.sub(lambda m: m[0] if m[0][0] == '"' else "\t", line.strip()) + end


def numbered_rows(lines: Iterable[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of each row that is not blank, up to the first
    that the csv module refuses: an unclosed quote makes a field of all that follows."""
    if separator == SPACES:
        lines, separator = map(tabbed, lines), "\t"
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


def describe_bad_lines(
    path: Path, separator: str, expected: int, *, has_header: bool, encoding: str
) -> str:
    """Names the first lines with a wrong number of fields; "" if there are none."""
    with open_lines(path, encoding) as lines:
        wrong = (
            (line, row) for line, row in numbered_rows(lines, separator) if len(row) != expected
        )
        bad = list(itertools.islice(wrong, 3))
    if not bad:
        return ""
    shown = [
        f"line {line} has {len(row)} field{'s' * (len(row) != 1)}: {separator.join(row)[:60]!r}"
        for line, row in bad
    ]
    others = "The header has" if has_header and bad[0][0] > 1 else "Most lines have"
    parted = "runs of spaces" if separator == SPACES else repr(separator)
    return (
        f"'{path}' has lines with a wrong number of fields. {others} {expected}, separated by "
        f"{parted}; {'; '.join(shown)}. Correct or remove them."
    )


def not_text(path: Path, where: str, encoding: str) -> str:
    """What to do about bytes that are no text in this encoding."""
    advice = (
        f"Convert it, for instance: iconv -f WINDOWS-1252 -t UTF-8 '{path}' > utf8.csv, "
        "or say its encoding, for instance --encoding=windows-1252."
        if encoding == "utf-8"
        else "Say another --encoding."
    )
    return f"'{path}' is not {encoding.upper()}: {where} holds other bytes. {advice}"
