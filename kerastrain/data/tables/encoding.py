"""Encoding: from raw named columns to "numbers" and "categories", by Keras's own parts.

    encoder = fit_encoder(train_columns, schema)      # of `columns.raw_columns`
    encoded = encoder.encode(columns)                 # {"numbers": float32 [n, k], …}
    encoder.model                                     # keras.Model: what is exported

Everything is learned from the training rows. Numbers are standardised and squashed smoothly
into (-SQUASH, SQUASH), or, with `numbers="quantiles"`, mapped to a normal distribution; a
missing one becomes 0, and a column with missing training values gets a second column, 1 where
the value is missing. Booleans stay 0 and 1; dates become parts (dates.py). A category's values
are numbered, the most frequent first (a missing one counts as a value); rare values share one
index. A value never seen is encoded like a rare one, or as -1 when nothing was rare.

Only Keras's built-in layers and operations are used, so the encoder can be saved as `.keras`
and loaded without this package. Strings cannot be handled by XLA and cost much: a table is
encoded once, each different text only once, and encoder and model are joined for the export.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerastrain.data.tables.columns import RawColumns, Texts
from kerastrain.data.tables.dates import PARTS, date_parts
from kerastrain.data.tables.encoded import CATEGORIES, NUMBERS, EncodedColumns
from kerastrain.data.tables.schema import Column, Schema

Scaling = Literal["standard", "quantiles"]
SCALINGS: tuple[Scaling, ...] = ("standard", "quantiles")

MAX_CATEGORIES = 10_000
MIN_COUNT = 2
SQUASH = 5.0
# Of the cumulative distribution, for numbers="quantiles".
QUANTILES = 256
# Rows encoded at once.
BATCH_ROWS = 65_536

Run = Callable[[Sequence[Any]], np.ndarray]

_FLOAT32_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class NumberStatistics:
    """Of one column's training values: `center` and `scale` for (x - center) / scale."""

    center: float
    scale: float
    has_missing: bool


@dataclass(frozen=True)
class CategoryStatistics:
    """The values with an index of their own, most frequent first; whether others occurred."""

    vocabulary: tuple[Any, ...]
    has_rare: bool


def number_statistics(values: np.ndarray) -> NumberStatistics:
    """Mean and standard deviation of float [n]; NaN is missing.

    Values that do not vary get the scale 1: a new value is then a finite distance away.
    """
    present = values[~np.isnan(values)].astype(np.float64)
    if len(present) == 0:
        return NumberStatistics(0.0, 1.0, True)
    scale = float(np.std(present))
    if scale < _FLOAT32_TINY:
        scale = 1.0
    return NumberStatistics(float(np.mean(present)), scale, len(present) < len(values))


def category_statistics(values: Texts | np.ndarray) -> CategoryStatistics:
    """The vocabulary of a column, ordered by falling count, then by value.

    Args:
        values: texts, or float32 [n] of whole numbers, NaN is missing. Of numbers the missing
            one is no value of the vocabulary: whether there are any is `has_rare`'s to tell.
    """
    if isinstance(values, Texts):
        counts = np.bincount(values.codes, minlength=len(values.values))
        found = [(value, int(n)) for value, n in zip(values.values, counts, strict=True) if n]
        # NumPy drops NULs at the end of a text, so Keras would see such values as equal.
        usable = [item for item in found if "\0" not in item[0]]
    else:
        present = values[~np.isnan(values)]
        numbers, counts = np.unique(present.astype(np.int64), return_counts=True)
        found = usable = list(zip(numbers.tolist(), counts.tolist(), strict=True))
    ordered = sorted(usable, key=lambda item: (-item[1], item[0]))
    kept = [value for value, count in ordered[:MAX_CATEGORIES] if count >= MIN_COUNT]
    has_missing_number = not isinstance(values, Texts) and len(present) < len(values)
    has_rare = len(kept) < len(found) or has_missing_number
    nothing = "" if isinstance(values, Texts) else 0
    return CategoryStatistics(tuple(kept or [nothing]), has_rare)


@dataclass(frozen=True)
class _Part:
    """The encoding of some columns by itself.

    Attributes:
        inputs: the columns' input names.
        model: of these inputs, in their order, to `output`'s columns: float32 or int32 [batch, k].
        output: NUMBERS or CATEGORIES.
        names: of the encoded columns.
        size: of a category: how many indices there are.
    """

    inputs: tuple[str, ...]
    model: keras.Model
    output: str
    names: tuple[str, ...]
    size: int = 0


class Encoder:
    """What a table's columns become.

    Attributes:
        model: inputs are the schema's columns (each of shape [batch], of its dtype, under its
            input name); outputs {"numbers": float32 [batch, k], "categories": int32 [batch, c]},
            without the one that would have no columns.
        columns: what a network must know of the outputs; the bins' edges come later.
    """

    def __init__(self, schema: Schema, parts: list[_Part]):
        self._parts = [(part, _compiled(part.model)) for part in parts]
        self.model = _joined(schema, parts)
        categories = [part for part in parts if part.output == CATEGORIES]
        self.columns = EncodedColumns(
            numbers=tuple(n for part in parts if part.output == NUMBERS for n in part.names),
            categories=tuple(name for part in categories for name in part.names),
            sizes=tuple(part.size for part in categories),
        )

    def encode(self, columns: RawColumns) -> dict[str, np.ndarray]:
        """All rows, {"numbers": float32 [n, k], "categories": int32 [n, c]}.

        The same numbers as the model's, but for the rounding of the last bit; each different
        text is encoded once.
        """
        encoded: dict[str, list[np.ndarray]] = {NUMBERS: [], CATEGORIES: []}
        for part, run in self._parts:
            encoded[part.output].append(_encoded(part, run, columns))
        return {
            name: np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0]
            for name, arrays in encoded.items()
            if arrays
        }


def _encoded(part: _Part, run: Run, columns: RawColumns) -> np.ndarray:
    first = columns[part.inputs[0]]
    if isinstance(first, Texts):  # A part of text has no other column.
        return run([first.values])[first.codes]
    return run([columns[name] for name in part.inputs])


def _compiled(model: keras.Model) -> Run:
    """Columns [n] of the model's inputs to its output [n, k], compiled once for any n."""
    signature = [tf.TensorSpec([None], tensor.dtype) for tensor in model.inputs]
    encode_batch = tf.function(
        lambda *batch: model(batch[0] if len(batch) == 1 else list(batch), training=False),
        input_signature=signature,
    ).get_concrete_function()  # TensorFlow would warn of the many functions that are made here.

    def run(values: Sequence[Any]) -> np.ndarray:
        whole = np.empty((len(values[0]), *model.output_shape[1:]), model.output.dtype)
        for start in range(0, len(whole), BATCH_ROWS):
            batch = slice(start, start + BATCH_ROWS)
            whole[batch] = encode_batch(*(tf.constant(column[batch]) for column in values))
        return whole

    return run


def fit_encoder(columns: RawColumns, schema: Schema, *, numbers: Scaling = "standard") -> Encoder:
    """The encoder learned from the training rows.

    Args:
        columns: training rows by input name, as `columns.raw_columns` gives them.
        numbers: how numbers and days of dates are scaled.
    """
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    # Features are float32 also when the model computes in bfloat16, or in float64.
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")
    try:
        return Encoder(schema, list(_parts(columns, schema, numbers)))
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)


def _parts(columns: RawColumns, schema: Schema, scaling: Scaling) -> Iterator[_Part]:
    for dtype, name in (("float32", "encode_numbers"), ("float64", "encode_wide_numbers")):
        plain = [
            column
            for column in schema.columns
            if column.kind in ("number", "boolean") and column.dtype == dtype
        ]
        if plain:
            yield _numbers_part(plain, columns, scaling, name)
    for place, column in enumerate(schema.columns):
        if column.kind == "date":
            yield _date_part(column, columns[column.input], place, scaling)
        if column.kind == "category":
            yield _category_part(column, columns[column.input], place)


def _numbers_part(
    plain: list[Column], columns: RawColumns, scaling: Scaling, model_name: str
) -> _Part:
    """Numbers of one dtype together, [batch, numbers], then what is missing, [batch, gaps]."""
    inputs = [
        keras.Input((), dtype=column.dtype, name=f"number_{place}")
        for place, column in enumerate(plain)
    ]
    # A model of a single input is called with it, and not with a list.
    given = inputs if len(inputs) > 1 else inputs[0]
    raw = ops.stack(inputs, axis=-1)
    values = [np.asarray(columns[column.input]) for column in plain]
    is_finite = ops.isfinite(raw)
    # An infinity from a client counts as missing: nothing better is known of it.
    encoded = [ops.where(is_finite, _scaled(raw, plain, values, scaling), 0.0)]
    gaps = [place for place, column in enumerate(values) if np.isnan(column).any()]
    if gaps:
        is_missing = ops.logical_not(ops.take(is_finite, np.array(gaps, np.int32), axis=1))
        encoded.append(ops.cast(is_missing, "float32"))
    output = ops.concatenate(encoded, axis=-1) if gaps else encoded[0]
    names = [column.name for column in plain]
    names += [f"{plain[place].name} is missing" for place in gaps]
    model = keras.Model(given, output, name=model_name)
    return _Part(tuple(column.input for column in plain), model, NUMBERS, tuple(names))


def _scaled(
    raw: keras.KerasTensor, plain: list[Column], values: list[np.ndarray], scaling: Scaling
) -> keras.KerasTensor:
    is_number = np.array([column.kind == "number" for column in plain])
    if scaling == "quantiles":
        scaled = [
            _normal(raw[:, place], column) if is_number[place] else raw[:, place]
            for place, column in enumerate(values)
        ]
        return ops.stack(scaled, axis=-1)
    statistics = [
        number_statistics(column) if kept else NumberStatistics(0.0, 1.0, False)
        for column, kept in zip(values, is_number, strict=True)
    ]
    # In the values' own precision: a float64 is only rounded once it is centred and scaled.
    center = np.array([s.center for s in statistics], raw.dtype)
    # Not keras.layers.Normalization: it squares the scale, which in float32 works only
    # for scales between 1e-7 and 1e19. Factors and no divisors here and below: TensorFlow turns
    # a division by a constant into a product when it compiles, which rounds differently.
    factor = np.array([1 / s.scale for s in statistics], raw.dtype)
    standardised = _narrowed((raw - center) * factor)
    if not is_number.all():
        return ops.where(is_number, _squashed(standardised), standardised)
    return _squashed(standardised)


def _narrowed(x: keras.KerasTensor) -> keras.KerasTensor:
    return ops.cast(x, "float32") if x.dtype == "float64" else x


def _squashed(x: keras.KerasTensor) -> keras.KerasTensor:
    """x / sqrt(1 + (x/c)²): nearly x near 0, never beyond ±c (Holzmüller et al. 2024, RealMLP)."""
    bounded = ops.clip(x, -1e6, 1e6)  # so that the square is finite
    return bounded * ops.rsqrt(1.0 + ops.square(bounded * (1 / SQUASH)))


def _normal(x: keras.KerasTensor, values: np.ndarray) -> keras.KerasTensor:
    """Numbers [batch] to a normal distribution, by the quantiles of the training values.

    Φ⁻¹ of the cumulative distribution, interpolated between QUANTILES quantiles; a value that
    is several quantiles at once gets their mean share (as scikit-learn's QuantileTransformer).
    """
    edges, shares = _distribution(values)
    if len(edges) < 2:
        return ops.zeros_like(x)
    place = ops.clip(ops.searchsorted(edges, x, side="right"), 1, len(edges) - 1)
    low, high = ops.take(edges, place - 1), ops.take(edges, place)
    below, above = ops.take(shares, place - 1), ops.take(shares, place)
    within = _narrowed(ops.clip((x - low) / (high - low), 0.0, 1.0))
    share = below + (above - below) * within
    outermost = 0.5 / QUANTILES / 10
    return math.sqrt(2) * ops.erfinv(2 * ops.clip(share, outermost, 1 - outermost) - 1)


def _distribution(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values [m], rising, and float32 [m]: the share of the training values below each."""
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return present, np.zeros(0, np.float32)
    levels = np.linspace(0, 1, QUANTILES + 1)
    quantiles = np.quantile(present, levels, method="nearest")
    edges, first, count = np.unique(quantiles, return_index=True, return_counts=True)
    return edges, ((first + (count - 1) / 2) / QUANTILES).astype(np.float32)


def _date_part(column: Column, texts: Any, place: int, scaling: Scaling) -> _Part:
    """The parts of a date, its days scaled like a number."""
    text = keras.Input((), dtype="string", name=f"date_{place}")
    parts = date_parts(text, name=f"date_{place}")
    run = _compiled(keras.Model(text, parts, name=f"date_{place}_parts"))
    bare = run([texts.values])[texts.codes]
    days = np.where(bare[:, -1] > 0, np.nan, bare[:, 0]).astype(np.float32)
    plain = Column(column.name, column.input, "number")
    is_missing = parts[:, -1:]
    scaled = _scaled(parts[:, :1], [plain], [days], scaling)
    scaled = ops.where(is_missing > 0, 0.0, scaled)
    output = ops.concatenate([scaled, parts[:, 1:]], axis=-1)
    model = keras.Model(text, output, name=f"encode_date_{place}")
    names = tuple(f"{column.name}: {part}" for part in PARTS)
    return _Part((column.input,), model, NUMBERS, names)


def _category_part(column: Column, values: Any, place: int) -> _Part:
    """Index 0 of the look-up, "not in the vocabulary", is the rare values' index when there
    were any in training; without, an index that training never saw would bring untrained
    weights into predictions, so it becomes -1, which networks turn into zeros."""
    statistics = category_statistics(values)
    value = keras.Input((), dtype=column.dtype, name=f"category_{place}")
    name = f"category_{place}_index"
    if column.dtype == "string":
        index = keras.layers.StringLookup(
            vocabulary=list(statistics.vocabulary),
            num_oov_indices=1,
            oov_token=_unknown(statistics.vocabulary),
            mask_token=None,
            name=name,
        )(value)
    else:
        # 1.5 is no code and must not be taken for 1; infinities and NaN are none either.
        is_code = ops.isfinite(value) & ops.equal(value, ops.floor(value))
        codes = keras.layers.IntegerLookup(
            vocabulary=[int(code) for code in statistics.vocabulary],
            num_oov_indices=1,
            oov_token=_unknown_code(statistics.vocabulary),
            mask_token=None,
            name=name,
        )(ops.cast(ops.where(is_code, value, 0.0), "int64"))
        index = ops.where(is_code, codes, ops.zeros_like(codes))
    shift = 0 if statistics.has_rare else 1
    output = ops.cast(index, "int32")[:, None] - shift
    size = len(statistics.vocabulary) + 1 - shift
    model = keras.Model(value, output, name=f"encode_category_{place}")
    return _Part((column.input,), model, CATEGORIES, (column.name,), size)


def _unknown(vocabulary: tuple[Any, ...]) -> str:
    token = "[UNK]"
    while token in vocabulary:
        token += "_"
    return token


def _unknown_code(vocabulary: tuple[Any, ...]) -> int:
    """A number that is no code: IntegerLookup needs one to stand for the others."""
    return min([-1, *(int(code) - 1 for code in vocabulary)])


def _joined(schema: Schema, parts: list[_Part]) -> keras.Model:
    """One model of all parts, from the schema's columns."""
    # Layers of a model need different names. Those of the encoding lie in an inner
    # model, so a column may be called like any of them.
    inner_inputs = {
        column.input: keras.Input((), dtype=column.dtype, name=f"column_{place}")
        for place, column in enumerate(schema.columns)
    }
    outputs: dict[str, list[keras.KerasTensor]] = {NUMBERS: [], CATEGORIES: []}
    for part in parts:
        given = [inner_inputs[name] for name in part.inputs]
        outputs[part.output].append(part.model(given if len(given) > 1 else given[0]))
    joined = {
        name: ops.concatenate(tensors, axis=-1) if len(tensors) > 1 else tensors[0]
        for name, tensors in outputs.items()
        if tensors
    }
    inner = keras.Model(list(inner_inputs.values()), joined, name=_free_name("encode", schema))
    inputs = [keras.Input((), dtype=column.dtype, name=column.input) for column in schema.columns]
    return keras.Model(inputs, inner(inputs), name=_free_name("encoder", schema))


def _free_name(base: str, schema: Schema) -> str:
    taken = [column.input for column in schema.columns]
    while base in taken:
        base += "_"
    return base
