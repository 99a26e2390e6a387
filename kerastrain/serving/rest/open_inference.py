"""Requests and answers of the Open Inference Protocol v2 (KServe, Triton, MLServer).

    inputs = read_inputs(document, signature.inputs)     # {"x": float32 [2, 784]}
    wanted = wanted_outputs(document)                    # {"probabilities": True: as binary data}
    body, json_bytes = write_answer(answer_head, outputs, binary=…)

Specification: https://github.com/kserve/open-inference-protocol (inference_rest.md), and
Triton's extension for binary tensors (extension_binary_data.md), in open_inference_binary.py.
FP16 and BF16 are refused: the exports of this package take and give float32.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest import open_inference_binary as binary_data
from kerastrain.serving.rest.json_text import json_bytes, shown
from kerastrain.serving.rest.tensor_reading import INTEGERS, MAX_RANK, array_of, invalid
from kerastrain.serving.rest.tensor_writing import is_finite, json_value

if TYPE_CHECKING:
    from kerastrain.serving.servable import TensorInfo

DATATYPES = {
    "BOOL": "bool",
    **{name.upper(): name for name in INTEGERS},
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""The protocol's name of a dtype -> TensorFlow's."""

_NAMES = {dtype: datatype for datatype, dtype in DATATYPES.items()}
_BASE64 = {"content_type": "base64"}  # as MLServer marks bytes that are no text


def datatype(dtype: str) -> str:
    """The protocol's name of TensorFlow's dtype: "FP32" of "float32"."""
    return _NAMES.get(dtype, dtype.upper())


def parameters(holder: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The `parameters` of a request, an input or an output; {} when there are none.

    Raises:
        ServingError: INVALID_ARGUMENT, they are no object.
    """
    found = holder.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise invalid(f"'parameters' of {what} is {shown(found)}; expected an object")
    return found


def read_inputs(
    document: Mapping[str, Any], infos: Mapping[str, TensorInfo], binary: bytes = b""
) -> dict[str, np.ndarray]:
    """The tensors of a request, in the signature's dtypes.

    Args:
        binary: what followed the JSON in the body.

    Raises:
        ServingError: INVALID_ARGUMENT; what does not fit is named.
    """
    rest = memoryview(binary)
    inputs: dict[str, np.ndarray] = {}
    for item in _objects(document, "inputs"):
        name = _name(item, "inputs")
        if name not in infos:
            raise invalid(f"unexpected inference input '{name}'; expected {', '.join(infos)}")
        if name in inputs:
            raise invalid(f"the input '{name}' comes twice")
        size = binary_data.size_of(parameters(item, f"input '{name}'"), name, len(rest))
        chunk = None if size is None else rest[:size]
        inputs[name] = _input(item, name, infos[name].dtype.name, chunk)
        rest = rest[size or 0 :]
    if rest:
        raise invalid(f"{len(rest):,} bytes of binary data belong to no input")
    missing = [name for name in infos if name not in inputs]
    if missing:
        raise invalid(f"missing inference input '{missing[0]}'; expected {', '.join(infos)}")
    return inputs


def _objects(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise invalid(f"'{key}' is {shown(items)}; expected a list of objects")
    return items


def _name(item: Mapping[str, Any], key: str) -> str:
    name = item.get("name")
    if not isinstance(name, str):
        raise invalid(f"'name' in '{key}' is {shown(name)}; expected text")
    return name


def _input(item: Mapping[str, Any], name: str, dtype: str, chunk: memoryview | None) -> np.ndarray:
    """One tensor, from `data` or from its chunk of binary data."""
    _check_datatype(item.get("datatype"), name, dtype)
    shape = _shape(item.get("shape"), name)
    if chunk is not None:
        if "data" in item:
            raise invalid(f"the input '{name}' has both 'data' and binary data")
        array = binary_data.decoded(chunk, dtype, math.prod(shape), name)
    elif "data" in item:
        array = _from_json(item, name, dtype)
        if array.ndim != 1 and array.shape != shape:
            raise invalid(
                f"the data of the input '{name}' have the shape {list(array.shape)}; "
                f"expected {list(shape)}, or one flat list"
            )
    else:
        raise invalid(f"the input '{name}' has neither 'data' nor binary data")
    if array.size != math.prod(shape):
        raise invalid(
            f"the input '{name}' has {array.size:,} values, but its shape {list(shape)} "
            f"holds {math.prod(shape):,}"
        )
    return array.reshape(shape)


def _from_json(item: Mapping[str, Any], name: str, dtype: str) -> np.ndarray:
    try:
        return array_of(item["data"], dtype)
    except ServingError as error:
        raise ServingError(error.code, f"the input '{name}': {error.message}") from None


def _check_datatype(given: Any, name: str, dtype: str) -> None:
    expected = datatype(dtype)
    if given in ("FP16", "BF16"):
        raise invalid(
            f"the input '{name}' comes as {given}, which this server does not take; "
            f"the model expects {expected}"
        )
    if given != expected:
        raise invalid(
            f"inference input data-type of '{name}' is {shown(given)}, model expects '{expected}'"
        )


def _shape(value: Any, name: str) -> tuple[int, ...]:
    is_shape = isinstance(value, list) and len(value) <= MAX_RANK
    if not is_shape or not all(type(size) is int and 0 <= size < 1 << 63 for size in value):
        raise invalid(f"the shape of '{name}' is {shown(value)}; expected a list of whole numbers")
    return tuple(value)


def wanted_outputs(document: Mapping[str, Any]) -> tuple[list[str], frozenset[str] | bool]:
    """Names of the outputs that are asked for ([]: all), and which of them as binary data.

    Returns:
        names, and the set of names to be binary, or True or False for all outputs there are.

    Raises:
        ServingError: INVALID_ARGUMENT, no list of objects with names.
    """
    by_default = parameters(document, "the request").get("binary_data_output") is True
    if not document.get("outputs"):
        return [], by_default
    asked = {
        _name(item, "outputs"): parameters(item, "an output").get("binary_data", by_default)
        for item in _objects(document, "outputs")
    }
    return list(asked), frozenset(name for name, binary in asked.items() if binary is True)


def write_answer(
    head: Mapping[str, Any],
    outputs: Mapping[str, np.ndarray],
    *,
    binary: frozenset[str] | bool = False,
) -> tuple[bytes, int | None]:
    """The body, and how many of its bytes are JSON when binary data follow.

    Args:
        head: model_name, model_version, id.
        binary: which outputs (True: all) are binary data.

    Raises:
        ServingError: INVALID_ARGUMENT, an output has no JSON.
    """
    described: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    finite = True
    for name, array in outputs.items():
        is_text = array.dtype.kind in "OS"
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": datatype("string" if is_text else array.dtype.name),
            "shape": list(array.shape),
        }
        if binary is True or (binary and name in binary):
            chunks.append(binary_data.encoded(array, name))
            tensor["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            finite = finite and is_finite(array)
            tensor |= _as_json(name, array.reshape(-1), is_text=is_text)
        described.append(tensor)
    head_bytes = json_bytes({**head, "outputs": described}, is_finite=finite)
    return b"".join([head_bytes, *chunks]), len(head_bytes) if chunks else None


def _as_json(name: str, flat: np.ndarray, *, is_text: bool) -> dict[str, Any]:
    """`data`, and `parameters` where they are not plain text or numbers."""
    if is_text and name.endswith("_bytes"):
        data = [base64.b64encode(item).decode("ascii") for item in flat]
        return {"parameters": _BASE64, "data": data}
    return {"data": json_value(name, flat)}
