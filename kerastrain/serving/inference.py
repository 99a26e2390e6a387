"""Classify and Regress: tf.train.Example in, labels with scores or numbers out.

    signature = find_signature(servable, "classify", CLASSIFY)
    examples = serialized_examples(request.input)             # object [n] of bytes
    outputs = await predictor.run(servable, signature, {INPUT: examples})
    result = classification_result(outputs, rows=len(examples))

Rules and texts are those of tensorflow_serving/servables/tensorflow/classifier.cc and
regressor.cc.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tensorflow_serving.apis import classification_pb2, input_pb2, regression_pb2

from kerastrain.serving.failures import ServingError
from kerastrain.serving.servable import CLASSIFY, DEFAULT_SIGNATURE, Servable, Signature

INPUT = "inputs"


def serialized_examples(request: input_pb2.Input) -> np.ndarray:
    """The examples, each with the features of the context that it lacks.

    Returns:
        object [examples]: serialized tf.train.Example.

    Raises:
        ServingError: INVALID_ARGUMENT, there are none.
    """
    context = b""
    kind = request.WhichOneof("kind")
    examples = getattr(request, kind).examples if kind else ()
    if kind == "example_list_with_context":
        context = request.example_list_with_context.context.SerializeToString()
    if not examples:
        raise ServingError("INVALID_ARGUMENT", "Input is empty.")
    serialized = np.empty(len(examples), object)
    # Messages written one behind the other are one message, in which the later value counts.
    serialized[:] = [context + example.SerializeToString() for example in examples]
    return serialized


def find_signature(servable: Servable, name: str, method_name: str) -> Signature:
    """The signature that a request for classes or numbers means ("": serving_default).

    Raises:
        ServingError: INVALID_ARGUMENT, there is none of that name and kind;
            FAILED_PRECONDITION, it is not one of `inputs`.
    """
    name = name or DEFAULT_SIGNATURE
    kind = "classification" if method_name == CLASSIFY else "regression"
    signature = servable.signatures.get(name)
    if signature is None:
        raise ServingError("INVALID_ARGUMENT", f"No signature was found with the name: {name}")
    if signature.method_name != method_name:
        raise ServingError(
            "INVALID_ARGUMENT",
            f"Expected {kind} signature method_name to be {method_name}. "
            f"Was: {signature.method_name}",
        )
    if len(signature.inputs) != 1:
        raise ServingError("INVALID_ARGUMENT", "Expected one input Tensor.")
    if INPUT not in signature.inputs:
        raise ServingError("FAILED_PRECONDITION", f"No {kind} inputs found in SignatureDef: {name}")
    return signature


def classification_result(
    outputs: Mapping[str, np.ndarray], *, rows: int
) -> classification_pb2.ClassificationResult:
    """Labels and scores of each row; "" or 0 for what the signature does not give.

    Args:
        outputs: `classes` string [rows, classes] and/or `scores` float32 [rows, classes].

    Raises:
        ServingError: INVALID_ARGUMENT, the outputs are others.
    """
    classes, scores = outputs.get("classes"), outputs.get("scores")
    for name, array in (("classes", classes), ("scores", scores)):
        if array is not None:
            _check_classes(name, array, rows)
    if classes is None and scores is None:
        raise _invalid(
            'Expected classification signature outputs to contain "classes" or "scores"; it has '
            f"{', '.join(outputs)}."
        )
    if classes is None:
        classes = np.full(scores.shape, b"", object)  # type: ignore[union-attr]
    if scores is None:
        scores = np.zeros(classes.shape, np.float32)
    if classes.shape != scores.shape:
        raise _invalid(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for labels, numbers in zip(classes.tolist(), scores.tolist(), strict=True):
        row = result.classifications.add().classes
        for label, score in zip(labels, numbers, strict=True):
            row.add(label=label.decode("utf-8", "replace"), score=score)
    return result


def _check_classes(name: str, array: np.ndarray, rows: int) -> None:
    expected = np.dtype(object if name == "classes" else np.float32)
    if array.dtype != expected:
        raise _invalid(f"Expected {name} Tensor of {expected.name}. Got: {array.dtype.name}")
    if array.ndim != 2:
        raise _invalid(
            f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
        )
    if len(array) != rows:
        raise _invalid(f"Expected {name} output batch size of {rows}. Got: {len(array)}")


def regression_result(
    outputs: Mapping[str, np.ndarray], *, rows: int
) -> regression_pb2.RegressionResult:
    """The number of each row.

    Args:
        outputs: `outputs` float32 [rows] or [rows, 1].

    Raises:
        ServingError: INVALID_ARGUMENT, the output is another.
    """
    values = outputs.get("outputs")
    if values is None:
        raise _invalid(f"Expected a regression output 'outputs'; it has {', '.join(outputs)}.")
    if values.dtype != np.float32 or values.shape not in ((rows,), (rows, 1)):
        raise _invalid(
            f"Expected float32 [{rows}] or [{rows}, 1] as regression output; got "
            f"{values.dtype.name} {list(values.shape)}."
        )
    result = regression_pb2.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)
