"""What is said and known of a loaded table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.data.source import Classification, Regression
from kerastrain.data.tables.loaded import class_factors
from kerastrain.data.tables.schema import Column, Schema
from kerastrain.errors import OptionsError

SCHEMA = Schema((Column("a", "a", "number"),), "y", Classification(("x", "y", "z", "rare")))


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 10)), min_size=1))
def test_all_classes_that_are_there_count_the_same_and_the_mean_weight_stays(rows):
    targets, weights = (np.array(values) for values in zip(*rows, strict=True))
    balanced = weights * class_factors(targets, weights, SCHEMA)[targets]
    assert balanced.mean() == pytest.approx(weights.mean())
    sums = np.bincount(targets, weights=balanced)
    assert sums[sums > 0] == pytest.approx(sums.max())


def test_a_class_that_no_row_has_does_not_make_the_others_lighter():
    factors = class_factors(np.array([0, 0, 0, 1]), None, SCHEMA)
    assert factors == pytest.approx([4 / 6, 2, 0, 0])


def test_numbers_cannot_be_balanced():
    schema = Schema(SCHEMA.columns, "y", Regression("y"))
    with pytest.raises(OptionsError, match="--balance is for classes"):
        class_factors(np.zeros(3), None, schema)
