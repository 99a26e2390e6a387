"""Predict requests and answers in TensorFlow Serving's JSON.

    document = parse_object(body)
    name = signature_name(document)                      # "" when there is none
    request = read_inputs(document, signature.inputs)    # .inputs: {"x": float32 [2, 784]}
    body = write_answer(outputs, by_rows=request.by_rows)

{"instances": [row, …]} gives {"predictions": [row, …]}; {"inputs": tensors} gives
{"outputs": tensors}. Keys that mean nothing are passed over, at the top and in `inputs`,
as TensorFlow Serving does; the keys of a row must be the inputs' names exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest.json_text import json_bytes, shown
from kerastrain.serving.rest.tensor_reading import array_of, invalid, is_base64, rows_of
from kerastrain.serving.rest.tensor_writing import is_finite, json_value

if TYPE_CHECKING:
    from kerastrain.serving.servable import TensorInfo

    Infos = Mapping[str, TensorInfo]

# uint16 has no place in TensorFlow Serving's JSON.
_NOT_IN_JSON = "uint16"


@dataclass(frozen=True)
class PredictRequest:
    """What is asked.

    Attributes:
        inputs: name -> array in the signature's dtype; strings as objects (bytes).
        by_rows: it came as `instances`.
    """

    inputs: dict[str, np.ndarray]
    by_rows: bool


def signature_name(document: Mapping[str, Any]) -> str:
    """The `signature_name` of a request; "" stands for the default.

    Raises:
        ServingError: INVALID_ARGUMENT, it is no text.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(name)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return name


def read_inputs(document: Mapping[str, Any], infos: Infos) -> PredictRequest:
    """The tensors of a request.

    Args:
        infos: the inputs of the signature.

    Raises:
        ServingError: INVALID_ARGUMENT; neither or both forms, or something that does
            not fit the signature's names and dtypes (the shapes are for whoever calls it).
    """
    if not infos:
        name = signature_name(document) or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    by_rows = "instances" in document
    if by_rows and "inputs" in document:
        raise invalid(
            f"JSON Value: {shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist"
        )
    if by_rows:
        return PredictRequest(_from_rows(document["instances"], infos), by_rows=True)
    if "inputs" in document:
        return PredictRequest(_from_columns(document["inputs"], infos), by_rows=False)
    raise invalid("Missing 'inputs' or 'instances' key")


def _from_columns(value: Any, infos: Infos) -> dict[str, np.ndarray]:
    """A tensor for each input; the only one may come without its name."""
    if not isinstance(value, dict) or is_base64(value):
        name = _only(infos, "inputs is a plain value/list, but expecting an object")
        return {name: array_of(value, _dtype(infos[name]))}
    missing = next((name for name in infos if name not in value), None)
    if missing is not None:
        raise invalid(f"Missing named input: {missing} in 'inputs' object.")
    return {name: array_of(value[name], _dtype(info)) for name, info in infos.items()}


def _from_rows(rows: Any, infos: Infos) -> dict[str, np.ndarray]:
    """Rows as objects, or as values of the only input; stacked along a new first dimension."""
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {shown(rows)} Excepting 'instances' to be an list/array")
    if not rows:
        raise invalid("JSON Value: [] No values in 'instances' array")
    are_objects = _is_object(rows[0])
    if set(map(type, rows)) & {dict}:
        _check_kind(rows, are_objects)
    if are_objects:
        _check_keys(rows, infos)
        return {
            name: rows_of([row[name] for row in rows], _dtype(info), key=name)
            for name, info in infos.items()
        }
    name = _only(infos, "instances is a plain list, but expecting list of objects")
    return {name: rows_of(rows, _dtype(infos[name]))}


def _is_object(row: Any) -> bool:
    return isinstance(row, dict) and not is_base64(row)


def _check_kind(rows: list[Any], are_objects: bool) -> None:
    """All rows are objects, or none is."""
    for position, row in enumerate(rows):
        if _is_object(row) != are_objects:
            expected, got = ("object", "list") if are_objects else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {position} of input list")


def _check_keys(rows: list[dict[str, Any]], infos: Infos) -> None:
    names = infos.keys()
    for position, row in enumerate(rows):
        if row.keys() == names:
            continue
        unknown = sorted(row.keys() - names)
        if unknown:
            raise invalid(
                f"Failed to process element: {position} key: {unknown[0]} of 'instances' list. "
                f"Error: INVALID_ARGUMENT: JSON object: does not have named input: {unknown[0]}"
            )
        raise invalid(
            f"Failed to process element: {position} of 'instances' list. "
            f"JSON object: {shown(row)} keys must be equal to: {','.join(sorted(names))}"
        )


def _only(infos: Infos, what: str) -> str:
    if len(infos) != 1:
        raise invalid(
            f"{what} as multiple input tensors required as per tensorinfo_map: "
            f"{','.join(sorted(infos))}"
        )
    return next(iter(infos))


def _dtype(info: TensorInfo) -> str:
    name = info.dtype.name
    if name == _NOT_IN_JSON:
        raise ServingError("UNIMPLEMENTED", f"Conversion of JSON Value of {info.name} to {name}")
    return name


def write_answer(outputs: Mapping[str, np.ndarray], *, by_rows: bool) -> bytes:
    """The answer: one output without its name, several as objects.

    Raises:
        ServingError: INVALID_ARGUMENT; an output has no JSON, or, by rows, no rows or
            not as many as the others.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if by_rows:
        _check_batch(outputs)
    if any(array.dtype == np.uint16 for array in outputs.values()):
        raise invalid(f"Failed to write JSON value for tensor type: {_NOT_IN_JSON}")
    values = {name: json_value(name, array) for name, array in outputs.items()}
    finite = all(is_finite(array) for array in outputs.values())
    if not by_rows:
        answer = {"outputs": next(iter(values.values())) if len(values) == 1 else values}
    elif len(values) == 1:
        answer = {"predictions": next(iter(values.values()))}
    else:
        rows = zip(*values.values(), strict=True)
        answer = {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}
    return json_bytes(answer, is_finite=finite)


def _check_batch(outputs: Mapping[str, np.ndarray]) -> None:
    """All outputs have as many rows."""
    size = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information")
        if size is not None and len(array) != size:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}"
            )
        size = len(array)
