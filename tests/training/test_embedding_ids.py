"""Ids that an Embedding has no vector for are found before the first step, in any kind of model."""

import keras
import numpy as np
import pytest
import small_runs as small
from keras import layers, ops

from kerastrain.data.source import Data, Examples
from kerastrain.data.stored import ExamplesWriter
from kerastrain.errors import DataError
from kerastrain.preflight import check_ids, check_labels

ROWS = 300
IDS = np.random.default_rng(0).integers(0, 10, (ROWS, 4)).astype(np.int32)


def with_id(value, *, row=250):
    ids = IDS.copy()
    ids[row, 1] = value
    return ids


def functional(change=lambda ids: ids, *, size=10, dtype="int32"):
    ids = keras.Input((4,), dtype=dtype)
    x = layers.Flatten()(layers.Embedding(size, 2, name="words")(change(ids)))
    return keras.Model(ids, layers.Dense(1)(x))


def sequential():
    return keras.Sequential([layers.Embedding(10, 2, name="words"), layers.Flatten()])


def nested():
    ids = keras.Input((4,), dtype="int32")
    return keras.Model(ids, layers.Dense(1)(functional()(ids)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.words, self.flatten = layers.Embedding(10, 2, name="words"), layers.Flatten()
        self.normalise, self.head = layers.BatchNormalization(), layers.Dense(1)

    def call(self, x, training=False):
        return self.head(self.normalise(self.flatten(self.words(x)), training=training))


def checked(model, train, *, validation=None, test=None):
    def examples(inputs):
        return None if inputs is None else Examples(inputs, np.zeros((len(IDS), 1), np.float32))

    model.compile("sgd", "mse")
    stored = train if not isinstance(train, (np.ndarray, dict)) else examples(train)
    data = Data(train=stored, validation=examples(validation), test=examples(test))
    state = small.state_of(model, data.train)
    before = state.snapshot()
    found = check_ids(state, data)
    assert small.same(state.snapshot(), before)
    return found


@pytest.mark.parametrize("make", [functional, sequential, nested, Subclassed])
def test_an_id_too_high_is_found_in_any_kind_of_model(make):
    assert checked(make(), with_id(9)) == "0 to 9 of 10 in train"
    with pytest.raises(
        DataError,
        match=r"ids of train that reach the Embedding 'words' go from 0 to 10; it has input_dim=10,"
        r" so they must lie in 0 to 9. 1 of 300 rows have others, the first is row 250",
    ):
        checked(make(), with_id(10))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_id_below_zero_is_found_in_the_other_splits(split):
    with pytest.raises(DataError, match=f"ids of {split} .* go from -1 to 9.*row 250"):
        checked(functional(), IDS, **{split: with_id(-1)})


@pytest.mark.parametrize("value", [10.5, np.nan, -1.0])
def test_numbers_with_a_point_are_ids_as_the_layer_takes_them(value):
    ids = IDS.astype(np.float32)
    assert "0 to 9 " in checked(functional(dtype="float32"), ids + 0.5)
    ids[3, 0] = value
    with pytest.raises(DataError, match="1 of 300 rows have others, the first is row 3"):
        checked(functional(dtype="float32"), ids)


def test_what_counts_is_what_reaches_the_layer():
    offsets = np.arange(0, 40, 10, dtype=np.int32)
    assert "39 of 40" in checked(functional(lambda ids: ids + offsets, size=40), IDS)
    with pytest.raises(DataError, match="go from 0 to 9; it has input_dim=9"):
        checked(functional(size=9), IDS)
    known = layers.IntegerLookup(vocabulary=list(range(5)))
    assert "0 to 5 of 6" in checked(functional(known, size=6), with_id(10**6))


def test_the_input_is_named_and_the_others_are_not_read():
    inputs = {name: keras.Input((4,), name=name, dtype="int32") for name in ("ids", "numbers")}
    x = layers.Flatten()(layers.Embedding(10, 2)(inputs["ids"]))
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([x, inputs["numbers"]])))
    with pytest.raises(DataError, match=r"\(from 'ids'\) go from 0 to 77"):
        checked(model, {"ids": with_id(77), "numbers": with_id(1000)})


def test_ids_that_the_model_makes_by_itself_are_checked(caplog):
    class Positions(layers.Layer):
        def __init__(self, size):
            super().__init__()
            self.table = layers.Embedding(size, 4, name="positions")

        def call(self, x):
            return x + self.table(ops.arange(4))

    def model(size):
        ids = keras.Input((4,))
        return keras.Model(ids, Positions(size)(layers.Reshape((4, 1))(ids)))

    assert "0 to 3 of 4" in checked(model(4), IDS.astype(np.float32))
    with pytest.raises(DataError, match="go from 0 to 3; .* They do not depend on the data"):
        checked(model(3), IDS.astype(np.float32))


def test_examples_on_disk_are_looked_at_in_blocks(tmp_path):
    with ExamplesWriter(tmp_path / "rows", block_rows=64) as writer:
        writer.append(Examples(with_id(12), np.zeros((ROWS, 1), np.float32)))
        stored = writer.finish()
    with pytest.raises(DataError, match="1 of 300 rows have others, the first is row 250"):
        checked(functional(), stored)


def test_labels_of_the_test_split_are_checked_too():
    rows = small.blobs(20)
    beyond = Examples(rows.inputs, rows.targets + 1)
    with pytest.raises(DataError, match="labels of test go from 1 to 3; the model has 3 outputs"):
        check_labels(small.classifier(), Data(train=rows, test=beyond))
