"""The console: one page at `/` on which a wallet's user watches their agents, and stops them.

Static files, with no build step; what the page shows, it asks of REST and of the stream like any other client. It can
read, stop and halt what its token allows, and nothing it does makes an agent fire. The permit inspector runs the
JavaScript implementation of the golden vectors, in the browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from permits.conformance import vectors_folder

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Scope

__all__ = ["routes"]

PAGE: Final = Path(__file__).with_name("page")
IMPLEMENTATION: Final = "holdfire.mjs"

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # which is to say: ask whether it has changed
}
"""Only what this service serves is run, shown or asked, and no text is ever made into markup or script."""


class _Files(StaticFiles):
    """Files of one folder, under HEADERS."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - Starlette's, handed on
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response


class _PageFiles(_Files):
    """The page's own files, and the implementation beside them, which lies where the vectors do."""

    def __init__(self) -> None:
        super().__init__(directory=PAGE)
        self._vectors = _Files(directory=vectors_folder())

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path == IMPLEMENTATION:
            return await self._vectors.get_response(path, scope)
        return await super().get_response(path, scope)


def routes() -> list[BaseRoute]:
    """Return where the page and its files are served."""
    files = _PageFiles()

    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    return [Route("/", page, methods=["GET"]), Mount("/console", files)]
