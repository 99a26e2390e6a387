"""Which examples make up a step: a pure function of (seed, epoch, step).

    order = epoch_order(seed=0, epoch=3, examples=60_000)   # int32 [60000], a permutation
    rows = order[step * batch_size : (step + 1) * batch_size]

Nothing of it has to be saved: a run resumed at any step computes the same order
again, whatever the number of replicas.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

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
    if not 0 < examples <= MAX_EXAMPLES:
        raise DataError(f"{examples} examples cannot be ordered; expected 1 to {MAX_EXAMPLES:,}.")
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
