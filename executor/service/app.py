"""The ASGI application. It reads the ledger; nothing that it serves can make anything fire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from executor.service import api, console, openapi, problems
from executor.service.door import open_door
from executor.service.metrics import Measured, Metrics
from executor.service.parts import Parts
from executor.service.stream import PATH, StreamEndpoint, StreamFirst
from executor.service.tailer import Tailer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.routing import BaseRoute

    from executor.guard import AsyncGuard
    from executor.service.settings import Settings
    from executor.signing import SessionVault

__all__ = ["create_app"]


def create_app(
    guard: AsyncGuard, settings: Settings, *, vault: SessionVault | None = None, prices: Iterable[BaseRoute] = ()
) -> Starlette:
    """Return the application over `guard`'s ledger; whoever made the guard closes it.

    `prices` are the routes of a price stream (`executor.prices.socket.routes`), whose hub the caller runs.

    Raises SecretRefused if a file that `settings` name can't be used.
    `app.state.close_streams()` ends every open stream; a server calls it before it waits for connections to close.
    """
    tailer = Tailer(guard.guard.ledger)
    door = open_door(settings, guard.guard.ledger)
    parts = Parts(guard, settings, door.authentication, tailer, vault)
    stream = StreamEndpoint(parts)

    metrics = Metrics()
    operations = api.operations(parts, metrics)
    routes = [
        Route(PATH, stream, methods=["GET"]),
        *door.routes,
        *api.routes(parts, operations),
        *console.routes(),
        *prices,
    ]
    app = Starlette(
        routes=[*routes, openapi.route(operations, routes)],
        middleware=[Middleware(Measured, metrics=metrics), *door.middleware, Middleware(StreamFirst, stream)],
        exception_handlers=problems.HANDLERS,
    )
    app.router.redirect_slashes = False  # a path has one spelling
    app.state.close_streams = stream.close
    app.state.settings = settings
    return app
