"""An answer of JSON, or of tensors, compressed where that is worth it.

response = answer(scope, body)
await response(scope, receive, send)
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from kerastrain.serving.rest.body import header

GZIP_FROM_BYTES = 4096
"""Answers from this size on are compressed for clients that ask for it."""


def answer(
    scope: Mapping[str, Any],
    body: bytes,
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response with status 200.

    Args:
        body: before compression.
        headers: further ones.
    """
    response = Response(body, headers=headers, media_type=media_type)
    if len(body) >= GZIP_FROM_BYTES:
        response.headers["vary"] = "Accept-Encoding"
        if accepts_gzip(header(scope, b"accept-encoding")):
            response.body = gzip.compress(body, compresslevel=5)
            response.headers["content-encoding"] = "gzip"
            response.headers["content-length"] = str(len(response.body))
    return response


def accepts_gzip(accepted: bytes) -> bool:
    """Whether an Accept-Encoding header names gzip, and not with "q=0"."""
    for choice in accepted.lower().split(b","):
        name, _, quality = choice.replace(b" ", b"").partition(b";q=")
        if name == b"gzip":
            return quality.strip(b"0.") != b"" or not quality
    return False
