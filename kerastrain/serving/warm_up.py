"""A version's first calls, made before its clients make them.

    warm_up(servable)      # replays assets.extra/tf_serving_warmup_requests, if there is one

The file is TensorFlow Serving's: a TFRecord of PredictionLog, at most 1,000 records. The
first call of a signature costs tens of milliseconds (TensorFlow optimizes the graph), so a
signature that no record asks is called once with zeros, whatever it makes of them.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from kerastrain.export.warmup import MAX_RECORDS, NAME
from kerastrain.serving.failures import ServingError
from kerastrain.serving.inference import INPUT, find_signature, serialized_examples
from kerastrain.serving.input_checks import check_inputs
from kerastrain.serving.servable import (
    CLASSIFY,
    DEFAULT_SIGNATURE,
    REGRESS,
    Servable,
    Signature,
    TensorInfo,
)
from kerastrain.serving.tensors import tensor_array

logger = logging.getLogger(__name__)

# A tensor that is larger is no warm-up, but work.
_MAX_BYTES = 64 << 20

Asked = tuple[Signature, dict[str, np.ndarray]]


def warm_up(servable: Servable) -> int:
    """Makes the calls; returns how many records there were.

    Raises:
        ServingError: the file cannot be read, has more than 1,000 records, or the model
            cannot answer one of them.
    """
    asked: set[str] = set()
    count = 0
    for record in _records(servable.folder / NAME):
        count += 1
        try:
            _replay(servable, record, asked)
        except ServingError as error:
            raise ServingError(
                error.code, f"Warm-up request {count} of version {servable.version}: {error}"
            ) from error
    for name, signature in servable.signatures.items():
        if name not in asked:
            _call_with_zeros(servable, signature)
    return count


def _records(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    try:
        for count, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
            if count == MAX_RECORDS:
                raise ServingError(
                    "INVALID_ARGUMENT",
                    f"Number of warmup records exceeds the maximum ({MAX_RECORDS}): {path}.",
                )
            yield record
    except tf.errors.OpError as error:
        raise ServingError("DATA_LOSS", f"{path} cannot be read: {error.message}") from error


def _replay(servable: Servable, record: bytes, asked: set[str]) -> None:
    """Makes the calls of one PredictionLog; adds the names of the signatures to `asked`."""
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError("DATA_LOSS", f"it is no PredictionLog: {error}") from error
    for signature, inputs in _requests(servable, log):
        check_inputs(signature, inputs)
        servable.call(signature.name, inputs)
        if signature.name not in asked:  # TensorFlow prepares the two ways each for itself.
            servable.call(signature.name, inputs, in_this_thread=True)
        asked.add(signature.name)


def _requests(servable: Servable, log: prediction_log_pb2.PredictionLog) -> Iterator[Asked]:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        yield _prediction(servable, log.predict_log.request)
    elif kind == "classify_log":
        request = log.classify_log.request
        yield _inference(servable, request.model_spec, CLASSIFY, request.input)
    elif kind == "regress_log":
        request = log.regress_log.request
        yield _inference(servable, request.model_spec, REGRESS, request.input)
    elif kind == "multi_inference_log":
        request = log.multi_inference_log.request
        for task in request.tasks:
            yield _inference(servable, task.model_spec, task.method_name, request.input)
    else:
        logger.warning(
            "Model %s: a warm-up record holds %s and is passed over; expected predict_log, "
            "classify_log, regress_log or multi_inference_log.",
            servable.model,
            kind or "nothing",
        )


def _prediction(servable: Servable, request: Any) -> Asked:
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    if name not in servable.signatures:
        raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
    inputs = {
        key: tensor_array(tensor, max_bytes=_MAX_BYTES) for key, tensor in request.inputs.items()
    }
    return servable.signatures[name], inputs


def _inference(servable: Servable, model_spec: Any, method_name: str, examples: Any) -> Asked:
    signature = find_signature(servable, model_spec.signature_name, method_name)
    return signature, {INPUT: serialized_examples(examples)}


def _call_with_zeros(servable: Servable, signature: Signature) -> None:
    inputs = {name: _zeros(info) for name, info in signature.inputs.items()}
    if any(array is None for array in inputs.values()):
        return
    for in_this_thread in (False, True):
        with contextlib.suppress(ServingError):  # "" is no image, but the graph is ready for one
            servable.call(signature.name, inputs, in_this_thread=in_this_thread)  # type: ignore[arg-type]


def _zeros(info: TensorInfo) -> np.ndarray | None:
    """One row of zeros or empty texts; None where no sensible shape can be made up."""
    shape = None if info.shape is None else [1 if size is None else size for size in info.shape]
    if shape is None or math.prod(shape) * info.numpy_dtype.itemsize > _MAX_BYTES:
        return None
    return np.full(shape, b"" if info.dtype == tf.string else 0, info.numpy_dtype)
