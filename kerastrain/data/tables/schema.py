"""Schema: which columns of a table are used, as what, and what is predicted.

    schema = infer_schema(table, target="income")
    schema.columns[0]                # Column(name="age", input="age", kind="number", missing=0)
    schema.task                      # Classification(("<=50K", ">50K"))
    Schema.from_json(schema.to_json()) == schema

A schema says what columns *are*; what is learned from their values (means,
vocabularies) comes from the training rows alone, in encoding.py.

Numbers and bools are numbers, text is a category. Left out, each with its
reason: columns without values or with one value only, integers that number the
rows, text with nearly as many values as rows, and dates.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.data.tables.columns import number_values
from kerastrain.data.tables.target import infer_task
from kerastrain.errors import DataError, suggestion

logger = logging.getLogger(__name__)

Kind = Literal["number", "category"]

# Text with more values than this share of the rows tells rows apart, not kinds of rows.
IDENTIFIER_SHARE = 0.5
# Below this many rows nothing is taken for an identifier.
IDENTIFIER_ROWS = 20

_NUMBER = r"^[+-]?(\d{1,3}(,\d{3})+|\d+)?\.?\d*([eE][+-]?\d+)?%?$"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Column:
    """A column that the model uses.

    Attributes:
        name: as in the file.
        input: its name in requests to the exported model: `name`, wherever
            TensorFlow can take that.
        kind: "number" (float32, NaN is missing) or "category" (string, "" is missing).
        missing: rows of the table without a value.
    """

    name: str
    input: str
    kind: Kind
    missing: int = 0


@dataclass(frozen=True)
class Schema:
    """The columns used, in the file's order; `left_out` gives for the others the reason."""

    columns: tuple[Column, ...]
    target: str
    task: Task
    left_out: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        task = {"kind": type(self.task).__name__.lower(), **asdict(self.task)}
        return {
            "columns": [asdict(column) for column in self.columns],
            "target": self.target,
            "task": {k: list(v) if isinstance(v, tuple) else v for k, v in task.items()},
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Schema:
        task = dict(values["task"])
        if task.pop("kind") == "classification":
            decided: Task = Classification(tuple(task["classes"]))
        else:
            decided = Regression(**task)
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


def infer_schema(table: pa.Table, target: str, *, source: str = "the table") -> Schema:
    """Decides from all rows what each column is. What is left out is logged.

    Args:
        table: as `read_table` gives it.
        source: the file's name, for messages.

    Raises:
        DataError: the target is not there or cannot be predicted; a column holds
            infinities or numbers too large for float32; no column can be used.
    """
    check_target(table, target, source=source)
    task = infer_task(table[target], target)
    used: list[tuple[str, Kind, int]] = []
    left_out: dict[str, str] = {}
    for name in table.column_names:
        if name == target:
            continue
        column = table[name]
        reason = _reason_to_leave_out(column)
        if reason:
            left_out[name] = reason
            logger.info("Column '%s' is left out: %s.", name, reason)
        else:
            kind: Kind = "category" if pa.types.is_string(column.type) else "number"
            (_check_numbers if kind == "number" else _check_text)(name, column)
            used.append((name, kind, column.null_count))
    if not used:
        reasons = "; ".join(f"'{name}': {reason}" for name, reason in left_out.items()) or "none"
        raise DataError(f"{source} has no column to predict '{target}' from. Left out: {reasons}.")
    inputs = input_names(name for name, _, _ in used)
    columns = [Column(name, inputs[name], kind, missing) for name, kind, missing in used]
    _log_renamed(columns)
    return Schema(tuple(columns), target, task, tuple(left_out.items()))


def check_target(table: pa.Table, target: str, *, source: str) -> None:
    """Raises DataError, with the columns and a suggestion, unless `target` is a column."""
    if target not in table.column_names:
        raise DataError(
            f"{source} has no column '{target}'. Its columns: {', '.join(table.column_names)}."
            f"{suggestion(target, table.column_names)}"
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


def _reason_to_leave_out(column: pa.ChunkedArray) -> str | None:
    present = len(column) - column.null_count
    kind = column.type
    if present == 0:
        return "it has no values"
    if not (_is_number(kind) or pa.types.is_string(kind)):
        return f"its type, {kind}, is not used"
    if _is_number(kind):
        return _reason_for_number(column)
    distinct = pc.count_distinct(column).as_py()
    if distinct == 1 and present == len(column):
        return "it has one value only"
    if len(column) >= IDENTIFIER_ROWS and distinct > IDENTIFIER_SHARE * len(column):
        return f"it looks like an identifier ({distinct:,} different texts in {len(column):,} rows)"
    return None


def _reason_for_number(column: pa.ChunkedArray) -> str | None:
    span = pc.min_max(column)
    low, high = span["min"].as_py(), span["max"].as_py()
    if low == high and column.null_count == 0:
        return "it has one value only"
    rows = len(column)
    if (
        pa.types.is_integer(column.type)
        and column.null_count == 0
        and rows >= IDENTIFIER_ROWS
        and high - low == rows - 1
        and pc.count_distinct(column).as_py() == rows
    ):
        return f"it numbers the rows ({low} to {high})"
    return None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _check_numbers(name: str, column: pa.ChunkedArray) -> None:
    """Raises DataError for what float32 cannot hold; warns where it rounds away differences."""
    values = number_values(column)
    bad = np.flatnonzero(np.abs(values) > _FLOAT32_MAX)
    if len(bad):
        raise DataError(
            f"Column '{name}' holds {len(bad):,} infinite or too large numbers, the first in row "
            f"{bad[0] + 1}: {values[bad[0]]}. Expected numbers up to {_FLOAT32_MAX:.1e}; "
            "correct them, or leave them empty (missing)."
        )
    spread = np.nanstd(values)
    rounding = np.nanmax(np.abs(values)) * np.finfo(np.float32).eps / 2
    if 0 < spread < 100 * rounding:
        logger.warning(
            "Column '%s' loses its differences in float32 (values near %g, spread %g); "
            "subtract a constant from it.",
            name,
            np.nanmean(values),
            spread,
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
        "Column '%s' is used as text, although nearly all of its values are numbers. %s",
        name,
        f"These are not: {shown}." if shown else "Remove thousands separators and % from them.",
    )
