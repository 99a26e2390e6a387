"""Blocks in memory: the same rows as on disk, each block read once an epoch, memory bounded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.block_cache import BlockCache
from kerastrain.data.source import Examples
from kerastrain.data.stored import ExamplesWriter
from kerastrain.errors import DataError


def stored(folder, rows, *, block_rows, window_blocks):
    inputs = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    with ExamplesWriter(folder, block_rows=block_rows, window_blocks=window_blocks) as writer:
        writer.append(Examples({"a": inputs, "b": inputs[:, 0]}, np.arange(rows)))
        return writer.finish()


def reads_of(cache, monkeypatch):
    reads = []
    read = cache._read
    monkeypatch.setattr(
        cache, "_read", lambda block, slot: (reads.append(block), read(block, slot))
    )
    return reads


@settings(max_examples=30)
@given(
    rows=st.integers(1, 400),
    block_rows=st.integers(1, 32),
    window_blocks=st.integers(1, 6),
    asked=st.lists(st.lists(st.integers(0, 399), min_size=1, max_size=40), max_size=8),
)
def test_rows_are_those_on_disk_whatever_is_asked_for(
    tmp_path_factory, rows, block_rows, window_blocks, asked
):
    found = stored(
        tmp_path_factory.mktemp("stored"), rows, block_rows=block_rows, window_blocks=window_blocks
    )
    cache = BlockCache(found, spare_rows=4)
    for numbers in asked:
        numbers = np.array(numbers) % rows
        taken = cache.take(numbers)
        np.testing.assert_array_equal(taken.targets, numbers)
        np.testing.assert_array_equal(taken.inputs["a"][:, 1], numbers * 2 + 1)
        np.testing.assert_array_equal(taken.inputs["b"], numbers * 2)
        cache.read_ahead((numbers + 1) % rows, blocks=2)


@pytest.mark.parametrize("rows", [4000, 4011])
def test_two_epochs_read_each_block_once_each_and_ahead_of_its_use(tmp_path, monkeypatch, rows):
    found = stored(tmp_path, rows, block_rows=50, window_blocks=9)
    cache = BlockCache(found, spare_rows=40)
    reads = reads_of(cache, monkeypatch)
    late = 0
    for epoch in range(2):
        order = found.order(seed=0, epoch=epoch).numpy()
        for first in range(0, rows, 40):
            before = len(reads)
            cache.take(order[first : first + 40])
            late += len(reads) - before if first else 0
            later = first + found.window_rows
            cache.read_ahead(order[later : later + 40], blocks=2)
    blocks = -(-rows // 50)
    # A block that is still there when an epoch ends need not be read again.
    assert blocks + len(set(range(blocks))) - cache._slots <= len(reads) <= 2 * blocks
    # But for the first window of an epoch, reading has been done before.
    assert late <= 2 * found.window_rows // 50
    assert cache.max_nbytes < 3 * found.window_rows * found.nbytes // len(found)


def test_a_chunk_larger_than_the_cache_is_read_past_it(tmp_path):
    found = stored(tmp_path, 1000, block_rows=10, window_blocks=2)
    cache = BlockCache(found, spare_rows=1)
    numbers = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(cache.take(numbers).targets, numbers)


def test_a_read_that_fails_leaves_the_other_blocks_right(tmp_path):
    found = stored(tmp_path, 1000, block_rows=10, window_blocks=2)
    cache = BlockCache(found, spare_rows=1)
    for path in sorted(tmp_path.glob("array-*.bin")):
        content = path.read_bytes()
        with open(path, "r+b") as file:
            file.truncate(len(content) // 2)
    for first in range(0, 1000, 10):
        numbers = np.arange(first, first + 10)
        if first < 500:
            np.testing.assert_array_equal(cache.take(numbers).targets, numbers)
        else:
            with pytest.raises(DataError, match="have it made again"):
                cache.take(numbers)
    np.testing.assert_array_equal(cache.take(np.arange(30)).targets, np.arange(30))
