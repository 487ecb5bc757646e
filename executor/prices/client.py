"""`PriceStream`: the client of `/v1/stream`.

    stream = PriceStream("wss://quotes.example/v1/stream", token)
    stream.subscribe("SOL", "JTO")
    stream.feed(book)

    await stream.connect()  # or `with stream:`, which runs it in a thread

What is wanted is kept here; `executor.prices.fleet` has the connections that carry it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from executor.credentials import TokenUnavailable, credential_of, harmless, secrets_in
from executor.prices.connection import AuthenticationError, Runner, Target, backoff, read_url, stay_connected
from executor.prices.fleet import DoesNotFit, Fleet, StreamError
from executor.prices.handlers import Boxes
from executor.prices.protocol import Bar, ClientSession, Tick

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

    from executor.prices.book import PriceBook
    from executor.prices.fleet import Attend

__all__ = ["AuthenticationError", "DoesNotFit", "PriceStream", "StreamError"]

log = logging.getLogger("executor.prices")

STOP_S_MAX: Final = 10.0
"""How long leaving `with stream:` waits for its thread: longer than handlers may take for what waits."""

Handler = TypeVar("Handler", bound="Callable[..., Any]")


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
                White space around it is dropped.
            delays: returns the seconds to wait before each attempt in a row.

        Raises:
            ValueError: the URL is none of a WebSocket, or the token can't be sent in a header. Neither is repeated.

        """
        self._secrets = ["", *secrets_in(read_url(url).resource_name)]
        """The token that was sent last, and what of the URL may be a key."""
        self._url = url
        self._token = token if callable(token) else credential_of(token, "the token")
        self._delays = delays
        self._lock = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._at_once: list[Callable[[Tick], object]] = []
        self._handlers: list[tuple[type, Callable[..., Any]]] = []
        self._runner = Runner()
        self._fleet: Fleet | None = None
        self._thread: threading.Thread | None = None
        self._loop: tuple[weakref.ref[AsyncIterator[Tick]], asyncio.Task[None]] | None = None
        """The `async for` that runs the stream or did, and its task."""
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

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is wanted and doesn't fit the tier."""
        fleet = self._fleet
        return () if fleet is None else fleet.left_out

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
            RuntimeError: it is running already.

        """
        await self._end_of_left_loop()
        await self._runner.run(self._run)

    def run_forever(self) -> None:
        """Do as `connect`, on a loop of its own: made for a thread. Ctrl-C ends it like `close`."""
        self._runner.run_forever(self._run)

    def close(self) -> None:
        """End for good, from any thread or handler. It doesn't wait for the end."""
        self._runner.close()

    def __enter__(self) -> Self:
        """Run it in a thread. Raises RuntimeError: it was closed, as leaving this block does."""
        if self._runner.is_closed:
            raise RuntimeError("the stream was closed, and that is for good: make another")
        self._thread = threading.Thread(target=self._run_in_thread, name="price stream", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._thread is not None:
            self._thread.join(STOP_S_MAX)

    def __aiter__(self) -> AsyncIterator[Tick]:
        """Run the stream, and yield its prices; of those that come while you are busy, the latest of each symbol.

        Leaving the loop ends the connections, and another loop makes new ones.
        """
        this: list[weakref.ref[AsyncIterator[Tick]]] = []
        loop = self._prices(this)
        this.append(weakref.ref(loop))
        return loop

    async def _prices(self, this: list[weakref.ref[AsyncIterator[Tick]]]) -> AsyncIterator[Tick]:
        await self._end_of_left_loop()
        prices = _Latest()
        self._at_once.append(prices.put)
        running = asyncio.create_task(self._runner.run(self._run))
        self._loop = this[0], running
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

    async def _end_of_left_loop(self) -> None:
        """Wait for the end of a loop that was left: Python only closes it once the event loop comes round."""
        if self._loop is None:
            return
        loop, running = self._loop
        if loop() is None and running.get_loop() is asyncio.get_running_loop():
            running.cancel()
            await asyncio.wait([running])

    def _run_in_thread(self) -> None:
        with suppress(AuthenticationError):  # logged, and kept in `ended_by`
            self.run_forever()

    async def _run(self) -> None:
        self.ended_by = None
        boxes = Boxes()
        errors = [boxes.add(handler) for kind, handler in self._handlers if kind is Exception]

        def report(error: Exception) -> None:
            for box in errors:
                box.put(error)

        served = [(kind, boxes.add(handler, report)) for kind, handler in self._handlers if kind is not Exception]

        def take(told: Tick | Bar) -> None:
            if isinstance(told, Tick):
                for put in self._at_once:
                    put(told)
            for kind, box in served:
                if isinstance(told, kind):
                    box.put(told, latest_of=told.symbol if isinstance(told, Tick) else None)

        def stay(attend: Attend) -> Coroutine[Any, Any, None]:
            return stay_connected(self._dial, attend, delays=self._delays, report=report)

        self._fleet = fleet = Fleet(lambda: self.wanted, stay, take, report, self._harmless)
        try:
            await fleet.run()
        except AuthenticationError as error:
            self.ended_by = error
            log.error("%s", error)  # noqa: TRY400 - the sentence is all there is to say
            report(error)
            await boxes.close()
            raise
        finally:
            await (boxes.close() if self._runner.is_ending else boxes.abandon())

    def _say_changed(self) -> None:
        fleet = self._fleet
        if fleet is not None:
            self._runner.call_soon(fleet.changed.set)

    def _harmless(self, text: object) -> str:
        return harmless(text, self._secrets)

    async def _dial(self) -> Target:
        token = self._token
        if callable(token):
            try:
                found = token() if inspect.iscoroutinefunction(token) else await asyncio.to_thread(token)
                given = await found if inspect.isawaitable(found) else found
            except Exception as error:  # noqa: BLE001 - whatever a program's own code raises
                raise TokenUnavailable.after(error) from None
            token = credential_of(given, "what the token's function returned")
        self._secrets[0] = token
        return Target(self._url, {"Authorization": f"Bearer {token}"}, tuple(self._secrets))


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
