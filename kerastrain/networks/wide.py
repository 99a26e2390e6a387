"""The wide part of Wide & Deep: linear in features and in pairs of categories.

    output = added([linear(deep, data), linear(features, data), *pairs(inputs, data, buckets=1000)])

Cheng et al. (2016), "Wide & Deep Learning for Recommender Systems".
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from kerastrain.arguments import COUNT_OR_0
from kerastrain.data.source import Data
from kerastrain.data.tables.encoded import CATEGORIES
from kerastrain.networks.heads import units

# Of many categories only the pairs of the first ones: each would cost more than it tells.
MAX_PAIRS = 100
# The golden ratio in 16 bits (Knuth, The Art of Computer Programming, section 6.4).
_MULTIPLIER = 40_503


def linear(x: keras.KerasTensor, data: Data) -> keras.KerasTensor:
    """Features [batch, f] to [batch, units], float32."""
    return keras.layers.Dense(units(data), dtype="float32")(x)


def pairs(
    inputs: Mapping[str, keras.KerasTensor], data: Data, *, buckets: int
) -> list[keras.KerasTensor]:
    """[batch, units]: the sum of a weight for each pair of values; none without two categories.

    Args:
        buckets: values of a pair are hashed to so many, where there are more of them; 0: no
            pairs.

    Pairs that training never saw, because one of the values was not there, add nothing. With
    many categories the pairs of the first ones are taken.

    Raises:
        ArgumentError: `buckets` is out of range.
    """
    COUNT_OR_0.check("The wide part", "buckets", buckets)
    assert data.columns is not None
    sizes = data.columns.sizes
    if not buckets or len(sizes) < 2:
        return []
    chosen = list(itertools.islice(itertools.combinations(range(len(sizes)), 2), MAX_PAIRS))
    left, right = (
        ops.take(inputs[CATEGORIES], np.array(places, np.int32), axis=1)
        for places in zip(*chosen, strict=True)
    )
    right_sizes = np.array([sizes[second] for _, second in chosen], np.int32)
    values = np.array([sizes[first] * sizes[second] for first, second in chosen])
    cell = ops.maximum(left, 0) * right_sizes + ops.maximum(right, 0)
    hashed = ops.mod(ops.maximum(left, 0) * _MULTIPLIER + ops.maximum(right, 0), buckets)
    cell = ops.where(values > buckets, hashed, cell)
    used = np.minimum(values, buckets)
    # One table for all pairs: one look-up is faster than many small ones.
    offsets = np.cumsum([0, *used[:-1]]).astype(np.int32)
    weights = keras.layers.Embedding(
        int(used.sum()), units(data), embeddings_initializer="zeros", dtype="float32"
    )(cell + offsets)
    is_known = ops.cast((left >= 0) & (right >= 0), "float32")
    return [ops.sum(weights * is_known[:, :, None], axis=1)]


def added(parts: list[keras.KerasTensor]) -> keras.KerasTensor:
    """The parts' sum."""
    return keras.layers.Add(dtype="float32", name="wide_and_deep")(parts)
