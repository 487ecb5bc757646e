"""`AgentExchangeWS`: the client as TradeReady's page describes it.

It knows which handler wants what. What the messages mean is in `protocol`; coming back after a lost connection and
calling handlers so that none holds up another are the price stream's (`executor.prices.connection` and `handlers`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed

from executor.agentexchange import protocol
from executor.agentexchange.protocol import INTERVALS, PONG, Channel, Data, Problem
from executor.credentials import credential_of, harmless
from executor.prices.connection import AuthenticationError, Runner, Target, read_url, send, stay_connected
from executor.prices.handlers import Boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from websockets.asyncio.client import ClientConnection

    from executor.prices.handlers import Box

__all__ = ["AgentExchangeWS"]

log = logging.getLogger("executor.agentexchange")

ALL: Final = "all"

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
        self._runner = Runner()

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

    async def connect(self) -> None:
        """Connect, and come back after every loss of the connection, until `close`.

        Raises:
            AuthenticationError: the key was refused.

        """
        await self._runner.run(self._run)

    def run_forever(self) -> None:
        """Do as `connect`, on a loop of its own: made for a thread. Ctrl-C ends it like `close`."""
        self._runner.run_forever(self._run)

    def close(self) -> None:
        """End for good: from any thread, or from a handler. Handlers may take some seconds more for what waits."""
        self._runner.close()

    def _register(self, channel: Channel) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            self._wishes.append(_Wish(channel, handler))
            return handler

        return register

    async def _run(self) -> None:
        boxes = Boxes()
        served = [(wish, boxes.add(wish.handler)) for wish in self._wishes]

        async def attend(socket: ClientConnection, good: Callable[[], None]) -> None:
            await self._attend(socket, good, served)

        try:
            await stay_connected(self._dial, attend)
        finally:
            if self._runner.is_closed:
                await boxes.close()
            else:
                await boxes.abandon()

    async def _dial(self) -> Target:
        return self._target

    async def _attend(
        self, socket: ClientConnection, good: Callable[[], None], served: list[tuple[_Wish, Box]]
    ) -> None:
        for channel in _channels(wish.channel for wish, _ in served):
            await send(socket, channel.subscribe())
        try:
            while True:
                async with asyncio.timeout(protocol.QUIET_S_MAX):
                    text = await socket.recv()
                await self._take(socket, text, good, served)
        except TimeoutError:
            log.warning("nothing was heard for %s s: connecting again", protocol.QUIET_S_MAX)
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == protocol.UNAUTHORIZED:
                raise AuthenticationError("the server refused the key: 4401") from None
            raise

    async def _take(
        self, socket: ClientConnection, text: str | bytes, good: Callable[[], None], served: list[tuple[_Wish, Box]]
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
                log.warning("the server says `%s`: %s", self._harmless(code), self._harmless(message))
            case Data():
                good()
                for wish, box in served:
                    if wish.wants(said):
                        box.put(dict(said.fields), latest_of=said.symbol if said.channel == "ticker" else None)

    def _harmless(self, text: object) -> str:
        return harmless(text, self._target.secrets)


def _channels(wanted: Iterable[Channel]) -> list[Channel]:
    """Return what to subscribe to, each once. "all" brings every symbol: with both, each price would come twice."""
    channels = list(dict.fromkeys(wanted))
    has_all = Channel("ticker_all") in channels
    return [channel for channel in channels if not (has_all and channel.name == "ticker")]
