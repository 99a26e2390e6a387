"""What is said and known of a loaded table, whether it is in memory or streamed.

known_columns(encoder, train, schema)     # the encoder's columns, with bins and the target's mean
described(options, schema, rows=48_842)   # facts for the run's record and the manifest
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerastrain.data.source import Classification, Examples, Regression
from kerastrain.data.tables import remarks
from kerastrain.data.tables.columns import RawColumns
from kerastrain.data.tables.encoded import NUMBERS, EncodedColumns
from kerastrain.data.tables.encoding import Encoder
from kerastrain.data.tables.schema import Schema
from kerastrain.errors import OptionsError
from kerastrain.options import TableOptions, TrainOptions

logger = logging.getLogger(__name__)


def known_columns(encoder: Encoder, train: Examples, schema: Schema) -> EncodedColumns:
    """The encoder's columns with what a network needs of the (encoded) training rows."""
    known = encoder.columns
    assert isinstance(train.inputs, Mapping)
    if NUMBERS in train.inputs:
        known = known.with_bins(train.inputs[NUMBERS])
    return known.with_target(train.targets) if isinstance(schema.task, Regression) else known


def as_learned(examples: Examples, known: EncodedColumns) -> Examples:
    """The examples, numbers to predict in `known.target_dtype`."""
    if examples.targets.dtype.kind != "f":
        return examples
    return dataclasses.replace(examples, targets=examples.targets.astype(known.target_dtype))


def warn_of(
    columns: RawColumns, targets: np.ndarray, schema: Schema, options: TableOptions
) -> None:
    """Leaks and imbalance among the training rows."""
    found = list(remarks.leaks(columns, targets, schema))
    if not options.balance:
        found += remarks.imbalance(targets, schema)
    for remark in found:
        logger.warning("%s", remark)


def say_what_was_loaded(
    options: TrainOptions, schema: Schema, *, rows: int, sizes: Mapping[str, int]
) -> None:
    logger.info(
        "%s: %s rows, %d columns used of %d; %s.",
        options.data,
        f"{rows:,}",
        len(schema.columns),
        len(schema.columns) + len(schema.left_out),
        ", ".join(f"{name} {size:,}" for name, size in sizes.items()),
    )


def described(options: TrainOptions, schema: Schema, *, rows: int) -> dict[str, Any]:
    """Source, counts and schema, as JSON values."""
    return {
        "source": options.data,
        "rows": rows,
        "columns": [column.name for column in schema.columns],
        "left_out": dict(schema.left_out),
        "target": schema.target,
        "schema": schema.to_json(),
        "schema_sha256": schema.sha256(),
    }


def class_factors(targets: np.ndarray, weights: np.ndarray | None, schema: Schema) -> np.ndarray:
    """By which each class's rows count so that all classes count the same, float64 [classes].

    rows / (classes · rows of the class), rows counted by their weights, as scikit-learn's
    class_weight="balanced". Classes without rows do not count, so that the mean weight of the
    rows stays what it is.

    Raises:
        OptionsError: a number is to be predicted.
    """
    if not isinstance(schema.task, Classification):
        raise OptionsError(
            f"--balance is for classes, but '{schema.target}' is predicted as a number."
        )
    weights = np.ones(len(targets)) if weights is None else weights
    sums = np.bincount(targets, weights=weights, minlength=len(schema.task.classes))
    present = max(1, np.count_nonzero(sums))
    return weights.sum() / (present * np.where(sums > 0, sums, np.inf))


def weighted(examples: Examples, factors: np.ndarray) -> Examples:
    """The examples with their weights times their class's factor."""
    weights = np.ones(len(examples)) if examples.weights is None else examples.weights
    balanced = (weights * factors[examples.targets]).astype(np.float32)
    return dataclasses.replace(examples, weights=balanced)
