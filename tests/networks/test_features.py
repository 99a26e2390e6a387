"""Features of an encoded table: piecewise-linear as in the paper, one-hot, embedded, together."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerastrain.data.tables.encoded import EncodedColumns
from kerastrain.errors import OptionsError
from kerastrain.networks.features import (
    ONE_HOT_VALUES,
    category_features,
    embedding_size,
    encoded_inputs,
    joined_features,
    one_hot,
    piecewise_linear,
)

EDGES = (tuple(float(edge) for edge in range(7)), (0.0, 1.0), (-1.0, 0.5, 2.0))
MIXED = EncodedColumns(
    numbers=("a", "flag", "b"), edges=EDGES, categories=("c", "many"), sizes=(3, 200)
)
ROWS = {
    "numbers": np.array([[0.5, 1, 0], [9, 0, -3], [2.25, 1, 1]], np.float32),
    "categories": np.array([[2, 199], [-1, -1], [0, 0]], np.int32),
}


def paper(x: float, edges: tuple[float, ...]) -> list[float]:
    """Gorishniy et al. (2022), eq. 1, but for the two outer bins, which are clipped here."""
    parts = []
    for t in range(1, len(edges)):
        low, high = edges[t - 1], edges[t]
        parts.append(0.0 if x < low else 1.0 if x >= high else (x - low) / (high - low))
    return parts


edges_of_a_number = st.lists(
    st.floats(-5, 5, width=32), min_size=2, max_size=8, unique_by=lambda edge: round(edge, 2)
).map(lambda edges: tuple(sorted(edges)))


@settings(max_examples=60)
@given(
    st.lists(edges_of_a_number, min_size=1, max_size=3),
    st.lists(st.floats(-7, 7, width=32), min_size=1, max_size=5),
)
def test_piecewise_linear_is_the_papers_and_the_number_itself(edges, values):
    numbers = np.array([values] * len(edges), np.float32).T
    encoded = keras.ops.convert_to_numpy(piecewise_linear(numbers, edges))
    bins = max(len(one) - 1 for one in edges)
    assert encoded.shape == (len(values), len(edges), bins + 1)
    for row, value in enumerate(values):
        for place, one in enumerate(edges):
            expected = paper(value, one)
            used = len(expected)
            np.testing.assert_allclose(encoded[row, place, :used], expected, atol=1e-3)
            assert not encoded[row, place, used:-1].any()
            assert encoded[row, place, -1] == np.float32(value)


def test_inputs_are_those_that_the_table_has():
    both = encoded_inputs(MIXED)
    assert {name: (one.shape, one.dtype) for name, one in both.items()} == {
        "numbers": ((None, 3), "float32"),
        "categories": ((None, 2), "int32"),
    }
    assert list(encoded_inputs(EncodedColumns(numbers=("a",)))) == ["numbers"]
    assert list(encoded_inputs(EncodedColumns(categories=("c",), sizes=(2,)))) == ["categories"]


def asked(columns, rows, build):
    inputs = encoded_inputs(columns)
    model = keras.Model(inputs, build(inputs))
    return model, keras.ops.convert_to_numpy(model(rows))


def test_small_categories_have_one_feature_for_each_value():
    columns = EncodedColumns(categories=("a", "b", "c"), sizes=(2, 3, 4))
    rows = {"categories": np.array([[1, 0, 3], [-1, 2, 0], [0, -1, -1]], np.int32)}
    _, features = asked(columns, rows, lambda i: one_hot(i["categories"], columns, [0, 1, 2]))
    np.testing.assert_array_equal(
        features, [[0, 1, 1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1, 0, 0, 0], [1, *[0] * 8]]
    )


def test_large_categories_are_embedded_and_unseen_values_are_zeros():
    inputs = encoded_inputs(MIXED)
    parts = category_features(inputs["categories"], MIXED)
    assert [part.shape[1] for part in parts] == [3, embedding_size(200)]
    model = keras.Model(inputs["categories"], parts)
    small, large = model(ROWS["categories"])
    assert not small[1].numpy().any() and not large[1].numpy().any()
    table = model.weights[0].numpy()
    np.testing.assert_array_equal(large[0], table[199])
    np.testing.assert_array_equal(large[2], table[0])


def test_the_limit_between_small_and_large():
    def features(size):
        columns = EncodedColumns(categories=("c",), sizes=(size,))
        (part,) = category_features(encoded_inputs(columns)["categories"], columns)
        return part.shape[1]

    assert features(ONE_HOT_VALUES) == ONE_HOT_VALUES
    assert features(ONE_HOT_VALUES + 1) == embedding_size(ONE_HOT_VALUES + 1)


@pytest.mark.parametrize(("values", "size"), [(1, 2), (65, 17), (200, 31), (10_000, 50)])
def test_embeddings_are_sized_by_cardinality(values, size):
    assert embedding_size(values) == size


def test_without_embedding_numbers_go_in_as_they_are():
    model, features = asked(MIXED, ROWS, lambda i: joined_features(i, MIXED))
    assert features.shape == (3, 3 + 3 + embedding_size(200)) and features.dtype == np.float32
    np.testing.assert_array_equal(features[:, :3], ROWS["numbers"])
    assert len(model.weights) == 1


def test_with_embedding_flags_go_in_as_they_are_and_numbers_embedded():
    model, features = asked(MIXED, ROWS, lambda i: joined_features(i, MIXED, embedding=5))
    assert features.shape == (3, 1 + 2 * 5 + 3 + embedding_size(200))
    np.testing.assert_array_equal(features[:, 0], ROWS["numbers"][:, 1])
    assert (features[:, 1:11] >= 0).all()
    (kernel,) = [weight for weight in model.weights if weight.shape == (2, 7, 5)]
    encoded = piecewise_linear(ROWS["numbers"][:, [0, 2]], [EDGES[0], EDGES[2]])
    expected = np.maximum(np.einsum("bkt,ktd->bkd", encoded, kernel), 0).reshape(3, 10)
    np.testing.assert_allclose(features[:, 1:11], expected, atol=1e-5)


@pytest.mark.parametrize("embedding", [0, 4])
@pytest.mark.parametrize(
    "columns",
    [
        EncodedColumns(numbers=("a",), edges=((0.0, 1.0, 2.0),)),
        EncodedColumns(numbers=("flag",), edges=((0.0, 1.0),)),
        EncodedColumns(numbers=("same",), edges=((0.0,),)),
        EncodedColumns(categories=("c",), sizes=(1,)),
        EncodedColumns(categories=("c",), sizes=(1000,)),
        MIXED,
    ],
)
def test_any_kinds_of_columns_alone_or_together_give_features(columns, embedding):
    features = joined_features(encoded_inputs(columns), columns, embedding=embedding)
    assert len(features.shape) == 2 and features.shape[1] >= 1 and features.dtype == "float32"


@pytest.mark.parametrize("embedding", [-1, 2.5, "12"])
def test_an_embedding_out_of_range_is_refused(embedding):
    with pytest.raises(OptionsError, match=f"embedding={embedding!r}; expected a whole number"):
        joined_features(encoded_inputs(MIXED), MIXED, embedding=embedding)


def test_features_need_nothing_of_this_package_to_be_loaded(tmp_path):
    model, features = asked(MIXED, ROWS, lambda i: joined_features(i, MIXED, embedding=3))
    model.save(tmp_path / "features.keras")
    loaded = keras.models.load_model(tmp_path / "features.keras")
    np.testing.assert_array_equal(loaded(ROWS), features)
