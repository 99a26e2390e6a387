from __future__ import annotations

import keras
import numpy as np
import pytest

from kerastrain.data.source import Classification, Data, Examples
from kerastrain.export.serving import ServedModel
from kerastrain.export.verification import check, write_check

IMAGES = np.random.default_rng(0).integers(0, 256, (256, 6, 5), dtype=np.uint8)


def written_check(folder, *, initializer):
    """A folder to be checked, of a model of three classes."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 5), dtype="uint8", name="image"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_initializer=initializer),
        ]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    examples = Examples(IMAGES, np.zeros(len(IMAGES), np.int64))
    data = Data(train=examples, test=examples, task=Classification((0, 1, 2)))
    served = ServedModel.of(model, data)
    served.save(folder / "model")
    write_check(folder, served, {"image": IMAGES})


def change_the_first_label(folder):
    """Of what "image_bytes" must answer."""
    with np.load(folder / "requests.npz") as stored:
        arrays = dict(stored)
    key = next(k for k in arrays if k.startswith("image_bytes_told") and arrays[k].dtype == "int64")
    arrays[key][0] = (arrays[key][0] + 1) % 3
    np.savez(folder / "requests.npz", **arrays)


@pytest.mark.parametrize(("initializer", "is_told_apart"), [("zeros", False), ("he_normal", True)])
def test_a_label_may_differ_only_where_classes_are_equally_probable(
    tmp_path, initializer, is_told_apart
):
    written_check(tmp_path, initializer=initializer)
    assert check(tmp_path)["problems"] == []
    change_the_first_label(tmp_path)
    problems = check(tmp_path)["problems"]
    assert bool(problems) == is_told_apart
    assert all("Signature image_bytes: 'label' differs in 1 of 256 rows" in p for p in problems)
