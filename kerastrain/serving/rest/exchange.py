"""What is noted of a request while it is answered; the outermost layer logs and counts it.

notes = notes_of(scope)
notes.model, notes.version = "digits", 3
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.rest.body import ClientGone
from kerastrain.serving.rest.json_text import json_bytes

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
_KEY = "kerastrain.notes"


@dataclass(slots=True)
class Notes:
    """What became known of a request.

    Attributes:
        call: "predict", "classify" or "regress"; "" for anything that is not counted.
        code: the canonical code of the answer.
        status: HTTP's; 499 (nginx's choice) when the client left before its answer began.
        sent_bytes: of the body.
    """

    model: str | None = None
    version: int | None = None
    call: str = ""
    code: str = "OK"
    status: int = 499
    sent_bytes: int = 0


def notes_of(scope: Scope) -> Notes:
    """The notes of the request that this scope belongs to."""
    return scope[_KEY]


class Observed:
    """The outermost layer: counts and logs every request, and answers when a bug does not.

    Args:
        known_models: the models' names now. What a client calls a model that is not
            there is logged, but is no label of a metric, of which there is one for each.
    """

    def __init__(
        self,
        app: Any,
        *,
        metrics: Metrics,
        access_log: AccessLog,
        known_models: Callable[[], Collection[str]],
    ):
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._known_models = known_models

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        notes = scope[_KEY] = Notes()

        async def noted_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                notes.status = message["status"]
            else:
                notes.sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted_send)
        except ClientGone:
            notes.code = "CANCELLED"
        except Exception:
            logger.exception("%s %s failed; this is a bug.", scope["method"], scope["path"])
            notes.code = "INTERNAL"
            if notes.status == 499:  # nothing was sent yet
                await _send_failure(noted_send)
        finally:
            self._note(scope, notes, time.perf_counter() - started)

    def _note(self, scope: Scope, notes: Notes, seconds: float) -> None:
        if notes.call:
            known = notes.version is not None or notes.model in self._known_models()
            model = notes.model or "" if known else ""
            self._metrics.observe_request(model, "REST", notes.call, notes.code, seconds)
        client = scope.get("client")
        self._access_log.write(
            protocol="REST",
            client=client[0] if client else None,
            method=scope["method"],
            path=raw_path(scope),
            model=notes.model,
            version=notes.version,
            status=notes.status,
            bytes=notes.sent_bytes,
            milliseconds=round(seconds * 1000, 3),
        )


async def _send_failure(send: Any) -> None:
    body = json_bytes({"error": "The server failed to answer this request; its log says why."})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def raw_path(scope: Scope) -> str:
    """The path as the client sent it, percent signs and all."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if raw is not None else scope["path"]
