"""The body of a request: within its limits of bytes and time, decompressed.

    body = await read_body(scope, receive, limit_bytes=1 << 26, limit_seconds=30)

No more than the limit is ever held, before or after decompression: a body that
says nothing of its size and a gzip bomb stop there.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Coroutine, Mapping
from typing import Any

from kerastrain.serving.failures import ServingError

GZIP_FORMAT = 16 + zlib.MAX_WBITS
DISCARDED = 4
"""How many times the limit is read and thrown away before the connection is cut.

A client that still sends when the connection is cut sees it reset and not the answer.
"""


class BodyError(ServingError):
    """The body cannot be taken; HTTP has a status of its own for that."""

    def __init__(self, code: str, message: str, *, http_status: int):
        super().__init__(code, message)
        self._status = http_status

    @property
    def http_status(self) -> int:
        return self._status


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(
    scope: Mapping[str, Any], receive: Any, *, limit_bytes: int, limit_seconds: float
) -> bytes:
    """The whole body, decompressed when it came as gzip.

    Raises:
        BodyError: 413 too large, 408 too slow, 415 compressed in another way.
        ServingError: INVALID_ARGUMENT, the gzip data are damaged or end too early.
        ClientGone: nobody is there any more to be answered.
    """
    body = await _in_time(_received(receive, limit_bytes), limit_seconds)
    encoding = header(scope, b"content-encoding").strip().lower()
    if encoding in (b"gzip", b"x-gzip"):
        return gunzip(body, limit_bytes=limit_bytes)
    if encoding in (b"", b"identity"):
        return body
    raise BodyError(
        "UNIMPLEMENTED",
        f"Content-Encoding {encoding.decode('latin-1')!r} is not understood; "
        "send the body as gzip or as it is.",
        http_status=415,
    )


async def _in_time(receiving: Coroutine[Any, Any, bytes], seconds: float) -> bytes:
    """What is received, unless it takes too long.

    As asyncio.timeout, which Python 3.10 lacks, and at half its price: most bodies are
    there before they are asked for.
    """
    task, is_late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await receiving
    except asyncio.CancelledError:
        if not is_late or (sys.version_info >= (3, 11) and task.uncancel() > 0):
            raise  # somebody else cancelled it
        raise BodyError(
            "DEADLINE_EXCEEDED",
            f"The request's body did not arrive within {seconds:g} seconds.",
            http_status=408,
        ) from None
    finally:
        timer.cancel()


async def _received(receive: Any, limit: int) -> bytes:
    """The bytes as they come; those past the limit are thrown away."""
    chunks: list[bytes] = []
    count = 0
    more = True
    while more and count <= DISCARDED * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        count += len(chunk)
        if count <= limit:
            chunks.append(chunk)
        more = message.get("more_body", False)
    if count > limit:
        raise _too_large(limit, "")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def gunzip(data: bytes, *, limit_bytes: int) -> bytes:
    """Decompresses one gzip member, which must be all of the data.

    Raises:
        BodyError: more than the limit would come out; it is not produced.
        ServingError: INVALID_ARGUMENT, the data are no gzip, damaged, or end too early.
    """
    decompressor = zlib.decompressobj(GZIP_FORMAT)
    try:
        content = decompressor.decompress(data, limit_bytes + 1)
    except zlib.error as error:
        raise ServingError(
            "INVALID_ARGUMENT", f"The body is not the gzip data that it is said to be: {error}"
        ) from None
    if len(content) > limit_bytes:
        raise _too_large(limit_bytes, " after decompression")
    if not decompressor.eof:
        raise ServingError("INVALID_ARGUMENT", "The body's gzip data end too early.")
    if decompressor.unused_data:
        raise ServingError("INVALID_ARGUMENT", "Something follows the end of the body's gzip data.")
    return content


def _too_large(limit: int, when: str) -> BodyError:
    return BodyError(
        "RESOURCE_EXHAUSTED",
        f"The request's body is larger than {limit:,} bytes{when}, "
        "the limit of this server; send fewer rows at once.",
        http_status=413,
    )


def header(scope: Mapping[str, Any], name: bytes) -> bytes:
    """The first header of this (lower-case) name, or b""."""
    return next((value for key, value in scope["headers"] if key == name), b"")
