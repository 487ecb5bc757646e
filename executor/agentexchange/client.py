"""`AgentExchangeWS`: the client as TradeReady's page describes it.

It knows which handler wants what. What the messages mean is in `protocol`; coming back after a lost connection and
calling handlers so that none holds up another are the price stream's (`executor.prices.connection` and `handlers`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed

from executor.agentexchange import protocol
from executor.agentexchange.protocol import INTERVALS, PONG, Channel, Data, Problem
from executor.credentials import credential_of, harmless
from executor.errors import ExecutorError
from executor.prices.connection import AuthenticationError, Runner, Target, read_url, send, stay_connected
from executor.prices.handlers import Boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.asyncio.client import ClientConnection

    from executor.prices.handlers import Box

__all__ = ["AgentExchangeWS", "ExchangeError"]

log = logging.getLogger("executor.agentexchange")

ALL: Final = "all"

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403

Handler = TypeVar("Handler", bound="Callable[..., Any]")


class _Wish(NamedTuple):
    channel: Channel
    handler: Callable[..., Any]

    def wants(self, data: Data) -> bool:
        match self.channel:
            case Channel("ticker_all"):
                return data.channel == "ticker"
            case Channel("candles", symbol, interval):
                return data[:3] == ("candles", symbol, interval)
            case Channel("ticker", symbol):
                return data[:2] == ("ticker", symbol)
            case Channel(name):
                return data.channel == name


class ExchangeError(ExecutorError):
    """The server said no to something; the connection goes on."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the server says `{code}`: {message}")
        self.code = code
        self.message = message


class AgentExchangeWS:
    """Real-time events of an AgentExchange, delivered to handlers that are coroutine functions or plain ones.

    Handlers are registered before `connect` or `run_forever`. A handler gets one flat dict. If it falls behind, it gets
    the latest ticker of each symbol; candles, orders and portfolios wait for it in order, and an error is logged should
    more than `executor.prices.handlers.WAITING_MAX` do.
    """

    def __init__(self, api_key: str, base_url: str = "ws://localhost:8000") -> None:
        """Make a client; nothing is connected yet.

        Raises:
            ValueError: the key is empty or can't be one, or the URL is none of a WebSocket. Neither is repeated.

        """
        key = credential_of(api_key, "the API key")
        if read_url(base_url).query:
            raise ValueError("the platform's URL must hold no query")
        in_query = quote(key, safe="")
        self._target = Target(f"{base_url.rstrip('/')}/ws/v1?api_key={in_query}", {}, (key, in_query))
        self._wishes: list[_Wish] = []
        self._error_handlers: list[Callable[[Exception], object]] = []
        self._wanted: dict[Channel, None] = {}
        self._lock = threading.Lock()
        self._runner = Runner()
        self._changed: asyncio.Event | None = None
        self._boxes = Boxes()
        self._has_worked = False
        """Whether the server has taken the key before: then HTTP 403 is its way to say that something broke."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._wanted)} channels)"

    def on_ticker(self, symbol: str) -> Callable[[Handler], Handler]:
        """Call the handler with each price of `symbol`, or of everything: "all".

        Raises:
            ValueError: it is no symbol.

        """
        if symbol == ALL:
            return self._register(Channel("ticker_all"))
        return self._register(Channel("ticker", protocol.symbol_of(symbol)))

    def on_candles(self, symbol: str, interval: str) -> Callable[[Handler], Handler]:
        """Call the handler with each candle of `symbol` that closes. `interval` is 1m, 5m, 15m, 1h, 4h or 1d.

        Raises:
            ValueError: it is no symbol, or another interval.

        """
        if interval not in INTERVALS:
            raise ValueError(f"`{interval}` is none of the intervals {', '.join(INTERVALS)}")
        return self._register(Channel("candles", protocol.symbol_of(symbol), interval))

    def on_order_update(self) -> Callable[[Handler], Handler]:
        """Call the handler with each change of one of your orders."""
        return self._register(Channel("orders"))

    def on_portfolio(self) -> Callable[[Handler], Handler]:
        """Call the handler with each snapshot of your portfolio."""
        return self._register(Channel("portfolio"))

    def on_error(self, handler: Handler | None = None) -> Any:  # noqa: ANN401 - a handler, or what takes one
        """Call `handler` with each error: an `ExchangeError` that the server told, and what else is also logged.

        That is each exception that ended a connection, or that a handler raised or deserves. Both `@ws.on_error` and
        `@ws.on_error()` do.
        """
        if handler is None:
            return self.on_error
        self._error_handlers.append(handler)
        return handler

    def subscribe(self, channel: str) -> None:
        """Want a channel too, from any thread, connected or not. Handlers want theirs already.

        Args:
            channel: `ticker:BTCUSDT`, `ticker:all`, `candles:BTCUSDT:1m`, `orders` or `portfolio`.

        Raises:
            ValueError: there is no such channel.

        """
        self._want(Channel.of(channel))

    def unsubscribe(self, channel: str) -> None:
        """Want a channel no more, from any thread, connected or not. What `ticker:all` brings still comes.

        Raises:
            ValueError: there is no such channel.

        """
        unwanted = Channel.of(channel)
        with self._lock:
            self._wanted = {each: None for each in self._wanted if each != unwanted}
        self._say_changed()

    async def connect(self) -> None:
        """Connect, and come back after every loss of the connection, until `close`.

        Raises:
            AuthenticationError: the key was refused: HTTP 401 or the close code 4401, or 403 before it ever worked.

        """
        await self._runner.run(self._run)

    def run_forever(self) -> None:
        """Do as `connect`, on a loop of its own: made for a thread. Ctrl-C ends it like `close`."""
        self._runner.run_forever(self._run)

    async def disconnect(self) -> None:
        """End what runs, and wait for that; afterwards it may connect again. A handler doesn't wait."""
        stopping = asyncio.ensure_future(self._runner.stop())
        if not self._boxes.serve_this_task():
            await stopping

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.disconnect()

    def close(self) -> None:
        """End for good: from any thread, or from a handler. Handlers may take some seconds more for what waits."""
        self._runner.close()

    def _register(self, channel: Channel) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self._wishes.append(_Wish(channel, handler))
            self._want(channel)
            return handler

        return register

    def _want(self, channel: Channel) -> None:
        with self._lock:
            self._wanted = {**self._wanted, channel: None}
        self._say_changed()

    def _say_changed(self) -> None:
        changed = self._changed
        if changed is not None:
            self._runner.call_soon(changed.set)

    async def _run(self) -> None:
        self._changed, self._boxes = asyncio.Event(), Boxes()
        errors = [self._boxes.add(handler) for handler in self._error_handlers]

        def report(error: Exception) -> None:
            for box in errors:
                box.put(error)

        served = [(wish, self._boxes.add(wish.handler, report)) for wish in self._wishes]

        async def attend(socket: ClientConnection, good: Callable[[], None]) -> None:
            def worked() -> None:
                self._has_worked = True
                good()

            await self._attend(socket, worked, served, report)

        try:
            await stay_connected(self._dial, attend, report=report, is_refused=self._is_refused)
        except AuthenticationError as error:
            report(error)
            await self._boxes.close()
            raise
        finally:
            await (self._boxes.close() if self._runner.is_ending else self._boxes.abandon())

    def _is_refused(self, status: int) -> bool:
        return status == UNAUTHORIZED or (status == FORBIDDEN and not self._has_worked)

    async def _dial(self) -> Target:
        return self._target

    async def _attend(
        self,
        socket: ClientConnection,
        good: Callable[[], None],
        served: list[tuple[_Wish, Box]],
        report: Callable[[Exception], None],
    ) -> None:
        keeping = asyncio.create_task(self._keep(socket))
        try:
            while True:
                async with asyncio.timeout(protocol.QUIET_S_MAX):
                    text = await socket.recv()
                await self._take(socket, text, good, served, report)
        except TimeoutError:
            log.warning("nothing was heard for %s s: connecting again", protocol.QUIET_S_MAX)
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == protocol.UNAUTHORIZED:
                raise AuthenticationError("the server refused the key: 4401") from None
            raise
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)  # what it met, receiving meets too

    async def _keep(self, socket: ClientConnection) -> None:
        """Have the server send what is wanted, and no more, as that changes: the only place that subscribes."""
        asked: list[Channel] = []
        changed = self._changed
        while changed is not None:
            changed.clear()
            wanted = _channels(self._wanted)
            for channel in asked:
                if channel not in wanted:
                    await send(socket, channel.unsubscribe())
            for channel in wanted:
                if channel not in asked:
                    await send(socket, channel.subscribe())
            asked = wanted
            await changed.wait()

    async def _take(
        self,
        socket: ClientConnection,
        text: str | bytes,
        good: Callable[[], None],
        served: list[tuple[_Wish, Box]],
        report: Callable[[Exception], None],
    ) -> None:
        try:
            said = protocol.read(text)
        except ValueError as error:
            log.warning("a message was passed over: %s", self._harmless(error))
            return
        match said:
            case "ping":
                await send(socket, PONG)
            case "subscribed":
                good()
            case Problem(code, message):
                problem = ExchangeError(self._harmless(code), self._harmless(message))
                log.warning("%s", problem)
                report(problem)
            case Data():
                good()
                for wish, box in served:
                    if wish.wants(said):
                        box.put(dict(said.fields), latest_of=said.symbol if said.channel == "ticker" else None)

    def _harmless(self, text: object) -> str:
        return harmless(text, self._target.secrets)


def _channels(wanted: Iterable[Channel]) -> list[Channel]:
    """Return what to subscribe to, each once, fills first: the server takes ten.

    "all" brings every symbol: with both, each price would come twice.
    """
    channels = sorted(dict.fromkeys(wanted), key=lambda each: each.name not in {"orders", "portfolio"})
    has_all = Channel("ticker_all") in channels
    return [channel for channel in channels if not (has_all and channel.name == "ticker")]
