"""TensorFlow Serving's routes, all below /v1.

    POST /v1/models/NAME[/versions/N|/labels/L]:predict      (:classify, :regress)
    GET  /v1/models/NAME[/versions/N|/labels/L]              state of the versions
    GET  /v1/models/NAME[/versions/N|/labels/L]/metadata     signatures

Upper and lower case are the same but for NAME and L, which may be percent-encoded.
Source: tensorflow_serving/model_servers/http_rest_api_util.cc, 2.20.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict
from starlette.routing import BaseRoute, Match

from kerastrain.serving.inference import INPUT, find_signature
from kerastrain.serving.predictor import Predictor
from kerastrain.serving.rest import classify_regress, json_codec
from kerastrain.serving.rest.answer import answer
from kerastrain.serving.rest.body import read_body
from kerastrain.serving.rest.exchange import Scope, notes_of, raw_path
from kerastrain.serving.rest.json_text import parse_object
from kerastrain.serving.rest.tensor_reading import invalid
from kerastrain.serving.servable import DEFAULT_SIGNATURE, Servable

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<call>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_QUESTION = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<call>metadata))?",
    re.IGNORECASE | re.ASCII,
)
_MAX_VERSION = (1 << 63) - 1


@dataclass(frozen=True)
class Target:
    """What a path means.

    Attributes:
        call: "predict", "classify", "regress", "metadata" or "status".
    """

    name: str
    version: int | None
    label: str | None
    call: str


@functools.lru_cache(maxsize=256)  # clients ask the same few
def parse_target(method: str, path: str) -> Target:
    """Reads a path as the client sent it.

    Raises:
        ServingError: INVALID_ARGUMENT, it is none of the routes, or not with this method.
    """
    pattern = {"POST": _CALL, "GET": _QUESTION}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise invalid(f"Malformed request: {method} {path}")
    if match["name"] is None:
        raise invalid("Missing model name in request.")
    name = _decoded(match["name"], "model name")
    label = None if match["label"] is None else _decoded(match["label"], "model version label")
    call = (match["call"] or "status").lower()
    return Target(name, _number(match["version"]), label, call)


def _decoded(text: str, what: str) -> str:
    try:
        return unquote(text, errors="strict") if text.isascii() else text.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise invalid(f"Failed to decode {what}:{text}") from None


def _number(digits: str | None) -> int | None:
    if digits is None:
        return None
    significant = digits.lstrip("0") or "0"
    if len(significant) > 19 or int(significant) > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {digits[:80]} to numeric.")
    return int(significant)


class TensorFlowRoute(BaseRoute):
    """Everything below /v1/.

    Args:
        body_seconds: how long a client may take to deliver a request's body.
    """

    def __init__(self, predictor: Predictor, *, body_seconds: float):
        self._predictor = predictor
        self._body_seconds = body_seconds

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"][:4].lower() == "/v1/":
            return Match.FULL, {}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Any, send: Any) -> None:
        target = parse_target(scope["method"], raw_path(scope))
        notes = notes_of(scope)
        notes.model = target.name
        if target.call == "status":
            body = self._status(target)
        elif target.call == "metadata":
            body = self._metadata(target)
        else:
            notes.call = target.call
            received = await read_body(
                scope,
                receive,
                limit_bytes=self._predictor.limits.max_request_bytes,
                limit_seconds=self._body_seconds,
            )
            ask = self._predict if target.call == "predict" else self._classify_or_regress
            body, notes.version = await ask(target, parse_object(received))
        await answer(scope, body)(scope, receive, send)

    async def _predict(self, target: Target, document: dict[str, Any]) -> tuple[bytes, int]:
        name = json_codec.signature_name(document) or DEFAULT_SIGNATURE
        with self._use(target) as servable:
            signature = servable.signatures.get(name)
            if signature is None:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            request = json_codec.read_inputs(document, signature.inputs)
            found = await self._predictor.run(servable, signature, request.inputs)
            outputs = {name: found[name] for name in signature.outputs}  # in a fixed order
            return json_codec.write_answer(outputs, by_rows=request.by_rows), servable.version

    async def _classify_or_regress(
        self, target: Target, document: dict[str, Any]
    ) -> tuple[bytes, int]:
        name = json_codec.signature_name(document)
        examples = classify_regress.read_examples(document)
        with self._use(target) as servable:
            method_name = classify_regress.METHOD_NAMES[target.call]
            signature = find_signature(servable, name, method_name)
            inputs = {INPUT: examples}
            outputs = await self._predictor.run(servable, signature, inputs)
            write = classify_regress.WRITERS[target.call]
            return write(outputs, rows=len(examples)), servable.version

    def _use(self, target: Target) -> Any:
        return self._predictor.models.use(target.name, target.version, target.label)

    def _status(self, target: Target) -> bytes:
        statuses = self._predictor.models.statuses(target.name, target.version, target.label)
        versions = [
            {
                "version": str(status.version),
                "state": status.state,
                "status": {
                    "error_code": status.error_code,
                    "error_message": status.error_message,
                },
            }
            for status in statuses
        ]
        return _readable({"model_version_status": versions})

    def _metadata(self, target: Target) -> bytes:
        with self._use(target) as servable:
            return _readable(
                {
                    "model_spec": {
                        "name": target.name,
                        "signature_name": "",
                        "version": str(servable.version),
                    },
                    "metadata": {"signature_def": {"signature_def": signature_defs(servable)}},
                }
            )


def signature_defs(servable: Servable) -> dict[str, Any]:
    """The SignatureDefs as protobuf prints them in JSON, with every field that has a default."""
    return {
        name: MessageToDict(
            definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for name, definition in sorted(servable.meta_graph.signature_def.items())
    }


def _readable(document: Any) -> bytes:
    """Indented, as TensorFlow Serving prints what people look at."""
    return json.dumps(document, indent=1).encode("ascii")
