"""Raw rows: what a client sends, and what the signature takes.

    inputs = input_specs(model, data)      # {"age": TensorSpec([None]), …}
    rows = raw_rows(data, inputs)          # {"age": array [n], …}: of the test split
    as_tensors(rows, inputs)

With an encoder the inputs are its own, the columns of the table. Without one
they are the model's: named by its keras.Input, or "inputs" when it gives no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Data, Examples, Inputs
from kerastrain.data.stored_array import StoredArray
from kerastrain.errors import DataError, ExportError
from kerastrain.export.comparison import storable

Rows = Mapping[str, np.ndarray]
Split = Literal["validation", "test"]

# Names that Keras makes up: they say nothing, and change with every model built before.
MADE_UP = re.compile(r"(keras_tensor|input_layer|input|sequential|functional)(_\d+)*(_input)?")


def input_specs(model: keras.Model, data: Data) -> dict[str, tf.TensorSpec]:
    if data.encoder is not None:
        return {t.name: _spec(t.name, t.shape, t.dtype) for t in data.encoder.inputs}
    declared = list(getattr(model, "inputs", None) or [])
    if isinstance(data.train.inputs, Mapping):
        by_name = {tensor.name: tensor for tensor in declared}
        arrays = data.train.inputs
        return {name: _fitted_spec(name, arrays[name], by_name.get(name)) for name in arrays}
    tensor = declared[0] if len(declared) == 1 else None
    is_named = tensor is not None and not MADE_UP.fullmatch(tensor.name)
    name = tensor.name if tensor is not None and is_named else "inputs"
    return {name: _fitted_spec(name, data.train.inputs, tensor)}


def _fitted_spec(name: str, array: np.ndarray, declared: Any) -> tf.TensorSpec:
    """The spec of an input: as its keras.Input declares it, if the data's rows have that shape."""
    shape: Any = (None, *array.shape[1:])
    dtype = tf.string if array.dtype.kind in "OSU" else array.dtype.name
    if declared is not None:
        dtype = declared.dtype
        # A model takes [28, 28] for an Input of [28, 28, 1]; clients send what the data are.
        if tf.TensorShape(declared.shape[1:]).is_compatible_with(array.shape[1:]):
            shape = (None, *declared.shape[1:])
    elif array.dtype.kind == "f":
        dtype = "float32"  # as Keras casts it
    return _spec(name, shape, dtype)


def _spec(name: str, shape: Any, dtype: Any) -> tf.TensorSpec:
    dtype = tf.as_dtype(dtype)
    if dtype in (tf.float16, tf.bfloat16):  # TensorFlow Serving's REST cannot take them
        dtype = tf.float32
    return tf.TensorSpec((None, *shape[1:]), dtype, name=name)


def raw_rows(data: Data, names: Mapping[str, Any] | list[str]) -> dict[str, np.ndarray]:
    """Real rows as a client sends them, {name: array [n, ...]}: of the test split if there is one.

    Raises:
        ExportError: there are no raw rows, or they lack an input.
    """
    if data.encoder is not None:
        rows: Inputs | None = data.test_rows
        if rows is None:
            raise ExportError("Data with an encoder need `test_rows` to check the export on.")
    else:
        split = data.test or data.validation or data.train
        rows = data.test_rows if data.test_rows is not None else split.inputs
    return _named_rows(rows, names)


def rows_of_split(data: Data, split: Split, names: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All rows of a split as a client sends them, {name: array [n, ...]}.

    Raises:
        DataError: there is no such split, or its raw rows are missing or of another number.
        ExportError: the rows lack an input.
    """
    examples = examples_of(data, split)
    rows: Inputs | None = data.test_rows if split == "test" else data.validation_rows
    if rows is None:
        if data.encoder is not None:
            raise DataError(f"Data with an encoder need `{split}_rows` to ask the export about.")
        rows = examples.inputs
    named = _named_rows(rows, names)
    if len(next(iter(named.values()))) != len(examples):
        raise DataError(
            f"The data's `{split}_rows` and {split} split differ in their number of rows."
        )
    return named


def examples_of(data: Data, split: Split) -> Examples:
    """The examples of a split.

    Raises:
        DataError: the data have none.
    """
    examples: Examples | None = getattr(data, split)
    if examples is None:
        raise DataError(f"The data have no {split} split to evaluate on.")
    return examples


def _named_rows(rows: Inputs, names: Mapping[str, Any] | list[str]) -> dict[str, np.ndarray]:
    if not isinstance(rows, Mapping):
        return {next(iter(names)): _rows_of(rows)}
    missing = [name for name in names if name not in rows]
    if missing:
        raise ExportError(
            f"The model takes the input '{missing[0]}', which the rows lack; "
            f"they have {', '.join(map(str, rows))}."
        )
    return {name: _rows_of(rows[name]) for name in names}


def _rows_of(rows: Any) -> Any:
    """As an array; rows on disk stay there until some of them are asked for."""
    return rows if isinstance(rows, StoredArray) else np.asarray(rows)


def first_rows(rows: Rows, count: int) -> Rows:
    """The first `count` of them, or all."""
    return {name: array[:count] for name, array in rows.items()}


def in_batches(rows: Rows, size: int) -> Iterator[Rows]:
    """All of them in their order, `size` at a time."""
    for start in range(0, len(next(iter(rows.values()))), size):
        yield {name: array[start : start + size] for name, array in rows.items()}


def as_tensors(rows: Rows, inputs: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Rows in the dtypes of the signature."""
    return {name: as_tensor(rows[name], spec.dtype) for name, spec in inputs.items()}


def as_array(tensor: Any) -> np.ndarray:
    """A tensor as an array that `np.savez` can store without pickling."""
    tensor = tf.convert_to_tensor(tensor)
    is_half = tensor.dtype in (tf.float16, tf.bfloat16)
    tensor = tf.cast(tensor, tf.float32) if is_half else tensor
    return storable(tensor.numpy())


def as_tensor(array: np.ndarray, dtype: tf.DType) -> tf.Tensor:
    """An array [n, ...] as a tensor of `dtype`; numbers are cast as NumPy casts them."""
    if dtype == tf.string:
        return tf.constant(array.tolist(), tf.string, shape=array.shape)
    return tf.constant(np.asarray(array).astype(dtype.as_numpy_dtype))
