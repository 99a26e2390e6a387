"""Which examples make up a step: a pure function of (seed, epoch, step).

    order = epoch_order(seed=0, epoch=3, examples=60_000)   # int32 [60000], a permutation
    rows = order[step * batch_size : (step + 1) * batch_size]

    order = windowed_order(seed=0, epoch=3, examples=…, block_rows=8192, window_blocks=128)

Nothing of it has to be saved: a run resumed at any step computes the same order
again, whatever the number of replicas. `windowed_order` is for examples on disk: it stays
within a window of blocks for as long as there are rows in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from kerastrain.errors import DataError

MAX_EXAMPLES = 2**31 - 1


def epoch_order(*, seed: int, epoch: int, examples: int) -> tf.Tensor:
    """The order of one epoch: every row number below `examples` exactly once, int32 [examples].

    A pseudorandom bijection of the positions (TensorFlow's RandomIndexShuffle: the
    Simon block cipher with cycle walking, Beaulieu et al. 2013), so no state is carried
    from epoch to epoch.

    Raises:
        DataError: there are no examples, or more than an int32 can number.
    """
    _check(examples)
    if examples == 1:
        # The cipher needs at least two values to permute.
        return tf.zeros([1], tf.int32)
    with tf.device("/cpu:0"):
        # A tensor for what varies: one trace serves every epoch.
        return _shuffler(examples)(tf.constant([seed, epoch], tf.int64))


# Rounds of the cipher. TensorFlow's `index_shuffle` fixes 4, which is too few: for 60,000
# examples the orders of neighbouring epochs correlate by 0.89 and batches are twice as
# even as random ones. With 8 rounds and a hashed key no statistic that we tried tells it
# from numpy's permutation (tests/data/test_order.py; figures in BUILD_NOTES.md).
ROUNDS = 8


@functools.cache
def _shuffler(examples: int) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function
    def shuffle(seed_and_epoch: tf.Tensor) -> tf.Tensor:
        key = tf.random.stateless_uniform(
            [3], seed=seed_and_epoch, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        return tf.raw_ops.RandomIndexShuffle(
            index=tf.range(examples), seed=key, max_index=examples - 1, rounds=ROUNDS
        )

    return shuffle


def windowed_order(
    *, seed: int, epoch: int, examples: int, block_rows: int, window_blocks: int
) -> tf.Tensor:
    """An order of one epoch whose neighbours lie in few blocks, int32 [examples].

    The blocks, `block_rows` consecutive rows each and the rest in the last, are permuted, and
    dealt in that order to windows of at most `window_blocks`, as even as they can be. The
    order goes from window to window and shuffles the rows of each.

    Both shuffles sort by random numbers, which is fast and, unlike numpy's own permutation,
    will not change: PCG64's numbers are guaranteed (NumPy Enhancement Proposal 19), and there
    is one way to sort different numbers.

    Raises:
        DataError: there are no examples, or more than an int32 can number.
    """
    _check(examples)
    numbers = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    blocks = -(-examples // block_rows)
    windows = np.array_split(_shuffled(np.arange(blocks), numbers), -(-blocks // window_blocks))
    order, done = np.empty(examples, np.int32), 0
    for window in windows:
        rows = (window[:, np.newaxis] * block_rows + np.arange(block_rows)).ravel()
        rows = rows[rows < examples]
        order[done : done + len(rows)] = _shuffled(rows, numbers)
        done += len(rows)
    with tf.device("/cpu:0"):
        return tf.constant(order)


def _shuffled(values: np.ndarray, numbers: np.random.PCG64) -> np.ndarray:
    """The values, different ones from 0 to 2^31 - 1, sorted by 33 random bits each."""
    low = np.uint64(MAX_EXAMPLES)
    # The value itself in the low bits: no two are equal, so every way to sort agrees.
    keys = numbers.random_raw(len(values)) & ~low | values.astype(np.uint64)
    keys.sort()
    return (keys & low).astype(np.int64)


def _check(examples: int) -> None:
    if not 0 < examples <= MAX_EXAMPLES:
        raise DataError(f"{examples} examples cannot be ordered; expected 1 to {MAX_EXAMPLES:,}.")
