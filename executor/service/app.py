"""The ASGI application. It reads the ledger; nothing that it serves can make anything fire."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from executor.service.stream import AgentStream, Tailer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from executor.ledger import Ledger

__all__ = ["create_app"]


def create_app(ledger: Ledger) -> Starlette:
    """Return the application over `ledger`: `GET /api/agents/stream`.

    `app.state.close_streams()` ends every open stream; a server calls it before it waits for connections to close.
    """
    tailer = Tailer(ledger)
    stream = AgentStream(ledger, tailer)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with tailer.running():
            yield

    app = Starlette(routes=[Route("/api/agents/stream", stream, methods=["GET"])], lifespan=lifespan)
    app.state.close_streams = stream.close
    return app
