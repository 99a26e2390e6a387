"""Blocks of stored examples in memory: those that the training is at, and those to come.

    cache = BlockCache(stored, spare_rows=16_384)
    cache.take(order[first : first + 16_384])        # Examples; reads what is not there yet
    cache.read_ahead(order[later : later + 16_384], blocks=3)

Room for two windows of the order, and no more: the block not used for longest makes room for
the next. It is meant for one thread.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from kerastrain.data.source import Examples
from kerastrain.data.stored import StoredExamples, examples_of

ABSENT = -1


class BlockCache:
    """The blocks of `examples` used last, side by side in one buffer for each array.

    Args:
        spare_rows: rows that may be asked for at once, beyond which the order of an epoch is
            followed without reading a block twice.
    """

    def __init__(self, examples: StoredExamples, *, spare_rows: int):
        self.examples = examples
        size = examples.block_rows
        self._blocks = -(-len(examples) // size)
        self._slots = min(self._blocks, -(-(2 * examples.window_rows + spare_rows) // size) + 1)
        # The system gives memory to a page when it is first written to.
        self._buffers = {
            name: np.empty((self._slots * size, *array.shape[1:]), array.dtype)
            for name, array in examples.named_arrays()
        }
        self._slot_of = np.full(self._blocks, ABSENT, np.int64)
        self._used: OrderedDict[int, int] = OrderedDict()  # block: slot, the oldest use first
        self._free = list(range(self._slots))

    @property
    def max_nbytes(self) -> int:
        """Memory that it takes at the most."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def take(self, rows: np.ndarray) -> Examples:
        """The examples of the given row numbers (int64 [k]), in that order."""
        wanted = self._blocks_of(rows)
        if len(wanted) > self._slots:
            return self.examples.take(rows)
        for block in wanted:
            self._load(block)
        size = self.examples.block_rows
        at = self._slot_of[rows // size] * size + rows % size
        return examples_of({name: buffer[at] for name, buffer in self._buffers.items()})

    def read_ahead(self, rows: np.ndarray, *, blocks: int) -> None:
        """Reads some of the blocks with these rows, unless they are there."""
        wanted = self._blocks_of(rows)[: self._slots]
        absent = [block for block in wanted if block not in self._used]
        for block in wanted:
            if block in self._used:
                self._used.move_to_end(block)
        for block in absent[:blocks]:
            self._load(block)

    def _blocks_of(self, rows: np.ndarray) -> list[int]:
        is_wanted = np.zeros(self._blocks, bool)
        is_wanted[rows // self.examples.block_rows] = True
        return np.flatnonzero(is_wanted).tolist()

    def _load(self, block: int) -> None:
        if block in self._used:
            self._used.move_to_end(block)
            return
        if not self._free:
            oldest, slot = self._used.popitem(last=False)
            self._slot_of[oldest] = ABSENT
            self._free.append(slot)
        # It stays free until all is read: a read may fail.
        self._read(block, self._free[-1])
        slot = self._free.pop()
        self._used[block] = slot
        self._slot_of[block] = slot

    def _read(self, block: int, slot: int) -> None:
        size = self.examples.block_rows
        first, at = block * size, slot * size
        last = min(first + size, len(self.examples))
        for name, array in self.examples.named_arrays():
            array.read(first, last, into=self._buffers[name][at : at + last - first])
