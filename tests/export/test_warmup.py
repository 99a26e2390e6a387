from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kerastrain.errors import ExportError
from kerastrain.export.warmup import MAX_BYTES, NAME, prediction_log, write_warmup


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel with two signatures: of a number and a text a row, and of an image."""
    folder = tmp_path_factory.mktemp("export") / "1"
    module = tf.Module()
    columns = [tf.TensorSpec([None], tf.float32, "age"), tf.TensorSpec([None], tf.string, "city")]

    @tf.function(input_signature=columns)
    def of_rows(age, city):
        return {"prediction": age + tf.cast(tf.strings.length(city), tf.float32)}

    @tf.function(input_signature=[tf.TensorSpec([None, 600, 600], tf.uint8, "image")])
    def of_images(image):
        return {"prediction": tf.reduce_sum(tf.cast(image, tf.float32), [1, 2])}

    signatures = {"serving_default": of_rows, "images": of_images}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


ROWS = {
    "serving_default": {
        "age": np.arange(20, 30),
        "city": np.array(["Köln", "", "Bonn", "x" * 200, "e", "f", "g", "h", "i", "j"], object),
    },
    "images": {"image": np.arange(5 * 600 * 600, dtype=np.uint32).reshape(5, 600, 600) % 251},
}


def read(folder):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    records = tf.data.TFRecordDataset(str(folder / NAME)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def test_tensorflow_servings_own_message_reads_the_requests_back(exported):
    assert write_warmup(exported, ROWS, model="people", records=(1, 3)) == 4
    logs = read(exported)
    requests = [log.predict_log.request for log in logs]
    assert [(r.model_spec.name, r.model_spec.signature_name) for r in requests] == [
        ("people", "images"), ("people", "images"),
        ("people", "serving_default"), ("people", "serving_default"),
    ]  # fmt: skip
    age, city = (tf.make_ndarray(requests[3].inputs[name]) for name in ("age", "city"))
    assert age.dtype == np.float32 and age.tolist() == [20, 21, 22]
    assert [each.decode() for each in city] == ["Köln", "", "Bonn"]
    image = tf.make_ndarray(requests[1].inputs["image"])
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, ROWS["images"]["image"][:3])


def test_the_bytes_are_those_that_tensorflow_serving_would_write():
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "m", "features"
    inputs = {
        "numbers": tf.constant(np.random.default_rng(0).normal(size=(40, 3)), tf.float32),
        "categories": tf.constant([[1], [2]], tf.int32),
    }
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
    assert prediction_log("m", "features", inputs) == log.SerializeToString(deterministic=True)


def test_the_requests_can_be_played_back(exported):
    write_warmup(exported, {"serving_default": ROWS["serving_default"]}, model="m")
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    sizes = []
    for log in read(exported):
        inputs = log.predict_log.request.inputs
        answers = signature(**{n: tf.constant(tf.make_ndarray(t)) for n, t in inputs.items()})
        sizes.append(len(answers["prediction"]))
    assert sizes == [1, 1, 8, 64]  # of ten rows: the rest are taken over again


def test_the_same_rows_give_the_same_bytes(exported):
    contents = []
    for rows in (ROWS, dict(reversed(ROWS.items()))):
        write_warmup(exported, rows, model="m", records=(1, 2))
        contents.append((exported / NAME).read_bytes())
    assert contents[0] == contents[1]


def test_requests_larger_than_a_message_may_be_are_left_out(exported):
    assert MAX_BYTES < 12 * 600 * 600
    written = write_warmup(exported, {"images": ROWS["images"]}, model="m", records=(1, 12, 5))
    assert written == 2


def test_what_the_model_does_not_take_is_told(exported):
    with pytest.raises(ExportError, match="'serving_default' .* takes .*age.*have city"):
        write_warmup(exported, {"serving_default": {"city": np.array(["a"])}}, model="m")
    with pytest.raises(ExportError, match="'featurs' of .* takes nothing"):
        write_warmup(exported, {"featurs": ROWS["images"]}, model="m")
    with pytest.raises(ExportError, match="1 to 1000 in all"):
        write_warmup(exported, {"images": ROWS["images"]}, model="m", records=[1] * 1001)
