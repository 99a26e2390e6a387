"""What every gRPC method has in common: errors become statuses, calls are counted and logged.

    calls = Calls(metrics, access_log)
    response = await calls.answer("predict", request.model_spec, context, self._predict(request))

A message is cut to what fits into the trailing metadata of a response, 8 KB by default.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.failures import ServingError
from kerastrain.serving.metrics import Metrics

logger = logging.getLogger(__name__)

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_MAX_DETAILS = 1500  # characters; each may become nine bytes, percent-encoded

Response = TypeVar("Response")


class Calls:
    """Runs the methods' coroutines for gRPC."""

    def __init__(self, metrics: Metrics, access_log: AccessLog | None):
        self._metrics = metrics
        self._access_log = access_log

    async def answer(
        self,
        method: str,
        request: Any,
        context: grpc.aio.ServicerContext,
        answer: Coroutine[Any, Any, Response],
    ) -> Response:
        """The response, or the status that its ServingError becomes."""
        start = time.perf_counter()
        failure: ServingError | None = None
        response: Response | None = None
        status = "CANCELLED"  # unless it gets to an end: the client is gone
        try:
            response = await answer
            status = "OK"
        except ServingError as error:
            failure, status = error, error.code
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("A gRPC %s request failed; this is a bug of the server.", method)
            failure = ServingError("INTERNAL", "The server failed; its log says how.")
            status = failure.code
        finally:
            seconds = time.perf_counter() - start
            model = _model_spec(request).name
            self._metrics.observe_request(model, "gRPC", method, status, seconds)
            if self._access_log is not None:
                self._log(method, request, response, context, status, seconds)
        if failure is not None:
            details = failure.message[:_MAX_DETAILS]
            await context.abort(_STATUS[failure.grpc_code], details)
        return response  # type: ignore[return-value]  # abort raises

    def _log(
        self,
        method: str,
        request: Any,
        response: Any,
        context: grpc.aio.ServicerContext,
        status: str,
        seconds: float,
    ) -> None:
        assert self._access_log is not None
        asked = _model_spec(request)
        answered = getattr(response, "model_spec", asked)
        self._access_log.write(
            protocol="gRPC",
            client=context.peer(),
            method=method,
            model=asked.name,
            version=answered.version.value if answered.HasField("version") else None,
            status=status,
            bytes=request.ByteSize(),
            milliseconds=round(seconds * 1e3, 3),
        )


def _model_spec(request: Any) -> Any:
    """Of a MultiInferenceRequest, which has one for each of its tasks, the first."""
    return (
        request.tasks[0].model_spec
        if hasattr(request, "tasks") and request.tasks
        else (request.model_spec)
    )
