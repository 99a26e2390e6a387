"""A schema as a file that people read and edit, and as a table on the terminal.

    print(schema_text(schema, table))                # one line for each column
    schema = read_schema(Path("schema.json"))        # what --schema gives back

To change what a column is, edit its "kind" (number, boolean, category, date) or its "dtype"; to
leave one out, move its name to "left_out" with a reason of your own. "input", "dtype" and
"missing" may be left out and are then found anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification
from kerastrain.data.tables.schema import KINDS, Column, Schema
from kerastrain.errors import DataError, suggestion
from kerastrain.text_table import aligned

SHOWN_EXAMPLES = 3
_EXAMPLE_WIDTH = 18


def read_schema(path: Path) -> Schema:
    """The schema in a JSON file.

    Raises:
        DataError: there is no such file, it is no JSON, or something in it is no part of a
            schema.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"--schema={path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"--schema={path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"--schema={path} holds no object; expected a schema as a run writes it.")
    for name, kind in {"columns": list, "target": str, "task": dict, "left_out": dict}.items():
        if not isinstance(values.get(name), kind):
            raise DataError(
                f"--schema={path} has {json.dumps(values.get(name))} as '{name}'; expected "
                f"{_NAMES[kind]}, in an object with columns, target, task and left_out."
            )
    _check_task(path, values["task"])
    columns = [_column(path, column) for column in values["columns"]]
    _check_names(path, columns, values["target"])
    task = {**values["task"], "target": values["target"]}
    return Schema.from_json({**values, "task": task, "columns": columns})


_NAMES = {list: "a list", str: "a text", dict: "an object"}


def _check_task(path: Path, task: Mapping[str, Any]) -> None:
    classes: Any = task.get("classes")
    quantiles: Any = task.get("quantiles", [])
    if task.get("kind") == "classification":
        is_list = isinstance(classes, list) and {type(one) for one in classes} in ({str}, {int})
        if is_list and len(set(classes)) == len(classes) >= 2:
            return
        expected = "classes, a list of two or more texts or whole numbers that differ"
    elif task.get("kind") == "regression":
        is_list = isinstance(quantiles, list) and all(
            isinstance(q, (int, float)) for q in quantiles
        )
        if is_list and sorted({0, *quantiles, 1}) == [0, *quantiles, 1]:
            return
        expected = "quantiles that rise, between 0 and 1, as in [0.1, 0.5, 0.9]"
    else:
        expected = "the kind classification or regression"
    raise DataError(f"--schema={path}: the task is {json.dumps(task)}; expected {expected}.")


def _check_names(path: Path, columns: Sequence[Mapping[str, Any]], target: str) -> None:
    names = [column["name"] for column in columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"--schema={path} has the column {twice[0]!r} twice; remove one of them.")
    if target in names:
        raise DataError(
            f"--schema={path} has the target '{target}' among the columns to predict it from; "
            "remove it there."
        )


def _column(path: Path, values: Any) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(Column)]
    unknown = [name for name in values if name not in known] if isinstance(values, dict) else []
    is_complete = isinstance(values, dict) and isinstance(values.get("name"), str)
    if unknown or not is_complete or "kind" not in values:
        raise DataError(
            f"--schema={path}: a column is {json.dumps(values)}; expected an object with name, "
            f"kind and, if you like, input, dtype, missing and has_zone."
            + (suggestion(unknown[0], known) if unknown else "")
        )
    name, kind = values["name"], values["kind"]
    if kind not in KINDS:
        raise DataError(
            f"--schema={path}: column '{name}' is of kind {kind!r}; expected one of "
            f"{', '.join(KINDS)}.{suggestion(str(kind), KINDS)}"
        )
    dtype = values.get("dtype", "")
    for field, is_usable, expected in (
        ("input", isinstance(values.get("input", ""), str), "a text"),
        ("dtype", dtype in ("", "float32", "float64", "string"), "float32, float64 or string"),
        ("missing", isinstance(values.get("missing", 0), int), "a whole number"),
        ("has_zone", isinstance(values.get("has_zone", False), bool), "true or false"),
    ):
        if not is_usable:
            raise DataError(
                f"--schema={path}: column '{name}' has {json.dumps(values[field])} as its {field}; "
                f"expected {expected}, or none."
            )
    allowed = {"number": ("float32", "float64"), "boolean": ("float32",), "date": ("string",)}
    if dtype and dtype not in allowed.get(kind, ("float32", "string")):
        # An edited kind with the dtype of the one before: the kind is what was meant.
        dtype = ""
    return {"missing": 0, "input": "", **values, "dtype": dtype}


def schema_text(schema: Schema, table: pa.Table) -> str:
    """The columns for people: what each is used as, missing and different values, examples."""
    rows = [("column", "used as", "missing", "different", "examples")]
    used = {column.name: column for column in schema.columns}
    left_out = dict(schema.left_out)
    for name in table.column_names:
        values = table[name]
        if name == schema.target:
            what = _task_text(schema)
        elif name in used:
            column = used[name]
            is_codes = (column.kind, column.dtype) == ("category", "float32")
            what = "category of codes" if is_codes else column.kind
        else:
            what = f"left out: {left_out.get(name, 'not in the schema')}"
        rows.append((name, what, f"{values.null_count:,}", _different(values), _examples(values)))
    return "\n".join(aligned(rows, left=(0, 1, 4)))


def _task_text(schema: Schema) -> str:
    if isinstance(schema.task, Classification):
        return f"target: {len(schema.task.classes)} classes"
    if schema.task.quantiles:
        return "target: quantiles " + ", ".join(f"{level:g}" for level in schema.task.quantiles)
    return "target: a number"


def _different(values: pa.ChunkedArray) -> str:
    try:
        return f"{pc.count_distinct(values).as_py():,}"
    except pa.ArrowNotImplementedError:  # lists, UUIDs, a column without values
        return ""


def _examples(values: pa.ChunkedArray) -> str:
    if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        return ""
    first = pc.unique(pc.drop_null(values.slice(0, 1000)))[:SHOWN_EXAMPLES]
    if pa.types.is_timestamp(first.type):
        first = first.cast(pa.timestamp("s", first.type.tz), safe=False)
    if pa.types.is_temporal(first.type):
        first = first.cast(pa.string())  # Python has no dates before year 1 and after 9999.
    return ", ".join(_short(str(value)) for value in first.to_pylist())


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _EXAMPLE_WIDTH else text[: _EXAMPLE_WIDTH - 1] + "…"
