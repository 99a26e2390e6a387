"""Where the examples of a chunk of steps lie: on the device for good, or streamed to it.

    place = placed(examples, batch_size=128, strategy=strategy)
    tensors, order, offset = place.chunk(order, first_row=1280, rows=5 * 128)

Both kinds answer the same question, so the compiled chunk is one and the same and
gives the same bytes: "rows order[offset : offset + rows] of tensors".
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerastrain.data.source import Examples

# Kept on a GPU for good; what is larger is streamed. Nothing tells how much is free there.
GPU_BUDGET_BYTES = 2 << 30


class Chunk(NamedTuple):
    """Rows for a chunk of steps: row i of it is `order[offset + i]` of `tensors`."""

    tensors: Any
    order: tf.Tensor
    offset: int


class Resident:
    """All examples on the device for the whole run."""

    kind = "on the device"
    max_rows = None

    def __init__(self, examples: Examples, device: str):
        with tf.device(device):
            self._tensors = tf.nest.map_structure(tf.constant, examples.structure())

    def chunk(self, order: tf.Tensor, first_row: int, rows: int) -> Chunk:
        return Chunk(self._tensors, order, first_row)

    def announce(self, order: tf.Tensor, first_row: int, rows: int) -> None:
        """Nothing to prepare."""


class Streamed:
    """Examples stay in host memory; each chunk's rows are gathered and sent in time.

    A chunk always has room for `max_rows`, so that every chunk has the same shape and
    the step is compiled once.
    """

    kind = "streamed"

    def __init__(self, examples: Examples, device: str, *, max_rows: int):
        self._examples = examples
        self._device = device
        self.max_rows = max_rows
        self._order = tf.range(max_rows)
        # One thread gathers the next chunk while the device works on this one.
        self._gatherer = ThreadPoolExecutor(1, thread_name_prefix="gather")
        self._ahead: tuple[tuple[int, int, int], Future[Any]] | None = None

    def chunk(self, order: tf.Tensor, first_row: int, rows: int) -> Chunk:
        key = (id(order), first_row, rows)
        if self._ahead is not None and self._ahead[0] == key:
            tensors = self._ahead[1].result()
        else:
            tensors = self._gather(order, first_row, rows)
        self._ahead = None
        return Chunk(tensors, self._order, 0)

    def announce(self, order: tf.Tensor, first_row: int, rows: int) -> None:
        """Begins to gather the chunk that will be asked for next."""
        future = self._gatherer.submit(self._gather, order, first_row, rows)
        self._ahead = ((id(order), first_row, rows), future)

    def _gather(self, order: tf.Tensor, first_row: int, rows: int) -> Any:
        numbers = np.zeros(self.max_rows, np.int64)
        numbers[:rows] = order[first_row : first_row + rows].numpy()
        with tf.device(self._device):
            return tf.nest.map_structure(tf.constant, self._examples.take(numbers).structure())


def placed(
    examples: Examples, *, device: str, batch_size: int, budget_bytes: int | None = None
) -> Resident | Streamed:
    """On the device when the examples fit its budget, else streamed."""
    budget = device_budget_bytes(device) if budget_bytes is None else budget_bytes
    if examples.nbytes <= budget:
        return Resident(examples, device)
    # Two chunks are alive at a time (one worked on, one gathered): each gets a quarter.
    row_bytes = max(1, examples.nbytes // len(examples))
    batches = max(1, min(budget // 4 // row_bytes // batch_size, STREAM_BATCHES))
    return Streamed(examples, device, max_rows=batches * batch_size)


# Steps per streamed chunk at the most: enough to hide the call, small enough to stay in cache.
STREAM_BATCHES = 64


def device_budget_bytes(device: str) -> int:
    """How much of the examples may stay on the device: on a CPU a quarter of the memory."""
    if "GPU" in device.upper():
        return GPU_BUDGET_BYTES
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
