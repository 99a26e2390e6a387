"""Types that fit values, and numbers that are written for people."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest

from kerastrain.data.tables.content import common_type

TYPES = [
    pa.null(),
    pa.int8(),
    pa.uint64(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
    pa.date32(),
    pa.timestamp("s"),
    pa.timestamp("ns"),
    pa.timestamp("s", "UTC"),
    pa.time32("s"),
    pa.string(),
    pa.binary(),
]


def test_the_common_type_does_not_depend_on_order():
    for one, other in itertools.product(TYPES, TYPES):
        assert common_type(one, other) == common_type(other, one)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.int8(), pa.uint8(), pa.int64()),
        (pa.null(), pa.date32(), pa.date32()),
        (pa.date32(), pa.timestamp("us"), pa.timestamp("us")),
        (pa.int64(), pa.date32(), pa.string()),
        (pa.float64(), pa.string(), pa.string()),
        (pa.int64(), pa.list_(pa.int64()), None),
    ],
)
def test_types_of_one_sort_stay_of_that_sort_and_others_are_text(one, other, common):
    assert common_type(one, other) == common
