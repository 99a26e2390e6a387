"""What is to be predicted: classes or a number, decided from the target column.

    infer_task(table["income"], "income")        # Classification(("<=50K", ">50K"))
    target_values(table["income"], task)         # int32 [n]: indices into the classes

The rule: text and bools are classes. Integers are classes when they are two, or
at most 20 with ten rows or more for each; otherwise numbers. Floats are numbers,
except for two integral values (0.0 and 1.0).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerastrain.data.source import Classification, Regression, Task
from kerastrain.data.tables.columns import is_number, number_values
from kerastrain.errors import DataError, OptionsError, suggestion

logger = logging.getLogger(__name__)

# Pairs of which everybody takes the second for the positive one.
USUAL = ("no yes", "n y", "false true", "f t", "0 1", "-1 1", "- +", "negative positive", "neg pos")
# A class that fewer of the rows have is what is looked for.
RARER = 0.4
MAX_INTEGER_CLASSES = 20
ROWS_PER_INTEGER_CLASS = 10


def infer_task(
    column: pa.ChunkedArray,
    name: str,
    *,
    task: str | None = None,
    quantiles: Sequence[float] = (),
) -> Task:
    """Decides by the rule above, and logs what was decided.

    Args:
        task: "classification" or "regression" instead of the rule's decision.
        quantiles: to predict; it is a regression then.

    Raises:
        DataError: values are missing or infinite, there is one value only, nearly
            as many classes as rows, or the type is neither text nor number.
    """
    _check_complete(column, name)
    if quantiles and task != "classification":
        task = "regression"
    values = pc.unique(column)
    if len(values) == 1:
        raise DataError(
            f"The target '{name}' has the same value in every row, {values[0].as_py()!r}; "
            "there is nothing to predict."
        )
    if task == "regression":
        if not is_number(column.type):
            raise DataError(
                f"The target '{name}' cannot be predicted as a number: it is of type "
                f"{column.type}. Leave --task=regression and --quantiles out, or correct it."
            )
        _check_finite(column, name)
        return _number_task(column, name, tuple(quantiles))
    if pa.types.is_string(column.type):
        return _classes_of_text(column, name, values)
    if pa.types.is_boolean(column.type):
        return Classification(("false", "true"))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(
            f"The target '{name}' has the type {column.type}; expected text, numbers or bools."
        )
    _check_finite(column, name)
    if task == "classification":
        return _classes_of_whole_numbers(column, name, values)
    return _decided_from_numbers(column, name, values)


def with_positive(task: Task, labels: np.ndarray, wanted: str | None) -> Task:
    """The task, of two classes with the positive one; what was decided is logged.

    Args:
        labels: of the training rows, int32 [n].
        wanted: by --positive.

    Raises:
        OptionsError: it is none of the classes, or not two are predicted.
    """
    if not isinstance(task, Classification) or len(task.classes) != 2:
        if wanted is not None:
            raise OptionsError(
                f"--positive={wanted} is one of two classes; the target has "
                f"{_shown(task.classes) if isinstance(task, Classification) else 'numbers'}."
            )
        return task
    names = [str(value) for value in task.classes]
    if wanted is not None and wanted not in names:
        raise OptionsError(
            f"--positive={wanted} is none of the classes, {' and '.join(names)}."
            f"{suggestion(wanted, names)}"
        )
    place, why = (names.index(wanted), "--positive") if wanted else _positive(names, labels)
    logger.log(
        logging.INFO if why else logging.WARNING,
        "The positive class is '%s' (%s).",
        names[place],
        why or "the last; neither is rare or usual. --positive=… says which it is",
    )
    return Classification(task.classes, task.classes[place])


def _positive(names: list[str], labels: np.ndarray) -> tuple[int, str]:
    """Its place, and why it is the one; "" when nothing tells."""
    lower = [name.lower() for name in names]
    for pair in USUAL:
        if pair.split() in (lower, lower[::-1]):
            return lower.index(pair.split()[1]), "as usual"
    shares = np.bincount(labels, minlength=2) / len(labels)
    rarer = int(shares.argmin())
    if shares[rarer] < RARER:
        return rarer, f"the rarer, {shares[rarer]:.3g} of the training rows"
    return 1, ""


def target_values(column: pa.ChunkedArray, task: Task, *, first_row: int = 0) -> np.ndarray:
    """int32 [n], indices into the classes; or float64 [n, 1] for regression.

    Args:
        first_row: the number (from 0) of the column's first row, for messages.

    Raises:
        DataError: a value is missing, infinite, none of the classes, or not of their type.
    """
    if isinstance(task, Regression):
        return _numbers(column, task.target, first_row)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.string())
    try:
        if pa.types.is_floating(column.type):
            column = pc.cast(column, pa.int64())
        classes = pa.array(task.classes, type=column.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError):
        raise DataError(
            f"The target is of type {column.type}; the classes are {_shown(task.classes)}."
        ) from None
    indices = pc.index_in(column, value_set=classes)
    if indices.null_count:
        unknown = pc.unique(column.filter(indices.is_null())).to_pylist()
        raise DataError(
            f"The target holds {_shown(unknown)}, which is none of the classes "
            f"{_shown(task.classes)}."
        )
    return indices.to_numpy(zero_copy_only=False).astype(np.int32)


def _numbers(column: pa.ChunkedArray, name: str, first_row: int) -> np.ndarray:
    if not is_number(column.type):
        raise DataError(
            f"The target '{name}' is of type {column.type}; it is to be predicted as a number."
        )
    _check_complete(column, name, first_row)
    _check_finite(column, name, first_row)
    # [n, 1] like the model's output: [n] against [n, 1] would broadcast to [n, n].
    return number_values(column)[:, np.newaxis]


def _number_task(column: pa.ChunkedArray, name: str, quantiles: tuple[float, ...]) -> Regression:
    numbers = number_values(column)
    if numbers.min() == numbers.max():  # although the column's own values differ
        raise DataError(
            f"The values of the target '{name}' differ by less than float64 tells apart near "
            f"{numbers[0]:g}. Subtract a constant from them in the file."
        )
    return Regression(name, quantiles)


def _shown(values: Sequence[object]) -> str:
    return ", ".join(map(repr, values[:5])) + (", …" if len(values) > 5 else "")


def _check_complete(column: pa.ChunkedArray, name: str, first_row: int = 0) -> None:
    if column.null_count:
        rows = 1 + first_row + np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise DataError(
            f"The target '{name}' is missing in {len(rows):,} of {len(column):,} rows "
            f"(row {shown}; the first row after the header is 1). Remove these rows or fill them."
        )


def _classes_of_text(column: pa.ChunkedArray, name: str, values: pa.Array) -> Classification:
    if 2 * len(values) > len(column):
        raise DataError(
            f"The target '{name}' has {len(values):,} different texts in {len(column):,} rows; "
            f"expected classes that repeat, or numbers. The first is {values[0].as_py()!r}."
        )
    return Classification(tuple(sorted(values.to_pylist())))


def _check_finite(column: pa.ChunkedArray, name: str, first_row: int = 0) -> None:
    numbers = number_values(column)
    bad = np.flatnonzero(~(np.abs(numbers) <= np.finfo(np.float32).max))
    if len(bad):
        raise DataError(
            f"The target '{name}' is infinite or too large in {len(bad):,} rows, the first is "
            f"row {first_row + bad[0] + 1}: {numbers[bad[0]]}. Correct or remove these rows."
        )


def _decided_from_numbers(column: pa.ChunkedArray, name: str, values: pa.Array) -> Task:
    if _are_classes(column, values):
        logger.info(
            "The target '%s' has %d different whole numbers: they are predicted as classes "
            "(--task=regression predicts a number).",
            name,
            len({int(value) for value in values.to_pylist()}),
        )
        return _classes_of_whole_numbers(column, name, values)
    logger.info("The target '%s' is predicted as a number.", name)
    return _number_task(column, name, ())


def _classes_of_whole_numbers(
    column: pa.ChunkedArray, name: str, values: pa.Array
) -> Classification:
    numbers = values.to_pylist()
    broken = [value for value in numbers if value != int(value)]
    if broken:
        raise DataError(
            f"The target '{name}' holds {broken[0]}, which is no class; expected text or whole "
            "numbers. Leave --task=classification out to predict a number."
        )
    classes = sorted({int(value) for value in numbers})
    if 2 * len(classes) > len(column):
        raise DataError(
            f"The target '{name}' has {len(classes):,} different numbers in {len(column):,} "
            "rows; expected classes that repeat. --task=regression predicts a number."
        )
    return Classification(tuple(classes))


def _are_classes(column: pa.ChunkedArray, values: pa.Array) -> bool:
    if pa.types.is_integer(column.type):
        enough_rows = len(column) >= ROWS_PER_INTEGER_CLASS * len(values)
        return len(values) == 2 or (len(values) <= MAX_INTEGER_CLASSES and enough_rows)
    # Arrow tells 0.0 and -0.0 apart, so two numbers can be up to three values.
    distinct = set(values.to_pylist()) if len(values) <= 3 else set()
    return len(distinct) == 2 and all(value.is_integer() for value in distinct)
