"""Warm-up requests are replayed before a version is served."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from kerastrain.export.warmup import NAME
from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import load_servable
from kerastrain.serving.warm_up import warm_up

Log = prediction_log_pb2.PredictionLog


def predict_log(x, signature="", name="x"):
    log = Log()
    log.predict_log.request.model_spec.signature_name = signature
    log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(x))
    return log


def inference_log(kind, signature):
    log = Log()
    request = getattr(log, f"{kind}_log").request
    request.model_spec.signature_name = signature
    request.input.example_list.examples.add()
    return log


def multi_log():
    log = Log()
    request = log.multi_inference_log.request
    request.input.example_list.examples.add()
    for kind in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{kind}")
        task.model_spec.signature_name = kind
    return log


@pytest.fixture
def loaded(publish, tmp_path):
    """A servable with these records that notes what it is asked."""

    def load(*logs):
        folder = publish(tmp_path, 1)
        (folder / "assets.extra").mkdir()
        with tf.io.TFRecordWriter(str(folder / NAME)) as writer:
            for log in logs:
                writer.write(log if isinstance(log, bytes) else log.SerializeToString())
        servable = load_servable("tiny", folder)
        servable.asked, servable.asked_in_this_thread, call = [], [], servable.call

        def noting(name, inputs, *, in_this_thread=False):
            (servable.asked_in_this_thread if in_this_thread else servable.asked).append(name)
            return call(name, inputs, in_this_thread=in_this_thread)

        servable.call = noting
        return servable

    return load


def test_every_kind_of_record_is_asked_and_the_other_signatures_with_zeros(loaded):
    servable = loaded(
        predict_log(np.float32([[1, 2]])),
        predict_log([[1.0, 2.0]], "means"),
        inference_log("classify", "classify"),
        inference_log("regress", "regress"),
        multi_log(),
    )
    assert warm_up(servable) == 5
    assert servable.asked[:4] == ["serving_default", "means", "classify", "regress"]
    assert servable.asked[4:] == ["classify", "regress", "read", "single"]
    # The other way of calling is made ready too, once for each.
    assert sorted(servable.asked_in_this_thread) == sorted(servable.signatures)


def test_a_record_of_another_kind_is_passed_over(loaded, caplog):
    log = Log()
    log.session_run_log.request.feed.add().name = "x"
    assert warm_up(loaded(log)) == 1
    assert "session_run_log and is passed over" in caplog.text


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (predict_log(np.float32([[1, 2, 3]])), r"Warm-up request 1 of version 1: .*shape \[1, 3\]"),
        (predict_log(["x"], "read", "text"), "could not correctly convert"),
        (predict_log([[1.0]], "gone"), 'Serving signature key "gone" not found'),
        (inference_log("regress", "classify"), "Expected regression signature method_name"),
        (b"no message", "is no PredictionLog"),
    ],
    ids=["shape", "value", "signature", "method", "bytes"],
)
def test_a_version_that_cannot_answer_its_own_requests_is_not_served(loaded, log, problem):
    with pytest.raises(ServingError, match=problem):
        warm_up(loaded(log))


def test_more_than_a_thousand_records_are_refused(loaded):
    servable = loaded(*[predict_log(np.float32([[1, 2]]))] * 1001)
    with pytest.raises(ServingError, match="exceeds the maximum"):
        warm_up(servable)


def test_a_damaged_file_is_told(loaded):
    servable = loaded(predict_log(np.float32([[1, 2]])))
    path = servable.folder / NAME
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ServingError, match="cannot be read") as raised:
        warm_up(servable)
    assert raised.value.code == "DATA_LOSS"
