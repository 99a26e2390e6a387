"""The order of examples: complete, repeatable, and as random as numpy's."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.order import epoch_order, windowed_order
from kerastrain.errors import DataError


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 10_000),
    examples=st.sampled_from([1, 2, 3, 5, 64, 1437]),
)
def test_every_epoch_holds_every_example_exactly_once(seed, epoch, examples):
    order = epoch_order(seed=seed, epoch=epoch, examples=examples).numpy()
    assert order.dtype == np.int32
    assert sorted(order) == list(range(examples))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    first = epoch_order(seed=1, epoch=2, examples=1000).numpy()
    assert (first == epoch_order(seed=1, epoch=2, examples=1000).numpy()).all()
    assert (first != epoch_order(seed=1, epoch=3, examples=1000).numpy()).any()
    assert (first != epoch_order(seed=2, epoch=2, examples=1000).numpy()).any()


def test_neighbouring_epochs_and_seeds_are_uncorrelated():
    n = 20_000
    orders = [epoch_order(seed=0, epoch=e, examples=n).numpy() for e in range(8)]
    orders += [epoch_order(seed=s, epoch=0, examples=n).numpy() for s in range(1, 8)]
    correlations = [abs(np.corrcoef(a, b)[0, 1]) for i, a in enumerate(orders) for b in orders[:i]]
    # 105 pairs of independent orders stay below 5 standard errors of 1/sqrt(n).
    assert max(correlations) < 5 / np.sqrt(n)


def test_batches_are_as_uneven_as_random_ones():
    n, batch = 51_200, 128
    expected = n / np.sqrt(12) / np.sqrt(batch)
    spreads = [
        epoch_order(seed=0, epoch=e, examples=n).numpy().reshape(-1, batch).mean(1).std() / expected
        for e in range(8)
    ]
    assert 0.93 < np.mean(spreads) < 1.07


def test_no_examples_are_an_error():
    with pytest.raises(DataError, match="expected 1 to"):
        epoch_order(seed=0, epoch=0, examples=0)


SIZES = {
    "examples": st.integers(1, 3000),
    "block_rows": st.integers(1, 400),
    "window_blocks": st.integers(1, 12),
}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10_000), **SIZES)
def test_a_windowed_epoch_holds_every_example_exactly_once(seed, epoch, **sizes):
    order = windowed_order(seed=seed, epoch=epoch, **sizes).numpy()
    assert order.dtype == np.int32
    assert sorted(order) == list(range(sizes["examples"]))


@settings(max_examples=100, deadline=None)
@given(**SIZES)
def test_at_any_place_of_a_windowed_order_few_blocks_are_begun_and_not_finished(**sizes):
    blocks_of = windowed_order(seed=3, epoch=4, **sizes).numpy() // sizes["block_rows"]
    begun = np.zeros(len(blocks_of) + 1, int)
    for block in range(blocks_of.max() + 1):
        (places,) = np.nonzero(blocks_of == block)
        begun[places[0]] += 1
        begun[places[-1] + 1] -= 1
    assert begun.cumsum().max() <= sizes["window_blocks"]


def test_a_windowed_order_depends_on_seed_epoch_and_sizes_and_on_nothing_else():
    sizes = {"examples": 1000, "block_rows": 30, "window_blocks": 5}
    first = windowed_order(seed=1, epoch=2, **sizes).numpy()
    assert (first == windowed_order(seed=1, epoch=2, **sizes).numpy()).all()
    others = [{"seed": 2}, {"epoch": 3}, {"block_rows": 31}, {"window_blocks": 6}]
    for other in others:
        changed = windowed_order(**{"seed": 1, "epoch": 2, **sizes, **other}).numpy()
        assert (first != changed).mean() > 0.9


def test_a_windowed_order_is_the_same_in_every_version():
    # A run that is resumed after an update must find the order that it began with.
    order = windowed_order(seed=5, epoch=1, examples=12, block_rows=3, window_blocks=2).numpy()
    assert order.tolist() == [6, 5, 7, 4, 3, 8, 9, 10, 2, 11, 0, 1]


def test_batches_of_a_windowed_order_are_as_uneven_as_random_ones_of_shuffled_rows():
    n, batch = 51_200, 128
    values = np.random.default_rng(0).permutation(n)
    spreads = []
    for epoch in range(8):
        order = windowed_order(seed=0, epoch=epoch, examples=n, block_rows=512, window_blocks=16)
        spreads.append(values[order.numpy()].reshape(-1, batch).mean(1).std())
    assert 0.93 < np.mean(spreads) / (n / np.sqrt(12) / np.sqrt(batch)) < 1.07


def test_windowed_orders_of_neighbouring_epochs_are_uncorrelated():
    n = 20_000
    orders = [
        windowed_order(seed=0, epoch=e, examples=n, block_rows=20, window_blocks=100).numpy()
        for e in range(8)
    ]
    correlations = [abs(np.corrcoef(a, b)[0, 1]) for i, a in enumerate(orders) for b in orders[:i]]
    # The places of 100 blocks in 10 windows decide: 28 pairs, of about 1,000 free numbers each.
    assert max(correlations) < 5 / np.sqrt(n / 20)


def test_twenty_million_rows_are_ordered_in_seconds():
    began = time.process_time()
    order = windowed_order(
        seed=0, epoch=0, examples=20_000_000, block_rows=8192, window_blocks=128
    ).numpy()
    assert time.process_time() - began < 5  # half a second on a quiet machine
    assert np.bincount(order, minlength=20_000_000).max() == 1
