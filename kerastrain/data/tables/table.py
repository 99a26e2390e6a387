"""A table before it is encoded: read, with its schema, its targets and its splits.

    loaded = load_table(TrainOptions(data="housing.csv", target="median_house_value"))
    loaded.schema.columns, loaded.splits["test"]

TensorFlow is not needed for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.data.tables.columns import number_values
from kerastrain.data.tables.content import Place, cast_column, common_type
from kerastrain.data.tables.incoming import arrow_types
from kerastrain.data.tables.reading import TableFiles, TableFormat, open_table
from kerastrain.data.tables.schema import Schema, check_target, infer_schema
from kerastrain.data.tables.schema_file import read_schema, schema_text
from kerastrain.data.tables.schema_matching import matched, without
from kerastrain.data.tables.splitting import hold_out, looks_like_splits, split_table
from kerastrain.data.tables.target import target_values, with_positive
from kerastrain.errors import DataError, OptionsError, suggestion
from kerastrain.options import TableOptions, TrainOptions

logger = logging.getLogger(__name__)

MIN_ROWS = 10


@dataclass(frozen=True)
class Loaded:
    """A table with its schema, and which of its rows do what.

    Attributes:
        targets: int32 [n] or float64 [n, 1], as `target.target_values` gives them.
        weights: float32 [n] with mean 1 over the training rows, or None.
        splits: {"train", "validation", "test"}: row numbers.
        task: the schema's, with the positive one of two classes.
    """

    table: pa.Table
    schema: Schema
    targets: np.ndarray
    weights: np.ndarray | None
    splits: Mapping[str, np.ndarray]
    task: Task


def load_table(options: TrainOptions) -> Loaded:
    """Reads whole, decides what each column is, and splits; what `kerastrain schema` shows.

    Raises:
        OptionsError: --data or --target is missing.
        DataError: the table cannot be read or used.
    """
    given = given_schema(options)
    return loaded_from(open_data(options, given), options, given)


def check_table(options: TrainOptions) -> None:
    """Refuses what the schema's file and the tables' headers show, before any row is read.

    Raises:
        OptionsError, DataError: as `load_table`.
    """
    given = given_schema(options)
    names = open_data(options, given).column_names
    check_target_given(names, options, given)
    if given is not None:
        _check_agrees(options, given)
    _ignored(options.table, names, options.target or str(given and given.target))
    for path in (options.table.validation_data, options.table.test_data):
        if path is not None:
            open_data(options, given, path=path)


def given_schema(options: TrainOptions) -> Schema | None:
    """The schema of --schema."""
    return None if options.table.schema is None else read_schema(Path(options.table.schema))


def open_data(
    options: TrainOptions, given: Schema | None, *, path: str | None = None
) -> TableFiles:
    """The files of --data, or of another path under the same options.

    Raises:
        OptionsError: --data is missing.
        DataError: they cannot be read.
    """
    path = path or options.data
    if not path:
        raise OptionsError(
            "--data is missing; expected CSV or Parquet, for instance "
            "--data=housing.csv --target=median_house_value."
        )
    types = {} if given is None else arrow_types(given)
    return open_table(path, table_format=_format(options), column_types=types)


def _format(options: TrainOptions) -> TableFormat:
    return TableFormat(
        separator=options.table.separator,
        header=options.table.header,
        encoding=options.table.encoding,
    )


def loaded_from(files: TableFiles, options: TrainOptions, given: Schema | None) -> Loaded:
    """The rest of `load_table`, once the files are open."""
    check_target_given(files.column_names, options, given)
    table, parts = _read(files, options, given)
    if table.num_rows < MIN_ROWS:
        raise DataError(
            f"{options.data} has {table.num_rows} rows; expected at least {MIN_ROWS}, so that "
            "each of training, validation and test gets some."
        )
    schema = decide_schema(table, options, given, index=files.index_names)
    texts = codes_as_text(schema, table)
    if texts:
        table, parts = _read(files.with_text(texts), options, given)
    logger.info("%s", schema_text(schema, table))
    targets = target_values(table[schema.target], schema.task)
    labels = targets if isinstance(schema.task, Classification) else None
    splits = parts or split_table(table, labels, options.table, seed=options.seed)
    _warn_of_split_column(schema, table, options.table)
    if "validation" not in splits:
        splits = {**hold_out(splits["train"], labels, seed=options.seed), "test": splits["test"]}
    weights = row_weights(table, options.table)
    if weights is not None:
        for split, rows in splits.items():
            if not weights[rows].any():
                raise DataError(f"--weights={options.table.weights} is 0 in every {split} row.")
        weights = (weights / weights[splits["train"]].mean()).astype(np.float32)
    task = with_positive(schema.task, targets[splits["train"]], options.table.positive)
    return Loaded(table, schema, targets, weights, splits, task)


def codes_as_text(schema: Schema, table: pa.Table) -> list[str]:
    """Columns of whole numbers that clients send as text: they must be read as text as well,
    since 036000291452 and 36000291452 are the same number."""
    return [
        column.name
        for column in schema.columns
        if (column.kind, column.dtype) == ("category", "string")
        and pa.types.is_integer(table[column.name].type)
    ]


def _warn_of_split_column(schema: Schema, table: pa.Table, options: TableOptions) -> None:
    used = [column.name for column in schema.columns]
    name = None if options.split_column else looks_like_splits(table.select(used))
    if name is not None:
        logger.warning(
            "Column '%s' seems to say which rows train and test, but it is learned from like any "
            "other. Give --split_column=%s to split by it, or --ignore_columns=%s.",
            name,
            name,
            name,
        )


def check_target_given(names: Sequence[str], options: TrainOptions, given: Schema | None) -> None:
    """Raises OptionsError or DataError unless the target is said and among the columns."""
    target = options.target or (given.target if given else None)
    if not target:
        raise OptionsError(
            f"--target is missing; the columns of {options.data} are: {', '.join(names)}."
        )
    check_target(names, target, source=str(options.data))


def _read(
    files: TableFiles, options: TrainOptions, given: Schema | None
) -> tuple[pa.Table, dict[str, np.ndarray] | None]:
    """The whole table; and the rows of each split where they come from files of their own."""
    table = files.read()
    if options.table.test_data is None:
        return table, None
    paths, parts = {"train": str(options.data)}, [table]
    others = {"validation": options.table.validation_data, "test": options.table.test_data}
    for split, path in others.items():
        if path is not None:
            read = open_data(options, given, path=path).read()
            paths[split] = path
            parts.append(_like(read, table, source=path, other=paths["train"]))
    places = list(paths.values())
    types = {name: _joint_type(name, parts, places) for name in table.column_names}
    parts = [
        _as_types(part, types, path, options) for part, path in zip(parts, places, strict=True)
    ]
    ends = np.cumsum([0, *(part.num_rows for part in parts)])
    numbers = {split: np.arange(*ends[i : i + 2]) for i, split in enumerate(paths)}
    return pa.concat_tables(parts), numbers


def _joint_type(name: str, parts: Sequence[pa.Table], paths: Sequence[str]) -> pa.DataType:
    """The type for the column's values in the files of all splits."""
    joint, first = parts[0][name].type, paths[0]
    for part, path in zip(parts, paths, strict=True):
        wider = common_type(joint, part[name].type)
        if wider is None:
            raise DataError(
                f"Column '{name}' is {part[name].type} in {path}, but {joint} in {first}; expected "
                "types that go together. Convert the column in one of the files."
            )
        joint = wider
    return joint


def _as_types(
    part: pa.Table, types: Mapping[str, pa.DataType], path: str, options: TrainOptions
) -> pa.Table:
    """The table; columns that other files need wider are read again, not converted: 02134 that
    was read as a number would never be 02134 again."""
    others = {name: kind for name, kind in types.items() if not part[name].type.equals(kind)}
    if not others:
        return part
    again = open_table(path, table_format=_format(options), column_types=others).read([*others])
    for name in others:
        place = part.schema.get_field_index(name)
        part = part.set_column(
            place, name, cast_column(again[name], types[name], Place(path, name))
        )
    return part


def _like(part: pa.Table, table: pa.Table, *, source: str, other: str) -> pa.Table:
    lacking = [name for name in table.column_names if name not in part.column_names]
    if lacking:
        raise DataError(
            f"{source} has no column '{lacking[0]}', which {other} has; its columns: "
            f"{', '.join(part.column_names)}.{suggestion(lacking[0], part.column_names)}"
        )
    return part.select(table.column_names)


def decide_schema(
    table: pa.Table, options: TrainOptions, given: Schema | None, *, index: Sequence[str]
) -> Schema:
    """The given schema with what this table says, but the columns to ignore; else the inferred one.

    Args:
        index: columns that pandas had as the index of the rows.

    Raises:
        OptionsError: an option contradicts the given schema.
        DataError: the table cannot be used, or is not of the given schema.
    """
    source = str(options.data)
    if given is None:
        assert options.target is not None
        return infer_schema(
            table,
            options.target,
            source=source,
            task=options.table.task,
            quantiles=options.table.quantiles,
            ignored=dict.fromkeys(index, "pandas had it as the index of the rows")
            | _ignored(options.table, table.column_names, options.target),
        )
    _check_agrees(options, given)
    ignored = _ignored(options.table, table.column_names, given.target)
    return without(matched(given, table, source=source), ignored)


def _check_agrees(options: TrainOptions, given: Schema) -> None:
    task, table = given.task, options.table
    quantiles = task.quantiles if isinstance(task, Regression) else ()
    for name, said, of_schema in (
        ("target", options.target, given.target),
        ("task", table.task, type(task).__name__.lower()),
        ("quantiles", table.quantiles or None, quantiles),
    ):
        if said not in (None, of_schema):
            raise OptionsError(
                f"--{name} is {said!r}, but the schema's {name} is {of_schema!r}; give one of "
                "them, or correct the schema."
            )


def _ignored(options: TableOptions, names: Sequence[str], target: str) -> dict[str, str]:
    """Columns that are not learned from, each with the reason."""
    reasons = dict.fromkeys(options.ignore_columns, "--ignore_columns names it")
    for name, reason in (
        (options.weights, "it holds the rows' weights"),
        (options.split_column, "it says which rows train and test"),
        (options.split_group, "it holds the groups that are kept together"),
    ):
        if name is not None:
            reasons[name] = reason
    unknown = [name for name in (*reasons, options.split_time) if name not in (*names, None)]
    if unknown:
        raise DataError(
            f"There is no column '{unknown[0]}'; the columns are: "
            f"{', '.join(names)}.{suggestion(str(unknown[0]), names)}"
        )
    if target in reasons:
        raise OptionsError(
            f"'{target}' is the target, and cannot be used otherwise: {reasons[target]}."
        )
    return reasons


def row_weights(table: pa.Table, options: TableOptions, *, first_row: int = 0) -> np.ndarray | None:
    """float64 [n] of --weights.

    Args:
        first_row: the number (from 0) of the table's first row, for messages.

    Raises:
        DataError: they are no weights.
    """
    if options.weights is None:
        return None
    column = table[options.weights]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(
            f"--weights={options.weights} is a column of type {column.type}; expected numbers."
        )
    values = number_values(column)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise DataError(
            f"--weights={options.weights}: row {first_row + bad[0] + 1:,} holds "
            f"{values[bad[0]]:g}; expected numbers of at least 0 in every row."
        )
    return values
