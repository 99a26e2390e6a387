"""Classify and regress: rows as tf.train.Example in, labels with scores or numbers out.

    document = parse_object(body)                     # {"examples": [{"age": 39.0}, …]}
    examples = read_examples(document)                # object [2], serialized tf.train.Example
    body = write_classification(outputs, rows=2)      # {"results": [[["no", 0.8], …], …]}
    body = write_regression(outputs, rows=2)          # {"results": [1.5, 2.25]}

Which feature a JSON value becomes is TensorFlow Serving's choice: a number with a
point is a float, one without an int64, and so is a bool; text and {"b64": …} are bytes.
Which signatures and outputs will do is said in `inference`, for gRPC too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2

from kerastrain.serving.inference import classification_result, regression_result
from kerastrain.serving.rest.json_text import json_bytes, shown
from kerastrain.serving.rest.tensor_reading import (
    invalid,
    is_base64,
    json_type,
    object_array,
    text_bytes,
)
from kerastrain.serving.rest.tensor_writing import is_finite
from kerastrain.serving.servable import CLASSIFY, REGRESS


def read_examples(document: Mapping[str, Any]) -> np.ndarray:
    """The examples of a request, each with the features of `context` that it lacks.

    Returns:
        object [examples]: serialized tf.train.Example.

    Raises:
        ServingError: INVALID_ARGUMENT; no list of objects, or values of two kinds in a feature.
    """
    context = _features(document["context"]) if "context" in document else {}
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {shown(rows)} Expecting 'examples' value to be an list/array")
    if not rows:
        raise invalid("JSON Value: [] 'examples' value is an empty array")
    return object_array([_serialized({**context, **_features(row)}) for row in rows])


def _serialized(features: Mapping[str, feature_pb2.Feature]) -> bytes:
    example = example_pb2.Example(features=feature_pb2.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _features(row: Any) -> dict[str, feature_pb2.Feature]:
    if not isinstance(row, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(row)}")
    return {name: _feature(name, value) for name, value in row.items()}


def _feature(name: str, value: Any) -> feature_pb2.Feature:
    """A value or a list of values of one kind; an empty list is a feature of no kind."""
    values = value if isinstance(value, list) else [value]
    if not values:
        return feature_pb2.Feature()
    kinds = [_kind(name, item) for item in values]
    if set(kinds) != {kinds[0]}:
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {kinds[0]}")
    if kinds[0] == "float":
        return feature_pb2.Feature(float_list=feature_pb2.FloatList(value=_floats(values)))
    if kinds[0] == "int64":
        return feature_pb2.Feature(int64_list=feature_pb2.Int64List(value=map(int, values)))
    texts = [text_bytes(item) for item in values]
    return feature_pb2.Feature(bytes_list=feature_pb2.BytesList(value=texts))


def _kind(name: str, value: Any) -> str:
    if isinstance(value, float):
        return "float"
    if isinstance(value, int):  # bool too
        if not -(1 << 63) <= value < 1 << 63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64"
    if isinstance(value, str) or is_base64(value):
        return "bytes"
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")


def _floats(values: list[float]) -> list[float]:
    largest = float(np.finfo(np.float32).max)
    for value in values:
        if math.isfinite(value) and abs(value) > largest:
            raise invalid(
                f"Cannot convert JSON value: {shown(value)} to float without loss of precision."
            )
    return values


def write_classification(outputs: Mapping[str, np.ndarray], *, rows: int) -> bytes:
    """{"results": [[[label, score], …], …]}; "" or 0.0 for what the signature does not give.

    Raises:
        ServingError: as `inference.classification_result`.
    """
    result = classification_result(outputs, rows=rows)
    # As float32: 0.1 and not the 0.10000000149011612 that protobuf makes of it.
    results = [
        [[one.label, np.float32(one.score)] for one in row.classes]
        for row in result.classifications
    ]
    return json_bytes({"results": results}, is_finite=_is_finite(outputs, "scores"))


def write_regression(outputs: Mapping[str, np.ndarray], *, rows: int) -> bytes:
    """{"results": [number, …]}.

    Raises:
        ServingError: as `inference.regression_result`.
    """
    result = regression_result(outputs, rows=rows)
    results = [np.float32(one.value) for one in result.regressions]
    return json_bytes({"results": results}, is_finite=_is_finite(outputs, "outputs"))


def _is_finite(outputs: Mapping[str, np.ndarray], name: str) -> bool:
    return name not in outputs or is_finite(outputs[name])


WRITERS = {"classify": write_classification, "regress": write_regression}
METHOD_NAMES = {"classify": CLASSIFY, "regress": REGRESS}
"""What a signature of that kind calls itself."""
