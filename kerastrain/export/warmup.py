"""Requests that a server answers before it takes any: so that nobody's is the slow first one.

    write_warmup(folder, {"serving_default": rows, "features": encoded}, model="adult")

The first calls of a SavedModel build what later ones find: kernels, the plan of the graph,
memory. TensorFlow Serving, when it loads a version, plays back the requests that it finds in
`assets.extra/tf_serving_warmup_requests`, a TFRecord of PredictionLog messages (at most 1000,
or it refuses the version), before the version takes the place of the one before it.

Few suffice, and each is time that a new version is not there. What is built hangs on the
signature, and in parts (convolutions choose an algorithm by the shape; memory grows to the
largest need) on the number of rows: for every signature one row twice, because some things
are only done when a function is called for the second time, and once a few and many rows, as
batching makes them. The rows are real ones: a look-up of words that do not occur, or a row of
zeros that compresses and multiplies unlike others, is not what will be asked.

Every request is one to Predict, which a `classify` or `regress` signature answers, too: it
runs the same function. The messages are encoded here, after TensorFlow Serving's
apis/prediction_log.proto, predict.proto and model.proto: three nested messages do not need
the package tensorflow-serving-api, which takes 4 s to import. The same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerastrain.errors import ExportError
from kerastrain.export.naming import signature_inputs
from kerastrain.export.rows import Rows, as_tensors

NAME = "assets.extra/tf_serving_warmup_requests"
# TensorFlow Serving's limit (kMaxNumRecords of servables/tensorflow/saved_model_warmup_util.h).
MAX_RECORDS = 1000
# In rows of each request of a signature.
RECORDS = (1, 1, 8, 64)
# gRPC's own limit on a message: a client's request is seldom larger.
MAX_BYTES = 4 << 20


def write_warmup(
    folder: Path,
    rows: Mapping[str, Rows],
    *,
    model: str,
    records: Sequence[int] = RECORDS,
) -> int:
    """Writes the warm-up file of a version folder; returns how many requests it holds.

    Args:
        rows: signature -> {input: array [n, ...]}, real rows as the signature takes them;
            where there are fewer than a request needs, they are taken over again.
        model: the name that the requests carry.
        records: rows of each request of a signature. One that would be larger than 4 MiB
            is left out (the first never is).

    Raises:
        ExportError: there is no such signature, it takes other inputs, or the requests
            are more than 1000.
    """
    if not 0 < len(rows) * len(records) <= MAX_RECORDS:
        raise ExportError(
            f"{len(rows)} signatures with {len(records)} requests each cannot be written; expected "
            f"1 to {MAX_RECORDS} in all, which is what TensorFlow Serving takes."
        )
    logs = [
        log
        for signature in sorted(rows)
        for log in _logs(folder, signature, rows[signature], model=model, records=records)
    ]
    (folder / NAME).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / NAME)) as writer:
        for log in logs:
            writer.write(log)
    return len(logs)


def _logs(
    folder: Path, signature: str, rows: Rows, *, model: str, records: Sequence[int]
) -> list[bytes]:
    specs = signature_inputs(folder, signature)
    if not specs or set(specs) != set(rows):
        raise ExportError(
            f"The signature '{signature}' of {folder} takes {', '.join(specs) or 'nothing'}; the "
            f"rows for its warm-up have {', '.join(rows)}."
        )
    count = len(next(iter(rows.values())))
    logs: list[bytes] = []
    for size in records:
        if logs and size / records[0] * len(logs[0]) > 2 * MAX_BYTES:
            continue  # What is far too large is not copied a few times to find that out.
        chosen = np.arange(size) % count
        batch = as_tensors({name: rows[name][chosen] for name in specs}, specs)
        log = prediction_log(model, signature, batch)
        if not logs or len(log) <= MAX_BYTES:
            logs.append(log)
    return logs


def prediction_log(model: str, signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """A serialized tensorflow.serving.PredictionLog of one request to Predict."""
    model_spec = _field(1, model.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for name in sorted(inputs):  # map<string, TensorProto>: an entry is a key 1 and a value 2
        tensor = tf.make_tensor_proto(inputs[name].numpy(), inputs[name].dtype)
        request += _field(
            2, _field(1, name.encode()) + _field(2, tensor.SerializeToString(deterministic=True))
        )
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field (wire type 2) of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
