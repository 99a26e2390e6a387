"""TensorProto: every form that clients write, and those that they must not."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, types_pb2

from kerastrain.serving.failures import ServingError
from kerastrain.serving.tensors import tensor_array, tensor_proto

DTYPES = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
          "uint64", "bool", "float16"]  # fmt: skip
MEBIBYTE = 1 << 20

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)


def read(proto, max_bytes=MEBIBYTE):
    return tensor_array(proto, max_bytes=max_bytes)


@settings(max_examples=60)
@given(arrays)
def test_arrays_go_there_and_back_as_tensorflow_reads_and_writes_them(array):
    proto = tensor_proto(array)
    for received in (tf.make_ndarray(proto), read(proto), read(tf.make_tensor_proto(array))):
        assert received.dtype == array.dtype
        np.testing.assert_array_equal(received, array)


def test_strings_are_bytes_with_every_zero_kept():
    array = np.array([[b"a\0", b""], [b"\xff\0\0", "ä".encode()]], object)
    proto = tensor_proto(array)
    np.testing.assert_array_equal(read(proto), array)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)
    np.testing.assert_array_equal(read(tf.make_tensor_proto(array)), array)


def test_answers_come_in_the_fields_that_clients_read():
    assert list(tensor_proto(np.array([1.5, 2.5], np.float32)).float_val) == [1.5, 2.5]
    assert list(tensor_proto(np.array([3], np.int64)).int64_val) == [3]
    assert list(tensor_proto(np.array([b"no"], object)).string_val) == [b"no"]


def test_the_last_value_stands_for_those_that_follow():
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0, 2.0])
    proto.tensor_shape.dim.add().size = 4
    np.testing.assert_array_equal(read(proto), np.float32([1, 2, 2, 2]))


def test_bfloat16_is_read():
    array = tf.constant([1.5, -2.0], tf.bfloat16).numpy()
    np.testing.assert_array_equal(read(tf.make_tensor_proto(array)), array)
    np.testing.assert_array_equal(tf.make_ndarray(tensor_proto(array)), array)


def proto_of(dtype, sizes, **values):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in sizes:
        proto.tensor_shape.dim.add().size = size
    return proto


@pytest.mark.parametrize(
    ("proto", "problem"),
    [
        (proto_of(types_pb2.DT_FLOAT, [2], float_val=[1, 2, 3]), "3 values.*asks for 2"),
        (proto_of(types_pb2.DT_FLOAT, [2]), "0 values.*asks for 2"),
        (proto_of(types_pb2.DT_FLOAT, [2], double_val=[1, 2]), "float_val has 0 values"),
        (proto_of(types_pb2.DT_FLOAT, [2], tensor_content=b"1234567"), "7 bytes.*has 8"),
        (proto_of(types_pb2.DT_FLOAT, [-1], float_val=[1]), "expected at most 32 dimensions"),
        (proto_of(types_pb2.DT_FLOAT, [1] * 99, float_val=[1]), "expected at most 32 dimensions"),
        (proto_of(types_pb2.DT_FLOAT, [2**40, 2**40], float_val=[1]), "1,048,576 bytes allowed"),
        (proto_of(types_pb2.DT_FLOAT, [2**62] * 3 + [0]), "bytes allowed"),
        (proto_of(types_pb2.DT_STRING, [2**40], string_val=[b"x"]), "bytes allowed"),
        (proto_of(types_pb2.DT_STRING, [1], tensor_content=b"\x01x"), "string_val"),
        (proto_of(types_pb2.DT_INT8, [1], int_val=[300]), "out of the range of int8"),
        (proto_of(types_pb2.DT_UINT8, [1], int_val=[-1]), "out of the range of uint8"),
        (proto_of(types_pb2.DT_HALF, [1], half_val=[70_000]), "out of the range"),
        (proto_of(types_pb2.DT_RESOURCE, [1]), "DT_RESOURCE cannot be served"),
        (proto_of(types_pb2.DT_INVALID, [1]), "DT_INVALID cannot be served"),
        (proto_of(types_pb2.DT_QINT8, [1]), "DT_QINT8 cannot be served"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
def test_what_is_no_tensor_is_refused_before_memory_is_asked_for(proto, problem):
    with pytest.raises(ServingError, match=problem) as raised:
        read(proto)
    assert raised.value.code == "INVALID_ARGUMENT"


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_that_are_a_message_are_an_array_or_an_error_of_the_client(content):
    proto = tensor_pb2.TensorProto()
    try:
        proto.ParseFromString(content)
    except Exception:
        return
    try:
        read(proto)
    except ServingError as error:
        assert error.code == "INVALID_ARGUMENT"


@given(
    dtype=st.sampled_from(types_pb2.DataType.values()),
    sizes=st.lists(st.integers(-1, 2**63 - 1), max_size=4),
    values=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    content=st.binary(max_size=16),
)
def test_any_combination_of_fields_too(dtype, sizes, values, content):
    proto = proto_of(dtype, sizes, int_val=values, half_val=values, tensor_content=content)
    try:
        array = read(proto)
    except ServingError as error:
        assert error.code == "INVALID_ARGUMENT"
    else:
        assert array.nbytes <= MEBIBYTE and list(array.shape) == sizes
