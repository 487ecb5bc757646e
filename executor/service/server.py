"""Runs the application with uvicorn, and ends its streams when asked to stop: uvicorn alone waits for them for ever."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["bind", "serve"]

BACKLOG = 2_048

UNANSWERED_MS_MAX = 10_000
"""How long a peer may leave what it was sent unacknowledged, or its window shut; then the kernel drops it."""

UNSENT_BYTES_MAX = 16_384
"""What the kernel holds back for a peer that doesn't read: by itself it hides megabytes from every deadline of ours."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port` (0: any free one), taken before anything else is started.

    Raises:
        OSError: the port is taken; its `filename` is the address.

    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _limit_peers(bound)
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
    return bound


def _limit_peers(listening: socket.socket) -> None:
    """Set on `listening` what the sockets that it accepts begin with."""
    for name, value in (("TCP_USER_TIMEOUT", UNANSWERED_MS_MAX), ("TCP_NOTSENT_LOWAT", UNSENT_BYTES_MAX)):
        if hasattr(socket, name):  # Linux has both
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class _Server(uvicorn.Server):
    def __init__(self, app: Starlette) -> None:
        super().__init__(uvicorn.Config(app, log_level="warning", server_header=False))
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.close_streams()
        await super().shutdown(sockets)


def serve(app: Starlette, bound: socket.socket) -> None:
    """Serve `app`, made by `create_app`, on a socket from `bind`, until SIGINT or SIGTERM."""
    _Server(app).run(sockets=[bound])
