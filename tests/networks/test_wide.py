"""The wide part: a weight for each pair of values, nothing for values never seen."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.data.tables.encoded import EncodedColumns
from kerastrain.errors import OptionsError
from kerastrain.networks import wide
from kerastrain.networks.features import encoded_inputs
from kerastrain.networks.wide import added, linear, pairs


def data(*sizes) -> Data:
    rows = Examples({"categories": np.zeros((2, len(sizes)), np.int32)}, np.zeros(2, np.int32))
    columns = EncodedColumns(categories=tuple(map(str, range(len(sizes)))), sizes=sizes)
    return Data(train=rows, task=Classification(("a", "b", "c")), columns=columns)


def model_of(of, *, buckets) -> keras.Model:
    inputs = encoded_inputs(of.columns)
    (output,) = pairs(inputs, of, buckets=buckets)
    return keras.Model(inputs, output)


def asked(model, *rows) -> np.ndarray:
    return model({"categories": np.array(rows, np.int32)}).numpy()


def with_random_weights(model) -> np.ndarray:
    (table,) = model.weights
    table.assign(np.random.default_rng(0).normal(size=table.shape))
    return table.numpy()


def test_each_pair_of_values_has_weights_of_its_own_where_there_is_room():
    model = model_of(data(2, 3, 4), buckets=1000)
    table = with_random_weights(model)
    assert table.shape == (2 * 3 + 2 * 4 + 3 * 4, 3)
    for row in np.ndindex(2, 3, 4):
        a, b, c = row
        expected = table[a * 3 + b] + table[6 + a * 4 + c] + table[14 + b * 4 + c]
        np.testing.assert_allclose(asked(model, row)[0], expected, atol=1e-6)


def test_many_pairs_share_buckets_and_nearly_fill_them():
    of = data(300, 300)
    model = model_of(of, buckets=1000)
    table = with_random_weights(model)
    assert table.shape == (1000, 3)
    rows = np.random.default_rng(0).integers(0, 300, (5000, 2))
    different = np.unique(asked(model, *rows), axis=0)
    assert 950 < len(different) <= 1000


def test_it_starts_at_nothing():
    model = model_of(data(5, 5), buckets=10)
    assert not asked(model, (1, 2), (3, 4)).any()


def test_values_never_seen_add_nothing():
    for buckets in (1000, 5):
        model = model_of(data(3, 4), buckets=buckets)
        with_random_weights(model)
        assert not asked(model, (-1, 2), (1, -1), (-1, -1)).any()
        assert asked(model, (1, 2)).all()


def test_the_pairs_of_other_values_still_count():
    model = model_of(data(2, 3, 4), buckets=1000)
    table = with_random_weights(model)
    np.testing.assert_allclose(asked(model, (1, -1, 2))[0], table[6 + 4 + 2], atol=1e-6)


def test_without_two_categories_or_buckets_there_are_no_pairs():
    assert pairs(encoded_inputs(data(3).columns), data(3), buckets=10) == []
    assert pairs(encoded_inputs(data(3, 4).columns), data(3, 4), buckets=0) == []
    with_numbers = EncodedColumns(numbers=("a",), edges=((0.0, 1.0),))
    of = Data(data(3).train, task=Classification(("a", "b")), columns=with_numbers)
    assert pairs(encoded_inputs(with_numbers), of, buckets=10) == []


def test_of_many_categories_the_first_pairs_are_taken(monkeypatch):
    monkeypatch.setattr(wide, "MAX_PAIRS", 2)
    assert model_of(data(2, 3, 4, 5), buckets=1000).weights[0].shape == (2 * 3 + 2 * 4, 3)


@pytest.mark.parametrize("buckets", [-1, 1.5])
def test_buckets_out_of_range_are_refused(buckets):
    with pytest.raises(OptionsError, match=f"buckets={buckets}; expected a whole number"):
        pairs(encoded_inputs(data(3, 4).columns), data(3, 4), buckets=buckets)


def test_parts_are_added():
    of = data(3, 4)
    x = keras.Input((5,))
    model = keras.Model(x, added([linear(x, of), linear(x, of)]))
    assert model.output_shape == (None, 3)
    kernels = [weight for weight in model.get_weights() if weight.ndim == 2]
    rows = np.ones((2, 5), np.float32)
    np.testing.assert_allclose(model(rows), rows @ (kernels[0] + kernels[1]), atol=1e-5)


def test_pairs_survive_saving(tmp_path):
    model = model_of(data(30, 50), buckets=100)
    with_random_weights(model)
    model.save(tmp_path / "wide.keras")
    loaded = keras.models.load_model(tmp_path / "wide.keras")
    rows = [(29, 49), (-1, 3), (0, 0)]
    np.testing.assert_array_equal(asked(loaded, *rows), asked(model, *rows))
