"""The Open Inference Protocol v2 over REST: one test for each rule."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kerastrain
from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest.open_inference import DATATYPES, read_inputs, write_answer
from kerastrain.serving.servable import TensorInfo

INFER = "/v2/models/m/infer"
X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
PERSON = [
    {"name": "age", "shape": [1], "datatype": "FP32", "data": [2]},
    {"name": "job", "shape": [1], "datatype": "BYTES", "data": ["ü"]},
]


def infos(**dtypes):
    return {name: TensorInfo(name, tf.as_dtype(dtype), None) for name, dtype in dtypes.items()}


def refused(item, binary=b"", *, dtype="float32"):
    with pytest.raises(ServingError) as caught:
        read_inputs({"inputs": [{**X, **item}]}, infos(x=dtype), binary)
    assert caught.value.http_status == 400
    return caught.value.message


def test_the_server_says_what_it_is(server):
    assert server.get("/v2").json == {
        "name": "kerastrain",
        "version": kerastrain.__version__,
        "extensions": ["binary_tensor_data"],
    }


def test_the_server_is_live_and_ready_until_it_stops(server):
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"live": True, "ready": True}
    server.is_stopping = True
    try:
        assert server.get("/v2/health/ready").status == 503
        assert server.get("/v2/models/m/ready").status == 503
        assert server.get("/v2/health/live").status == 200
    finally:
        server.is_stopping = False


def test_a_model_says_its_inputs_and_outputs(server):
    assert server.get("/v2/models/m").json == {
        "name": "m",
        "versions": ["2", "1"],
        "platform": "tensorflow_savedmodel",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert server.get("/v2/models/m/versions/1").status == 200


def test_a_model_is_ready_or_not_there(server):
    for path in ("/v2/models/m/ready", "/v2/models/m/versions/1/ready"):
        assert server.get(path).json == {"name": "m", "ready": True}
    for path in ("/v2/models/x", "/v2/models/x/ready", "/v2/models/m/versions/7/ready"):
        reply = server.get(path)
        assert reply.status == 404 and reply.error


def test_an_inference_is_answered_with_names_shapes_and_datatypes(server):
    assert server.post(INFER, {"inputs": [X]}).json == {
        "model_name": "m",
        "model_version": "2",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 6.0]}],
    }


def test_a_version_is_asked_by_its_number(server):
    reply = server.post("/v2/models/m/versions/1/infer", {"inputs": [X]})
    assert reply.json["model_version"] == "1" and reply.json["outputs"][0]["data"] == [2.0, 4.0]


def test_the_id_comes_back(server):
    assert server.post(INFER, {"id": "42", "inputs": [X]}).json["id"] == "42"
    assert server.post(INFER, {"id": 42, "inputs": [X]}).status == 400


def test_outputs_are_chosen_by_name(server):
    body = {"parameters": {"signature_name": "person"}, "inputs": PERSON}
    every = server.post(INFER, body).json["outputs"]
    assert [output["name"] for output in every] == ["label", "raw_bytes", "score"]
    body["outputs"] = [{"name": "score"}, {"name": "label"}]
    assert server.post(INFER, body).json["outputs"] == [
        {"name": "score", "datatype": "FP32", "shape": [1], "data": [6.0]},
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["ü"]},
    ]
    body["outputs"] = [{"name": "nothing"}]
    assert server.post(INFER, body).status == 400


def test_bytes_that_are_no_text_come_in_base64_and_say_so(server):
    body = {"parameters": {"signature_name": "person"}, "inputs": PERSON}
    body["outputs"] = [{"name": "raw_bytes"}]
    (output,) = server.post(INFER, body).json["outputs"]
    assert (output["parameters"], output["data"]) == ({"content_type": "base64"}, ["w7w="])


def test_data_may_be_nested_or_flat():
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        item = {"name": "x", "shape": [2, 2], "datatype": "INT32", "data": data}
        array = read_inputs({"inputs": [item]}, infos(x="int32"))["x"]
        np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


def test_data_of_another_size_or_form_than_the_shape_are_refused():
    assert refused({"shape": [2, 2]}) == (
        "the input 'x' has 2 values, but its shape [2, 2] holds 4"
    )
    assert "have the shape [2, 1]; expected [1, 2]" in refused({"data": [[1.0], [2.0]]})


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_goes_in_and_comes_out(datatype):
    dtype = DATATYPES[datatype]
    data = {"BOOL": [True, False], "BYTES": ["a", "b"]}.get(datatype, [1, 2])
    item = {"name": "x", "shape": [2], "datatype": datatype, "data": data}
    array = read_inputs({"inputs": [item]}, infos(x=dtype))["x"]
    (output,) = json.loads(write_answer({}, {"x": array})[0])["outputs"]
    assert output == item


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_refused_with_the_reason(datatype):
    assert refused({"datatype": datatype}) == (
        f"the input 'x' comes as {datatype}, which this server does not take; "
        "the model expects FP32"
    )


def test_another_datatype_than_the_models_is_refused():
    assert refused({"datatype": "FP64"}) == (
        "inference input data-type of 'x' is \"FP64\", model expects 'FP32'"
    )


def test_values_must_be_of_the_datatype():
    assert "Type: True is not of expected type: float" in refused({"data": [True, 1.0]})
    message = refused({"datatype": "INT8", "data": [1, 128]}, dtype="int8")
    assert message.startswith("the input 'x': JSON Value: 128")


@pytest.mark.parametrize(
    "shape", [None, 2, [-1, 2], [1.0, 2], ["1"], [True, 2], [1] * 33, [2**70], {}]
)
def test_what_is_no_shape_is_refused(shape):
    assert "expected a list of whole numbers" in refused({"shape": shape})


def test_inputs_must_be_those_of_the_signature(server):
    for inputs, message in (
        ([X, X], "comes twice"),
        ([{**X, "name": "z"}], "unexpected inference input 'z'; expected x"),
        ([], "missing inference input 'x'"),
        (None, "'inputs' is null; expected a list of objects"),
        ([1], "expected a list of objects"),
        ([{}], "'name' in 'inputs' is null; expected text"),
        ([{"name": "x", "shape": [1, 2], "datatype": "FP32"}], "neither 'data' nor binary data"),
    ):
        reply = server.post(INFER, {"inputs": inputs})
        assert reply.status == 400 and message in reply.error


def test_an_unknown_model_version_or_signature_is_told(server):
    assert server.post("/v2/models/x/infer", {"inputs": [X]}).status == 404
    assert server.post("/v2/models/m/versions/7/infer", {"inputs": [X]}).status == 404
    assert server.post("/v2/models/m/versions/x/infer", {"inputs": [X]}).status == 400
    for name in ("x", 5):
        body = {"parameters": {"signature_name": name}, "inputs": [X]}
        assert server.post(INFER, body).status == 400


def test_nan_goes_in_and_comes_out(server):
    body = b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [NaN, 1]}]}'
    assert server.post(INFER, body).body.endswith(b'"data":[NaN,3.0]}]}')


# Binary data


def binary(document, *chunks):
    head = json.dumps(document).encode()
    return b"".join([head, *chunks]), {"Inference-Header-Content-Length": str(len(head))}


def as_binary(size, **item):
    item = {"name": "x", "shape": [1, 2], "datatype": "FP32", **item}
    return {**item, "parameters": {"binary_data_size": size}}


def test_tensors_go_in_and_come_out_as_binary_data(server):
    body, headers = binary(
        {"inputs": [as_binary(8)], "parameters": {"binary_data_output": True}},
        np.array([1, 2], "<f4").tobytes(),
    )
    reply = server.post(INFER, body, headers)
    size = int(reply.headers["inference-header-content-length"])
    (output,) = json.loads(reply.body[:size])["outputs"]
    assert output == {
        "name": "y",
        "datatype": "FP32",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 8},
    }
    np.testing.assert_array_equal(np.frombuffer(reply.body[size:], "<f4"), [3.0, 6.0])


def test_each_output_is_binary_or_not_as_asked(server):
    body = {"parameters": {"signature_name": "person"}, "inputs": PERSON}
    body["outputs"] = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "score"}]
    reply = server.post(INFER, body)
    size = int(reply.headers["inference-header-content-length"])
    assert [output.get("data") for output in json.loads(reply.body[:size])["outputs"]] == [
        None,
        [6.0],
    ]
    assert reply.body[size:] == struct.pack("<I", 2) + "ü".encode()


@pytest.mark.parametrize(
    ("item", "chunk"),
    [
        (as_binary(7), b"1234567"),
        (as_binary(9), b"12345678"),
        (as_binary(8), b"123456789"),
        (as_binary(-1), b"12345678"),
        (as_binary("8"), b"12345678"),
        (as_binary(True), b"1"),
        ({**as_binary(8), "data": [1.0, 2.0]}, b"12345678"),
        ({**X, "parameters": 5}, b""),
    ],
)
def test_binary_data_of_another_size_than_the_shape_are_refused(item, chunk):
    with pytest.raises(ServingError) as caught:
        read_inputs({"inputs": [item]}, infos(x="float32"), chunk)
    assert caught.value.http_status == 400


@pytest.mark.parametrize("header", ["x", "-1", "100000000", "9" * 50, "1e3"])
def test_a_header_that_is_no_length_of_the_body_is_refused(server, header):
    reply = server.post(INFER, {"inputs": [X]}, {"Inference-Header-Content-Length": header})
    assert reply.status == 400


@given(st.binary(max_size=20))
def test_any_bytes_are_texts_of_a_binary_tensor_or_refused(chunk):
    item = {**as_binary(len(chunk)), "datatype": "BYTES"}
    try:
        found = read_inputs({"inputs": [{**item, "shape": [1]}]}, infos(x="string"), chunk)["x"]
    except ServingError as error:
        assert error.http_status == 400
        return
    assert chunk == struct.pack("<I", len(found[0])) + found[0]


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(d) for d in DATATYPES.values() if d != "string"]),
        hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
    )
)
def test_any_array_survives_the_way_out_and_in_as_binary_data(array):
    body, size = write_answer({}, {"x": array}, binary=True)
    document = {"inputs": json.loads(body[:size])["outputs"]}
    again = read_inputs(document, infos(x=array.dtype.name), body[size:])["x"]
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype
