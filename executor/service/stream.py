"""The agent execution stream: `GET /api/agents/stream`, one wallet's events as server-sent events.

A stream's position is a cursor into the ledger, nothing more: a slow client costs no memory, and one that comes back
with its last event's id, here or at another replica, gets exactly what it missed.

One task serves a stream, the request's own. It sleeps in `receive`, which returns when the client leaves, under an
alarm that goes off at the next heartbeat, or before: when its wallet's tail moves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.requests import Request

from executor.errors import LedgerError
from executor.service.pages import begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from executor.service.auth import Caller
    from executor.service.parts import Parts
    from executor.service.tailer import Tail

__all__ = ["StreamEndpoint"]

log = logging.getLogger("executor.service")

HEARTBEAT: Final = b": heartbeat\n\n"
HEARTBEAT_S: Final = 25.0
"""What the source documents ("The server emits an SSE comment heartbeat every 25 seconds")."""

LEDGER_UNSEEN_S_MAX: Final = 25.0
"""A heartbeat says that nothing was missed: not after the ledger has been silent for as long as that."""

WRITE_S_MAX: Final = 10.0
"""How long a client may leave a write waiting; then it is dropped, and comes back if it lives."""

FAREWELL_S_MAX: Final = 1.0
"""The same for the last write of a stream that ends: nobody waits for a client that doesn't read."""

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]


class StreamEndpoint:
    """The endpoint, as a bare ASGI application: measured, that is three to five times faster than response classes."""

    def __init__(self, parts: Parts, *, clock_s: Callable[[], float] = time.time) -> None:
        """Serve `parts.guard`'s ledger; `clock_s` tells Unix seconds, against which tokens expire."""
        self._authentication = parts.authentication
        self._tailer = parts.tailer
        self._clock_s = clock_s
        self._lives: set[asyncio.Timeout] = set()
        self._closed = False

    def close(self) -> None:
        """End every stream at once, and from now on those that open: clients come back to whoever listens then."""
        self._closed = True
        for life in self._lives:
            if not life.expired():
                life.reschedule(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        A ledger that can't be read ends the stream, begun or not. It is no error of HTTP's: from one of those a browser
        would never come back.
        """
        request = Request(scope)
        caller = await self._authentication.stream_caller(request)
        asked = _Asked(
            last_event_id=request.headers.get("last-event-id") or request.query_params.get("lastEventId"),
            from_start=request.query_params.get("from") == "start",
        )
        del request  # a stream lives for long
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if scope["method"] == "GET":
                await self._live(caller, asked, receive, send)
            async with asyncio.timeout(FAREWELL_S_MAX):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:  # a timeout is one: then the server closes a connection whose answer isn't finished
            log.info("a stream of wallet %s ends: its client left, or doesn't read", caller.wallet)

    async def _live(self, caller: Caller, asked: _Asked, receive: Receive, send: Send) -> None:
        """Tell the stream until it is over, or `close`. Raises OSError if the client left, or doesn't read."""
        life = asyncio.timeout(0 if self._closed else None)
        try:
            async with life:
                self._lives.add(life)
                await self._tell(caller, asked, receive, send)
        except LedgerError as error:
            log.error("a stream of wallet %s ends: %s", caller.wallet, error)  # noqa: TRY400 - one line says it
        except TimeoutError:
            if not life.expired():
                raise
        finally:
            self._lives.discard(life)

    async def _tell(self, caller: Caller, asked: _Asked, receive: Receive, send: Send) -> None:
        head = await self._tailer.head(caller.wallet)
        position, opening = begin(head, asked.last_event_id, from_start=asked.from_start)
        await _write(send, opening)
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + HEARTBEAT_S
        tail = self._tailer.join(caller.wallet, head)
        try:
            turn, is_behind = tail.turn, position != tail.page.upto
            while await _stays(receive, tail, 0 if is_behind or turn != tail.turn else heartbeat_at):
                if loop.time() >= heartbeat_at:
                    if self._is_over(caller):
                        return
                    await _write(send, HEARTBEAT)
                    heartbeat_at = loop.time() + HEARTBEAT_S
                if is_behind or turn != tail.turn:
                    turn = tail.turn
                    page = await self._tailer.page(tail, position)
                    if page.frames:
                        await _write(send, page.frames)
                    position, is_behind = page.upto, page.more
        finally:
            self._tailer.leave(tail)

    def _is_over(self, caller: Caller) -> bool:
        """Tell whether a stream may no longer go on: its token has expired, or nobody knows whether it is complete."""
        if caller.expires_at_s is not None and self._clock_s() >= caller.expires_at_s:
            return True
        return asyncio.get_running_loop().time() - self._tailer.looked_at_s > LEDGER_UNSEEN_S_MAX


class _Asked(NamedTuple):
    """Where the client wants to begin."""

    last_event_id: str | None
    from_start: bool


async def _stays(receive: Receive, tail: Tail, until: float) -> bool:
    """Sleep until the tail moves, or the loop's time is `until`; return whether the client is still there."""
    alarm = asyncio.timeout_at(until)
    try:
        async with alarm:
            tail.alarms.add(alarm)
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return True
    finally:
        tail.alarms.discard(alarm)
    return False


async def _write(send: Send, body: bytes) -> None:
    """Send `body`. Raises OSError if the client doesn't take it in time, or, as some servers tell, has left."""
    async with asyncio.timeout(WRITE_S_MAX):
        await send({"type": "http.response.body", "body": body, "more_body": True})
