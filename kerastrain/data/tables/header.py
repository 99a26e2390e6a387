"""Whether the first line of a CSV file names the columns, or is data already.

    check_header(path, [["39", "Private"], ["50", "Private"], …])   # raises DataError

Nothing is guessed: where the first line looks like those below it, the user is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from kerastrain.data.tables.content import MISSING
from kerastrain.errors import DataError

_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?")
_SAY_HEADER = (
    "Say --header=false if it is data (the columns are then column_1, column_2, …), or "
    "--header=true if it holds the names."
)


def check_header(path: Path, rows: list[list[str]]) -> None:
    """Raises DataError where the first row holds numbers only, or looks like those that follow.

    Args:
        rows: the fields of the first lines, the first of all included.
    """
    first = [value.strip() for value in rows[0]]
    present = [value for value in first if value not in MISSING]
    shown = ", ".join(first[:5]) + (", …" if len(first) > 5 else "")
    if present and all(map(_is_number, present)):
        raise DataError(
            f"The first line of '{path}' holds numbers only ({shown}); "
            f"expected the names of the columns. {_SAY_HEADER}"
        )
    columns = list(zip(*(row for row in rows[1:] if len(row) == len(first)), strict=True))
    if not columns:
        return
    if _is_alike(first, columns) or _recurs(rows):
        raise DataError(
            f"The first line of '{path}' looks like data ({shown}), as the lines that follow it; "
            f"expected the names of the columns. {_SAY_HEADER}"
        )


def _is_alike(first: list[str], columns: list[tuple[str, ...]]) -> bool:
    """Numbers and dates stand in the first line wherever they stand in all lines below it."""
    telling = 0
    for value, below in zip(first, columns, strict=True):
        is_kind = _kind(below)
        if is_kind is None or value in MISSING:
            continue
        if not is_kind(value):
            return False
        telling += 1
    return telling > 0


def _kind(values: Iterable[str]) -> Callable[[str], object] | None:
    """`_is_number` or `_is_date`, if that holds for all values; None for text."""
    present = [text for text in map(str.strip, values) if text not in MISSING]
    return next((k for k in (_is_number, _is_date) if present and all(map(k, present))), None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


def _recurs(rows: list[list[str]]) -> bool:
    """Every value of the first line occurs again in its column, in other lines than its like.

    Names hardly ever do; first rows of tables of text (the UCI archive's mushrooms) do.
    """
    first = rows[0]
    others = [row for row in rows[1:] if len(row) == len(first) and row != first]
    columns = list(zip(*others, strict=True))
    present = [place for place, value in enumerate(first) if value.strip() not in MISSING]
    return (
        bool(columns)
        and len(present) > 1
        and all(first[place] in columns[place] for place in present)
    )
