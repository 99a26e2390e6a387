"""The routes of the page: its files, and what it shows of the models.

    app = Starlette(routes=[*page_routes(models), *rest_routes])

    /                 the page
    /page/page.js     and its other files
    /page/models      JSON: models, versions, states, signatures (see `description`)

Names of models and columns and the values of categories are the user's data, and not
trusted. The script puts them into the page as text only; the headers hold even a mistake
there: no script but this one runs, and nothing is loaded from, or sent to, elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kerastrain.serving.models import Models
from kerastrain.serving.page.description import describe_models

FOLDER = Path(__file__).parent
FILES = {
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Text that is put in as HTML is an error in browsers that know this.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Always asked again, and answered by 304 when nothing changed.
    "Cache-Control": "no-cache",
}


def page_routes(models: Models) -> list[Route]:
    """The routes of the page, for GET and HEAD.

    Args:
        models: what the server serves.
    """

    # No coroutine: Starlette runs it in a thread, and requests for answers go on meanwhile.
    def show_models(request: Request) -> Response:
        content = json.dumps(describe_models(models), ensure_ascii=False, separators=(",", ":"))
        return _answer(request, content.encode("utf-8", "replace"), "application/json")

    files = [
        _file_route("/", "index.html", "text/html; charset=utf-8"),
        *(_file_route(f"/page/{name}", name, kind) for name, kind in FILES.items()),
    ]
    return [*files, Route("/page/models", show_models, name="page_models")]


def _file_route(path: str, name: str, media_type: str) -> Route:
    content = (FOLDER / name).read_bytes()

    async def show_file(request: Request) -> Response:
        return _answer(request, content, media_type)

    return Route(path, show_file, name=f"page_{name}")


def _answer(request: Request, content: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
