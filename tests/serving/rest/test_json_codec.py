"""TensorFlow Serving's rules of JSON: one test for each."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest.json_codec import read_inputs, write_answer
from kerastrain.serving.rest.json_text import parse_object
from kerastrain.serving.servable import TensorInfo


def infos(**dtypes):
    return {name: TensorInfo(name, tf.as_dtype(dtype), None) for name, dtype in dtypes.items()}


def read(text, **dtypes):
    """The inputs of a request given as JSON text (or something that JSON holds)."""
    text = text if isinstance(text, str) else json.dumps(text)
    return read_inputs(parse_object(text.encode()), infos(**dtypes)).inputs


def refused(text, **dtypes):
    with pytest.raises(ServingError) as caught:
        read(text, **dtypes)
    assert caught.value.code == "INVALID_ARGUMENT"
    return caught.value.message


def written(outputs, *, by_rows=True):
    body = write_answer({k: np.asarray(v) for k, v in outputs.items()}, by_rows=by_rows)
    return body.decode()


# What is asked


def test_instances_are_answered_by_predictions(server):
    assert server.predict({"instances": [[1.0, 2.0]]}).json == {"predictions": [[3.0, 6.0]]}


def test_inputs_are_answered_by_outputs(server):
    assert server.predict({"inputs": [[1.0, 2.0]]}).json == {"outputs": [[3.0, 6.0]]}


def test_neither_inputs_nor_instances_is_told(server):
    reply = server.predict({"signature_name": "serving_default"})
    assert (reply.status, reply.error) == (400, "Missing 'inputs' or 'instances' key")


def test_both_inputs_and_instances_are_refused(server):
    reply = server.predict({"inputs": [[1.0, 2.0]], "instances": [[1.0, 2.0]]})
    assert reply.status == 400 and "only one of 'inputs' or 'instances'" in reply.error


def test_a_signature_is_chosen_by_name(server):
    reply = server.predict({"signature_name": "integers", "instances": [1, 2]})
    assert reply.json == {"predictions": [1, 2]}


def test_a_signature_name_that_is_no_text_is_told(server):
    reply = server.predict({"signature_name": 5, "instances": [1]})
    assert (reply.status, reply.error) == (
        400,
        "JSON Value: 5 not formatted correctly. 'signature_name' key must be a string value.",
    )


def test_the_only_input_may_be_named_or_not():
    for document in (
        {"instances": [[1, 2]]},
        {"instances": [{"x": [1, 2]}]},
        {"inputs": [[1, 2]]},
        {"inputs": {"x": [[1, 2]]}},
    ):
        np.testing.assert_array_equal(read(document, x="float32")["x"], [[1.0, 2.0]])


def test_several_inputs_need_names():
    both = {"x": "float32", "y": "float32"}
    assert "instances is a plain list, but expecting list of objects" in refused(
        {"instances": [1]}, **both
    )
    assert "inputs is a plain value/list, but expecting an object" in refused(
        {"inputs": [1]}, **both
    )


def test_the_keys_of_a_row_are_exactly_the_inputs():
    both = {"x": "float32", "y": "float32"}
    assert refused({"instances": [{"x": 1, "y": 2}, {"x": 1}]}, **both) == (
        "Failed to process element: 1 of 'instances' list. "
        'JSON object: {"x": …} keys must be equal to: x,y'
    )
    assert refused({"instances": [{"x": 1, "y": 2, "z": 3}]}, **both) == (
        "Failed to process element: 0 key: z of 'instances' list. "
        "Error: INVALID_ARGUMENT: JSON object: does not have named input: z"
    )


def test_a_missing_column_is_named_and_further_columns_are_passed_over():
    assert refused({"inputs": {"y": 1}}, x="float32", y="float32") == (
        "Missing named input: x in 'inputs' object."
    )
    assert read({"inputs": {"x": [1.0], "z": 0}}, x="float32")["x"] == [1.0]


def test_unknown_keys_of_a_request_are_passed_over():
    assert read({"instances": [1.0], "comment": {}}, x="float32")["x"] == [1.0]


def test_of_a_key_that_comes_twice_the_last_counts():
    assert read('{"instances": [1.0], "instances": [2.0]}', x="float32")["x"] == [2.0]


def test_rows_and_plain_values_do_not_mix():
    assert refused({"instances": [{"x": 1}, 2]}, x="float32") == (
        "Expecting object but got list at item 1 of input list"
    )
    assert refused({"instances": [1, {"x": 2}]}, x="float32") == (
        "Expecting value/list but got object at item 1 of input list"
    )


def test_instances_must_be_a_list_with_something_in_it():
    assert "'instances' to be an list/array" in refused({"instances": 1}, x="float32")
    assert "No values in 'instances' array" in refused({"instances": []}, x="float32")


def test_a_body_that_is_no_object_is_refused(server):
    reply = server.predict([1, 2])
    assert (reply.status, reply.error) == (400, "JSON Value: [… 2 values] Is not object")


# Which value fits which dtype

DTYPES = {
    "bool": [True, False],
    "int8": [-128, 127],
    "int16": [-(2**15), 2**15 - 1],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint8": [0, 255],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "float32": [0.1, -3e38],
    "float64": [0.1, -1e308],
    "string": ["a", "ü"],
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_of_the_contract_goes_in_and_comes_out_exactly(dtype):
    values = DTYPES[dtype]
    array = read({"instances": values}, x=dtype)["x"]
    assert array.dtype == tf.as_dtype(dtype).as_numpy_dtype and array.shape == (2,)
    assert json.loads(written({"x": array})) == {"predictions": values}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint16", "complex64"])
def test_other_dtypes_fail_in_and_out(dtype):
    with pytest.raises(ServingError, match="Conversion of JSON Value") as caught:
        read({"instances": [1]}, x=dtype)
    assert caught.value.code == "UNIMPLEMENTED"
    array = np.zeros(1, tf.as_dtype(dtype).as_numpy_dtype)
    with pytest.raises(ServingError, match="Failed to write JSON value for tensor type"):
        written({"x": array})


def test_a_float16_output_fails_over_http_too(server):
    reply = server.predict({"signature_name": "half", "instances": [1.0]})
    assert reply.status == 400 and "tensor type: half" in reply.error


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64"])
def test_integer_tensors_reject_numbers_with_a_point(dtype):
    assert refused('{"inputs": [7, 1.0]}', x=dtype) == (
        f"JSON Value: 1.0 Type: Number is not of expected type: {dtype} (at [1])"
    )


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int8", 128), ("uint8", -1), ("uint8", 256), ("int32", 2**31), ("uint32", 2**32),
     ("int64", 2**63), ("uint64", 2**64), ("uint64", -1)],
)  # fmt: skip
def test_integers_out_of_range_are_rejected(dtype, value):
    assert "is not of expected type" in refused({"instances": [value]}, x=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_tensors_accept_integers(dtype):
    np.testing.assert_array_equal(read("""{"instances": [1, 2.5]}""", x=dtype)["x"], [1.0, 2.5])


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 24), ("float64", 53)])
def test_float_tensors_reject_integers_that_they_cannot_hold(dtype, digits):
    largest = 2**digits - 1
    assert read({"instances": [largest, -largest]}, x=dtype)["x"][0] == largest
    for value in (largest + 1, -largest - 1):
        assert "without loss of precision" in refused({"instances": [1, value]}, x=dtype)


def test_float32_rejects_what_only_float64_can_hold():
    assert refused('{"instances": [1e39]}', x="float32") == (
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: "
        "Cannot convert JSON value: 1e+39 to float without loss of precision."
    )
    assert read('{"instances": [1e39]}', x="float64")["x"] == [1e39]


@pytest.mark.parametrize("value", ["true", "null", '"1.5"', "{}", '{"b64": "MQ=="}'])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_what_is_no_number_is_none(dtype, value):
    assert "is not of expected type" in refused(f'{{"inputs": [1, {value}]}}', x=dtype)


@pytest.mark.parametrize("value", ["0", "1.0", '"true"', "null"])
def test_what_is_no_bool_is_none(value):
    assert "is not of expected type: bool" in refused(f'{{"inputs": [true, {value}]}}', x="bool")


@pytest.mark.parametrize("value", ["1", "true", "null", "NaN"])
def test_what_is_no_text_is_none(value):
    message = refused(f'{{"inputs": ["a", {value}]}}', x="string")
    assert "is not of expected type: string" in message


# Bytes


def test_bytes_come_in_base64():
    text = base64.b64encode(b"\xff\x00").decode()
    assert read({"instances": [{"b64": text}]}, x="string")["x"][0] == b"\xff\x00"
    assert read({"inputs": {"b64": text}}, x="string")["x"].item() == b"\xff\x00"
    assert read({"instances": [{"x": [{"b64": text}]}]}, x="string")["x"][0, 0] == b"\xff\x00"


def test_base64_may_lack_its_padding():
    assert read({"instances": [{"b64": "YQ"}]}, x="string")["x"] == [b"a"]


def test_b64_must_be_the_only_key():
    assert "not formatted correctly for base64 data" in refused(
        {"instances": [[{"b64": "YQ==", "more": 1}]]}, x="string"
    )


def test_b64_that_is_no_base64_is_refused():
    for text in ("?", "a", "YQ==é"):
        assert "Unable to base64 decode" in refused({"instances": [{"b64": text}]}, x="string")


def test_text_outputs_whose_name_ends_in_bytes_are_answered_in_base64(server):
    reply = server.predict({"signature_name": "person", "instances": [{"age": 1, "job": "ü"}]})
    b64 = {"b64": base64.b64encode("ü".encode()).decode()}
    assert reply.json == {"predictions": [{"score": 3.0, "label": "ü", "raw_bytes": b64}]}


def test_bytes_in_a_text_output_that_are_no_utf8_are_told(server):
    row = {"age": 1, "job": {"b64": "/w=="}}
    reply = server.predict({"signature_name": "person", "instances": [row]})
    assert reply.status == 400 and "'label' holds bytes that are no UTF-8 text" in reply.error


# Shapes


def test_lists_of_different_lengths_are_refused_with_their_place():
    assert refused({"inputs": [[1, 2], [3, 4], [5]]}, x="int32") == (
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2 (at [2])"
    )


def test_rows_of_different_sizes_are_refused_with_their_number():
    start = "Failed to process element: 2 of 'instances' list. Error: INVALID_ARGUMENT: "
    assert refused({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, x="int32") == (
        start + "Expecting tensor size: 2 but got: 3"
    )
    assert refused({"instances": [[1, 2], [3, 4], [[5, 6]]]}, x="int32") == (
        start + "Expecting shape [2] but got: [1,2]"
    )


def test_a_value_where_a_list_belongs_is_refused_and_a_list_where_a_value_does():
    assert refused({"inputs": [[1], 2]}, x="int32") == (
        "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2 (at [1])"
    )
    assert refused({"inputs": [1, [2]]}, x="int32") == (
        "Encountered list at unexpected level: 1 expected < 1 (at [1])"
    )


def test_the_wrong_value_of_a_row_is_told_with_its_place():
    assert refused('{"instances": [{"x": [[0, 1]]}, {"x": [[2, "y"]]}]}', x="int32") == (
        "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: "
        'JSON Value: "y" Type: String is not of expected type: int32 (at [0][1])'
    )


def test_empty_lists_have_shapes_too():
    assert read({"inputs": []}, x="float32")["x"].shape == (0,)
    assert read({"instances": [[], []]}, x="string")["x"].shape == (2, 0)


def test_a_value_alone_is_a_scalar():
    assert read({"inputs": {"x": 3}}, x="int32")["x"].shape == ()


def test_a_shape_that_the_model_does_not_take_is_refused(server):
    for body in ({"instances": [1.0]}, {"instances": [[1.0]]}, {"inputs": 1.0}):
        reply = server.predict(body)
        assert reply.status == 400 and "shape" in reply.error


def test_lists_nested_deeper_than_a_tensor_can_be_are_refused(server):
    for depth in (33, 500, 5_000, 40_000):
        reply = server.predict(b'{"instances": ' + b"[" * depth + b"1" + b"]" * depth + b"}")
        assert reply.status == 400 and "nested" in reply.error


# Numbers that are none, and others


def test_bare_nan_and_infinity_are_accepted_and_emitted(server):
    reply = server.predict(b'{"instances": [[NaN, -Infinity], [Infinity, 0.1]]}')
    assert reply.body == b'{"predictions":[[NaN,-Infinity],[Infinity,0.3]]}'


def test_nan_is_no_integer():
    assert "is not of expected type: int32" in refused('{"instances": [NaN]}', x="int32")


def test_quoted_nan_is_no_number():
    assert "Type: String" in refused('{"instances": ["NaN"]}', x="float32")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 10_000])
@pytest.mark.parametrize("beside", ["1", "NaN"])
def test_numbers_past_float64_are_refused(number, beside):
    message = refused(f'{{"instances": [{number}, {beside}]}}', x="float64")
    assert "Number too big to be stored in double." in message


def test_integers_past_64_bits_are_floats():
    assert read(f'{{"instances": [{2**70}, NaN]}}', x="float64")["x"][0] == 2.0**70
    assert "not of expected type" in refused(f'{{"instances": [{2**70}]}}', x="int64")


def test_64_bit_integers_are_exact(server):
    body = {"signature_name": "integers", "instances": [2**63 - 1, -(2**63), 2**53 + 1]}
    assert server.predict(body).json == {"predictions": body["instances"]}


def test_floats_are_written_with_the_fewest_digits_that_mean_them():
    for last in (1.0, math.nan):  # with and without the fast way
        text = written({"y": np.array([0.1, 1.0, 1e20, last], np.float32)})
        assert text.startswith('{"predictions":[0.1,1.0,1e+20,')


# What is answered


def test_one_output_comes_without_its_name_and_several_as_objects():
    one, two = np.array([[1, 2]]), np.array([3])
    assert written({"a": one}) == '{"predictions":[[1,2]]}'
    assert written({"a": one, "b": two}) == '{"predictions":[{"a":[1,2],"b":3}]}'
    assert written({"a": one}, by_rows=False) == '{"outputs":[[1,2]]}'
    assert written({"a": one, "b": two}, by_rows=False) == '{"outputs":{"a":[[1,2]],"b":[3]}}'


def test_row_answers_need_the_same_first_dimension_on_every_output(server):
    reply = server.predict({"signature_name": "uneven", "instances": [1.0, 2.0]})
    message = "Tensor name: total has inconsistent batch size: 1 expecting: 2"
    assert (reply.status, reply.error) == (400, message)
    reply = server.predict({"signature_name": "uneven", "inputs": [1.0, 2.0]})
    assert reply.json == {"outputs": {"rows": [1.0, 2.0], "total": [3.0]}}


def test_row_answers_need_rows():
    with pytest.raises(ServingError, match="Tensor name: y has no shape information"):
        written({"y": np.float32(1)})
    assert written({"y": np.float32(0.1)}, by_rows=False) == '{"outputs":0.1}'


def test_outputs_with_strides_are_written_as_they_are_indexed():
    assert written({"y": np.arange(6).reshape(2, 3).T}) == '{"predictions":[[0,3],[1,4],[2,5]]}'


# Text that is no JSON


@pytest.mark.parametrize("body", [b"", b" \n", b"\xef\xbb\xbf"])
def test_an_empty_body_is_told(server, body):
    reply = server.predict(body)
    assert (reply.status, reply.error) == (400, "JSON Parse error: The document is empty")


def test_text_that_is_no_json_is_told_with_the_place(server):
    reply = server.predict(b"instances = [1, 2]")
    assert (reply.status, reply.error) == (400, "JSON Parse error: Invalid value. at offset: 0")


@pytest.mark.parametrize("body", [b'{"instances": ["\xff"]}', b'{"a": "\xed\xa0\x80"}', b"\x80"])
def test_text_that_is_no_utf8_is_told(server, body):
    reply = server.predict(body)
    assert reply.status == 400 and "must be UTF-8" in reply.error


def test_half_a_surrogate_pair_is_told(server):
    reply = server.predict(b'{"instances": ["\\uD800"]}')
    assert reply.status == 400 and "surrogate pair" in reply.error


def test_a_byte_order_mark_is_passed_over():
    assert read('\ufeff{"instances": [1.0]}', x="float32")["x"] == [1.0]


# Any value


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "b64"]), inner)
    ),
    max_leaves=8,
)


@given(values, st.sampled_from(sorted(DTYPES)), st.sampled_from(["inputs", "instances"]))
def test_any_value_becomes_an_array_of_the_dtype_that_says_the_same_or_is_refused(
    value, dtype, form
):
    try:
        array = read({form: value}, x=dtype)["x"]
    except ServingError as error:
        assert error.code == "INVALID_ARGUMENT" and error.message
        return
    assert array.dtype == tf.as_dtype(dtype).as_numpy_dtype
    if dtype not in ("float32", "string"):
        again = json.loads(written({"y": array}, by_rows=False))["outputs"]
        asked = value if form == "inputs" else [unnamed(row) for row in value]
        assert json.dumps(again) == json.dumps(as_written(unnamed(asked), dtype))


def unnamed(value):
    return value["x"] if isinstance(value, dict) else value


def as_written(value, dtype):
    if isinstance(value, list):
        return [as_written(item, dtype) for item in value]
    return float(value) if dtype == "float64" else value
