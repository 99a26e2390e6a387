"""gRPC as TensorFlow Serving's clients speak it, against a server in this process."""

from __future__ import annotations

import asyncio
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import ovmsclient
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from kerastrain.serving.models import ModelSpec
from kerastrain.serving.predictor import Limits
from kerastrain.serving.server import Server, Settings
from kerastrain.serving.versions import VersionPolicy

X = np.float32([[1, 2], [3, 4]])


class Running:
    """A server on a loop in a thread of its own, for clients that block."""

    def __init__(self, base: Path, log: Path):
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        spec = ModelSpec("tiny", base, {"stable": 1}, VersionPolicy(latest=None))
        limits = Limits(max_request_bytes=100_000, max_rows=100)
        self.server = Server(
            Settings([spec], rest_port=0, grpc_port=0, limits=limits, access_log=str(log))
        )
        self._run(self.server.start())
        self.log = log
        channel = grpc.insecure_channel(f"127.0.0.1:{self.server.grpc_port}")
        self.channel = channel
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    @contextmanager
    def held(self):
        """The server does nothing until the block is left."""
        go_on = threading.Event()
        self._loop.call_soon_threadsafe(go_on.wait)
        try:
            yield
        finally:
            go_on.set()

    def close(self):
        self.channel.close()
        self._run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture(scope="module")
def running(publish, tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    publish(base, 1, scale=2.0)
    publish(base, 2, scale=3.0)
    server = Running(base, tmp_path_factory.mktemp("log") / "access.jsonl")
    yield server
    server.close()


def predict_request(x=X, *, name="x", model="tiny", signature="", version=None, label=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    request.inputs[name].CopyFrom(tf.make_tensor_proto(x))
    return request


def test_predict_answers_with_every_output_and_says_who_answered(running):
    response = running.predictions.Predict(predict_request())
    assert response.model_spec.name == "tiny"
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"
    assert set(response.outputs) == {"total", "twice"}
    assert list(response.outputs["total"].float_val) == [9, 21]
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["twice"]), 6 * X)


def test_versions_labels_signatures_and_outputs_can_be_chosen(running):
    for choice in ({"version": 1}, {"label": "stable"}):
        response = running.predictions.Predict(predict_request(**choice))
        assert list(response.outputs["total"].float_val) == [6, 14]
    request = predict_request([b"1.5", b"-2"], name="text", signature="read")
    request.output_filter.append("echo")
    response = running.predictions.Predict(request)
    assert {k: list(v.string_val) for k, v in response.outputs.items()} == {"echo": [b"1.5", b"-2"]}


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"model": "m"}, "NOT_FOUND", "Servable not found for request: Latest(m)"),
        ({"version": 7}, "NOT_FOUND", "Servable not found for request: Specific(tiny, 7)"),
        ({"label": "x"}, "INVALID_ARGUMENT", "Unrecognized servable version label: x"),
        ({"signature": "x"}, "FAILED_PRECONDITION", 'Serving signature key "x" not found.'),
        ({"model": ""}, "INVALID_ARGUMENT", "Missing ModelSpec"),
        ({"name": "y"}, "INVALID_ARGUMENT", "input tensor alias not found in signature: y."),
        ({"x": X.astype(int)}, "INVALID_ARGUMENT", 'Input "x" is int64; expected float32.'),
        ({"x": X[0]}, "INVALID_ARGUMENT", "has the shape [2]; expected [?, 2]"),
        ({"x": np.zeros((101, 2), "f")}, "INVALID_ARGUMENT", "has 101 rows; this server takes 100"),
        ({"x": np.zeros((10**5, 2), "f")}, "RESOURCE_EXHAUSTED", "larger than max"),
        (
            {"x": [b"2", b"two"], "name": "text", "signature": "read"},
            "INVALID_ARGUMENT",
            "could not correctly convert string: two",
        ),
    ],
)
def test_mistakes_have_tensorflow_servings_codes_and_a_reason(running, change, code, text):
    with pytest.raises(grpc.RpcError) as raised:
        running.predictions.Predict(predict_request(**change))
    assert raised.value.code().name == code
    assert text in raised.value.details()


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (["gone"], "output tensor alias not found in signature: gone Outputs expected to be in"),
        (["total", "total"], "duplicate output tensor alias: total"),
    ],
)
def test_outputs_that_are_not_there_are_refused(running, outputs, text):
    request = predict_request()
    request.output_filter.extend(outputs)
    with pytest.raises(grpc.RpcError, match=text) as raised:
        running.predictions.Predict(request)
    assert raised.value.code().name == "INVALID_ARGUMENT"


def test_a_tensor_whose_values_do_not_fit_its_shape_is_refused(running):
    request = predict_request()
    request.inputs["x"].tensor_shape.dim[0].size = 2**50
    with pytest.raises(grpc.RpcError) as raised:
        running.predictions.Predict(request)
    assert raised.value.code().name == "INVALID_ARGUMENT"


def test_bytes_that_are_no_message_end_in_an_error_and_the_next_request_is_answered(running):
    call = running.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    with pytest.raises(grpc.RpcError):
        call(b"\xff\xff\xff")
    assert running.predictions.Predict(predict_request())


def examples(request, *values, signature):
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    for value in values:
        example = request.input.example_list.examples.add()
        example.features.feature["a"].float_list.value.append(value)
    return request


def test_classify_gives_labels_and_scores(running):
    request = examples(classification_pb2.ClassificationRequest(), 0.25, 0.5, signature="classify")
    response = running.predictions.Classify(request)
    assert response.model_spec.version.value == 2
    found = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert found == [[("yes", 0.75), ("no", 0.25)], [("yes", 1.5), ("no", -0.5)]]


def test_regress_gives_numbers_and_a_context_fills_in_what_examples_lack(running):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "regress"
    given = request.input.example_list_with_context
    given.context.features.feature["a"].float_list.value.append(1.0)
    given.examples.add()
    given.examples.add().features.feature["a"].float_list.value.append(5.0)
    response = running.predictions.Regress(request)
    assert [each.value for each in response.result.regressions] == [3.0, 15.0]


@pytest.mark.parametrize(
    ("signature", "count", "text"),
    [
        ("serving_default", 1, "Expected classification signature method_name to be tensorflow/"),
        ("gone", 1, "No signature was found with the name: gone"),
        ("classify", 0, "Input is empty."),
    ],
)
def test_what_cannot_be_classified_is_told(running, signature, count, text):
    request = examples(
        classification_pb2.ClassificationRequest(), *[1.0] * count, signature=signature
    )
    with pytest.raises(grpc.RpcError, match=text) as raised:
        running.predictions.Classify(request)
    assert raised.value.code().name == "INVALID_ARGUMENT"


def test_several_inferences_are_made_of_one_input(running):
    request = inference_pb2.MultiInferenceRequest()
    for kind in ("classify", "regress"):
        task = request.tasks.add(method_name=f"tensorflow/serving/{kind}")
        task.model_spec.name, task.model_spec.signature_name = "tiny", kind
    request.input.example_list.examples.add()
    first, second = running.predictions.MultiInference(request).results
    assert first.classification_result.classifications[0].classes[1].label == "no"
    assert second.regression_result.regressions[0].value == 0.0
    request.tasks[1].model_spec.signature_name = "classify"
    with pytest.raises(grpc.RpcError, match="Duplicate evaluation of signature: classify"):
        running.predictions.MultiInference(request)


def test_metadata_are_the_signatures(running):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = running.predictions.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "classify"} <= set(signatures.signature_def)
    assert response.model_spec.version.value == 2
    for fields, text in (([], "at least one metadata_field"), (["x"], "x is not supported")):
        del request.metadata_field[:]
        request.metadata_field.extend(fields)
        with pytest.raises(grpc.RpcError, match=text):
            running.predictions.GetModelMetadata(request)


def test_status_names_every_version(running):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "tiny"
    response = running.models.GetModelStatus(request)
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    found = [(s.version, s.state, s.status.error_code) for s in response.model_version_status]
    assert found == [(2, available, 0), (1, available, 0)]
    request.model_spec.name = "m"
    with pytest.raises(grpc.RpcError, match="Could not find any versions of model m"):
        running.models.GetModelStatus(request)


def test_models_are_not_changed_over_grpc(running):
    with pytest.raises(grpc.RpcError, match="start 'kerastrain serve'") as raised:
        running.models.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest())
    assert raised.value.code().name == "UNIMPLEMENTED"


def test_an_independent_client_works(running):
    client = ovmsclient.make_grpc_client(f"127.0.0.1:{running.server.grpc_port}")
    assert client.get_model_status("tiny")[2]["state"] == "AVAILABLE"
    assert client.get_model_metadata("tiny", 1)["inputs"]["x"] == {
        "shape": [-1, 2], "dtype": "DT_FLOAT"
    }  # fmt: skip
    answer = client.predict({"x": X}, "tiny")
    np.testing.assert_array_equal(answer["total"], np.float32([9, 21]))
    with pytest.raises(ovmsclient.tfs_compat.base.errors.ModelNotFoundError, match="Latest"):
        client.predict({"x": X}, "gone")


def test_calls_are_logged_and_counted(running):
    running.predictions.Predict(predict_request(version=1))
    lines = running.log.read_text().splitlines()
    assert any(
        '"version":1,"status":"OK"' in line and '"protocol":"gRPC"' in line for line in lines
    )
    url = f"http://127.0.0.1:{running.server.rest_port}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url) as answer:
        text = answer.read().decode()
    count = ':tensorflow:serving:request_count{model_name="tiny",status="OK",API="predict",' \
            'entrypoint="gRPC"}'  # fmt: skip
    assert count in text


def test_a_client_in_a_hurry_is_told_when_it_is_too_late_and_may_ask_again(running):
    with running.held(), pytest.raises(grpc.RpcError) as raised:
        running.predictions.Predict(predict_request(), timeout=0.1)
    assert raised.value.code().name == "DEADLINE_EXCEEDED"
    assert running.predictions.Predict(predict_request()).model_spec.version.value == 2
