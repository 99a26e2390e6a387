"""The routes of the Open Inference Protocol v2.

    GET  /v2                                     name, version, extensions
    GET  /v2/health/live, /v2/health/ready       200, or 503 when not ready
    GET  /v2/models/NAME[/versions/N]            inputs and outputs
    GET  /v2/models/NAME[/versions/N]/ready      200, or 503
    POST /v2/models/NAME[/versions/N]/infer      {"inputs": [{name, shape, datatype, data}]}

A request's `parameters` may name a signature: {"signature_name": "features"}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import kerastrain
from kerastrain.serving.predictor import Predictor
from kerastrain.serving.rest import open_inference_binary as binary_data
from kerastrain.serving.rest.answer import answer
from kerastrain.serving.rest.body import header, read_body
from kerastrain.serving.rest.exchange import notes_of
from kerastrain.serving.rest.json_text import json_bytes, parse_object, shown
from kerastrain.serving.rest.open_inference import (
    datatype,
    parameters,
    read_inputs,
    wanted_outputs,
    write_answer,
)
from kerastrain.serving.rest.tensor_reading import invalid
from kerastrain.serving.servable import DEFAULT_SIGNATURE, Servable, Signature, TensorInfo

PLATFORM = "tensorflow_savedmodel"
EXTENSIONS = ["binary_tensor_data"]


def open_inference_routes(
    predictor: Predictor, *, body_seconds: float, is_stopping: Callable[[], bool]
) -> list[Route]:
    """All routes above; the arguments as for `create_app`."""
    protocol = _Protocol(predictor, body_seconds, is_stopping)
    routes = [
        Route("/v2", protocol.server),
        Route("/v2/health/live", protocol.live),
        Route("/v2/health/ready", protocol.ready),
    ]
    for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(model, protocol.model),
            Route(f"{model}/ready", protocol.model_ready),
            Route(f"{model}/infer", protocol.infer, methods=["POST"]),
        ]
    return routes


class _Protocol:
    def __init__(self, predictor: Predictor, body_seconds: float, is_stopping: Callable[[], bool]):
        self._predictor = predictor
        self._models = predictor.models
        self._body_seconds = body_seconds
        self._is_stopping = is_stopping

    async def server(self, _: Request) -> Response:
        version = kerastrain.__version__
        return _answer({"name": "kerastrain", "version": version, "extensions": EXTENSIONS})

    async def live(self, _: Request) -> Response:
        return _answer({"live": True})

    async def ready(self, _: Request) -> Response:
        ready = self._models.is_ready and not self._is_stopping()
        return _answer({"live": True, "ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        name, version = _target(request)
        states = {status.state for status in self._models.statuses(name, version)}
        ready = "AVAILABLE" in states and not self._is_stopping()
        return _answer({"name": name, "ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        name, version = _target(request)
        with self._models.use(name, version) as servable:
            signature = _signature(servable, {})
            available = [
                str(status.version)
                for status in self._models.statuses(name)
                if status.state == "AVAILABLE"
            ]
            return _answer(
                {
                    "name": name,
                    "versions": available,
                    "platform": PLATFORM,
                    "inputs": [_described(info) for info in signature.inputs.values()],
                    "outputs": [_described(info) for info in signature.outputs.values()],
                }
            )

    async def infer(self, request: Request) -> Response:
        name, version = _target(request)
        notes = notes_of(request.scope)
        notes.call = "predict"
        body = await read_body(
            request.scope,
            request.receive,
            limit_bytes=self._predictor.limits.max_request_bytes,
            limit_seconds=self._body_seconds,
        )
        text, binary = binary_data.split(body, header(request.scope, binary_data.HEADER))
        document = parse_object(text)
        with self._models.use(name, version) as servable:
            notes.version = servable.version
            head = _head(document, servable)
            names, as_binary = wanted_outputs(document)
            outputs = await self._run(servable, document, binary, names)
        content, json_size = write_answer(head, outputs, binary=as_binary)
        if json_size is None:
            return answer(request.scope, content)
        headers = {binary_data.HEADER.decode(): str(json_size)}
        kind = "application/octet-stream"
        return answer(request.scope, content, media_type=kind, headers=headers)

    async def _run(
        self, servable: Servable, document: Mapping[str, Any], binary: bytes, names: list[str]
    ) -> dict[str, np.ndarray]:
        signature = _signature(servable, parameters(document, "the request"))
        inputs = read_inputs(document, signature.inputs, binary)
        found = await self._predictor.run(servable, signature, inputs, names)
        return {name: found[name] for name in names or signature.outputs}


def _target(request: Request) -> tuple[str, int | None]:
    """The model's name and version that a path says."""
    name = request.path_params["name"]
    notes_of(request.scope).model = name
    digits = request.path_params.get("version")
    if digits is None:
        return name, None
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 18:
        raise invalid(f"the version of a model is a whole number, not '{digits[:40]}'")
    return name, int(digits)


def _signature(servable: Servable, asked: Mapping[str, Any]) -> Signature:
    name = asked.get("signature_name", DEFAULT_SIGNATURE)
    signature = servable.signatures.get(name) if isinstance(name, str) else None
    if signature is None:
        raise invalid(
            f"The signature {shown(name)} is not among those of the model: "
            f"{', '.join(servable.signatures)}"
        )
    return signature


def _head(document: Mapping[str, Any], servable: Servable) -> dict[str, Any]:
    head = {"model_name": servable.model, "model_version": str(servable.version)}
    if "id" in document:
        if not isinstance(document["id"], str):
            raise invalid(f"'id' is {shown(document['id'])}; expected text")
        head["id"] = document["id"]
    return head


def _described(info: TensorInfo) -> dict[str, Any]:
    """The protocol has no word for a rank that is not known; [-1] comes nearest."""
    shape = [-1] if info.shape is None else [-1 if size is None else size for size in info.shape]
    return {"name": info.name, "datatype": datatype(info.dtype.name), "shape": shape}


def _answer(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json_bytes(document), status, media_type="application/json")
