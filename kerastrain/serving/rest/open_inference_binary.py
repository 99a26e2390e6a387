"""Tensors as binary data behind the JSON: Triton's extension of the Open Inference Protocol.

    size = size_of(parameters, "x", len(rest))          # None: its data are in the JSON
    array = decoded(rest[:size], "float32", 784, "x")   # float32 [784]
    chunk = encoded(array, "y")

Little-endian, row by row; text as its length (uint32) and its bytes.
Source: https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerastrain.serving.rest.json_text import shown
from kerastrain.serving.rest.tensor_reading import FITTING, invalid, object_array

HEADER = b"inference-header-content-length"
"""The HTTP header that says how many bytes of the body are JSON."""


def split(body: bytes, header: bytes) -> tuple[bytes, bytes]:
    """The JSON and the binary data of a body; all is JSON without the header.

    Raises:
        ServingError: INVALID_ARGUMENT, the header is no number or larger than the body.
    """
    if not header:
        return body, b""
    if not header.isdigit() or len(header) > 19 or int(header) > len(body):
        raise invalid(
            f"Inference-Header-Content-Length is {header[:40].decode('latin-1')!r}; "
            f"expected a number up to the body's {len(body):,} bytes"
        )
    return body[: int(header)], body[int(header) :]


def size_of(parameters: Mapping[str, Any], name: str, available: int) -> int | None:
    """An input's `binary_data_size`; None when it has none.

    Raises:
        ServingError: INVALID_ARGUMENT, it is no size, or so much is not there.
    """
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or not 0 <= size <= available:
        raise invalid(
            f"binary_data_size of the input '{name}' is {shown(size)}; "
            f"expected a number up to the {available:,} bytes that are there"
        )
    return size


def decoded(chunk: memoryview, dtype: str, count: int, name: str) -> np.ndarray:
    """A flat array.

    Args:
        dtype: TensorFlow's name.
        count: how many values the shape says.

    Raises:
        ServingError: INVALID_ARGUMENT, it is not as many bytes as so many values take.
    """
    if dtype == "string":
        return _texts(chunk, name)
    if dtype not in FITTING:
        raise invalid(f"the input '{name}' cannot be sent as binary data: it is {dtype}")
    kind = np.dtype("uint8" if dtype == "bool" else dtype).newbyteorder("<")
    if len(chunk) != count * kind.itemsize:
        raise invalid(
            f"the input '{name}' has {len(chunk):,} bytes of binary data; "
            f"expected {count * kind.itemsize:,}"
        )
    return np.frombuffer(chunk, kind).astype(dtype)


def _texts(chunk: memoryview, name: str) -> np.ndarray:
    texts: list[bytes] = []
    position = 0
    while position < len(chunk):
        end = position + 4
        if end <= len(chunk):
            (size,) = struct.unpack_from("<I", chunk, position)
            position, end = end, end + size
        if end > len(chunk):
            raise invalid(f"the binary data of the input '{name}' end within a text")
        texts.append(bytes(chunk[position:end]))
        position = end
    return object_array(texts)


def encoded(array: np.ndarray, name: str) -> bytes:
    """An output as binary data.

    Raises:
        ServingError: INVALID_ARGUMENT, its dtype is not one of the protocol's.
    """
    if array.dtype.kind in "OS":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.flat)
    if array.dtype.name not in FITTING:
        raise invalid(f"the output '{name}' cannot be sent: it is {array.dtype.name}")
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
