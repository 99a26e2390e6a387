"""TensorProto to NumPy and back.

    array = tensor_array(request.inputs["image"], max_bytes=64 << 20)
    request.outputs["probabilities"].CopyFrom(tensor_proto(array))

As TensorFlow reads it (tensorflow/core/framework/tensor.cc): either `tensor_content`, the
bytes as they are, or the field of values of the dtype, where the last value stands for all
that follow. Unlike there, no values at all for a tensor that should have some are refused,
and no tensor is made that is larger than a request may be.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from kerastrain.serving.failures import ServingError

_MAX_RANK = 32

# dtype: the field of its values, and the array that the field becomes first.
_FIELDS = {
    types_pb2.DT_FLOAT: ("float_val", np.float32),
    types_pb2.DT_DOUBLE: ("double_val", np.float64),
    types_pb2.DT_INT8: ("int_val", np.int32),
    types_pb2.DT_INT16: ("int_val", np.int32),
    types_pb2.DT_INT32: ("int_val", np.int32),
    types_pb2.DT_UINT8: ("int_val", np.int32),
    types_pb2.DT_UINT16: ("int_val", np.int32),
    types_pb2.DT_INT64: ("int64_val", np.int64),
    types_pb2.DT_UINT32: ("uint32_val", np.uint32),
    types_pb2.DT_UINT64: ("uint64_val", np.uint64),
    types_pb2.DT_BOOL: ("bool_val", np.bool_),
    types_pb2.DT_HALF: ("half_val", np.int32),
    types_pb2.DT_BFLOAT16: ("half_val", np.int32),
    types_pb2.DT_STRING: ("string_val", object),
}
_NUMPY = {number: np.dtype(tf.as_dtype(number).as_numpy_dtype) for number in _FIELDS}
_NUMBERS = {dtype: number for number, dtype in _NUMPY.items()}
_BITS = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)  # half_val holds their 16 bits as a number

# The two kinds of values whose packed form (a tag, the length, the values) is the array's own
# bytes: https://protobuf.dev/programming-guides/encoding/#packed
_PACKED_TAGS = {types_pb2.DT_FLOAT: 0x2A, types_pb2.DT_DOUBLE: 0x32}


def tensor_array(proto: tensor_pb2.TensorProto, *, max_bytes: int) -> np.ndarray:
    """The array of a TensorProto; strings become an object array of bytes.

    Raises:
        ServingError: INVALID_ARGUMENT; the dtype is not known, the shape is not possible or
            larger than `max_bytes`, or the values are not as many as the shape says.
    """
    dtype = _NUMPY.get(proto.dtype)
    if dtype is None:
        raise _invalid(f"the dtype {_dtype_name(proto.dtype)} cannot be served")
    shape = _shape(proto)
    count = math.prod(shape)
    # With a size of 0 there are no bytes, however large the others.
    if math.prod(filter(None, shape)) * dtype.itemsize > max_bytes:
        raise _invalid(f"the shape {list(shape)} is larger than the {max_bytes:,} bytes allowed")
    if proto.tensor_content:
        return _from_content(proto.tensor_content, dtype, shape)
    return _from_values(proto, dtype, count).reshape(shape)


def _shape(proto: tensor_pb2.TensorProto) -> tuple[int, ...]:
    shape = tuple([dimension.size for dimension in proto.tensor_shape.dim])
    if proto.tensor_shape.unknown_rank or len(shape) > _MAX_RANK or any(s < 0 for s in shape):
        raise _invalid(
            f"its shape is {list(shape)[:_MAX_RANK]}; expected at most {_MAX_RANK} dimensions, "
            "each with its size"
        )
    return shape


def _from_content(content: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.hasobject:
        raise _invalid("strings come in string_val, not in tensor_content")
    expected = math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise _invalid(
            f"tensor_content has {len(content):,} bytes; {dtype.name} {list(shape)} has "
            f"{expected:,}"
        )
    if dtype == np.bool_:  # any byte but 0 is true
        return (np.frombuffer(content, np.uint8) != 0).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)


def _from_values(proto: tensor_pb2.TensorProto, dtype: np.dtype, count: int) -> np.ndarray:
    field, stored = _FIELDS[proto.dtype]
    received = getattr(proto, field)
    given = len(received)
    if given > count or (given == 0 and count > 0):
        raise _invalid(f"{field} has {given:,} values; the shape asks for {count:,}")
    values = np.empty(given, object) if stored is object else np.array(received, stored)
    if stored is object:
        values[:] = received
    elif stored is not dtype.type:
        values = _narrowed(values, proto.dtype, dtype)
    return values if given == count else np.pad(values, (0, count - given), "edge")


def _narrowed(values: np.ndarray, number: int, dtype: np.dtype) -> np.ndarray:
    """int32 as the values come to the dtype that they are of."""
    limits = np.iinfo(np.uint16 if number in _BITS else dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise _invalid(f"a value is out of the range of {dtype.name}")
    return values.astype(np.uint16).view(dtype) if number in _BITS else values.astype(dtype)


def tensor_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """The TensorProto of an array, its values in the field of their dtype.

    TensorFlow Serving answers in these fields, and clients read `float_val`.
    """
    number = _NUMBERS.get(array.dtype)
    if number is None:
        return tf.make_tensor_proto(array)
    if number in _PACKED_TAGS:
        proto = _from_packed(_PACKED_TAGS[number], array)
    else:
        values = array.view(np.uint16) if number in _BITS else array
        proto = tensor_pb2.TensorProto(**{_FIELDS[number][0]: values.ravel().tolist()})
    proto.dtype = number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    return proto


def _from_packed(tag: int, array: np.ndarray) -> tensor_pb2.TensorProto:
    """Twenty times as fast as a list of Python's numbers."""
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    header, length = bytearray([tag]), len(content)
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return tensor_pb2.TensorProto.FromString(bytes(header) + content)


def _dtype_name(number: int) -> str:
    return types_pb2.DataType.Name(number) if number in types_pb2.DataType.values() else str(number)


def _invalid(problem: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", f"tensor parsing error: {problem}.")
