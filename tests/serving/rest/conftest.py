"""A served model with a signature for each rule, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.models import Models, ModelSpec
from kerastrain.serving.predictor import Limits, Predictor
from kerastrain.serving.rest import create_app

MAX_REQUEST_BYTES = 100_000


class ManySignatures(tf.Module):
    """Answers `factor` times what it is asked."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def serving_default(self, x):
        return {"y": x * self.factor}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.float32, "age"),
            tf.TensorSpec([None], tf.string, "job"),
        ]
    )
    def person(self, age, job):
        return {"score": age * self.factor, "label": job, "raw_bytes": job}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "n")])
    def integers(self, n):
        return {"n": n}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def uneven(self, x):
        return {"rows": x, "total": tf.reduce_sum(x, keepdims=True)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def half(self, x):
        return {"y": tf.cast(x, tf.float16)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs):
        age = self._age(inputs)
        scores = tf.stack([age, -age], axis=1)
        classes = tf.tile([["no", "yes"]], [tf.shape(age)[0], 1])
        return {"classes": classes, "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs):
        return {"outputs": self._age(inputs)[:, tf.newaxis] * self.factor}

    def _age(self, inputs):
        spec = {"age": tf.io.FixedLenFeature([], tf.float32)}
        return tf.io.parse_example(inputs, spec)["age"]


NAMES = ("serving_default", "person", "integers", "uneven", "half", "classify", "regress")


def save(folder: Path, factor: float) -> None:
    module = ManySignatures(factor)
    tf.saved_model.save(module, str(folder), signatures={n: getattr(module, n) for n in NAMES})
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for name in ("classify", "regress"):
        definition = saved.meta_graphs[0].signature_def[name]
        definition.method_name = f"tensorflow/serving/{name}"
    path.write_bytes(saved.SerializeToString())


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 doubles, version 2 triples."""
    folder = tmp_path_factory.mktemp("served") / "m"
    save(folder / "1", 2.0)
    save(folder / "2", 3.0)
    return folder


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert list(self.json) == ["error"]
        return self.json["error"]


@dataclass
class Server:
    """An application, asked without a network: any bytes can be sent, in any pieces."""

    app: Any
    metrics: Metrics
    logged: list[dict[str, Any]] = field(default_factory=list)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    is_stopping: bool = False

    def ask(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Sends one request.

        Args:
            body: bytes, a tuple of their pieces and of pauses in seconds, or what JSON holds.
        """
        if not isinstance(body, (bytes, tuple)):
            body = json.dumps(body).encode()
        pieces = [body] if isinstance(body, bytes) else body
        return self.loop.run_until_complete(asyncio.wait_for(
            send(self.app, method, path, pieces, headers or {}), timeout=60
        ))  # fmt: skip

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("POST", path, body, headers)

    def predict(self, body: Any, path: str = "/v1/models/m:predict") -> Reply:
        return self.ask("POST", path, body)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("GET", path, b"", headers)


async def send(
    app: Any, method: str, path: str, pieces: Sequence[bytes | float], headers: Mapping[str, str]
) -> Reply:
    """Calls an ASGI application; after the pieces, the client is gone."""
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        while waiting and not isinstance(waiting[0], bytes):
            await asyncio.sleep(waiting.pop(0))
        if not waiting:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    sent: list[dict[str, Any]] = []

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    raw, _, query = path.encode("latin-1").partition(b"?")
    scope = {
        "type": "http",
        "method": method,
        "path": decoded(raw),
        "raw_path": raw,
        "query_string": query,
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
        "client": ("127.0.0.1", 50000),
        "http_version": "1.1",
        "scheme": "http",
    }
    await app(scope, receive, keep)
    start = sent[0] if sent else {"status": 499, "headers": []}
    return Reply(
        start["status"],
        {key.decode(): value.decode() for key, value in start["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )


def decoded(raw: bytes) -> str:
    """As uvicorn does it."""
    return unquote(raw.decode("latin-1"))


class Lines(AccessLog):
    """Keeps what is logged."""

    def __init__(self, lines: list[dict[str, Any]]):
        super().__init__()
        self.lines = lines

    def write(self, **fields: Any) -> None:
        self.lines.append(fields)


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[Server]:
    """Model `m` with versions 1 and 2, of which 1 is called "stable"; limited to 100,000 bytes."""
    yield from started([ModelSpec("m", base, labels={"stable": 1})])


def started(specs: Sequence[ModelSpec], **settings: Any) -> Iterator[Server]:
    models = Models(specs, poll_seconds=60)
    metrics = Metrics()
    limits = Limits(max_request_bytes=MAX_REQUEST_BYTES)
    predictor = Predictor(models, limits, metrics=metrics)
    server = Server(None, metrics)
    server.app = create_app(
        predictor,
        metrics,
        Lines(server.logged),
        page=False,
        body_seconds=0.2,
        is_stopping=lambda: server.is_stopping,
        **settings,
    )
    server.loop.run_until_complete(models.start())
    yield server
    server.loop.run_until_complete(predictor.close())
    server.loop.run_until_complete(models.close())
    server.loop.close()
