"""Connections that carry together what is wanted: as many as it takes, and the tier allows.

What is wanted is told anew to each connection, and spread where it doesn't fit one. The frames and each connection's
state are `executor.prices.protocol`'s, coming back is `executor.prices.connection`'s. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from websockets.exceptions import ConnectionClosed

from executor.prices.connection import send
from executor.prices.protocol import Bar, ClientSession, Failure, Hello, Step, Tick

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from websockets.asyncio.client import ClientConnection

    Attend = Callable[[ClientConnection, Callable[[], None]], Awaitable[None]]

__all__ = ["DoesNotFit", "Fleet", "StreamError", "spread"]

log = logging.getLogger("executor.prices")


class StreamError(Exception):
    """The server told an error before it closed a connection. The stream goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the server says `{code}`: {message}")
        self.code = code


class DoesNotFit(Exception):
    """More is wanted than the tier allows on all its connections: `symbols` are left out. The stream goes on."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        super().__init__(f"{len(symbols)} symbols don't fit the tier: {', '.join(symbols[:10])}")
        self.symbols = symbols


class Spread(NamedTuple):
    """Which connection carries what."""

    connections: list[tuple[str, ...]]
    left_out: tuple[str, ...]


def spread(wanted: Sequence[str], before: Sequence[Sequence[str]], assets_max: int, connections_max: int) -> Spread:
    """Divide `wanted` over connections. What has its place in one of those of `before` keeps it, if there is room.

    >>> spread(["SOL", "BTC", "JTO"], [["BTC"]], assets_max=1, connections_max=2)
    Spread(connections=[('BTC',), ('SOL',)], left_out=('JTO',))
    """
    missing = dict.fromkeys(wanted)
    connections: list[list[str]] = []
    for each in before[:connections_max]:
        kept = [symbol for symbol in each if symbol in missing][:assets_max]
        for symbol in kept:
            del missing[symbol]
        connections.append(kept)
    left_out: list[str] = []
    for symbol in missing:
        place = next((each for each in connections if len(each) < assets_max), None)
        if place is None and len(connections) < connections_max:
            connections.append(place := [])
        (left_out if place is None else place).append(symbol)
    while len(connections) > 1 and not connections[-1]:
        connections.pop()
    return Spread([tuple(each) for each in connections], tuple(left_out))


class Fleet:
    """The connections of one run, and what each carries."""

    def __init__(
        self,
        wanted: Callable[[], tuple[str, ...]],
        stay: Callable[[Attend], Coroutine[Any, Any, None]],
        take: Callable[[Tick | Bar], None],
        report: Callable[[Exception], None],
        harmless: Callable[[object], str],
    ) -> None:
        """Make a fleet; nothing is connected yet.

        Args:
            wanted: returns what is wanted, the most important first.
            stay: keeps up one connection, which it has its argument attend to (`connection.stay_connected`).
            take: gets each price and bar.
            report: gets each `StreamError` and `DoesNotFit`.
            harmless: returns what the server says as a line without what was sent to it in confidence.

        """
        self.changed = asyncio.Event()
        """To be set when something else is wanted."""
        self.left_out: tuple[str, ...] = ()
        """What is wanted and doesn't fit the tier."""
        self.stay: Final = stay
        self.take: Final = take
        self.report: Final = report
        self.harmless: Final = harmless
        self._wanted = wanted
        self._lines: list[_Line] = []
        self._hello: Hello | None = None

    async def run(self) -> None:
        """Keep the connections that what is wanted needs, until canceled or refused."""
        waiting = asyncio.create_task(self.changed.wait())
        try:
            while True:
                self._arrange()
                done, _ = await asyncio.wait(
                    {waiting, *(line.task for line in self._lines)}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done - {waiting}:
                    task.result()  # a connection only ends by being refused
                if waiting.done():
                    self.changed.clear()
                    waiting = asyncio.create_task(self.changed.wait())
        finally:
            tasks = [waiting, *(line.task for line in self._lines)]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def greeted(self, hello: Hello) -> None:
        """Learn what the tier allows."""
        self._hello = hello
        self.changed.set()

    def _arrange(self) -> None:
        """Give each connection what it carries; open and end connections as that needs."""
        wanted = self._wanted()
        if self._hello is None:
            plan = Spread([wanted], ())
        else:
            before = [line.session.wanted for line in self._lines]
            plan = spread(wanted, before, self._hello.assets_max, self._hello.connections_max)
        if plan.left_out != self.left_out:
            self.left_out = plan.left_out
            if plan.left_out:
                error = DoesNotFit(plan.left_out)
                log.error("%s", error)
                self.report(error)
        for line in self._lines[len(plan.connections) :]:
            line.task.cancel()
        del self._lines[len(plan.connections) :]
        for number, symbols in enumerate(plan.connections):
            if number == len(self._lines):
                self._lines.append(_Line(self))
            self._lines[number].want(symbols)


class _Line:
    """One connection that comes back."""

    def __init__(self, fleet: Fleet) -> None:
        self.session: Final = ClientSession()
        self._fleet = fleet
        self._changed = asyncio.Event()
        self.task: Final = asyncio.create_task(fleet.stay(self._attend))

    def want(self, symbols: Iterable[str]) -> None:
        self.session.want(symbols)
        self._changed.set()

    async def _attend(self, socket: ClientConnection, good: Callable[[], None]) -> None:
        self.session.connected(_now_ms())
        keeping = asyncio.create_task(self._keep(socket))
        try:
            async for message in socket:
                told, step = self.session.receive(message, _now_ms())
                await _do(socket, step)
                if step.close is None and not isinstance(told, Hello | Failure):
                    good()
                self._take(told)
        except ConnectionClosed as error:
            log.info("the connection ended: %s", self._fleet.harmless(error))
        finally:
            self.session.disconnected()
            keeping.cancel()
            await asyncio.wait([keeping])
            if not keeping.cancelled() and (failed := keeping.exception()) is not None:
                log.info("the connection ended: %s", repr(failed))

    def _take(self, told: Hello | Tick | Bar | Failure | None) -> None:
        match told:
            case Hello():
                self._fleet.greeted(told)
                self._changed.set()
            case Failure(code, message):
                error = StreamError(self._fleet.harmless(code), self._fleet.harmless(message))
                log.warning("%s", error)
                self._fleet.report(error)
            case Tick() | Bar():
                self._fleet.take(told)

    async def _keep(self, socket: ClientConnection) -> None:
        """Tell the server what changed, and give a silent one up: the only place that sends subscriptions."""
        while True:
            self._changed.clear()
            await _do(socket, self.session.due(_now_ms()))
            due_ms = self.session.next_at_ms
            if due_ms is None:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0, due_ms - _now_ms()) / 1_000):
                    await self._changed.wait()


async def _do(socket: ClientConnection, step: Step) -> None:
    for text in step.send:
        await send(socket, text)
    if step.close is not None:
        await socket.close(step.close, step.close.name.lower())


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1_000)
