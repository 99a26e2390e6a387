from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerastrain.data.source import Classification, Data, Examples, Regression
from kerastrain.errors import ExportError
from kerastrain.export.naming import signature_inputs
from kerastrain.export.rows import raw_rows
from kerastrain.export.serving import ServedModel

FLOWERS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


def data_of(inputs=FLOWERS, task=None, **fields):
    examples = Examples(inputs, np.zeros(len(FLOWERS), np.int64))
    return Data(train=examples, test=examples, task=task, **fields)


def dense_model(*layers, name="flower", loss=None, **compiled):
    model = keras.Sequential([keras.Input((4,), name=name), *layers])
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, **compiled)
    return model


def saved_answers(served, folder, rows):
    """Saves, loads by TensorFlow alone, and asks."""
    served.save(folder)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return {name: value.numpy() for name, value in signature(**rows).items()}


def test_the_input_has_the_name_and_dtype_of_the_models_own(tmp_path):
    served = ServedModel.of(dense_model(keras.layers.Dense(3)), data_of())
    assert list(served.inputs) == ["flower"]
    assert served.save(tmp_path / "m")["serving_default"]["inputs"] == {
        "flower": {"dtype": "float32", "shape": [None, 4]}
    }


def test_a_name_that_keras_made_up_becomes_inputs():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(loss="mse")
    assert list(ServedModel.of(model, data_of()).inputs) == ["inputs"]
    deferred = keras.Sequential([keras.layers.Dense(3)])
    deferred.build((None, 4))
    deferred.compile(loss="mse")
    assert list(ServedModel.of(deferred, data_of()).inputs) == ["inputs"]


def test_a_subclassed_model_takes_what_the_data_are(tmp_path):
    class TwoLayers(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, activation="relu")
            self.last = keras.layers.Dense(3)

        def call(self, inputs):
            return self.last(self.hidden(inputs))

    model = TwoLayers()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(FLOWERS[:1])
    served = ServedModel.of(model, data_of(FLOWERS.astype(np.float64)))
    assert served.inputs["inputs"].dtype == tf.float32
    answers = saved_answers(served, tmp_path / "m", {"inputs": tf.constant(FLOWERS)})
    np.testing.assert_allclose(answers["logits"], model(FLOWERS), atol=1e-6)


def test_a_model_without_the_datas_channel_takes_the_data_as_they_are():
    images = np.zeros((40, 8, 8), np.uint8)
    model = keras.Sequential([keras.Input((8, 8, 1), dtype="uint8", name="image")])
    model.add(keras.layers.Flatten())
    model.compile(loss="mse")
    served = ServedModel.of(model, data_of(images))
    assert served.inputs["image"] == tf.TensorSpec([None, 8, 8], tf.uint8, "image")


def test_models_of_several_named_inputs_and_outputs(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    outputs = {name: keras.layers.Dense(2, name=name)(joined) for name in ("speed", "angle")}
    model = keras.Model({"left": left, "right": right}, outputs)
    model.compile(loss={"speed": "mse", "angle": "mse"})
    rows = {"right": FLOWERS[:, :2], "left": FLOWERS}
    served = ServedModel.of(model, data_of(rows))
    answers = saved_answers(served, tmp_path / "m", {n: tf.constant(v) for n, v in rows.items()})
    assert set(answers) == {"speed", "angle"}
    np.testing.assert_allclose(answers["speed"], model(rows)["speed"], atol=1e-6)


def test_augmentation_and_dropout_are_off_and_their_seeds_left_behind(tmp_path):
    layers = [keras.layers.GaussianNoise(1.0), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
    model = dense_model(*layers)
    served = ServedModel.of(model, data_of())
    first = saved_answers(served, tmp_path / "m", {"flower": tf.constant(FLOWERS)})
    np.testing.assert_allclose(first["logits"], model(FLOWERS, training=False), atol=1e-6)
    saved = tf.train.list_variables(str(tmp_path / "m" / "variables" / "variables"))
    weights = [shape for name, shape in saved if name.startswith("weights/")]
    assert sorted(weights) == [[3], [4, 3]]


def test_a_model_compiled_with_xla_is_exported_without(tmp_path):
    model = dense_model(keras.layers.Dense(3), jit_compile=True)
    model.fit(FLOWERS, np.zeros(40), verbose=0)
    ServedModel.of(model, data_of()).save(tmp_path / "m")
    assert b"_XlaMustCompile" not in (tmp_path / "m" / "saved_model.pb").read_bytes()


def test_a_layer_that_forces_xla_is_refused_by_name(tmp_path):
    class Forced(keras.layers.Layer):
        def call(self, inputs):
            return tf.function(tf.nn.relu, jit_compile=True)(inputs)

    served = ServedModel.of(dense_model(Forced(), keras.layers.Dense(3)), data_of())
    with pytest.raises(ExportError, match="jit_compile=True"):
        served.save(tmp_path / "m")


@pytest.mark.parametrize("rows", [64, 8])
def test_a_fixed_batch_size_is_refused(tmp_path, rows):
    inputs = keras.Input(batch_shape=(8, 4))
    model = keras.Model(inputs, keras.ops.reshape(keras.layers.Dense(1)(inputs), (8, 1)))
    model.compile(loss="mse")
    examples = Examples(np.zeros((rows, 4), np.float32), np.zeros(rows))
    with pytest.raises(ExportError, match="shape|batch"):
        ServedModel.of(model, Data(examples)).save(tmp_path / "m")


def table_model():
    """A model of numbers and strings, with the encoder in front of it."""
    rng = np.random.default_rng(1)
    rows = {
        "median income": rng.normal(5, 2, 300).astype(np.float32),
        "ocean-proximity": rng.choice(["INLAND", "NEAR BAY", "größer"], 300).astype(object),
    }
    income = keras.Input((), name="median income")
    ocean = keras.Input((), dtype="string", name="ocean-proximity")
    normalization = keras.layers.Normalization(axis=None)
    normalization.adapt(rows["median income"])
    lookup = keras.layers.StringLookup(output_mode="one_hot")
    lookup.adapt(tf.constant(rows["ocean-proximity"].tolist()))
    scaled = keras.layers.Reshape((1,))(normalization(income))
    encoder = keras.Model([income, ocean], keras.layers.Concatenate()([scaled, lookup(ocean)]))
    features = encoder([tf.constant(rows[t.name].tolist()) for t in encoder.inputs]).numpy()
    target = (rows["median income"] * 50_000).astype(np.float32)
    model = keras.Sequential([keras.Input((features.shape[1],)), keras.layers.Dense(8, "relu")])
    model.add(keras.layers.Dense(1))
    model.add(keras.layers.Rescaling(1e5))
    model.compile(loss="mse")
    examples = Examples(features, target)
    task = Regression("median_house_value")
    data = Data(train=examples, test=examples, task=task, encoder=encoder, test_rows=rows)
    return model, data


def test_a_table_is_asked_by_its_raw_columns_strings_included(tmp_path):
    model, data = table_model()
    served = ServedModel.of(model, data)
    rows = {
        "median income": tf.constant(data.test_rows["median income"]),
        "ocean-proximity": tf.constant(data.test_rows["ocean-proximity"].tolist()),
    }
    answers = saved_answers(served, tmp_path / "m", rows)
    expected = model(data.test.inputs)[:, 0]
    np.testing.assert_allclose(answers["prediction"], expected, rtol=1e-5)
    assert {n: s.dtype for n, s in signature_inputs(tmp_path / "m").items()} == {
        "median income": tf.float32,
        "ocean-proximity": tf.string,
    }


def test_the_keras_file_of_a_table_starts_at_its_raw_columns_too(tmp_path):
    model, data = table_model()
    ServedModel.of(model, data).save_keras(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    rows = {name: tf.constant(values.tolist()) for name, values in data.test_rows.items()}
    np.testing.assert_allclose(loaded(rows), model(data.test.inputs), rtol=1e-5)


def image_model():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    model = keras.Sequential([keras.Input((8, 8), dtype="uint8", name="image")])
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(3))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model, data_of(images, Classification(("ant", "bee", "cat")))


@pytest.mark.parametrize("make", [table_model, image_model])
def test_keras_layers_tfsmlayer_takes_the_export_as_it_is(tmp_path, make):
    model, data = make()
    served = ServedModel.of(model, data)
    rows = {
        name: tf.constant(values.tolist(), served.inputs[name].dtype)
        for name, values in raw_rows(data, served.inputs).items()
    }
    expected = saved_answers(served, tmp_path / "m", rows)
    layer = keras.layers.TFSMLayer(str(tmp_path / "m"))
    assert len(layer.weights) == len(model.weights)
    inputs = {
        name: keras.Input(spec.shape[1:], dtype=spec.dtype.name, name=name)
        for name, spec in served.inputs.items()
    }
    if make is image_model:
        ((rows, inputs),) = zip(rows.values(), inputs.values(), strict=True)
    whole = keras.Model(inputs, layer(inputs))
    whole.save(tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras", safe_mode=False)
    for ask in (layer, whole, loaded):
        answers = ask(rows)
        assert set(answers) == set(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(answers[name], values)


def test_weights_are_saved_once_for_all_ways_to_ask(tmp_path):
    model, data = table_model()
    ServedModel.of(model, data).save(tmp_path / "m")
    saved = tf.train.list_variables(str(tmp_path / "m" / "variables" / "variables"))
    assert sum(name.startswith("weights/") for name, _ in saved) == len(model.weights)
    assert sum(np.prod(shape, dtype=int) for _, shape in saved) < 1.5 * model.count_params()


def test_the_keras_file_has_no_optimizer_and_the_model_keeps_its_own(tmp_path):
    model = dense_model(keras.layers.Dense(3), optimizer="adam")
    model.fit(FLOWERS, np.zeros(40), verbose=0)
    optimizer = model.optimizer
    ServedModel.of(model, data_of()).save_keras(tmp_path / "m.keras")
    assert model.optimizer is optimizer
    assert model.compiled
    model.fit(FLOWERS, np.zeros(40), verbose=0)
    config = zipfile.ZipFile(tmp_path / "m.keras").read("config.json")
    assert b"Adam" not in config
    assert not keras.saving.load_model(tmp_path / "m.keras").compiled


def test_recurrent_layers_keep_their_choice_of_kernel():
    layers = [keras.layers.Reshape((4, 1)), keras.layers.LSTM(3)]
    model = dense_model(*layers)
    before = [layer.use_cudnn for layer in model.layers if hasattr(layer, "use_cudnn")]
    ServedModel.of(model, data_of(task=Classification((0, 1, 2))))
    assert [layer.use_cudnn for layer in model.layers if hasattr(layer, "use_cudnn")] == before


def test_rows_that_lack_an_input_are_named():
    model, data = table_model()
    lacking = {"median income": data.test_rows["median income"]}
    with pytest.raises(ExportError, match="'ocean-proximity', which the rows lack"):
        raw_rows(
            Data(data.train, encoder=data.encoder, test_rows=lacking),
            ServedModel.of(model, data).inputs,
        )


def test_what_an_example_lacks_is_missing_in_rows_of_vectors_too(tmp_path):
    row = keras.Input((4,), name="row")
    encoder = keras.Model([row], keras.ops.nan_to_num(row))
    data = data_of(task=Regression("sum"), encoder=encoder, test_rows={"row": FLOWERS})
    model = dense_model(keras.layers.Dense(1), loss="mse")
    served = ServedModel.of(model, data)
    served.save(tmp_path / "m")
    regress = tf.saved_model.load(str(tmp_path / "m")).signatures["regress"]
    empty = tf.train.Example().SerializeToString()
    answer = regress(inputs=tf.constant([empty]))["outputs"]
    np.testing.assert_allclose(answer, model(np.zeros((1, 4)))[:, 0], atol=1e-6)


def test_an_encoder_without_raw_rows_is_refused():
    model, data = table_model()
    with pytest.raises(ExportError, match="test_rows"):
        ServedModel.of(model, Data(data.train, encoder=data.encoder))
