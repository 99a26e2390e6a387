"""The first reading of a table that does not fit into memory: a sample, and what all rows say.

    survey = survey_table(files, options, None)
    survey.schema, survey.sample, survey.rows

The sample decides what columns are and how they are encoded; every target, every missing
value and every range is looked at, so that what is rare is known.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification
from kerastrain.data.tables.columns import is_number
from kerastrain.data.tables.reading import TableFiles
from kerastrain.data.tables.schema import MAX_FLOAT32_CODE, Column, Schema
from kerastrain.data.tables.schema_file import schema_text
from kerastrain.data.tables.splitting import named_splits
from kerastrain.data.tables.table import decide_schema, row_weights
from kerastrain.errors import DataError
from kerastrain.options import TrainOptions

logger = logging.getLogger(__name__)

# Rows by which schema and encoding are decided.
SAMPLE_ROWS = 200_000
BATCH_ROWS = 131_072
# More different values than that are no classes.
MAX_CLASSES = 10_000

_SAMPLE_SALT = 2


@dataclass
class Survey:
    """What the first reading found: all rows counted, a sample kept.

    Attributes:
        sample, sample_rows: rows drawn evenly from all, and their numbers.
        missing: rows without a value, by column.
        classes: for --balance how much the rows of each target count.
        schema: decided by the sample, and corrected by what all rows said.
        spans: the least and the greatest value of every column of numbers.
        splits: rows of each split by --split_column.
    """

    rows: int = 0
    classes: Counter[object] = field(default_factory=Counter)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    splits: Counter[str] = field(default_factory=Counter)
    sample: pa.Table | None = None
    sample_rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    missing: dict[str, int] = field(default_factory=dict)
    schema: Schema | None = None


def uniform(rows: np.ndarray, seed: int, salt: int) -> np.ndarray:
    """float64 [n] in [0, 1): a function of each row's number alone.

    SplitMix64 (Steele, Lea and Flood 2014) of the number.
    """
    with np.errstate(over="ignore"):
        x = rows.astype(np.uint64) + np.uint64((seed << 8) + salt) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) / 2.0**64


def numbered_batches(files: TableFiles) -> Iterator[tuple[int, pa.Table]]:
    first = 0
    for table in files.batches(rows=BATCH_ROWS):
        yield first, table
        first += table.num_rows


def survey_table(files: TableFiles, options: TrainOptions, given: Schema | None) -> Survey:
    """One reading: a sample that is uniform whatever the order of the rows, and every target."""
    survey, kept, keys = Survey(), [], []
    limit, target = 1.0, (options.target or (given.target if given else "")) or ""
    values: set[object] = set()
    for first, table in numbered_batches(files):
        survey.rows += table.num_rows
        for name in table.column_names:
            survey.missing[name] = survey.missing.get(name, 0) + table[name].null_count
        _widen_spans(survey.spans, table)
        _count_splits(survey.splits, table, options)
        _check_target_complete(table[target], target, first)
        if len(values) <= MAX_CLASSES:
            values.update(pc.unique(table[target]).to_pylist())
        if options.table.balance:
            _count_classes(survey.classes, table, target, options, first)
        draws = uniform(np.arange(first, first + table.num_rows), options.seed, _SAMPLE_SALT)
        chosen = np.flatnonzero(draws < limit)
        kept.append(table.take(pa.array(chosen)))
        keys.append(draws[chosen])
        survey.sample_rows = np.concatenate([survey.sample_rows, first + chosen])
        while len(survey.sample_rows) > 2 * SAMPLE_ROWS:
            limit /= 2
            stay = np.concatenate(keys) < limit
            kept = [pa.concat_tables(kept).filter(pa.array(stay))]
            keys = [np.concatenate(keys)[stay]]
            survey.sample_rows = survey.sample_rows[stay]
    if not kept:
        raise DataError(f"{options.data} has no rows.")
    survey.sample = pa.concat_tables(kept).combine_chunks()
    schema = decide_schema(survey.sample, options, given, index=files.index_names)
    columns = tuple(
        dataclasses.replace(column, missing=survey.missing[column.name])
        for column in schema.columns
    )
    if given is None:
        columns = tuple(_of_span(column, survey.spans.get(column.name)) for column in columns)
    task = schema.task
    if isinstance(task, Classification) and len(values) <= MAX_CLASSES and given is None:
        # A rare class may not be in the sample.
        task = _with_all_classes(task, values)
    survey.schema = dataclasses.replace(schema, columns=columns, task=task)
    logger.info("%s", schema_text(survey.schema, survey.sample))
    return survey


def _widen_spans(spans: dict[str, tuple[float, float]], table: pa.Table) -> None:
    for name in table.column_names:
        if is_number(table[name].type) and table[name].null_count < len(table[name]):
            span = pc.min_max(table[name]).as_py()
            low, high = spans.get(name, (span["min"], span["max"]))
            spans[name] = min(low, span["min"]), max(high, span["max"])


def _of_span(column: Column, span: tuple[float, float] | None) -> Column:
    """The column as its greatest values say, which may not be in the sample."""
    low, high = span or (0, 1)
    if column.kind == "boolean" and not 0 <= low <= high <= 1:
        return dataclasses.replace(column, kind="number")
    is_code = (column.kind, column.dtype) == ("category", "float32")
    if is_code and max(abs(low), abs(high)) > MAX_FLOAT32_CODE:
        return dataclasses.replace(column, dtype="string")
    return column


def _count_classes(
    classes: Counter[object], table: pa.Table, target: str, options: TrainOptions, first: int
) -> None:
    weights = row_weights(table, options.table, first_row=first)
    counted = pa.table(
        {"class": table[target], "weight": np.ones(table.num_rows) if weights is None else weights}
    )
    for row in counted.group_by("class").aggregate([("weight", "sum")]).to_pylist():
        classes[row["class"]] += row["weight_sum"]


def _count_splits(splits: Counter[str], table: pa.Table, options: TrainOptions) -> None:
    column = options.table.split_column
    if column is not None and column in table.column_names:  # if not, `decide_schema` tells
        splits.update(named_splits(table[column], column).tolist())


def _with_all_classes(task: Classification, values: set[object]) -> Classification:
    if values <= {True, False} and all(isinstance(value, bool) for value in values):
        return task
    if isinstance(task.classes[0], str):
        return Classification(tuple(sorted(str(value) for value in values)))
    return Classification(tuple(sorted({int(value) for value in values})))  # type: ignore[call-overload]


def _check_target_complete(column: pa.ChunkedArray, name: str, first: int) -> None:
    if column.null_count:
        row = first + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(
            f"The target '{name}' is missing in row {row + 1:,} (the first row after the header "
            "is 1). Remove such rows or fill them."
        )
