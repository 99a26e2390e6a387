"""The REST side of the server as one ASGI application.

app = create_app(predictor, metrics, AccessLog.open("stderr"))
uvicorn.Server(uvicorn.Config(app, port=8501))
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.failures import ServingError
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.page.routes import page_routes
from kerastrain.serving.predictor import Predictor
from kerastrain.serving.rest.body import BodyError
from kerastrain.serving.rest.exchange import Observed, notes_of, raw_path
from kerastrain.serving.rest.health import health_routes
from kerastrain.serving.rest.json_text import json_bytes
from kerastrain.serving.rest.open_inference_routes import open_inference_routes
from kerastrain.serving.rest.tensorflow_routes import TensorFlowRoute


def create_app(
    predictor: Predictor,
    metrics: Metrics,
    access_log: AccessLog,
    *,
    page: bool = True,
    body_seconds: float = 30.0,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Everything that is served over HTTP.

    Args:
        page: show the page at / too.
        body_seconds: how long a client may take to deliver a request's body.
        is_stopping: whether the server finishes what it has and takes nothing new.
    """
    models = predictor.models
    routes = [
        TensorFlowRoute(predictor, body_seconds=body_seconds),
        *open_inference_routes(predictor, body_seconds=body_seconds, is_stopping=is_stopping),
        *health_routes(models, metrics, is_stopping=is_stopping),
        *(page_routes(models) if page else []),
    ]
    observed = Middleware(
        Observed, metrics=metrics, access_log=access_log, known_models=models.names
    )
    app = Starlette(
        routes=routes,
        middleware=[observed],
        exception_handlers={ServingError: _serving_error, HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    return app


async def _serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    notes_of(request.scope).code = error.code
    # Of a body that was not read to its end the rest would be taken for the next request.
    headers = {"connection": "close"} if isinstance(error, BodyError) else None
    body = json_bytes({"error": error.message})
    return Response(body, error.http_status, headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {raw_path(request.scope)}"
    body = json_bytes({"error": f"{error.detail}: {asked[:200]}"})
    return Response(body, error.status_code, error.headers, media_type="application/json")
