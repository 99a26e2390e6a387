"""Encoding: from raw named columns to one dense float32 array, by Keras's own parts.

    encoder = fit_encoder(train_rows, schema)         # keras.Model
    features = encode(encoder, rows)                  # float32 [n, features]

Everything is learned from the training rows. Numbers are standardised and
squashed smoothly into (-SQUASH, SQUASH), missing ones become 0; a column with
missing training values gets a second feature, 1 where the value is missing.
Categories become one feature for each value (a missing one counts as a value),
the most frequent ones if there are many; rare values share one feature. A value
never seen is encoded like a rare one, or as all zeros when nothing was rare.

Only Keras's built-in layers and operations are used, so the encoder can be saved
as `.keras` and loaded without this package. Strings cannot be handled by XLA and
cost much: encode a table once, not at every step, and join encoder and model for
the export: `keras.Model(encoder.inputs, model(encoder(encoder.inputs)))`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerastrain.data.tables.schema import Schema

MAX_CATEGORIES = 100
MIN_COUNT = 2
SQUASH = 5.0

_FLOAT32_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class NumberStatistics:
    """Of one column's training values: `center` and `scale` for (x - center) / scale."""

    center: float
    scale: float
    has_missing: bool


@dataclass(frozen=True)
class CategoryStatistics:
    """The values with a feature of their own, most frequent first; whether others occurred."""

    vocabulary: tuple[str, ...]
    has_rare: bool


def number_statistics(values: np.ndarray) -> NumberStatistics:
    """Mean and standard deviation of float32 [n]; NaN is missing.

    Values that do not vary get the scale 1: a new value is then a finite distance away.
    """
    present = values[~np.isnan(values)].astype(np.float64)
    if len(present) == 0:
        return NumberStatistics(0.0, 1.0, True)
    scale = float(np.std(present))
    if scale < _FLOAT32_TINY:
        scale = 1.0
    return NumberStatistics(float(np.mean(present)), scale, len(present) < len(values))


def category_statistics(values: np.ndarray) -> CategoryStatistics:
    """The vocabulary of object [n] of str, ordered by falling count, then by value."""
    counts = Counter(values.tolist())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [
        value
        for value, count in ordered[:MAX_CATEGORIES]
        # NumPy drops NULs at the end of a text, so Keras would see such values as equal.
        if count >= MIN_COUNT and "\0" not in value
    ]
    return CategoryStatistics(tuple(kept or [""]), len(kept) < len(counts))


def fit_encoder(rows: Mapping[str, np.ndarray], schema: Schema) -> keras.Model:
    """The encoder learned from the training rows.

    Args:
        rows: training rows by input name, as `columns.raw_rows` gives them.

    Returns:
        A model whose inputs are the schema's columns (each of shape [batch],
        float32 or string, under its input name) and whose output is float32
        [batch, features].
    """
    numbers = {
        column.input: number_statistics(rows[column.input])
        for column in schema.columns
        if column.kind == "number"
    }
    categories = {
        column.input: category_statistics(rows[column.input])
        for column in schema.columns
        if column.kind == "category"
    }
    policy = keras.config.dtype_policy()
    # Features are float32 also when the model computes in bfloat16.
    keras.config.set_dtype_policy("float32")
    try:
        return _build(schema, numbers, categories)
    finally:
        keras.config.set_dtype_policy(policy)


def encode(
    encoder: keras.Model, rows: Mapping[str, np.ndarray], *, batch_size: int = 65_536
) -> np.ndarray:
    """float32 [n, features]: all rows through the encoder, `batch_size` at a time."""
    names = [tensor.name for tensor in encoder.inputs]
    signature = [tf.TensorSpec([None], tensor.dtype) for tensor in encoder.inputs]
    encode_batch = tf.function(
        lambda *columns: encoder(list(columns), training=False), input_signature=signature
    )
    count = len(rows[names[0]])
    features = np.empty((count, encoder.output_shape[-1]), np.float32)
    for start in range(0, count, batch_size):
        batch = slice(start, start + batch_size)
        features[batch] = encode_batch(*(tf.constant(rows[name][batch]) for name in names))
    return features


def _build(
    schema: Schema,
    numbers: Mapping[str, NumberStatistics],
    categories: Mapping[str, CategoryStatistics],
) -> keras.Model:
    # Layers of a model need different names. Those of the encoding lie in an inner
    # model, so a column may be called like any of them.
    inner_inputs = {
        column.input: keras.Input((), dtype=_dtype(column.kind), name=f"{column.kind}_{place}")
        for place, column in enumerate(schema.columns)
    }
    parts = _encoded_numbers(inner_inputs, numbers)
    for name, statistics in categories.items():
        parts.append(_encoded_category(inner_inputs[name], statistics))
    joined = keras.layers.Concatenate(name="join")(parts) if len(parts) > 1 else parts[0]
    inner = keras.Model(list(inner_inputs.values()), joined, name=_free_name("encode", schema))
    inputs = [
        keras.Input((), dtype=_dtype(column.kind), name=column.input) for column in schema.columns
    ]
    return keras.Model(inputs, inner(inputs), name=_free_name("encoder", schema))


def _encoded_numbers(
    inputs: Mapping[str, keras.KerasTensor], numbers: Mapping[str, NumberStatistics]
) -> list[keras.KerasTensor]:
    """All numbers together, [batch, numbers], then what is missing, [batch, with missing]."""
    if not numbers:
        return []
    raw = ops.stack([inputs[name] for name in numbers], axis=-1)
    center = np.array([s.center for s in numbers.values()], np.float32)
    scale = np.array([s.scale for s in numbers.values()], np.float32)
    # Not keras.layers.Normalization: it squares the scale, which in float32 works only
    # for scales between 1e-7 and 1e19.
    standardised = (raw - center) / scale
    # An infinity from a client counts as missing: nothing better is known of it.
    encoded = [ops.where(ops.isfinite(raw), _squashed(standardised), 0.0)]
    with_missing = [inputs[name] for name, s in numbers.items() if s.has_missing]
    if with_missing:
        is_missing = ops.logical_not(ops.isfinite(ops.stack(with_missing, axis=-1)))
        encoded.append(ops.cast(is_missing, "float32"))
    return encoded


def _squashed(x: keras.KerasTensor) -> keras.KerasTensor:
    """x / sqrt(1 + (x/c)²): nearly x near 0, never beyond ±c (Holzmüller et al. 2024, RealMLP)."""
    bounded = ops.clip(x, -1e6, 1e6)  # so that the square is finite
    return bounded / ops.sqrt(1.0 + ops.square(bounded / SQUASH))


def _encoded_category(
    texts: keras.KerasTensor, statistics: CategoryStatistics
) -> keras.KerasTensor:
    """[batch, values]: one-hot. Index 0 of the look-up, "not in the vocabulary", is the
    rare values' feature when there were any in training; without, a feature that never was
    1 in training would bring untrained weights into predictions, so there is none."""
    unknown = "[UNK]"
    while unknown in statistics.vocabulary:
        unknown += "_"
    index = keras.layers.StringLookup(
        vocabulary=list(statistics.vocabulary),
        num_oov_indices=1,
        oov_token=unknown,
        mask_token=None,
        name=f"{texts.name}_index",
    )(texts)
    values = len(statistics.vocabulary)
    if statistics.has_rare:
        return ops.one_hot(index, values + 1, dtype="float32")
    return ops.one_hot(index - 1, values, dtype="float32")  # -1 gives zeros


def _dtype(kind: str) -> str:
    return "float32" if kind == "number" else "string"


def _free_name(base: str, schema: Schema) -> str:
    taken: Iterable[str] = [column.input for column in schema.columns]
    while base in taken:
        base += "_"
    return base
