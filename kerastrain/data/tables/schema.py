"""Schema: which columns of a table are used, as what, and what is predicted.

    schema = infer_schema(table, target="income")
    schema.columns[0]                # Column("age", "age", "number", "float32", missing=0)
    schema.task                      # Classification(("<=50K", ">50K"))
    Schema.from_json(schema.to_json()) == schema

A schema says what columns *are*; what is learned from their values (means,
vocabularies) comes from the training rows alone, in encoding.py. It is written as
JSON beside a run, can be edited, and is given back by --schema (schema_file.py).

Numbers are numbers; bools, and whole numbers of which only 0 and 1 occur, are
booleans; text is a category; dates are dates. Whole numbers are the codes of a category
when the column's name says so ("zip", "area_code", "type_id"). Left out, each with its
reason: columns without values or with one value only, identifiers, and free text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.data.tables.columns import (
    float32_holds,
    has_zone,
    is_date,
    is_number,
    number_values,
)
from kerastrain.data.tables.target import infer_task
from kerastrain.errors import DataError, suggestion

logger = logging.getLogger(__name__)

Kind = Literal["number", "boolean", "category", "date"]
KINDS: tuple[Kind, ...] = ("number", "boolean", "category", "date")

# Text with more values than this share of the rows tells rows apart, not kinds of rows.
IDENTIFIER_SHARE = 0.5
# Below this many rows nothing is taken for an identifier.
IDENTIFIER_ROWS = 20
# Text of so many words on average is prose, not the name of a kind.
PROSE_WORDS = 6
# A column named like a code has at most so many values, each in ten rows on average.
MAX_CODES = 1000
ROWS_PER_CODE = 10
# float32 holds every whole number up to it; larger codes are sent as text.
MAX_FLOAT32_CODE = 2**24

_CODE_NAME = re.compile(r"(^|[_\-. ])(id|code|type|class|category|zip|zipcode|postcode)$", re.I)
_IDENTIFIER_NAME = re.compile(r"(^|[_\-. ]|(?<=[a-z]))(ID|Id|id|uuid|guid|key)$")
# What a column without a name is called here and by pandas, and pandas's index in Parquet.
_NO_NAME = re.compile(r"unnamed_\d+|Unnamed: \d+(\.\d+)*|__index_level_\d+__")
_NUMBER = r"^[+-]?(\d{1,3}(,\d{3})+|\d+)?\.?\d*([eE][+-]?\d+)?%?$"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Column:
    """A column that the model uses.

    Attributes:
        name: as in the file.
        input: its name in requests to the exported model: `name`, wherever
            TensorFlow can take that.
        kind: what it is.
        dtype: what clients send. "float32", NaN is missing: numbers, booleans (0 and 1),
            and categories of whole numbers; "float64" for numbers whose differences float32
            rounds away (seconds since 1970, say). "string", "" is missing: other categories, and
            dates in ISO 8601 ("2011-01-31", "2011-01-31T13:00:00"), times with a zone in UTC.
        missing: rows of the table without a value.
        has_zone: of dates, whether their times had a zone in training; None: not known, since
            they were text.
    """

    name: str
    input: str
    kind: Kind
    dtype: str = ""
    missing: int = 0
    has_zone: bool | None = None

    def __post_init__(self) -> None:
        if not self.dtype:
            usual = "float32" if self.kind in ("number", "boolean") else "string"
            object.__setattr__(self, "dtype", usual)


@dataclass(frozen=True)
class Schema:
    """The columns used, in the file's order; `left_out` gives for the others the reason."""

    columns: tuple[Column, ...]
    target: str
    task: Task
    left_out: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        task = {"kind": type(self.task).__name__.lower(), **asdict(self.task)}
        task.pop("positive", None)  # It is decided by options and training rows.
        return {
            "columns": [
                {name: value for name, value in asdict(column).items() if value is not None}
                for column in self.columns
            ],
            "target": self.target,
            "task": {k: list(v) if isinstance(v, tuple) else v for k, v in task.items()},
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Schema:
        """The schema that `to_json` wrote."""
        task = dict(values["task"])
        if task.pop("kind") == "classification":
            decided: Task = Classification(tuple(task["classes"]))
        else:
            decided = Regression(task["target"], tuple(task.get("quantiles", ())))
        return cls(
            tuple(Column(**column) for column in values["columns"]),
            values["target"],
            decided,
            tuple(values["left_out"].items()),
        )

    def sha256(self) -> str:
        """A hash of everything in it; equal for equal schemas, on any machine."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def infer_schema(
    table: pa.Table,
    target: str,
    *,
    source: str = "the table",
    task: str | None = None,
    quantiles: Sequence[float] = (),
    ignored: Mapping[str, str] | None = None,
) -> Schema:
    """Decides from all rows what each column is. What is left out is logged.

    Args:
        table: as `read_table` gives it.
        source: the file's name, for messages.
        task: "classification" or "regression"; None: decided from the target.
        quantiles: of the target's distribution that are to be predicted, for regression.
        ignored: columns that are not used, each with the reason.

    Raises:
        DataError: the target is not there or cannot be predicted; a column holds
            infinities or numbers too large for float32; no column can be used.
    """
    check_target(table.column_names, target, source=source)
    decided = infer_task(table[target], target, task=task, quantiles=quantiles)
    used: list[Column] = []
    left_out: dict[str, str] = {}
    for name in table.column_names:
        if name == target:
            continue
        column = table[name]
        reason = (ignored or {}).get(name) or _reason_to_leave_out(name, column)
        if reason:
            left_out[name] = reason
            logger.info("Column '%s' is left out: %s.", name, reason)
            if pa.types.is_string(column.type) and name not in (ignored or {}):
                _check_text(name, column)
            continue
        kind, dtype = _kind(name, column)
        check_values(name, kind, column, dtype=dtype)
        if kind == "number":
            _warn_of_numbering(name, column)
        zone = has_zone(column.type) if kind == "date" else None
        used.append(Column(name, "", kind, dtype, column.null_count, zone))
    if not used:
        reasons = "; ".join(f"'{name}': {reason}" for name, reason in left_out.items()) or "none"
        raise DataError(f"{source} has no column to predict '{target}' from. Left out: {reasons}.")
    inputs = input_names(column.name for column in used)
    columns = [dataclasses.replace(column, input=inputs[column.name]) for column in used]
    _log_renamed(columns)
    return Schema(tuple(columns), target, decided, tuple(left_out.items()))


def check_target(names: Sequence[str], target: str, *, source: str) -> None:
    """Raises DataError, with the columns and a suggestion, unless `target` is a column."""
    if target not in names:
        raise DataError(
            f"{source} has no column '{target}'. Its columns: {', '.join(names)}."
            f"{suggestion(target, names)}"
        )


def input_names(names: Iterable[str]) -> dict[str, str]:
    """For each column the name that requests use: the column's own wherever that is possible.

    Keras takes no "/" in the name of an input; the signature of a SavedModel loaded
    in Python takes no "self", and does not tell "a b", "a-b" and "a_b" apart.
    """
    inputs: dict[str, str] = {}
    taken = {"self"}
    for name in names:
        base = name.replace("/", "_") or "column"
        candidate, number = base, 1
        while _folded(candidate) in taken:
            number += 1
            candidate = f"{base}_{number}"
        taken.add(_folded(candidate))
        inputs[name] = candidate
    return inputs


def _folded(name: str) -> str:
    """As TensorFlow makes a Python argument of it."""
    return ("" if name[0].isalpha() else "arg_") + re.sub(r"\W", "_", name)


def _log_renamed(columns: Iterable[Column]) -> None:
    renamed = [f"'{c.name}' is '{c.input}'" for c in columns if c.name != c.input]
    if renamed:
        logger.info("In requests to the exported model, %s.", ", ".join(renamed))


def _kind(name: str, column: pa.ChunkedArray) -> tuple[Kind, str]:
    """What a column is, and what clients send for it."""
    if is_date(column.type):
        return "date", "string"
    if pa.types.is_string(column.type):
        return "category", "string"
    if pa.types.is_boolean(column.type):
        return "boolean", "float32"
    if not pa.types.is_integer(column.type):
        return "number", _number_dtype(name, column)
    span = pc.min_max(column)
    if span["min"].as_py() == 0 and span["max"].as_py() == 1:
        return "boolean", "float32"
    if _CODE_NAME.search(name):
        values = pc.count_distinct(column).as_py()
        if values <= MAX_CODES and ROWS_PER_CODE * values <= len(column):
            logger.info(
                "Column '%s' is used as a category of %d codes; where its numbers are amounts, "
                "say so in the schema.",
                name,
                values,
            )
            largest = max(abs(span["min"].as_py()), abs(span["max"].as_py()))
            return "category", "float32" if largest <= MAX_FLOAT32_CODE else "string"
    return "number", _number_dtype(name, column)


def _number_dtype(name: str, column: pa.ChunkedArray) -> str:
    if float32_holds(number_values(column)):
        return "float32"
    logger.info(
        "Column '%s' is sent in float64, since float32 rounds its differences away; the exported "
        "model then has no classify and regress signatures, whose requests are float32.",
        name,
    )
    return "float64"


def _reason_to_leave_out(name: str, column: pa.ChunkedArray) -> str | None:
    present = len(column) - column.null_count
    kind = column.type
    if present == 0:
        return "it has no values"
    if not (is_number(kind) or is_date(kind) or pa.types.is_string(kind)):
        return f"its type, {kind}, is not used"
    if is_number(kind):
        return _reason_for_number(name, column)
    distinct = pc.count_distinct(column).as_py()
    if distinct == 1 and present == len(column):
        return "it has one value only"
    if is_date(kind) or len(column) < IDENTIFIER_ROWS or distinct <= IDENTIFIER_SHARE * present:
        return None
    words = pc.mean(pc.add(pc.count_substring(column, " "), 1)).as_py()
    if words >= PROSE_WORDS:
        return f"it is free text ({words:.0f} words on average)"
    return f"it looks like an identifier ({distinct:,} different texts in {len(column):,} rows)"


def _reason_for_number(name: str, column: pa.ChunkedArray) -> str | None:
    span = pc.min_max(column)
    low, high = span["min"].as_py(), span["max"].as_py()
    if low == high and column.null_count == 0:
        return "it has one value only"
    rows = len(column)
    if not _is_whole(column):
        return None
    if _NO_NAME.fullmatch(name) and pc.count_distinct(column).as_py() > IDENTIFIER_SHARE * rows:
        return f"it looks like the index of the rows (whole numbers without a name, from {low})"
    if rows < IDENTIFIER_ROWS:
        return None
    is_numbering = high - low == rows - 1
    if not is_numbering and not _IDENTIFIER_NAME.search(name):
        return None
    if pc.count_distinct(column).as_py() < rows:
        return None
    if is_numbering:
        return f"it numbers the rows ({low} to {high})"
    return "it looks like an identifier (a different number in every row)"


def _is_whole(column: pa.ChunkedArray) -> bool:
    """Whether there is a whole number in every row, 3 or 3.0."""
    if column.null_count or not is_number(column.type) or pa.types.is_boolean(column.type):
        return False
    return pc.all(pc.equal(column, pc.round(column))).as_py() is True


def _warn_of_numbering(name: str, column: pa.ChunkedArray) -> None:
    """Says so when a number is different in every row and puts the rows in the file's order."""
    if len(column) < IDENTIFIER_ROWS or not _is_whole(column):
        return
    steps = np.diff(number_values(column))
    if (steps > 0).all() or (steps < 0).all():
        logger.warning(
            "Column '%s' holds a different whole number in every row, and orders the file. If it "
            "only numbers the rows, it tells nothing about new ones: --ignore_columns=%s.",
            name,
            name,
        )
    elif _NO_NAME.fullmatch(name):
        logger.warning(
            "Column '%s' has no name in the file. If it numbers the rows, leave it out: "
            "--ignore_columns=%s.",
            name,
            name,
        )


def check_values(
    name: str, kind: Kind, column: pa.ChunkedArray, *, dtype: str, first_row: int = 0
) -> None:
    """Raises DataError for values that cannot be used; warns of those that are likely wrong.

    Args:
        first_row: the number (from 0) of the column's first row, for messages.
    """
    if pa.types.is_string(column.type):
        _check_text(name, column)
    elif kind in ("number", "boolean"):
        _check_numbers(name, column, dtype, first_row)


def _check_numbers(name: str, column: pa.ChunkedArray, dtype: str, first_row: int) -> None:
    """Raises DataError for what float32 cannot hold; warns where it rounds away differences."""
    values = number_values(column)
    if len(values) == 0:
        return
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)  # They pass over NaN.
    if np.isnan(low):
        return
    largest = max(-low, high)
    if largest > _FLOAT32_MAX:
        bad = np.flatnonzero(np.abs(values) > _FLOAT32_MAX)
        raise DataError(
            f"Column '{name}' holds {len(bad):,} infinite or too large numbers, the first in row "
            f"{first_row + bad[0] + 1:,}: {values[bad[0]]}. Expected numbers up to "
            f"{_FLOAT32_MAX:.1e}; correct them, or leave them empty (missing)."
        )
    if dtype == "float32" and not float32_holds(values):
        logger.warning(
            "Column '%s' loses its differences in float32 (values near %g, spread %g); say "
            '"dtype": "float64" of it in the schema.',
            name,
            np.nanmean(values),
            np.nanstd(values),
        )


def _check_text(name: str, column: pa.ChunkedArray) -> None:
    """Warns when most values of a text column are numbers: a few others made it text."""
    texts = pc.drop_null(pc.unique(column))
    numeric = pc.match_substring_regex(texts, _NUMBER)
    others = texts.filter(pc.invert(numeric))
    if len(others) == len(texts) or len(texts) < 10 or 10 * len(others) > len(texts):
        return
    shown = ", ".join(repr(text) for text in others.to_pylist()[:3])
    logger.warning(
        "Column '%s' is taken for text, although nearly all of its values are numbers. %s",
        name,
        f"These are not: {shown}." if shown else "Remove thousands separators and % from them.",
    )
