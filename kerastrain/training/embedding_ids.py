"""Which ids the Embeddings of a model are given by a data set.

    probe = IdProbe(state, examples)
    for ids in probe.look(examples, "train"): print(ids.layer.name, ids.low, ids.high, ids.bad_rows)

The model's forward pass is traced once, and only what the ids depend on is run: lookups, offsets
and reshaping count, whatever kind of model it is, and what comes after costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
        inputs: the names of the inputs that the ids come from ("" is a single one), if any.
        low, high: of all ids; NaN if one is.
        bad_rows: how many rows have ids that the layer has no vector for.
        first_bad: the number of the first of them.
    """

    layer: keras.layers.Embedding
    inputs: list[str]
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
        self._uses: list[tuple[keras.layers.Embedding, list[str]]] = []
        specs = {
            name: tf.TensorSpec((None, *array.shape[1:]), tf.constant(array).dtype)
            for name, array in _named(examples.take(np.arange(1))).items()
        }
        self._ranges = tf.function(self._trace).get_concrete_function(specs)
        self.seen = {layer.name for layer, _ in self._uses}
        self._needed = {name for _, names in self._uses for name in names}

    def look(self, examples: Examples | StoredExamples, split: str) -> list[Ids]:
        """The ids in the examples of a split, for every use of an Embedding.

        Raises:
            DataError: an Embedding in a loop, say, has refused an id by itself.
        """
        found = [Ids(layer, names) for layer, names in self._uses]
        for first, arrays in self._pieces(examples):
            rows = len(next(iter(arrays.values())))
            try:
                ranges = self._ranges(tf.nest.map_structure(tf.constant, arrays))
            except tf.errors.InvalidArgumentError as error:
                why, last = re.search(r"indices\[.*", error.message), first + rows - 1
                raise DataError(
                    f"The model does not take the rows {first:,} to {last:,} of {split}: "
                    f"{why[0] if why else error.message}"
                ) from error
            for ids, (low, high, bad) in zip(found, ranges, strict=True):
                ids.add(low.numpy(), high.numpy(), bad.numpy(), first=first, rows=rows)
        return found

    def _pieces(
        self, examples: Examples | StoredExamples
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(number of the first row, inputs); inputs that no id depends on are zeros."""
        for first, block in examples.blocks():
            arrays = _named(block)
            size = sum(array[:1].nbytes for array in arrays.values())
            rows = max(1, PIECE_BYTES // max(1, size))
            for at in range(0, len(block), rows):
                parts = {name: array[at : at + rows] for name, array in arrays.items()}
                yield (
                    first + at,
                    {n: p if n in self._needed else np.zeros_like(p) for n, p in parts.items()},
                )

    def _trace(self, inputs: dict[str, tf.Tensor]) -> list[Any]:
        seen: list[tuple[keras.layers.Embedding, Any]] = []
        call = keras.layers.Embedding.call

        def recorded(layer: keras.layers.Embedding, ids: Any) -> Any:
            seen.append((layer, ids))
            return call(layer, ids)

        # By the class: a subclass may change ids before it hands them on.
        keras.layers.Embedding.call = recorded
        try:
            self._state.predict(inputs.get("", inputs), training=False)
        finally:
            keras.layers.Embedding.call = call
        graph = tf.compat.v1.get_default_graph()
        # What is inside a loop cannot be looked at from outside it.
        seen = [(layer, ids) for layer, ids in seen if getattr(ids, "graph", None) is graph]
        self._uses = [(layer, _sources(ids, inputs)) for layer, ids in seen]
        return [_range_of(ids, layer.input_dim) for layer, ids in seen]


def _named(examples: Examples) -> dict[str, np.ndarray]:
    inputs = examples.inputs
    return dict(inputs) if isinstance(inputs, Mapping) else {"": inputs}


def _sources(ids: tf.Tensor, inputs: Mapping[str, tf.Tensor]) -> list[str]:
    """Names of the inputs that a tensor depends on."""
    passed, left = {ids.op}, [ids.op]
    while left:
        operation = left.pop()
        new = {tensor.op for tensor in operation.inputs} - passed
        passed |= new
        left += new
    return sorted(name for name, tensor in inputs.items() if tensor.op in passed)


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
