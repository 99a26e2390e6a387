"""From a file and a target to data for training: read, infer, split, encode.

    data = load_table_data(TrainOptions(data="housing.csv", target="median_house_value"))
    data.train.inputs           # float32 [n, features]

The split is random, 64 % training, 16 % validation and 20 % test, stratified by
class, and a function of the seed and the number of rows.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.splits import split_rows
from kerastrain.data.tables.columns import raw_rows
from kerastrain.data.tables.encoding import encode, fit_encoder
from kerastrain.data.tables.reading import read_table
from kerastrain.data.tables.schema import Schema, check_target, infer_schema
from kerastrain.data.tables.target import target_values
from kerastrain.errors import DataError, OptionsError
from kerastrain.options import TrainOptions

logger = logging.getLogger(__name__)

FRACTIONS = {"train": 0.64, "validation": 0.16, "test": 0.2}
MIN_ROWS = 10


def load_table_data(options: TrainOptions) -> Data:
    """Reads `options.data`, whose column `options.target` is to be predicted.

    Returns:
        Data whose inputs are float32 [n, features] and whose targets are int32
        [n] (indices into task.classes) or float32 [n, 1] (regression);
        `test_rows` are the raw columns of the test split by input name, float32
        [n] with NaN or object [n] of str.

    Raises:
        OptionsError: --data or --target is missing.
        DataError: the table cannot be read or used.
    """
    if not options.data:
        raise OptionsError(
            "--data is missing; expected a CSV or Parquet file, for instance "
            "--data=housing.csv --target=median_house_value."
        )
    table = read_table(options.data)
    if not options.target:
        raise OptionsError(
            f"--target is missing; the columns of {options.data} are: "
            f"{', '.join(table.column_names)}."
        )
    check_target(table, options.target, source=options.data)
    if table.num_rows < MIN_ROWS:
        raise DataError(
            f"{options.data} has {table.num_rows} rows; expected at least {MIN_ROWS}, so that "
            "each of training, validation and test gets some."
        )
    schema = infer_schema(table, options.target, source=options.data)
    return _encoded(table, schema, options)


def _encoded(table: pa.Table, schema: Schema, options: TrainOptions) -> Data:
    targets = target_values(table[schema.target], schema.task)
    labels = targets if isinstance(schema.task, Classification) else None
    splits = split_rows(table.num_rows, fractions=FRACTIONS, seed=options.seed, labels=labels)
    rows = raw_rows(table, schema)
    encoder = fit_encoder(_taken(rows, splits["train"]), schema)
    features = encode(encoder, rows)
    parts = {name: Examples(features[r], targets[r]) for name, r in splits.items()}
    logger.info(
        "%s: %s rows, %d columns used of %d, %d features; %s.",
        options.data,
        f"{table.num_rows:,}",
        len(schema.columns),
        table.num_columns - 1,
        features.shape[1],
        ", ".join(f"{name} {len(part):,}" for name, part in parts.items()),
    )
    return Data(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        task=schema.task,
        encoder=encoder,
        test_rows=_taken(rows, splits["test"]),
        split_rows=splits,
        description=_description(table, schema, options),
    )


def _taken(rows: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[numbers] for name, values in rows.items()}


def _description(table: pa.Table, schema: Schema, options: TrainOptions) -> dict[str, Any]:
    return {
        "source": options.data,
        "rows": table.num_rows,
        "columns": [column.name for column in schema.columns],
        "left_out": dict(schema.left_out),
        "target": schema.target,
        "schema": schema.to_json(),
        "schema_sha256": schema.sha256(),
    }
