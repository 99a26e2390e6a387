"""Tables that do not fit into memory: read twice in batches, encoded to disk.

    data = cache.read_or_make(
        lambda folder: write_streamed(files, options, folder, schema=None, numbers="standard")
    )                            # data.train lies on disk (kerastrain.data.stored)

The first reading draws a sample, by which schema and encoding are decided, and looks at every
target, at the range of every number and at the splits of --split_column. The second one encodes
every row; training rows go to disk, validation and test rows, HELD_OUT_ROWS each at the most
(unless --split_column names more), stay in memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kerastrain.data.source import Data, Examples, Task
from kerastrain.data.stored import ExamplesWriter
from kerastrain.data.tables.cache import write_all_but_train
from kerastrain.data.tables.columns import expanded, raw_columns, taken
from kerastrain.data.tables.encoded import EncodedColumns
from kerastrain.data.tables.encoding import Encoder, Scaling, fit_encoder
from kerastrain.data.tables.loaded import (
    as_learned,
    class_factors,
    described,
    known_columns,
    say_what_was_loaded,
    warn_of,
    weighted,
)
from kerastrain.data.tables.reading import TableFiles
from kerastrain.data.tables.schema import Schema
from kerastrain.data.tables.schema_matching import check_column
from kerastrain.data.tables.splitting import FRACTIONS, VALIDATION_OF_TRAIN, named_splits
from kerastrain.data.tables.statistics import table_statistics
from kerastrain.data.tables.survey import Survey, numbered_batches, survey_table, uniform
from kerastrain.data.tables.table import codes_as_text, row_weights
from kerastrain.data.tables.target import target_values, with_positive
from kerastrain.errors import DataError, OptionsError
from kerastrain.options import TrainOptions

logger = logging.getLogger(__name__)

# Of validation and test each, by chance: 200,000 rows tell a share to 0.1 %.
HELD_OUT_ROWS = 200_000
# Encoded in memory a table takes about so many times what it takes as it is.
COPIES = 4

_SPLIT_SALT = 1


def is_to_stream(files: TableFiles, options: TrainOptions) -> bool:
    """Whether the table is read in batches: as --stream says, else when it is too large."""
    if options.table.stream is not None:
        return options.table.stream
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return files.nbytes_estimate * COPIES > memory // 2


def write_streamed(
    files: TableFiles,
    options: TrainOptions,
    folder: Path,
    *,
    schema: Schema | None,
    numbers: Scaling,
) -> None:
    """Encodes a table into a cache's folder.

    Args:
        schema: the one given by --schema.

    Raises:
        OptionsError: an option needs the whole table at once.
        DataError: the table cannot be used.
    """
    _check_options(options)
    survey = survey_table(files, options, schema)
    assert survey.schema is not None and survey.sample is not None
    texts = codes_as_text(survey.schema, survey.sample)
    if texts:
        files = files.with_text(texts)
        survey = survey_table(files, options, schema)
    plan = _planned(survey, options, numbers)
    trained, held_out = _write_encoded(files, options, plan, folder / "train")
    sizes = {"train": trained, **{split: len(part.rows) for split, part in held_out.items()}}
    say_what_was_loaded(options, plan.schema, rows=survey.rows, sizes=sizes)
    description = {
        **described(options, plan.schema, rows=survey.rows),
        "statistics": plan.statistics,
        "sample_rows": len(plan.sample),
    }
    write_all_but_train(folder, _data(plan, held_out, description), in_memory=False)


@dataclass(frozen=True)
class _Plan:
    """How each row is encoded and where it goes.

    Attributes:
        sample: the sample's training rows, encoded.
        known: what a network must know of them.
        scale: by which --weights are divided.
        factors: of the classes, with --balance.
        shares: of the splits by chance; with --split_column, "validation" is the share of the
            training rows that validates.
    """

    schema: Schema
    task: Task
    encoder: Encoder
    sample: Examples
    known: EncodedColumns
    statistics: dict[str, object]
    scale: float
    factors: np.ndarray | None
    shares: dict[str, float]


@dataclass(frozen=True)
class _Part:
    """Rows of one split: their numbers, encoded, and as they were."""

    rows: np.ndarray
    examples: Examples
    raw: dict[str, np.ndarray]


def _check_options(options: TrainOptions) -> None:
    table = options.table
    for name in ("split_time", "split_group", "test_data"):
        if getattr(table, name) is not None:
            raise OptionsError(
                f"--{name} needs the whole table in memory, and this one is streamed. Put the "
                "split into a column of its own (--split_column), or give --nostream."
            )


def _planned(survey: Survey, options: TrainOptions, numbers: Scaling) -> _Plan:
    schema, table = survey.schema, survey.sample
    assert schema is not None and table is not None
    shares = _shares(survey, options)
    splits = _splits_of(table, survey.sample_rows, options, shares)
    rows = np.flatnonzero(splits == "train")
    if len(rows) == 0:
        raise DataError(f"No row of {options.data} is left to train on.")
    columns = taken(raw_columns(table, schema), rows)
    encoder = fit_encoder(columns, schema, numbers=numbers)
    targets = target_values(table[schema.target], schema.task)[rows]
    sample = Examples(encoder.encode(columns), targets)
    warn_of(columns, targets, schema, options.table)
    weights = row_weights(table, options.table)
    scale = 1.0 if weights is None else float(weights[rows].mean()) or 1.0
    factors = None
    if options.table.balance:
        classes = getattr(schema.task, "classes", ())
        counted = [survey.classes[_as_target(value, table[schema.target])] for value in classes]
        # A row for each class, which weighs what all of its rows do.
        factors = class_factors(np.arange(len(classes)), np.array(counted), schema)
    return _Plan(
        schema=schema,
        task=with_positive(schema.task, targets, options.table.positive),
        encoder=encoder,
        sample=sample,
        known=known_columns(encoder, sample, schema),
        statistics=table_statistics(columns, schema),
        scale=scale,
        factors=factors,
        shares=shares,
    )


def _as_target(value: object, target: pa.ChunkedArray) -> object:
    """A class as the column holds it: bools are the classes "false" and "true"."""
    return value == "true" if pa.types.is_boolean(target.type) else value


def _encoded(
    table: pa.Table, first: int, plan: _Plan, options: TrainOptions
) -> Iterator[tuple[str, _Part]]:
    numbers = np.arange(first, first + table.num_rows)
    splits = _splits_of(table, numbers, options, plan.shares)
    columns = raw_columns(table, plan.schema)
    targets = target_values(table[plan.schema.target], plan.schema.task, first_row=first)
    weights = row_weights(table, options.table, first_row=first)
    if weights is not None:
        weights = (weights / plan.scale).astype(np.float32)
    whole = as_learned(Examples(plan.encoder.encode(columns), targets, weights), plan.known)
    for split in FRACTIONS:
        rows = np.flatnonzero(splits == split)
        if len(rows) == 0:
            continue
        examples = whole.take(rows)
        if split == "train":
            if plan.factors is not None:
                examples = weighted(examples, plan.factors)
            yield split, _Part(numbers[rows], examples, {})
        else:
            yield split, _Part(numbers[rows], examples, expanded(taken(columns, rows)))


def _write_encoded(
    files: TableFiles, options: TrainOptions, plan: _Plan, folder: Path
) -> tuple[int, dict[str, _Part]]:
    """Writes the training examples to the folder; returns how many, and the other splits whole."""
    held_out: dict[str, list[_Part]] = {"validation": [], "test": []}
    trained, has_weight = 0, False
    with ExamplesWriter(folder) as writer:
        for first, table in numbered_batches(files):
            _check_batch(table, plan.schema, first)
            for split, part in _encoded(table, first, plan, options):
                if split == "train":
                    writer.append(part.examples)
                    trained += len(part.examples)
                    has_weight = has_weight or _has_weight(part.examples)
                else:
                    held_out[split].append(part)
        writer.finish()
    whole = {split: _joined(parts, split) for split, parts in held_out.items()}
    weighing = {split: _has_weight(part.examples) for split, part in whole.items()}
    for split, has_some in {"train": has_weight, **weighing}.items():
        if not has_some:
            raise DataError(f"--weights={options.table.weights} is 0 in every {split} row.")
    return trained, whole


def _data(plan: _Plan, held_out: Mapping[str, _Part], description: dict[str, object]) -> Data:
    """The sample's training rows stand for all, which are on disk."""
    validation, test = held_out["validation"], held_out["test"]
    return Data(
        train=as_learned(plan.sample, plan.known),
        validation=validation.examples,
        test=test.examples,
        task=plan.task,
        encoder=plan.encoder.model,
        validation_rows=validation.raw,
        test_rows=test.raw,
        columns=plan.known,
        split_rows={split: part.rows for split, part in held_out.items()},
        description=description,
    )


def _check_batch(table: pa.Table, schema: Schema, first: int) -> None:
    for column in schema.columns:
        if column.dtype != "string" or column.kind == "date":  # any text is a category
            check_column(column, table[column.name], first_row=first)


def _has_weight(examples: Examples) -> bool:
    return examples.weights is None or bool(np.any(examples.weights))


def _shares(survey: Survey, options: TrainOptions) -> dict[str, float]:
    """Of the splits by chance; with --split_column, of the training rows that validate."""
    column = options.table.split_column
    if column is None:
        fair = {
            name: min(FRACTIONS[name], HELD_OUT_ROWS / survey.rows)
            for name in ("validation", "test")
        }
        return {"train": 1 - sum(fair.values()), **fair}
    for needed in ("train", "test"):
        if not survey.splits[needed]:
            raise DataError(f"The column '{column}' gives no row to '{needed}'.")
    if survey.splits["validation"]:
        return {"validation": 0.0}
    return {"validation": min(VALIDATION_OF_TRAIN, HELD_OUT_ROWS / survey.splits["train"])}


def _splits_of(
    table: pa.Table, rows: np.ndarray, options: TrainOptions, shares: dict[str, float]
) -> np.ndarray:
    """The split of each row: by its number alone, or by --split_column."""
    draws = uniform(rows, options.seed, _SPLIT_SALT)
    if options.table.split_column is not None:
        named = named_splits(table[options.table.split_column], options.table.split_column)
        held_out = (named == "train") & (draws < shares["validation"])
        return np.where(held_out, "validation", named)
    borders = np.cumsum([shares[name] for name in FRACTIONS])[:-1]
    return np.array(list(FRACTIONS))[np.searchsorted(borders, draws, side="right")]


def _joined(parts: list[_Part], split: str) -> _Part:
    if not parts:
        raise DataError(f"No row is left for the {split} split.")
    named = [dict(part.examples.named_arrays()) for part in parts]
    arrays = {name: np.concatenate([part[name] for part in named]) for name in named[0]}
    inputs = {
        name.removeprefix("inputs[").removesuffix("]"): array
        for name, array in arrays.items()
        if name.startswith("inputs[")
    }
    raw = {name: np.concatenate([part.raw[name] for part in parts]) for name in parts[0].raw}
    examples = Examples(inputs, arrays["targets"], arrays.get("weights"))
    return _Part(np.concatenate([part.rows for part in parts]), examples, raw)
