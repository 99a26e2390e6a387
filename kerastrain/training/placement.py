"""Where the examples of a chunk of steps lie: on the device for good, or streamed to it, from
memory or from disk.

    place = placed(examples, batch_size=128, strategy=strategy)
    tensors, order, offset = place.chunk(order, first_row=1280, rows=5 * 128)

All kinds answer the same question, so the compiled chunk is one and the same and
gives the same bytes: "rows order[offset : offset + rows] of tensors".
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kerastrain.data.block_cache import BlockCache
from kerastrain.data.source import Examples
from kerastrain.data.stored import StoredExamples

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

    def __init__(self, examples: Examples | StoredExamples, device: str, *, max_rows: int):
        self._examples = examples
        self._device = device
        self.max_rows = max_rows
        self._order = tf.range(max_rows)
        # One thread gathers the next chunk while the device works on this one. No other gathers.
        self._gatherer = ThreadPoolExecutor(1, thread_name_prefix="gather")
        self._ahead: tuple[tf.Tensor, int, int, Future[Any]] | None = None

    def chunk(self, order: tf.Tensor, first_row: int, rows: int) -> Chunk:
        if not self._is_announced(order, first_row, rows):
            self.announce(order, first_row, rows)
        assert self._ahead is not None
        tensors = self._ahead[-1].result()
        self._ahead = None
        return Chunk(tensors, self._order, 0)

    def announce(self, order: tf.Tensor, first_row: int, rows: int) -> None:
        """Begins to gather the chunk that will be asked for next."""
        future = self._gatherer.submit(self._gather, order, first_row, rows)
        self._ahead = (order, first_row, rows, future)

    def _is_announced(self, order: tf.Tensor, first_row: int, rows: int) -> bool:
        if self._ahead is None:
            return False
        announced, *place, _ = self._ahead
        return announced is order and place == [first_row, rows]

    def _gather(self, order: tf.Tensor, first_row: int, rows: int) -> Any:
        numbers = order[first_row : first_row + rows].numpy().astype(np.int64)
        # What is beyond these rows is never looked at.
        filled = np.pad(numbers, (0, self.max_rows - rows), mode="edge")
        with tf.device(self._device):
            return tf.nest.map_structure(tf.constant, self._take(filled).structure())

    def _take(self, numbers: np.ndarray) -> Examples:
        return self._examples.take(numbers)


class StreamedFromDisk(Streamed):
    """Examples stay on disk; of their order's windows the current and the next are in memory."""

    kind = "streamed from disk"

    def __init__(self, examples: StoredExamples, device: str, *, max_rows: int):
        super().__init__(examples, device, max_rows=max_rows)
        self._cache = BlockCache(examples, spare_rows=max_rows)
        self._window_rows = examples.window_rows
        # By the time that a window is used up, all blocks of the next one are there.
        self._blocks_ahead = -(-max_rows // examples.block_rows) + 1

    def _gather(self, order: tf.Tensor, first_row: int, rows: int) -> Any:
        tensors = super()._gather(order, first_row, rows)
        # Once the chunk is handed over. Should it fail, so will the chunk that needs the block.
        self._gatherer.submit(self._read_ahead, order, first_row + self._window_rows)
        return tensors

    def _take(self, numbers: np.ndarray) -> Examples:
        return self._cache.take(numbers)

    def _read_ahead(self, order: tf.Tensor, first_row: int) -> None:
        later = order[first_row : first_row + self.max_rows].numpy()
        self._cache.read_ahead(later, blocks=self._blocks_ahead)


def placed(
    examples: Examples | StoredExamples,
    *,
    device: str,
    batch_size: int,
    budget_bytes: int | None = None,
) -> Resident | Streamed:
    """On the device when the examples are in memory and fit its budget, else streamed."""
    budget = device_budget_bytes(device) if budget_bytes is None else budget_bytes
    if isinstance(examples, Examples) and examples.nbytes <= budget:
        return Resident(examples, device)
    # Two chunks are alive at a time (one worked on, one gathered): each gets a quarter.
    row_bytes = max(1, examples.nbytes // len(examples))
    batches = max(1, min(budget // 4 // row_bytes // batch_size, STREAM_BATCHES))
    if isinstance(examples, StoredExamples):
        return StreamedFromDisk(examples, device, max_rows=batches * batch_size)
    return Streamed(examples, device, max_rows=batches * batch_size)


# Steps per streamed chunk at the most: enough to hide the call, small enough to stay in cache.
STREAM_BATCHES = 64


def device_budget_bytes(device: str) -> int:
    """How much of the examples may stay on the device: on a CPU a quarter of the memory."""
    if "GPU" in device.upper():
        return GPU_BUDGET_BYTES
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
