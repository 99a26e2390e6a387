"""The digits that come with scikit-learn."""

import numpy as np

from kerastrain import TrainOptions
from kerastrain.data.bundled import load_digits_data


def test_digits_are_small_images_of_seventeen_greys():
    data = load_digits_data(TrainOptions())
    assert data.train.inputs.shape[1:] == (8, 8)
    assert data.train.inputs.dtype == np.uint8
    assert (data.train.inputs.min(), data.train.inputs.max()) == (0, 16)
    assert data.train.targets.dtype == np.int32


def test_every_split_of_the_digits_holds_every_digit_in_its_share():
    data = load_digits_data(TrainOptions(seed=7))
    assert (len(data.train), len(data.validation), len(data.test)) == (1150, 288, 359)
    for split in (data.train, data.validation, data.test):
        shares = np.bincount(split.targets, minlength=10) / len(split)
        assert np.abs(shares - 0.1).max() < 0.006
    every_row = np.sort(np.concatenate(list(data.split_rows.values())))
    assert np.array_equal(every_row, np.arange(1797))


def test_the_seed_draws_the_splits_of_the_digits():
    first, again, other = (
        load_digits_data(TrainOptions(seed=seed)).fingerprint() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
