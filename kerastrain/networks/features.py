"""From an encoded table to one vector of features: what all networks for tables begin with.

    inputs = encoded_inputs(columns)                  # {"numbers": …, "categories": …}
    x = joined_features(inputs, columns, embedding=16)    # float32 [batch, features]

Numbers go in as they are, or through piecewise-linear embeddings (Gorishniy, Rubachev and
Babenko 2022, "On Embeddings for Numerical Features in Tabular Deep Learning"). A category of
few values becomes one feature for each value; one of many is embedded.

Made of Keras's own layers and operations, so that a saved model needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from kerastrain.arguments import COUNT_OR_0
from kerastrain.data.tables.encoded import CATEGORIES, NUMBERS, EncodedColumns

# Above it a category is embedded: one feature for each value would cost more than it tells.
ONE_HOT_VALUES = 64
MAX_EMBEDDING = 50


def encoded_inputs(columns: EncodedColumns) -> dict[str, keras.KerasTensor]:
    """The inputs of a network: "numbers" float32 [batch, k], "categories" int32 [batch, c]."""
    inputs = {}
    if columns.numbers:
        inputs[NUMBERS] = keras.Input((len(columns.numbers),), name=NUMBERS)
    if columns.categories:
        shape = (len(columns.categories),)
        inputs[CATEGORIES] = keras.Input(shape, dtype="int32", name=CATEGORIES)
    return inputs


def joined_features(
    inputs: Mapping[str, keras.KerasTensor], columns: EncodedColumns, *, embedding: int = 0
) -> keras.KerasTensor:
    """All features side by side, float32 [batch, features].

    Args:
        embedding: features for each number with more than two values, learned from its
            piecewise-linear encoding; 0: numbers go in as they are.

    Raises:
        ArgumentError: `embedding` is out of range.
    """
    COUNT_OR_0.check("The network", "embedding", embedding)
    parts = []
    if NUMBERS in inputs:
        parts += _numbers(inputs[NUMBERS], columns, embedding)
    if CATEGORIES in inputs:
        parts += category_features(inputs[CATEGORIES], columns)
    return keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]


def category_features(
    categories: keras.KerasTensor, columns: EncodedColumns
) -> list[keras.KerasTensor]:
    """One feature for each value of the small categories together, an embedding of each large.

    An index of -1, a value that training never saw, gives zeros in both.
    """
    small = [i for i, size in enumerate(columns.sizes) if size <= ONE_HOT_VALUES]
    large = [i for i in range(len(columns.sizes)) if i not in small]
    parts = [one_hot(categories, columns, small)] if small else []
    for place in large:
        size = columns.sizes[place]
        index = categories[:, place]
        vector = keras.layers.Embedding(size, embedding_size(size))(ops.maximum(index, 0))
        parts.append(vector * ops.cast(index >= 0, vector.dtype)[:, None])
    return parts


def one_hot(
    categories: keras.KerasTensor, columns: EncodedColumns, places: list[int]
) -> keras.KerasTensor:
    """[batch, sum of the sizes]: all chosen categories at once, which is faster than one by one."""
    sizes = [columns.sizes[place] for place in places]
    offsets = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    chosen = ops.take(categories, np.array(places, np.int32), axis=1)
    flat = ops.where(chosen >= 0, chosen + offsets, -1)
    return ops.sum(ops.one_hot(flat, sum(sizes), dtype="float32"), axis=1)


def embedding_size(values: int) -> int:
    """min(50, 1.6 · values^0.56), rounded: a rule of thumb found by experiment (fast.ai, 2018)."""
    return min(MAX_EMBEDDING, round(1.6 * values**0.56))


def _numbers(
    numbers: keras.KerasTensor, columns: EncodedColumns, embedding: int
) -> list[keras.KerasTensor]:
    varied = [i for i, edges in enumerate(columns.edges) if len(edges) > 2]
    if not (embedding and varied):
        return [numbers]
    others = [i for i in range(len(columns.numbers)) if i not in varied]
    parts = [ops.take(numbers, np.array(others, np.int32), axis=1)] if others else []
    chosen = ops.take(numbers, np.array(varied, np.int32), axis=1)
    encoding = piecewise_linear(chosen, [columns.edges[place] for place in varied])
    bins = encoding.shape[-1]
    embedded = keras.layers.EinsumDense(
        "bkt,ktd->bkd",
        output_shape=(len(varied), embedding),
        bias_axes="kd",
        # As for a dense layer of one number's bins; Glorot would take all numbers for its inputs.
        kernel_initializer=keras.initializers.RandomUniform(-(bins**-0.5), bins**-0.5),
    )(encoding)
    embedded = keras.layers.Activation("relu")(embedded)
    return [*parts, keras.layers.Flatten(data_format="channels_last")(embedded)]


def piecewise_linear(
    numbers: keras.KerasTensor, edges: list[tuple[float, ...]]
) -> keras.KerasTensor:
    """[batch, k] to [batch, k, bins + 1]: how much of each bin lies below the number, then itself.

    Gorishniy et al. (2022), eq. 1: component t is (x - b_{t-1}) / (b_t - b_{t-1}), clipped to
    0 and 1. There the first and the last bin are open; here the number itself, as the last
    component, carries what lies beyond the edges. Numbers with fewer bins have zeros after them.
    """
    bins = max(len(one) - 1 for one in edges)
    scale = np.zeros((len(edges), bins), np.float32)
    lowest = np.zeros((len(edges), bins), np.float32)
    for row, one in enumerate(edges):
        low, high = np.array(one[:-1], np.float64), np.array(one[1:], np.float64)
        scale[row, : len(low)] = 1 / (high - low)
        lowest[row, : len(low)] = low
    parts = ops.clip((numbers[:, :, None] - lowest) * scale, 0.0, 1.0)
    return ops.concatenate([parts, numbers[:, :, None]], axis=-1)
