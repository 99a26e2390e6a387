"""What is to be predicted: classes or a number, decided from the target column.

    infer_task(table["income"], "income")        # Classification(("<=50K", ">50K"))
    target_values(table["income"], task)         # int32 [n]: indices into the classes

The rule: text and bools are classes. Integers are classes when they are two, or
at most 20 with ten rows or more for each; otherwise numbers. Floats are numbers,
except for two integral values (0.0 and 1.0).
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.data.tables.columns import number_values
from kerastrain.errors import DataError

logger = logging.getLogger(__name__)

MAX_INTEGER_CLASSES = 20
ROWS_PER_INTEGER_CLASS = 10


def infer_task(column: pa.ChunkedArray, name: str) -> Task:
    """Decides by the rule above, and logs what was decided.

    Raises:
        DataError: values are missing or infinite, there is one value only, nearly
            as many classes as rows, or the type is neither text nor number.
    """
    _check_complete(column, name)
    values = pc.unique(column)
    if len(values) == 1:
        raise DataError(
            f"The target '{name}' has the same value in every row, {values[0].as_py()!r}; "
            "there is nothing to predict."
        )
    if pa.types.is_string(column.type):
        return _classes_of_text(column, name, values)
    if pa.types.is_boolean(column.type):
        return Classification(("false", "true"))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(
            f"The target '{name}' has the type {column.type}; expected text, numbers or bools."
        )
    return _classes_of_numbers(column, name, values)


def target_values(column: pa.ChunkedArray, task: Task) -> np.ndarray:
    """int32 [n], indices into the classes; or float32 [n, 1] for regression."""
    if isinstance(task, Regression):
        # [n, 1] like the model's output: [n] against [n, 1] would broadcast to [n, n].
        return number_values(column).astype(np.float32)[:, np.newaxis]
    if pa.types.is_boolean(column.type):
        return number_values(column).astype(np.int32)
    if pa.types.is_floating(column.type):
        column = pc.cast(column, pa.int64())
    classes = pa.array(task.classes, type=column.type)
    return pc.index_in(column, value_set=classes).to_numpy(zero_copy_only=False).astype(np.int32)


def _check_complete(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        rows = 1 + np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise DataError(
            f"The target '{name}' is missing in {len(rows):,} of {len(column):,} rows "
            f"(row {shown}; the first row after the header is 1). Remove these rows or fill them."
        )


def _classes_of_text(column: pa.ChunkedArray, name: str, values: pa.Array) -> Classification:
    if 2 * len(values) > len(column):
        raise DataError(
            f"The target '{name}' has {len(values):,} different texts in {len(column):,} rows; "
            "expected classes that repeat, or numbers."
        )
    return Classification(tuple(sorted(values.to_pylist())))


def _classes_of_numbers(column: pa.ChunkedArray, name: str, values: pa.Array) -> Task:
    numbers = number_values(column)
    bad = np.flatnonzero(~(np.abs(numbers) <= np.finfo(np.float32).max))
    if len(bad):
        raise DataError(
            f"The target '{name}' is infinite or too large in {len(bad):,} rows, the first is "
            f"row {bad[0] + 1}: {numbers[bad[0]]}. Correct or remove these rows."
        )
    if _are_classes(column, values):
        classes = sorted({int(value) for value in values.to_pylist()})
        logger.info(
            "The target '%s' has %d different whole numbers: they are predicted as classes.",
            name,
            len(classes),
        )
        return Classification(tuple(classes))
    logger.info("The target '%s' is predicted as a number.", name)
    return Regression(name)


def _are_classes(column: pa.ChunkedArray, values: pa.Array) -> bool:
    if pa.types.is_integer(column.type):
        enough_rows = len(column) >= ROWS_PER_INTEGER_CLASS * len(values)
        return len(values) == 2 or (len(values) <= MAX_INTEGER_CLASSES and enough_rows)
    # Arrow tells 0.0 and -0.0 apart, so two numbers can be up to three values.
    distinct = set(values.to_pylist()) if len(values) <= 3 else set()
    return len(distinct) == 2 and all(value.is_integer() for value in distinct)
