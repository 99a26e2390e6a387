"""What looks after the server asks: is it alive, what has it counted.

GET /healthz                           200 {"status": "serving", …}; 503 while it stops
GET /monitoring/prometheus/metrics     Prometheus' text
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kerastrain.serving.metrics import CONTENT_TYPE, Metrics
from kerastrain.serving.models import Models
from kerastrain.serving.rest.json_text import json_bytes

METRICS_PATH = "/monitoring/prometheus/metrics"


def health_routes(
    models: Models, metrics: Metrics, *, is_stopping: Callable[[], bool]
) -> list[Route]:
    """The two routes above.

    Args:
        is_stopping: whether the server finishes what it has and takes nothing new.
    """

    async def healthz(_: Request) -> Response:
        stopping = is_stopping()
        document = {
            "status": "stopping" if stopping else "serving",
            "ready": models.is_ready and not stopping,
            "models": models.names(),
        }
        status = 503 if stopping else 200
        return Response(json_bytes(document), status, media_type="application/json")

    async def show_metrics(_: Request) -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    return [Route("/healthz", healthz), Route(METRICS_PATH, show_metrics)]
