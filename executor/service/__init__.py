"""The service: events and state over HTTP, fires and the operator's word over Unix sockets.

Its parts are imported when they are asked for: a strategy with `executor.service.client` loads no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from executor.service.app import create_app
    from executor.service.fire_socket import FireSocket, OperatorSocket
    from executor.service.server import bind, serve, serving
    from executor.service.settings import Settings

__all__ = ["FireSocket", "OperatorSocket", "Settings", "bind", "create_app", "serve", "serving"]

WHERE: Final = {
    "FireSocket": "fire_socket",
    "OperatorSocket": "fire_socket",
    "Settings": "settings",
    "bind": "server",
    "create_app": "app",
    "serve": "server",
    "serving": "server",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    if name not in WHERE:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{WHERE[name]}"), name)
