"""The agent execution stream: `GET /api/agents/stream`, one wallet's events as server-sent events.

A stream's position is a cursor into the ledger, nothing more: a slow client costs no memory, and one that comes back
with its last event's id gets exactly what it missed. Ids are `<epoch>-<seq>`; they rise, with gaps, since not every
entry is an event. A restored ledger gives its stream another epoch, so that an id from before means nothing in it.
After `: heartbeat` every 25 s the connection is known to live.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.requests import Request

from executor.errors import LedgerError, UnknownWallet
from executor.events import event_of
from executor.service.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from executor.ledger import Ledger
    from executor.service.parts import Parts

__all__ = ["StreamEndpoint"]

log = logging.getLogger("executor.service")

HEARTBEAT: Final = b": heartbeat\n\n"
HEARTBEAT_S: Final = 25.0
"""What the source documents ("The server emits an SSE comment heartbeat every 25 seconds")."""

RETRY_MS: Final = 2_000
"""How long a client waits before it comes back."""

ENTRIES_AT_ONCE_MAX: Final = 500

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back
]

_event_id = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})").fullmatch


class Position(NamedTuple):
    """Where a stream stands, which is what an event's id spells."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


class StreamEndpoint:
    """The endpoint, as a bare ASGI application: measured, that is three to five times faster than response classes."""

    def __init__(self, parts: Parts) -> None:
        self._authentication = parts.authentication
        self._ledger: Ledger = parts.guard.guard.ledger
        self._tailer = parts.tailer
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End every open stream; clients come back to whoever listens then."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope)
        wallet = (await self._authentication.stream_caller(request)).wallet
        try:
            position, opening = await self._position(request, wallet)
        except LedgerError as error:
            log.error("a stream of wallet %s can't begin: %s", wallet, error)  # noqa: TRY400 - one line says it
            raise Problem(503, "LEDGER_UNAVAILABLE", "the ledger can't be read") from None
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await _write(send, opening)
        ended = [asyncio.create_task(_disconnected(receive)), asyncio.create_task(self._closing.wait())]
        following = asyncio.create_task(self._follow(wallet, position, send))
        try:
            await asyncio.wait([*ended, following], return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                log.error("a stream of wallet %s ends: %s", wallet, following.exception())
        finally:
            for task in (*ended, following):
                task.cancel()
            await asyncio.gather(*ended, following, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _position(self, request: Request, wallet: str) -> tuple[Position, bytes]:
        """Return the position after which to tell, and the frame that says so.

        An id of this epoch resumes; one of another, after a restore, gets `reset`: reconcile, then go on from here.
        A client without an id starts now, or, with `from=start`, at the beginning.
        """
        told = request.headers.get("last-event-id") or request.query_params.get("lastEventId")
        known = _event_id(told) if told else None
        position = await asyncio.to_thread(self._head, wallet)
        if known and known[1] == position.epoch and int(known[2]) <= position.seq:
            return _opening(position._replace(seq=int(known[2])))
        if not told and request.query_params.get("from") == "start":
            position = position._replace(seq=0)
        return _opening(position, RESET if told else "")

    async def _follow(self, wallet: str, position: Position, send: Send) -> None:
        loop = asyncio.get_running_loop()
        heartbeat_at = loop.time() + HEARTBEAT_S
        while True:
            position, frames = await asyncio.to_thread(self._frames, wallet, position)
            if frames or loop.time() >= heartbeat_at:
                await _write(send, frames or HEARTBEAT)
                heartbeat_at = loop.time() + HEARTBEAT_S
            with suppress(TimeoutError):
                async with asyncio.timeout_at(heartbeat_at):
                    await self._tailer.moved_past(wallet, position.seq)

    def _head(self, wallet: str) -> Position:
        try:
            with self._ledger.view(wallet) as view:
                return Position(view.stream_epoch, view.head.seq)
        except UnknownWallet:
            return Position(self._ledger.stream_epoch, 0)

    def _frames(self, wallet: str, after: Position) -> tuple[Position, bytes]:
        """Return the position read up to above `after`, and the frames of the events up to there.

        If the ledger was restored meanwhile, that is the head's, and the frame is a `reset`.
        """
        try:
            with self._ledger.view(wallet) as view:
                if view.stream_epoch != after.epoch:
                    return _opening(Position(view.stream_epoch, view.head.seq), RESET)
                entries = [sealed.entry for sealed in view.after(after.seq, ENTRIES_AT_ONCE_MAX)]
        except UnknownWallet:
            return after, b""
        events = ((after._replace(seq=entry.seq), event_of(entry)) for entry in entries)
        frames = [event.frame(str(position)) for position, event in events if event is not None]
        return after._replace(seq=entries[-1].seq) if entries else after, b"".join(frames)


RESET: Final = "event: reset\ndata: {}\n"


def _opening(position: Position, reset: str = "") -> tuple[Position, bytes]:
    """Return `position`, and the frame that says where the client stands from now on."""
    return position, f"id: {position}\nretry: {RETRY_MS}\n{reset}\n".encode()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
