"""Do a request's arrays fit the signature? Asked before the model is.

    rows = check_inputs(signature, {"image": images})     # 8; None where rows mean nothing
    check_outputs(signature, ["probabilities"])

The texts about names are TensorFlow Serving's (tensorflow_serving/servables/tensorflow/
predict_util.cc). A wrong shape would otherwise be told in terms of the model's inner layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import Signature


def check_inputs(signature: Signature, inputs: Mapping[str, np.ndarray]) -> int | None:
    """The number of rows, where every input has rows and the same number of them; else None.

    Raises:
        ServingError: INVALID_ARGUMENT, names, dtypes or shapes are not the signature's.
    """
    expected = signature.inputs
    if inputs.keys() != expected.keys():
        raise ServingError("INVALID_ARGUMENT", _names_differ(signature, inputs))
    counts = set()
    for name, info in expected.items():
        array = inputs[name]
        if array.dtype != info.numpy_dtype:
            raise ServingError(
                "INVALID_ARGUMENT",
                f'Input "{name}" is {array.dtype.name}; expected {info.dtype.name}.',
            )
        if not _fits(array.shape, info.shape):
            raise ServingError(
                "INVALID_ARGUMENT",
                f'Input "{name}" has the shape {_shown(array.shape)}; expected '
                f"{_shown(info.shape or ())}, where ? is any size.",
            )
        counts.add(array.shape[0] if info.is_batch else None)
    return counts.pop() if len(counts) == 1 else None


def check_outputs(signature: Signature, outputs: Sequence[str]) -> None:
    """Raises ServingError: INVALID_ARGUMENT, one is not the signature's, or is named twice."""
    for index, name in enumerate(outputs):
        if name not in signature.outputs:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"output tensor alias not found in signature: {name} Outputs expected to be in "
                f"the set {{{','.join(signature.outputs)}}}.",
            )
        if name in outputs[:index]:
            raise ServingError("INVALID_ARGUMENT", f"duplicate output tensor alias: {name}")


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...] | None) -> bool:
    if expected is None:
        return True
    if len(shape) != len(expected):
        return False
    return all(b is None or a == b for a, b in zip(shape, expected, strict=True))


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _names_differ(signature: Signature, inputs: Mapping[str, np.ndarray]) -> str:
    extra = [name for name in inputs if name not in signature.inputs]
    missing = [name for name in signature.inputs if name not in inputs]
    if len(inputs) == len(signature.inputs):
        return (
            f"input tensor alias not found in signature: {extra[0]}. Inputs expected to be in "
            f"the set {{{','.join(signature.inputs)}}}."
        )
    return (
        f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
        f"len({{{','.join(inputs)}}}) != len({{{','.join(signature.inputs)}}}). "
        f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
    )
