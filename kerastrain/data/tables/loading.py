"""From files and a target to data for training: read, infer, split, encode.

    data = load_table_data(TrainOptions(data="housing.csv", target="median_house_value"))
    data.train.inputs           # {"numbers": float32 [n, k], "categories": int32 [n, c]}

What is learned from values (means, vocabularies, bins) comes from the training rows alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerastrain.data.source import Data, Examples
from kerastrain.data.tables import remarks
from kerastrain.data.tables.cache import LEAST_BYTES, TableCache
from kerastrain.data.tables.columns import RawColumns, expanded, raw_columns, taken
from kerastrain.data.tables.encoding import SCALINGS, Encoder, Scaling, fit_encoder
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
from kerastrain.data.tables.statistics import table_statistics
from kerastrain.data.tables.streaming import is_to_stream, write_streamed
from kerastrain.data.tables.table import (
    Loaded,
    check_target_given,
    given_schema,
    loaded_from,
    open_data,
)
from kerastrain.errors import OptionsError
from kerastrain.options import TrainOptions

logger = logging.getLogger(__name__)


def load_table_data(options: TrainOptions, *, numbers: Scaling = "standard") -> Data:
    """Reads `options.data`, whose column `options.target` is to be predicted.

    Args:
        numbers: how numbers are scaled (`encoding.fit_encoder`).

    Returns:
        Data whose inputs are {"numbers": float32 [n, k], "categories": int32 [n, c]} and whose
        targets are int32 [n] (indices into task.classes) or float32 [n, 1] (regression;
        float64 where `EncodedColumns.target_dtype` says so);
        `validation_rows` and `test_rows` are the raw columns of these splits by input name,
        float32 [n] or float64 [n] with NaN, or object [n] of str.

    Raises:
        OptionsError: --data or --target is missing, or there is no such scaling.
        DataError: the table cannot be read or used.
    """
    if numbers not in SCALINGS:
        raise OptionsError(f"--set=numbers={numbers}; expected one of {', '.join(SCALINGS)}.")
    given = given_schema(options)
    files = open_data(options, given)
    check_target_given(files.column_names, options, given)
    is_streamed = is_to_stream(files, options)
    if not is_streamed and files.nbytes_estimate < LEAST_BYTES:
        return _in_memory(files, options, given, numbers)
    others = [options.table.validation_data, options.table.test_data]
    every = [files, *(open_data(options, given, path=path) for path in others if path)]
    cache = TableCache.of(every, options, schema=given, numbers=numbers)
    if is_streamed:
        return cache.read_or_make(
            lambda folder: write_streamed(files, options, folder, schema=given, numbers=numbers)
        )
    return cache.read_or_keep(lambda: _in_memory(files, options, given, numbers))


def _in_memory(
    files: TableFiles, options: TrainOptions, given: Schema | None, numbers: Scaling
) -> Data:
    loaded = loaded_from(files, options, given)
    columns = raw_columns(loaded.table, loaded.schema)
    train = loaded.splits["train"]
    raw_train = taken(columns, train)
    encoder = fit_encoder(raw_train, loaded.schema, numbers=numbers)
    encoded = encoder.encode(columns)
    warn_of(raw_train, loaded.targets[train], loaded.schema, options.table)
    twice = remarks.duplicates(columns, loaded.splits)
    if remark := remarks.duplicate_remark(twice, loaded.splits):
        logger.warning("%s", remark)
    statistics = table_statistics(raw_train, loaded.schema)
    return _data(
        options, loaded, encoder, encoded, columns, statistics=statistics, duplicates=twice
    )


def _data(
    options: TrainOptions,
    loaded: Loaded,
    encoder: Encoder,
    encoded: Mapping[str, np.ndarray],
    columns: RawColumns,
    *,
    statistics: Mapping[str, Any],
    duplicates: Mapping[str, int],
) -> Data:
    splits, schema = loaded.splits, loaded.schema
    whole = Examples(dict(encoded), loaded.targets, loaded.weights)
    parts = {name: whole.take(rows) for name, rows in splits.items()}
    if options.table.balance:
        train = parts["train"]
        factors = class_factors(train.targets, train.weights, schema)
        parts["train"] = weighted(train, factors)
    known = known_columns(encoder, parts["train"], schema)
    parts = {name: as_learned(part, known) for name, part in parts.items()}
    sizes = {name: len(part) for name, part in parts.items()}
    say_what_was_loaded(options, schema, rows=loaded.table.num_rows, sizes=sizes)
    return Data(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        task=loaded.task,
        encoder=encoder.model,
        validation_rows=expanded(taken(columns, splits["validation"])),
        test_rows=expanded(taken(columns, splits["test"])),
        columns=known,
        split_rows=dict(splits),
        description={
            **described(options, schema, rows=loaded.table.num_rows),
            "statistics": dict(statistics),
            "duplicates": dict(duplicates),
        },
    )
