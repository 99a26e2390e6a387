"""Everything that `kerastrain serve` runs, in one process, on one event loop.

settings = Settings([ModelSpec("digits", Path("exports/digits"))])
asyncio.run(serve(settings))              # until SIGTERM or SIGINT

async with Server(settings) as server:    # the same, inside of something else
    server.rest_port, server.grpc_port
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import grpc

from kerastrain.serving.access_log import AccessLog
from kerastrain.serving.batching import Batching
from kerastrain.serving.failures import ServingError
from kerastrain.serving.grpc_server import create_grpc_server
from kerastrain.serving.http_server import HttpServer, listening_socket
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.models import Models, ModelSpec
from kerastrain.serving.predictor import Limits, Predictor
from kerastrain.serving.rest import create_app
from kerastrain.serving.versions import AVAILABLE

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is served, where, and how much of it.

    Attributes:
        rest_port, grpc_port: 0: any free port; None: not served.
        access_log: "stderr", a path, or "off".
        page: serve the page for browsers at /.
        max_connections: REST connections, and as many gRPC calls, at one time.
        shutdown_seconds: for requests that are being answered when the server is stopped.
    """

    models: Sequence[ModelSpec]
    host: str = "127.0.0.1"
    rest_port: int | None = 8501
    grpc_port: int | None = 8500
    limits: Limits = field(default_factory=Limits)
    batching: Batching = field(default_factory=Batching)
    access_log: str = "off"
    page: bool = True
    poll_seconds: float = 1.0
    max_connections: int = 1000
    shutdown_seconds: float = 30.0


class Server:
    """A server that runs while its context lasts.

    Attributes:
        rest_port, grpc_port: those that it listens on; None: not served.
        is_stopping: it finishes what it has and takes nothing new.
        is_clean: whether no request had to be cut off at the end.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self.models = Models(settings.models, poll_seconds=settings.poll_seconds)
        self.metrics = Metrics(self.models.names())
        self.predictor = Predictor(self.models, settings.limits, settings.batching, self.metrics)
        self.rest_port: int | None = None
        self.grpc_port: int | None = None
        self.is_stopping = False
        self.is_clean = True
        self._http: HttpServer | None = None
        self._grpc: grpc.aio.Server | None = None
        self._log = AccessLog.open(settings.access_log)

    async def start(self) -> None:
        """Returns when every model was loaded, or failed to be, and requests are answered.

        Raises:
            KerastrainError: a port is in use, the host is not known.
        """
        # The ports first: that one is in use should not take a minute of loading to find out.
        self._open_ports()
        await self.models.start()
        if self._grpc is not None:
            await self._grpc.start()
        if self._http is not None:
            await self._http.start()

    async def __aenter__(self) -> Server:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    def _open_ports(self) -> None:
        settings = self._settings
        if settings.rest_port is not None:
            listening = listening_socket(settings.host, settings.rest_port, flag="rest_port")
            self.rest_port = listening.getsockname()[1]
            app = create_app(
                self.predictor,
                self.metrics,
                self._log,
                page=settings.page,
                body_seconds=settings.limits.timeout_seconds,
                is_stopping=lambda: self.is_stopping,
            )
            self._http = HttpServer(app, listening, max_connections=settings.max_connections)
        if settings.grpc_port is not None:
            self._grpc = create_grpc_server(
                self.predictor, self._log, max_calls=settings.max_connections
            )
            self.grpc_port = self._grpc.add_insecure_port(self._grpc_address())

    def _grpc_address(self) -> str:
        host, port = self._settings.host, self._settings.grpc_port
        assert port is not None
        # Of a port in use gRPC says nothing that helps, and writes more than anybody wants.
        listening_socket(host, port, flag="grpc_port").close()
        return f"{_in_url(host)}:{port}"

    async def stop(self) -> None:
        """Takes no more requests, finishes those that it has, and lets the models go.

        What is not finished after `shutdown_seconds` is cut off; `is_clean` says so.
        """
        self.is_stopping = True
        seconds = self._settings.shutdown_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        stops: list[Any] = []
        if self._grpc is not None:
            stops.append(self._grpc.stop(seconds))
        if self._http is not None:
            stops.append(self._http.stop(seconds=seconds))
        await asyncio.gather(*stops)
        rest = max(0.5, deadline - asyncio.get_running_loop().time())
        try:
            await asyncio.wait_for(self._close(), rest)
        except asyncio.TimeoutError:
            self.is_clean = False
        if self._http is not None and not self._http.is_clean:
            self.is_clean = False
        self._log.close()

    async def _close(self) -> None:
        await self.predictor.close()
        await self.models.close()

    def describe(self) -> list[str]:
        """Lines for people: what is served where."""
        host = _in_url(self._settings.host)
        lines = [f"Model {name}: {self._versions(name)}" for name in self.models.names()]
        if self.rest_port is not None:
            url, name = f"http://{host}:{self.rest_port}", self.models.names()[0]
            lines.append(f"REST: {url}/v1/models/{quote(name)}:predict")
            lines.append(f"Metrics: {url}/monitoring/prometheus/metrics")
            if self._settings.page:
                lines.append(f"Page: {url}/")
        if self.grpc_port is not None:
            lines.append(f"gRPC: {host}:{self.grpc_port}")
        return lines

    def _versions(self, name: str) -> str:
        """Those served, or why there are none."""
        try:
            found = self.models.statuses(name)
        except ServingError:
            base = next(spec.base for spec in self.models.specs if spec.name == name)
            return f"no version yet; {base} is looked at every second"
        served = [str(status.version) for status in found if status.state == AVAILABLE]
        if served:
            return f"version{'s' if len(served) > 1 else ''} {', '.join(served)}"
        return "no version can be served: " + "; ".join(
            f"{status.version}: {status.error_message}" for status in found
        )


async def serve(settings: Settings) -> bool:
    """Serves until the process gets SIGTERM or SIGINT; a second one ends it at once.

    Returns:
        Whether every request that had come was finished in time.

    Raises:
        KerastrainError: a port is in use, the host is not known.
    """
    # What TensorFlow's modules hold, 400,000 objects, is garbage never; looking through it again
    # and again would stop every request for some hundred milliseconds. The models come later.
    gc.freeze()
    server = Server(settings)
    with _signals() as asked_to_stop:
        starting = asyncio.ensure_future(server.start())
        stopping = asyncio.ensure_future(asked_to_stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            logger.info("Stopped before the models were loaded.")
            starting.cancel()
            stopping.cancel()
        else:
            starting.result()
            logger.info("%s", "\n".join(server.describe()))
            await stopping
            logger.info("Stopping: requests that are being answered are finished.")
    await server.stop()
    logger.info("Stopped." if server.is_clean else "Stopped; some requests were cut off.")
    return server.is_clean


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event for the first SIGTERM or SIGINT; the next one does what it does by default."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    handled = (signal.SIGTERM, signal.SIGINT)

    def stop() -> None:
        event.set()
        for number in handled:
            loop.remove_signal_handler(number)

    for number in handled:
        loop.add_signal_handler(number, stop)
    try:
        yield event
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
