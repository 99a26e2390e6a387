"""Which ids the Embeddings of a model are given by a data set.

    probe = IdProbe(state, examples)
    for ids in probe.look(examples, "train"): print(ids.layer.name, ids.low, ids.high, ids.bad_rows)

The model's forward pass is traced once, and only what the ids depend on is run: lookups, offsets
and reshaping count, whatever kind of model it is, and what comes after costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerastrain.data.source import Examples
from kerastrain.data.stored import StoredExamples
from kerastrain.errors import DataError
from kerastrain.training.state import TrainState

# What is looked at in one call.
PIECE_BYTES = 1 << 24


@dataclass
class Ids:
    """What one use of an Embedding is given.

    Attributes:
        of_rows: whether rows have ids of their own; positions, say, have not.
        low, high: of all ids; NaN if one is.
        bad_rows: how many rows have ids that the layer has no vector for.
        first_bad: the number of the first of them.
    """

    layer: keras.layers.Embedding
    of_rows: bool
    low: Any = None
    high: Any = None
    bad_rows: int = 0
    first_bad: int = 0

    def add(self, low: Any, high: Any, bad: np.ndarray, *, first: int, rows: int) -> None:
        """`bad`: bool [n]; n is the number of rows, from `first` on, or a multiple of it."""
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        numbers = np.unique(np.flatnonzero(bad) * rows // max(1, len(bad)))
        if len(numbers) and not self.bad_rows:
            self.first_bad = first + int(numbers[0])
        self.bad_rows += len(numbers)


class IdProbe:
    """Of one model and examples of one structure.

    Attributes:
        seen: names of the Embeddings that can be looked at.
    """

    def __init__(self, state: TrainState, examples: Examples | StoredExamples):
        self._state = state
        self._uses: list[tuple[keras.layers.Embedding, tf.Tensor]] = []
        specs = tf.nest.map_structure(
            lambda array: tf.TensorSpec((None, *array.shape[1:]), tf.constant(array).dtype),
            examples.take(np.arange(1)).structure()[0],
        )
        self._ranges = tf.function(self._trace).get_concrete_function(specs)
        self.seen = {layer.name for layer, _ in self._uses}

    def look(self, examples: Examples | StoredExamples, split: str) -> list[Ids]:
        """The ids in the examples of a split, for every use of an Embedding.

        Raises:
            DataError: a lookup before it, say, has refused a value by itself.
        """
        found = [Ids(layer, of_rows=ids.shape[0] is None) for layer, ids in self._uses]
        for first, piece in _pieces(examples):
            try:
                ranges = self._ranges(tf.nest.map_structure(tf.constant, piece.structure()[0]))
            except tf.errors.InvalidArgumentError as error:
                raise DataError(
                    f"The model does not take the rows {first:,} to {first + len(piece) - 1:,} "
                    f"of {split}: {error.message}"
                ) from error
            for ids, (low, high, bad) in zip(found, ranges, strict=True):
                ids.add(low.numpy(), high.numpy(), bad.numpy(), first=first, rows=len(piece))
        return found

    def _trace(self, inputs: Any) -> list[Any]:
        seen: list[tuple[keras.layers.Embedding, Any]] = []
        call = keras.layers.Embedding.call

        def recorded(layer: keras.layers.Embedding, ids: Any) -> Any:
            seen.append((layer, ids))
            return call(layer, ids)

        # By the class: a subclass may change ids before it hands them on.
        keras.layers.Embedding.call = recorded
        try:
            self._state.predict(inputs, training=False)
        finally:
            keras.layers.Embedding.call = call
        graph = tf.compat.v1.get_default_graph()
        # What is inside a loop cannot be looked at from outside it.
        self._uses = [(layer, ids) for layer, ids in seen if getattr(ids, "graph", None) is graph]
        return [_range_of(ids, layer.input_dim) for layer, ids in self._uses]


def _pieces(examples: Examples | StoredExamples) -> Iterator[tuple[int, Examples]]:
    """(number of the first row, examples)"""
    for first, block in examples.blocks():
        rows = max(1, PIECE_BYTES * len(block) // block.nbytes)
        for at in range(0, len(block), rows):
            yield first + at, block.take(np.arange(at, min(at + rows, len(block))))


def _range_of(ids: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(least, greatest, which of the first axis have one that is not in 0 to size - 1)."""
    # As the layer does: what is after the point is cut off.
    is_whole = ids.dtype.is_integer
    numbers = tf.cast(ids, tf.int64) if is_whole else tf.sign(ids) * tf.floor(tf.abs(ids))
    last = tf.cast(size - 1, numbers.dtype)
    is_in_range = tf.logical_and(numbers >= 0, numbers <= last)  # NaN is not.
    flat = tf.reshape(numbers, [-1])
    bad = tf.logical_not(is_in_range)
    by_row = bad if bad.shape.rank == 1 else tf.reduce_any(bad, list(range(1, bad.shape.rank)))
    return tf.reduce_min(flat), tf.reduce_max(flat), by_row
