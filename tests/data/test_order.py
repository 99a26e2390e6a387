"""The order of examples: complete, repeatable, and as random as numpy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.order import epoch_order
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
