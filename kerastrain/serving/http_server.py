"""Uvicorn as a part of this process: on our loop, with our signals, patient only for so long.

    http = HttpServer(app, listening_socket("127.0.0.1", 8501), max_connections=1000)
    await http.start()
    await http.stop(seconds=10)       # finishes what it has

Uvicorn closes connections that are idle between requests, but waits for ever for the end of
a request's headers, and takes any length of them; here neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kerastrain.errors import KerastrainError

HEADER_SECONDS = 10.0
MAX_HEADER_BYTES = 64 << 10
KEEP_ALIVE_SECONDS = 75

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class LimitedProtocol(HttpToolsProtocol):
    """Closes a connection whose request does not begin, or whose headers do not end."""

    _timer: asyncio.TimerHandle | None = None
    _is_in_headers = False
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_headers:
            return
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._timer is None:
            self._wait_for_headers()

    def on_message_begin(self) -> None:
        self._is_in_headers, self._header_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_headers = False
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_headers(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HttpServer:
    """An ASGI application, answered for on one socket.

    Attributes:
        is_clean: whether `stop` had to cut nobody off.
    """

    def __init__(self, app: Any, listening: socket.socket, *, max_connections: int):
        self.is_clean = True
        self._socket = listening
        self._server = _Server(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                lifespan="off",
                loop="none",
                access_log=False,  # ours says more
                log_config=None,
                server_header=False,
                limit_concurrency=max_connections,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when requests are taken."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            await asyncio.sleep(0.005)
            if self._task.done():
                self._task.result()

    async def stop(self, *, seconds: float) -> None:
        """Takes no more requests, and waits for those that it has, at most so long."""
        if self._task is None:
            self._socket.close()
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        if not done:
            self.is_clean = False
            self._server.force_exit = True
            for connection in list(self._server.server_state.connections):
                connection.transport.abort()
        await self._task


class _Server(uvicorn.Server):
    """Without uvicorn's own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listening_socket(host: str, port: int, *, flag: str) -> socket.socket:
    """A socket that is bound to the port (0: to any free one), so that nobody else can be.

    Args:
        flag: the command's, for messages.

    Raises:
        KerastrainError: the port is in use, or the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise KerastrainError(
            f"--host={host} is not known ({error.strerror}); expected an address of this machine, "
            "such as 127.0.0.1 (this machine only) or 0.0.0.0 (every network)."
        ) from error
    # "localhost" is often ::1 first, and most clients then ask 127.0.0.1.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.setblocking(False)
    except (OSError, OverflowError) as error:
        listening.close()
        raise KerastrainError(
            f"{host}:{port} cannot be listened on: {error}. Is another server running there? "
            f"Give another --{flag}, or another --host."
        ) from error
    return listening
