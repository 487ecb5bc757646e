"""A server of the price stream for tests: the protocol's own server end, on a port of loopback, in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Self

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from executor.prices.protocol import Failure, ServerSession, Tier

PRO = Tier("pro", 5, 100)


class TestHub:
    """`sessions` are the open connections' server ends, oldest first."""

    __test__ = False

    def __init__(self, tier: Tier = PRO, tokens: tuple[str, ...] = ("key",)) -> None:
        self.tier = tier
        self.tokens = set(tokens)
        self.seen: list[str] = []
        self.received: list[str] = []
        self.is_mute = False
        self.port = 0
        self._open: dict = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    @property
    def sessions(self) -> list[ServerSession]:
        return list(self._open.values())

    @property
    def subscribed(self) -> list[set[str]]:
        return [set(session.subscribed) for session in self.sessions]

    def publish(self, frame) -> None:
        """Send a tick or a bar to who wants it."""

        def write() -> None:
            for socket, session in self._open.items():
                if frame.symbol in session.subscribed:
                    self._loop.create_task(self._send(socket, frame.encode()))

        self._loop.call_soon_threadsafe(write)

    def close(self, code: int) -> None:
        """Close every connection with `code`."""
        self._loop.call_soon_threadsafe(lambda: [self._loop.create_task(each.close(code)) for each in self._open])

    async def _send(self, socket, text) -> None:
        with suppress(ConnectionClosed):
            await socket.send(text)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._attend, "127.0.0.1", 0, process_request=self._admit, close_timeout=1, ping_interval=None
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    def _admit(self, socket, request):
        self.seen.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        return None if self.seen[-1] in self.tokens else socket.respond(401, "no\n")

    async def _attend(self, socket) -> None:
        if len(self._open) >= self.tier.connections_max:
            await socket.send(Failure("symbol_limit", "Tier cap reached").encode())
            await socket.close(4409)
            return
        session = ServerSession(self.tier, now_ms=self._now_ms())
        if not self.is_mute:
            await socket.send(session.greeting().send[0])
        self._open[socket] = session
        try:
            async for message in socket:
                self.received.append(message)
                step = session.receive(message, self._now_ms())
                for text in step.send:
                    await socket.send(text)
                if step.close is not None:
                    await socket.close(step.close)
        except ConnectionClosed:
            pass
        finally:
            del self._open[socket]

    def _now_ms(self) -> int:
        return time.time_ns() // 1_000_000
