"""Runs the application with uvicorn, and adds what uvicorn lacks.

Its streams end when it is asked to stop: uvicorn alone waits for them for ever. A connection on which no head of a
request is complete in time is cut off: uvicorn alone waits for that for ever, too. A signal stops it, and no more than
that.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from executor.service.chunks import WRITE_CHUNK, rolling_hash
from executor.service.fences import HEAD_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from starlette.applications import Starlette

    from executor.service.settings import Settings

__all__ = ["StoppableServer", "bind", "serve", "serving"]

BACKLOG: Final = 2_048
GRACE_S: Final = 10
"""How long what is under way may take when asked to stop; streams end at once."""

UNANSWERED_MS_MAX = 10_000
"""How long a peer may leave what it was sent unacknowledged, or its window shut; then the kernel drops it."""

UNSENT_BYTES_MAX = 16_384
"""What the kernel holds back for a peer that doesn't read: by itself it hides megabytes from every deadline of ours."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port` (0: any free one), taken before anything else is started.

    Its protocol is named: asyncio sets TCP_NODELAY only on connections of sockets that say TCP. Without it an answer's
    body waits until the client's kernel has acknowledged the head, which it puts off for 40 ms.

    Raises:
        OSError: the port is taken; its `filename` is the address.

    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


OTHER_BODIES: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
"""Headers of bodies that aren't what the application wrote, or aren't in chunks. uvicorn says by itself what is."""


class _Connection(h11.Connection):
    """h11's, which keeps what has left of the answer under way."""

    sent: int | None = None
    """The `rolling_hash` of its body; None: there is none, or nothing may be written beside it."""

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override] # one way for all that it is overloaded for
        written = super().send(event)
        if type(event) is h11.Data:
            self.sent = None if self.sent is None else rolling_hash(self.sent, event.data)
        elif type(event) is h11.Response and OTHER_BODIES.isdisjoint(name for name, _ in event.headers):
            self.sent = 0
        else:
            self.sent = None
        return written


class _Deadlined(H11Protocol):
    """uvicorn's connection, with a deadline for each head, and a way past h11 for chunks that are ready."""

    conn: _Connection
    header_deadline_s: int
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **named)
        self.conn = _Connection(h11.SERVER, HEAD_BYTES_MAX)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.app_state = {**self.app_state, WRITE_CHUNK: self.write_chunk}
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def write_chunk(self, chunk: bytes, sent: int) -> bool:
        """Write `chunk` as it is, if the kernel has taken all that was written before, and that is `sent`; or don't."""
        if self.conn.sent != sent or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return False
        self.transport.write(chunk)
        return True

    def send_400_response(self, msg: str) -> None:
        """Say so where an answer can still be given; uvicorn alone would raise where one was begun."""
        if self.conn.our_state is h11.IDLE:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _watch(self) -> None:
        """Start the time of a head that has begun, which no later byte starts anew; end it once it is complete.

        What comes after the answer has the same time: closing at once would take the answer from whoever still sends.
        """
        answered = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        if self.conn.their_state is not h11.IDLE and not answered:
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_deadline_s, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class StoppableServer(uvicorn.Server):
    """uvicorn's server, which SIGTERM or SIGINT stops; then `serve` returns, and its caller closes what else is open.

    uvicorn raises the signal again once it has stopped. To close anything then takes a handler that raises, and what
    raises anywhere may do so where a lock was just taken, which is never given back.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], None] | None = None) -> None:
        """Serve as `config` says; `started` is called once, when it listens and a signal would stop it."""
        super().__init__(config)
        self._tell_started = started

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until it is told to stop; whatever else ends it, it no longer listens when that gets out."""
        try:
            await super().serve(sockets)
        except BaseException:
            if self.started:
                self._cut_off()
                await self.shutdown(sockets)
            raise

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have signals stop this server, with all others that serve meanwhile. Off the main thread, nobody is told."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        with _SIGNALS.telling(lambda: loop.call_soon_threadsafe(self._stop)):
            yield

    def _stop(self) -> None:
        """Stop, and wait for what is under way; at the second time, cut it off."""
        if self.should_exit:
            self._cut_off()
        self.should_exit = True

    def _cut_off(self) -> None:
        self.force_exit = True
        for each in list(self.server_state.connections):
            each.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self._tell_started is not None:
            self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to listen, and end the application, which uvicorn leaves as it is if it doesn't wait."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


class _Signals:
    """Tells of SIGTERM and SIGINT whoever wants to be told; while nobody does, they are the program's own."""

    def __init__(self) -> None:
        self._told: list[Callable[[], object]] = []
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def telling(self, stop: Callable[[], object]) -> Iterator[None]:
        if not self._told:
            self._before = {each: signal.signal(each, self._tell) for each in (signal.SIGTERM, signal.SIGINT)}
        self._told.append(stop)
        try:
            yield
        finally:
            self._told.remove(stop)
            if not self._told:
                for each, handler in self._before.items():
                    signal.signal(each, handler)

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        for stop in self._told:
            stop()


_SIGNALS: Final = _Signals()


class _Server(StoppableServer):
    def __init__(
        self,
        app: Starlette,
        started: Callable[[], None] | None = None,
        **websocket: Any,  # noqa: ANN401 - uvicorn's options
    ) -> None:
        settings = cast("Settings", app.state.settings)
        config = uvicorn.Config(
            app,
            http=type("Deadlined", (_Deadlined,), {"header_deadline_s": settings.header_deadline_s}),
            log_level="warning",
            use_colors=False,  # asking whether there is a terminal fails where there is no output at all
            access_log=False,  # it would write tickets down
            proxy_headers=False,  # it would believe whoever calls from this host: see `trusted_proxies`
            server_header=False,
            limit_concurrency=settings.connections_max,
            timeout_graceful_shutdown=GRACE_S,
            **websocket,
        )
        super().__init__(config, started)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.close_streams()
        await super().shutdown(sockets)


def serve(app: Starlette, bound: socket.socket, **websocket: Any) -> None:  # noqa: ANN401 - uvicorn's options
    """Serve `app`, made by `create_app`, on a socket from `bind`, until SIGTERM or SIGINT.

    With a price stream, `websocket` must be `executor.prices.socket.WEBSOCKET`.
    """
    asyncio.run(serving(app, bound, **websocket))


async def serving(
    app: Starlette,
    bound: socket.socket,
    *,
    started: Callable[[], None] | None = None,
    **websocket: Any,  # noqa: ANN401 - uvicorn's options
) -> None:
    """Serve as `serve` does, on the running event loop; `started` is called when it listens and would stop."""
    await _Server(app, started, **websocket).serve(sockets=[bound])
