from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.data.stored import ExamplesWriter
from kerastrain.export.serving import ServedModel
from kerastrain.export.signatures import Pixels, as_examples, sample_requests

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (40, 6, 5), dtype=np.uint8)


def model_of(shape, units, *, dtype="float32", name="row"):
    keras.utils.set_random_seed(0)
    layers = [keras.Input(shape, dtype=dtype, name=name), keras.layers.Rescaling(1 / 255)]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(units)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss="mse" if units == 1 else loss)
    return model


def data_of(inputs, task, **fields):
    examples = Examples(inputs, np.zeros(len(next(iter([inputs]))), np.int64))
    return Data(train=examples, test=examples, task=task, **fields)


def image_model(images=IMAGES, classes=("ant", "bee", "cat")):
    model = model_of(images.shape[1:], 3, dtype=images.dtype.name, name="image")
    return ServedModel.of(model, data_of(images, Classification(classes)))


def table_model(task, units):
    """A town's letter count and its own number, a missing one 0."""
    size = keras.Input((), name="size")
    town = keras.Input((), dtype="string", name="the town")
    known = keras.ops.isnan(size)
    numbers = keras.ops.stack([keras.ops.where(known, 0.0, size), size * 0 + 1], 1)
    lookup = keras.layers.StringLookup(vocabulary=["Bonn", "Ulm"], oov_token="other")
    encoded = {"numbers": numbers, "codes": keras.layers.Reshape((1,))(lookup(town))}
    encoder = keras.Model({"size": size, "the town": town}, encoded)
    inputs = {
        "numbers": keras.Input((2,), name="numbers"),
        "codes": keras.Input((1,), name="codes"),
    }
    joined = keras.layers.Concatenate()([inputs["numbers"], inputs["codes"]])
    model = keras.Model(inputs, keras.layers.Dense(units)(keras.ops.nan_to_num(joined)))
    model.compile(
        loss="mse" if units == 1 else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rows = {
        "size": np.array([3, np.nan, 5, 7] * 3, np.float32),
        "the town": np.array(["Ulm", "Bonn", "", "Köln"] * 3, object),
    }
    features = {"numbers": np.zeros((12, 2), np.float32), "codes": np.zeros((12, 1), np.int64)}
    examples = Examples(features, np.zeros(12, np.int64))
    data = Data(train=examples, test=examples, task=task, encoder=encoder, test_rows=rows)
    return ServedModel.of(model, data), rows


def loaded(served, folder):
    served.save(folder / "1")
    return tf.saved_model.load(str(folder / "1"))


def asked(signature, **inputs):
    return {name: value.numpy() for name, value in signature(**inputs).items()}


def example(**features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_images_are_decoded_without_a_remark_of_tensorflows(monkeypatch):
    from tensorflow.python.util import deprecation

    said = []
    monkeypatch.setattr(deprecation, "_PRINTED_WARNING", {})
    monkeypatch.setattr(deprecation.logging, "warning", lambda *words: said.append(words))
    pixels = Pixels(6, 5, 1, 255.0)
    images = pixels.from_bytes(tf.constant(pixels.to_bytes(IMAGES).tolist()))
    np.testing.assert_array_equal(images[..., 0], IMAGES)
    assert said == []


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def integers(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() for v in values]))


def test_a_png_is_answered_as_its_pixels_are(tmp_path):
    served = image_model()
    files = [tf.io.encode_png(image[:, :, np.newaxis]) for image in IMAGES]
    answers = asked(loaded(served, tmp_path).signatures["image_bytes"], image_bytes=tf.stack(files))
    expected = served.answers({"image": IMAGES})
    np.testing.assert_allclose(answers["probabilities"], expected["probabilities"], atol=1e-6)
    assert answers["label"].tolist() == expected["label"].tolist()


def test_an_image_of_another_size_and_with_colours_is_resized_and_made_grey(tmp_path):
    served = image_model()
    light = np.linspace(0, 1, 24)[:, None] * np.linspace(0, 255, 20)
    large = light.astype(np.uint8)
    coloured = tf.io.encode_png(np.stack([large] * 3, -1))
    signature = loaded(served, tmp_path).signatures["image_bytes"]
    answers = asked(signature, image_bytes=tf.stack([coloured, tf.io.encode_jpeg(IMAGES[:1].T)]))
    small = light.reshape(6, 4, 5, 4).mean((1, 3))[np.newaxis].astype(np.uint8)
    expected = served.answers({"image": small})["probabilities"][0]
    np.testing.assert_allclose(answers["probabilities"][0], expected, atol=0.02)


def test_what_is_no_image_is_an_invalid_argument(tmp_path):
    signature = loaded(image_model(), tmp_path).signatures["image_bytes"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        signature(image_bytes=tf.constant(["no image"]))


@pytest.mark.parametrize(
    ("images", "brightest"),
    [
        (IMAGES, 255),
        (np.minimum(IMAGES, 200), 255),
        (IMAGES // 16, 15),
        (IMAGES.astype(np.float32) / 255, 1),
        (IMAGES.astype(np.float32) / 260, 1),
    ],
)
def test_white_is_the_brightest_of_the_training_images(images, brightest):
    assert image_model(images).pixels.brightest == brightest


def test_white_is_the_brightest_of_images_on_disk_too(tmp_path):
    in_memory = data_of(IMAGES // 16, Classification(("ant", "bee", "cat")))
    with ExamplesWriter(tmp_path / "images") as writer:
        writer.append(in_memory.train)
        on_disk = dataclasses.replace(in_memory, train=writer.finish())
    model = model_of(IMAGES.shape[1:], 3, dtype="uint8", name="image")
    assert ServedModel.of(model, on_disk).pixels == Pixels(6, 5, 1, 15.0)


def test_pixels_in_other_units_than_bytes_survive_as_png():
    served = image_model(IMAGES // 16)
    answers = served.answers({"image": IMAGES // 16})
    (asked_with, told) = sample_requests(served, {"image": IMAGES // 16}, answers)["image_bytes"]
    assert asked_with["image_bytes"][0].startswith(b"\x89PNG")
    np.testing.assert_allclose(told["probabilities"], answers["probabilities"], atol=1e-6)


@pytest.mark.parametrize(
    "inputs", [IMAGES.astype(np.float32) - 128, IMAGES[:, :, 0], np.zeros((40, 6, 5), np.uint8)]
)
def test_inputs_that_are_no_images_take_no_png(inputs):
    model = model_of(inputs.shape[1:], 3)
    served = ServedModel.of(model, data_of(inputs, Classification((0, 1, 2))))
    assert served.pixels is None


def test_classify_takes_examples_and_names_the_classes(tmp_path):
    served, rows = table_model(Classification(("low", "high")), 2)
    requests = [
        example(**{"size": floats(3), "the town": texts("Ulm")}),
        example(**{"the town": texts("Bonn")}),
        example(**{"size": floats(5)}),
        example(**{"size": floats(7), "the town": texts("Köln"), "unknown": floats(1)}),
    ]
    answers = asked(loaded(served, tmp_path).signatures["classify"], inputs=tf.constant(requests))
    expected = served.answers(rows)["probabilities"][:4]
    np.testing.assert_allclose(answers["scores"], expected, atol=1e-6)
    assert answers["classes"].tolist() == [[b"low", b"high"]] * 4


def test_regress_takes_examples(tmp_path):
    served, rows = table_model(Regression(), 1)
    signatures = loaded(served, tmp_path).signatures
    assert set(signatures) == {"serving_default", "features", "regress"}
    answers = asked(signatures["regress"], inputs=tf.constant(as_examples(served, rows).tolist()))
    np.testing.assert_allclose(answers["outputs"], served.answers(rows)["prediction"], atol=1e-6)


def test_the_features_signature_takes_what_the_encoder_gives(tmp_path):
    served, rows = table_model(Regression(), 1)
    signature = loaded(served, tmp_path).signatures["features"]
    requests, told = sample_requests(served, rows, served.answers(rows))["features"]
    assert set(requests) == {"numbers", "codes"}
    answers = asked(signature, **{name: tf.constant(value) for name, value in requests.items()})
    np.testing.assert_allclose(answers["prediction"], told["prediction"], atol=1e-6)


def test_an_integer_that_a_pixel_cannot_hold_is_an_error_and_not_another_number(tmp_path):
    signature = loaded(image_model(), tmp_path).signatures["classify"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="takes uint8: 0 to 255"):
        signature(inputs=tf.constant([example(image=integers(*[256] * 30))]))


def test_a_row_of_any_length_has_no_example():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(5, 2)(tokens))
    model = keras.Model(tokens, keras.layers.Dense(3)(mean))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    served = ServedModel.of(model, data_of(np.ones((9, 4), np.int32), Classification((0, 1, 2))))
    rows = {"tokens": np.ones((2, 4), np.int32)}
    assert set(sample_requests(served, rows, served.answers(rows))) == set()


def test_servers_find_classify_and_regress_by_their_methods(tmp_path):
    table_model(Classification(("a", "b")), 2)[0].save(tmp_path / "1")
    content = (tmp_path / "1" / "saved_model.pb").read_bytes()
    signatures = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].signature_def
    methods = {name: signature.method_name for name, signature in signatures.items()}
    assert methods["classify"] == "tensorflow/serving/classify"
    assert methods["serving_default"] == "tensorflow/serving/predict"
    assert set(signatures["serving_default"].inputs) == {"size", "the town"}
