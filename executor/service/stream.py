"""The agent execution stream: `GET /api/agents/stream`, one wallet's events as server-sent events.

A stream's position is a cursor into the ledger, nothing more: a slow client costs no memory, and one that comes back
with its last event's id, here or at another replica, gets exactly what it missed.

At rest a stream is its request's own task, asleep in `receive` until the client leaves, and a timer for the heartbeat.
When there is something to tell, another task comes by on its round.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from executor.errors import LedgerError
from executor.service.chunks import chunk_writer, rolling_hash
from executor.service.pages import begin
from executor.service.problems import Problem
from executor.service.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from executor.service.auth import Caller
    from executor.service.chunks import WriteChunk
    from executor.service.parts import Parts
    from executor.service.tailer import Tailer

__all__ = ["PATH", "StreamEndpoint", "StreamFirst"]

log = logging.getLogger("executor.service")

PATH: Final = "/api/agents/stream"

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
        self._rounds = Rounds()
        self._open: set[_Stream] = set()
        self._closed = False

    def close(self) -> None:
        """End every stream at once, and from now on those that open: clients come back to whoever listens then.

        To be called in the thread of the event loop.
        """
        self._closed = True
        for stream in self._open:
            stream.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        A ledger that can't be read ends the stream, begun or not. It is no error of HTTP's: from one of those a browser
        would never come back.
        """
        request = Request(scope)
        try:
            caller = await self._authentication.stream_caller(request)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        last_event_id = request.headers.get("last-event-id") or request.query_params.get("lastEventId")
        from_start = request.query_params.get("from") == "start"
        del request  # a stream lives for long
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if scope["method"] == "GET" and not self._closed:
                stream = _Stream(self._tailer, self._rounds, caller, send, chunk_writer(scope), self._clock_s)
                self._open.add(stream)
                try:
                    await stream.live(receive, last_event_id, from_start=from_start)
                finally:
                    self._open.discard(stream)
            async with asyncio.timeout(FAREWELL_S_MAX):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:  # a timeout is one: then the server closes a connection whose answer isn't finished
            log.info("a stream of wallet %s ends: its client left, or doesn't read", caller.wallet)


class _Stream:
    """One open stream."""

    __slots__ = (
        "_caller", "_clock_s", "_heartbeat", "_is_behind", "_is_due", "_life", "_loop", "_position", "_rounds", "_send",
        "_sent", "_tail", "_tailer", "_turn", "_unsaid", "_write_chunk", "_writing_since_s",
    )  # fmt: skip

    def __init__(
        self,
        tailer: Tailer,
        rounds: Rounds,
        caller: Caller,
        send: Send,
        write_chunk: WriteChunk,
        clock_s: Callable[[], float],
    ) -> None:
        self._tailer = tailer
        self._rounds = rounds
        self._caller = caller
        self._send = send
        self._sent = 0
        self._write_chunk = write_chunk
        self._clock_s = clock_s
        self._loop = asyncio.get_running_loop()
        self._life = asyncio.timeout(None)
        self._is_due = False
        self._writing_since_s: float | None = None

    async def live(self, receive: Receive, last_event_id: str | None, *, from_start: bool) -> None:
        """Tell the stream until the client leaves, or something ends it."""
        try:
            async with self._life:
                head = await self._tailer.head(self._caller.wallet)
                self._position, self._unsaid = begin(head, last_event_id, from_start=from_start)
                self._tail = self._tailer.join(self._caller.wallet, head, self)
                self._turn, self._is_behind = self._tail.turn, self._position != self._tail.page.upto
                self._heartbeat = self._loop.call_later(HEARTBEAT_S, self._beat)
                try:
                    self.wake()
                    while (await receive())["type"] != "http.disconnect":
                        pass
                finally:
                    self._heartbeat.cancel()
                    self._tailer.leave(self._tail, self)
                    await self._rounds.leave(self)
        except LedgerError as error:
            log.error("a stream of wallet %s can't begin: %s", self._caller.wallet, error)  # noqa: TRY400
        except TimeoutError:
            pass  # `end`: nothing else here has a time limit

    def end(self) -> None:
        """End the stream at once, whatever it does."""
        if self._life.when() is None:
            self._life.reschedule(0)

    def wake(self) -> None:
        """Have told what there is to tell, unless that is under way."""
        if not self._is_due:
            self._is_due = True
            self._rounds.put(self)

    def tell_at_once(self) -> bool:
        """Tell the newest page, if that is all that there is to tell and the client lets nobody wait.

        INVARIANT: it begins where the stream stands, and what was said before has been written. Else events would be
        passed over, or an older id be the last that the client hears. A page that leads nowhere tells nothing: whoever
        is woken all the same must ask the ledger, which may say no.
        """
        page = self._tail.page
        if self._unsaid or self._is_behind or page.more or page.after != self._position or page.upto == self._position:
            return False
        if not self._write_chunk(self._tail.chunk, self._sent):
            return False
        self._position, self._turn, self._is_due = page.upto, self._tail.turn, False
        return True

    async def tell(self) -> None:
        """Tell all that there is to tell: what is unsaid, then page after page."""
        try:
            while True:
                if self._unsaid:
                    body, self._unsaid = self._unsaid, b""
                elif self._is_behind or self._turn != self._tail.turn:
                    self._turn = self._tail.turn
                    page = await self._tailer.page(self._tail, self._position)
                    self._position, self._is_behind, body = page.upto, page.more, page.frames
                else:
                    break
                if body:
                    await self._write(body)
        except LedgerError:  # the tailer has said it, once for all who wanted the page
            self.end()
        except OSError as left:
            log.info("a stream of wallet %s ends: %s", self._caller.wallet, left)
            self.end()
        except Exception:
            log.exception("a stream of wallet %s ends", self._caller.wallet)
            self.end()
        finally:
            self._is_due = False

    async def _write(self, body: bytes) -> None:
        self._writing_since_s = self._loop.time()
        self._sent = rolling_hash(self._sent, body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._writing_since_s = None

    def end_if_late(self, now_s: float) -> None:
        """End the stream if its client has left a write waiting for too long."""
        if self._writing_since_s is not None and now_s - self._writing_since_s > WRITE_S_MAX:
            log.info("a stream of wallet %s ends: its client doesn't read", self._caller.wallet)
            self.end()

    def _beat(self) -> None:
        """Send a heartbeat, in a rhythm of its own however much else is told, or end what may not go on."""
        if self._is_over():
            self.end()
            return
        self._unsaid = self._unsaid or HEARTBEAT
        self.wake()
        self._heartbeat = self._loop.call_later(HEARTBEAT_S, self._beat)

    def _is_over(self) -> bool:
        """Tell whether the token has expired, or nobody knows any more whether the stream is complete."""
        expires_at_s = self._caller.expires_at_s
        if expires_at_s is not None and self._clock_s() >= expires_at_s:
            return True
        return self._loop.time() - self._tailer.looked_at_s > LEDGER_UNSEEN_S_MAX


class StreamFirst:
    """Middleware that hands streams to their endpoint before the router: what stands around one costs it memory."""

    def __init__(self, app: ASGIApp, stream: StreamEndpoint) -> None:
        self._app = app
        self._stream = stream

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request; other methods than GET and HEAD are the router's to refuse."""
        is_stream = (
            scope["type"] == "http"
            and scope["path"] == scope.get("root_path", "") + PATH
            and scope["method"] in {"GET", "HEAD"}
        )
        return (self._stream if is_stream else self._app)(scope, receive, send)
