"""`PriceStream`: the client of `/v1/stream`.

    stream = PriceStream("wss://quotes.example/v1/stream", token)
    stream.subscribe("SOL", "JTO")
    stream.feed(book)

    await stream.connect()  # or `with stream:`, which runs it in a thread

What is wanted is kept here, and told anew to each connection; where it doesn't fit one, it is spread over as many as
the tier allows. The frames and each connection's state are `executor.prices.protocol`'s.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from websockets.exceptions import ConnectionClosed
from websockets.uri import parse_uri

from executor.prices.connection import AuthenticationError, Runner, Target, backoff, send, stay_connected
from executor.prices.handlers import Box, Boxes
from executor.prices.protocol import Bar, ClientSession, Failure, Hello, Step, Tick

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from websockets.asyncio.client import ClientConnection

    from executor.prices.book import PriceBook

__all__ = ["AuthenticationError", "DoesNotFit", "PriceStream", "StreamError", "spread"]

log = logging.getLogger("executor.prices")

STOP_S_MAX: Final = 10.0
"""How long leaving `with stream:` waits for its thread: longer than handlers may take for what waits."""

Handler = TypeVar("Handler", bound="Callable[..., Any]")


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


class PriceStream:
    """Prices and bars of what is wanted, over as many connections as it takes, until closed.

    A handler that falls behind gets the latest price of each symbol; bars and errors wait for it in order.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str] | Callable[[], Awaitable[str]],
        *,
        delays: Callable[[], Iterator[float]] = lambda: backoff(random.random),
    ) -> None:
        """Make a stream; nothing is connected yet.

        Args:
            url: of the endpoint, ws or wss.
            token: a JWT or API key; or what returns one, asked before each connection, so that none is expired.
            delays: returns the seconds to wait before each attempt in a row.

        Raises:
            ValueError: the URL is none of a WebSocket.

        """
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"`{url}` doesn't start with ws:// or wss://")
        parse_uri(url)
        self._url = url
        self._token = token
        self._delays = delays
        self._lock = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._at_once: list[Callable[[Tick], object]] = []
        self._handlers: list[tuple[type, Callable[..., Any]]] = []
        self._runner = Runner()
        self._changed: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.left_out: tuple[str, ...] = ()
        """What is wanted and doesn't fit the tier."""
        self.ended_by: AuthenticationError | None = None
        """Why the stream ended, if not by `close`."""

    # What is wanted, and by whom.

    def subscribe(self, *symbols: str) -> None:
        """Want these too, from any thread, connected or not.

        Raises:
            ValueError: one of them is no symbol; nothing changed.

        """
        ClientSession(symbols)
        with self._lock:
            self._wanted = {**self._wanted, **dict.fromkeys(symbols)}
        self._say_changed()

    def unsubscribe(self, *symbols: str) -> None:
        """Want these no more, from any thread, connected or not."""
        with self._lock:
            self._wanted = {symbol: None for symbol in self._wanted if symbol not in symbols}
        self._say_changed()

    @property
    def wanted(self) -> tuple[str, ...]:
        """All that is wanted."""
        return tuple(self._wanted)

    def feed(self, book: PriceBook) -> None:
        """Put every price into `book` as it comes, before any handler sees it."""
        self._at_once.append(book.put)

    def on_price(self, handler: Handler) -> Handler:
        """Call `handler` with each `Tick`. Register it before the stream runs."""
        self._handlers.append((Tick, handler))
        return handler

    def on_bar(self, handler: Handler) -> Handler:
        """Call `handler` with each `Bar`. Register it before the stream runs."""
        self._handlers.append((Bar, handler))
        return handler

    def on_error(self, handler: Handler) -> Handler:
        """Call `handler` with each exception that ended a connection, or that a handler raised or deserves."""
        self._handlers.append((Exception, handler))
        return handler

    # Running it.

    async def connect(self) -> None:
        """Connect, and come back after every loss of a connection, until `close`.

        Raises:
            AuthenticationError: the key or token was refused.

        """
        await self._runner.run(self._run)

    def run_forever(self) -> None:
        """Do as `connect`, on a loop of its own: made for a thread. Ctrl-C ends it like `close`."""
        self._runner.run_forever(self._run)

    def close(self) -> None:
        """End for good, from any thread or handler. It doesn't wait for the end."""
        self._runner.close()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run_in_thread, name="price stream", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._thread is not None:
            self._thread.join(STOP_S_MAX)

    async def __aiter__(self) -> AsyncIterator[Tick]:
        """Run the stream, and yield its prices; of those that come while you are busy, the latest of each symbol."""
        prices = _Latest()
        self._at_once.append(prices.put)
        running = asyncio.create_task(self.connect())
        running.add_done_callback(lambda _: prices.changed.set())
        try:
            while prices.waiting or not running.done():
                while prices.waiting:
                    yield prices.take()
                prices.changed.clear()
                if not running.done():
                    await prices.changed.wait()
            running.result()
        finally:
            self._at_once.remove(prices.put)
            if not running.done():
                running.cancel()
                await asyncio.wait([running])

    def _run_in_thread(self) -> None:
        with suppress(AuthenticationError):  # logged, and kept in `ended_by`
            self.run_forever()

    async def _run(self) -> None:
        self._changed = changed = asyncio.Event()
        boxes = Boxes()
        errors = [boxes.add(handler) for kind, handler in self._handlers if kind is Exception]

        def report(error: Exception) -> None:
            for box in errors:
                box.put(error)

        served = [(kind, boxes.add(handler, report)) for kind, handler in self._handlers if kind is not Exception]
        fleet = _Fleet(self, served, report, changed)
        try:
            await fleet.run()
        except AuthenticationError as error:
            self.ended_by = error
            log.error("%s", error)  # noqa: TRY400 - the sentence is all there is to say
            report(error)
            await boxes.close()
            raise
        finally:
            self._changed = None
            await (boxes.close() if self._runner.is_closed else boxes.abandon())

    def _say_changed(self) -> None:
        changed = self._changed
        if changed is not None:
            self._runner.call_soon(changed.set)

    async def _dial(self) -> Target:
        token = self._token
        if callable(token):
            found = token() if inspect.iscoroutinefunction(token) else await asyncio.to_thread(token)
            token = str(await found if inspect.isawaitable(found) else found)
        return Target(self._url, {"Authorization": f"Bearer {token}"})


class _Latest:
    """Prices that wait for an `async for`."""

    def __init__(self) -> None:
        self.waiting: dict[str, Tick] = {}
        self.changed = asyncio.Event()

    def put(self, tick: Tick) -> None:
        self.waiting[tick.symbol] = tick
        self.changed.set()

    def take(self) -> Tick:
        return self.waiting.pop(next(iter(self.waiting)))


class _Fleet:
    """The connections of one run, and what each carries. All on one loop."""

    def __init__(
        self,
        stream: PriceStream,
        served: list[tuple[type, Box]],
        report: Callable[[Exception], None],
        changed: asyncio.Event,
    ) -> None:
        self._stream = stream
        self._changed = changed
        self._served = served
        self._report = report
        self._lines: list[_Line] = []
        self._hello: Hello | None = None

    async def run(self) -> None:
        """Keep the connections that what is wanted needs, until canceled or refused."""
        waiting = asyncio.create_task(self._changed.wait())
        try:
            while True:
                self.arrange()
                done, _ = await asyncio.wait(
                    {waiting, *(line.task for line in self._lines)}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done - {waiting}:
                    task.result()  # a connection only ends by being refused
                if waiting.done():
                    self._changed.clear()
                    waiting = asyncio.create_task(self._changed.wait())
        finally:
            tasks = [waiting, *(line.task for line in self._lines)]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def greeted(self, hello: Hello) -> None:
        """Learn what the tier allows."""
        self._hello = hello
        self._changed.set()

    def arrange(self) -> None:
        """Give each connection what it carries; open and end connections as that needs."""
        wanted = self._stream.wanted
        if self._hello is None:
            plan = Spread([wanted], ())
        else:
            before = [line.session.wanted for line in self._lines]
            plan = spread(wanted, before, self._hello.assets_max, self._hello.connections_max)
        if plan.left_out != self._stream.left_out:
            self._stream.left_out = plan.left_out
            if plan.left_out:
                error = DoesNotFit(plan.left_out)
                log.error("%s", error)
                self._report(error)
        for line in self._lines[len(plan.connections) :]:
            line.task.cancel()
        del self._lines[len(plan.connections) :]
        for number, symbols in enumerate(plan.connections):
            if number == len(self._lines):
                self._lines.append(_Line(self, self._stream, self._report))
            self._lines[number].want(symbols)

    def tell(self, told: Tick | Bar) -> None:
        """Hand on what a connection told."""
        if isinstance(told, Tick):
            for take in self._stream._at_once:  # noqa: SLF001 - one idea, two classes
                take(told)
        for kind, box in self._served:
            if isinstance(told, kind):
                box.put(told, latest_of=told.symbol if isinstance(told, Tick) else None)


class _Line:
    """One connection that comes back."""

    def __init__(self, fleet: _Fleet, stream: PriceStream, report: Callable[[Exception], None]) -> None:
        self.session: Final = ClientSession()
        self._fleet = fleet
        self._report = report
        self._changed = asyncio.Event()
        self.task: Final = asyncio.create_task(
            stay_connected(stream._dial, self._attend, delays=stream._delays, report=report)  # noqa: SLF001
        )

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
            log.info("the connection ended: %s", error)
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
                error = StreamError(code, message)
                log.warning("%s", error)
                self._report(error)
            case Tick() | Bar():
                self._fleet.tell(told)

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
