"""Bins of equal counts from values that occur; what a network knows of the target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerastrain.data.tables import encoded
from kerastrain.data.tables.encoded import LEAST_WIDTH, EncodedColumns, bin_edges


def column(*values) -> np.ndarray:
    return np.array(values, np.float32)[:, np.newaxis]


def edges_of(*values, **options) -> list[float]:
    (edges,) = bin_edges(column(*values), **options)
    return list(edges)


def test_bins_hold_equal_counts():
    values = np.random.default_rng(0).normal(size=4800).astype(np.float32)
    (edges,) = bin_edges(values[:, np.newaxis], bins=48)
    assert len(edges) == 49
    counts = np.histogram(values, edges)[0]
    assert counts.min() > 90 and counts.max() < 110


def test_edges_are_values_that_occur():
    assert edges_of(0, 1, 2, 3, 3, 3, 3, 3, 9) == [0, 1, 2, 3, 9]


def test_a_flag_has_two_edges_and_a_constant_one():
    assert edges_of(0, 1, 1, 1, 0, 1) == [0, 1]
    assert edges_of(7, 7, 7) == [7]


def test_a_bin_is_never_narrower_than_float32_can_bear():
    assert edges_of(0, 1e-5, 2e-5, 1, 1 + 1e-5) == [0, 1]
    assert edges_of(0.5, 0.5 + 1e-6) == [0.5]


def test_of_very_many_rows_an_even_part_is_looked_at(monkeypatch):
    values = np.linspace(0, 1, 10_000, dtype=np.float32)[:, np.newaxis]
    (whole,) = bin_edges(values, bins=10)
    monkeypatch.setattr(encoded, "BIN_ROWS", 1000)
    (part,) = bin_edges(values, bins=10)
    np.testing.assert_allclose(part, whole, atol=0.002)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.integers(1, 3)),
        elements=st.floats(-5, 5, width=32),
    ),
    st.integers(1, 12),
)
def test_edges_of_any_numbers_rise_and_are_among_them(numbers, bins):
    for values, edges in zip(numbers.T, bin_edges(numbers, bins=bins), strict=True):
        assert 1 <= len(edges) <= max(2, bins + 1)
        assert edges[0] == values.min() and set(edges) <= set(values.tolist())
        assert (np.diff(edges) >= LEAST_WIDTH * 0.999).all()


def test_the_targets_mean_and_deviation_are_of_the_training_rows():
    known = EncodedColumns().with_target(column(1, 2, 3, 6))
    assert known.target_mean == 3 and known.target_deviation == pytest.approx(np.sqrt(3.5))


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e30])
def test_a_target_that_does_not_vary_has_the_deviation_one(value):
    known = EncodedColumns().with_target(column(*[value] * 97))
    assert known.target_deviation == 1 and known.target_mean == np.float32(value)


def test_bins_are_kept_with_the_names():
    known = EncodedColumns(numbers=("a", "b")).with_bins(np.array([[0, 5], [1, 5]], np.float32))
    assert known.edges == ((0.0, 1.0), (5.0,)) and known.numbers == ("a", "b")
