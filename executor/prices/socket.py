"""The hub's sockets: `GET /v1/stream` under uvicorn.

The WebSocket itself (handshake, frames, closing) is `websockets`' sans-I/O protocol, as uvicorn drives it. `StreamWire`
adds what ASGI can't say: write a frame that was encoded once for everyone, know whether the client took it, and drop a
client that takes nothing. So the endpoint runs under uvicorn with the options `WEBSOCKET`, and under nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import WebSocketRoute
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from executor.prices.hub import AuthenticationUnavailable, Refusal
from executor.prices.protocol import MESSAGES_AT_ONCE, CloseCode
from executor.service.rates import client_of
from executor.service.server import StoppableServer
from permits.canonical import INPUT_BYTES_MAX

if TYPE_CHECKING:
    from asyncio.transports import BaseTransport
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import Receive, Scope, Send
    from websockets.frames import Frame

    from executor.prices.hub import Connection, Hub

__all__ = ["WEBSOCKET", "StreamWire", "app_of", "routes", "running", "server_of"]

log = logging.getLogger("executor.prices")

PATH: Final = "/v1/stream"

UNAUTHENTICATED: Final = Refusal(401, "UNAUTHENTICATED", "a valid token or API key is required", 0)
UNAVAILABLE: Final = Refusal(503, "AUTHENTICATION_UNAVAILABLE", "nobody can be let in at the moment")

SEND_BUFFER_BYTES: Final = 16 * 1024
"""What the kernel keeps for a client that doesn't read (Linux doubles it): some hundred ticks, not its default of
megabytes, which would arrive minutes late."""

FRAGMENTS_MAX: Final = 100
"""Pieces of one message. Ours fit one; a proxy may cut them."""

WAITING_MAX: Final = 2 * MESSAGES_AT_ONCE
"""Messages that wait to be looked at: more than a client may send at once would only be refused."""

CLOSE_S_MAX: Final = 10.0
"""How long a client may take to answer a close, and to read what came before it."""


class StreamWire(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection, which hands itself to the endpoint as `scope["state"]["wire"]`."""

    on_lost: Callable[[], None] | None = None
    on_idle: Callable[[], None] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep little for the client: then `resume_writing` means that the kernel has taken everything."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "wire": self}
        self.transport.set_write_buffer_limits(high=0)
        kernel = transport.get_extra_info("socket")
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever counts sockets."""
        super().connection_lost(exc)
        self.on_idle = None
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def handle_ping(self) -> None:
        """Answer the pings of one read; not while the last answers are unread: later ones will do (RFC 6455, 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.is_idle():
            self.transport.write(pong)

    def handle_cont(self, event: Frame) -> None:
        """Go on with a message that comes in pieces, but not in any number of them: an empty one has no size."""
        if len(self.frames) >= FRAGMENTS_MAX:
            self._flooded()
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand a message on, unless too many wait: uvicorn takes all that one read brings.

        Text that is no UTF-8 ends the connection: by uvicorn, too, but with a stack trace in the log for each.
        """
        if self.queue.qsize() >= WAITING_MAX:
            self._flooded()
        elif self.curr_msg_data_type == "text" and not _is_utf8(self.frames):
            self._refuse_message(CloseCode.NOT_UTF8, "not utf-8")
        else:
            super().send_receive_event_to_app()

    def resume_writing(self) -> None:
        """Tell the hub that the client has caught up."""
        super().resume_writing()
        if self.on_idle is not None:
            self.on_idle()

    def write(self, data: bytes) -> None:
        """Write one whole frame or several, as `hub.framed` makes them."""
        if self.conn.state is State.OPEN and not self.transport.is_closing():
            self.transport.write(data)

    def is_idle(self) -> bool:
        """Tell whether the kernel has taken all that was written."""
        return not self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Send the close frame after what was written, and drop the socket after 10 s, whatever the client does."""
        if self.conn.state is State.OPEN and not self.transport.is_closing():
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            if self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
        if self.close_timer is None and not self.disconnected:
            self.close_timer = self.loop.call_later(CLOSE_S_MAX, self.transport.abort)

    def abort(self) -> None:
        """Drop the socket now."""
        self.transport.abort()

    def _flooded(self) -> None:
        self._refuse_message(CloseCode.TOO_FAST, "too fast")

    def _refuse_message(self, code: CloseCode, reason: str) -> None:
        """Drop the message, and close; or abort, where no close can be said since the handshake isn't over."""
        self.frames = []
        if self.conn.state is State.CONNECTING:
            self.abort()
        elif not self.close_sent:
            self.close(code, reason)


def _is_utf8(pieces: list[bytes]) -> bool:
    try:
        b"".join(pieces).decode()
    except UnicodeDecodeError:
        return False
    return True


WEBSOCKET: Final[dict[str, Any]] = {
    "ws": StreamWire,
    "ws_max_size": INPUT_BYTES_MAX,
    "ws_per_message_deflate": False,  # it took four times the memory and six times the time when measured
    "ws_ping_interval": None,  # the protocol has its own pings
}
"""What uvicorn must be told to serve the endpoint."""


class _Endpoint:
    def __init__(self, hub: Hub, trusted_proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._hub = hub
        self._trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire: StreamWire = scope["state"]["wire"]
        if wire.disconnected:
            return
        forwarded_for = Headers(scope=scope).getlist("x-forwarded-for")
        claimed = self._hub.claim(client_of(scope["client"][0], forwarded_for, self._trusted_proxies))
        if isinstance(claimed, Refusal):
            await _refuse(wire, send, claimed)
            return
        wire.on_lost = claimed
        credential = _credential(scope)
        try:
            subject = None if credential is None else await self._hub.authenticator.authenticate(credential)
        except AuthenticationUnavailable as error:
            log.error("nobody can open a price stream: %s", error)  # noqa: TRY400 - one line says it
            await _refuse(wire, send, UNAVAILABLE)
            return
        if credential is None or subject is None:
            await _refuse(wire, send, UNAUTHENTICATED)
            return
        await receive()
        await send({"type": "websocket.accept"})
        connection = self._hub.join(wire, subject, credential)
        if connection is None:
            return
        wire.on_idle = lambda: self._hub.caught_up(connection)
        try:
            await self._listen(connection, receive)
        finally:
            self._hub.leave(connection)

    async def _listen(self, connection: Connection, receive: Receive) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            text = message.get("text")
            self._hub.receive(connection, message["bytes"] if text is None else text)


def routes(hub: Hub, trusted_proxies: Sequence[IPv4Network | IPv6Network] = ()) -> list[WebSocketRoute]:
    """Return the endpoint's route, which must be served while `running(hub)`.

    `trusted_proxies` are believed what they say in `X-Forwarded-For`: connections are counted by address.
    """
    return [WebSocketRoute(PATH, _Endpoint(hub, trusted_proxies))]


@asynccontextmanager
async def running(hub: Hub, *feeds: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `hub`, and each of `feeds`, which publishes to it, on this event loop."""
    tasks = [asyncio.create_task(each()) for each in (hub.run, *feeds)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def app_of(
    hub: Hub,
    *feeds: Callable[[], Coroutine[Any, Any, None]],
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = (),
) -> Starlette:
    """Return an application that serves `hub` alone, `running` it; else as `routes`."""
    return Starlette(routes=routes(hub, trusted_proxies), lifespan=lambda _app: running(hub, *feeds))


def server_of(app: Starlette, started: Callable[[], None] | None = None) -> StoppableServer:
    """Return a server for `app`, which calls `started` when it listens. It logs no requests: they may hold a key."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        use_colors=False,  # asking whether there is a terminal fails where there is no output at all
        access_log=False,
        proxy_headers=False,  # it would believe whoever calls from this host
        server_header=False,
        timeout_graceful_shutdown=int(CLOSE_S_MAX),
        **WEBSOCKET,
    )
    return StoppableServer(config, started)


def _credential(scope: Scope) -> str | None:
    """Return the one credential that was given: a bearer token, `X-API-Key`, or `token` or `api_key` in the query."""
    given = [value for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name in _IN_QUERY]
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name == b"x-api-key":
            given.append(text)
        if name == b"authorization":
            scheme, _, token = text.partition(" ")
            given.append(token.strip() if scheme.lower() == "bearer" else "")
    return given[0] if len(given) == 1 else None


_IN_QUERY: Final = frozenset({"token", "api_key"})


async def _refuse(wire: StreamWire, send: Send, refusal: Refusal) -> None:
    body = f'{{"status":{refusal.status},"code":"{refusal.code}","detail":"{refusal.detail}"}}'.encode()
    headers = [(b"content-type", b"application/problem+json")]
    if refusal.retry_after_s:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    if refusal.status == 401:  # noqa: PLR2004 - RFC 9110, section 15.5.2
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
    wire.handshake_complete = True  # else uvicorn logs each refusal as an endpoint that forgot to answer
