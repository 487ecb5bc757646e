"""A server that behaves as TradeReady's live one does, on a port of loopback, in a thread of its own.

- Only `action` names what a client wants. Without one that it knows, the answer is the error UNKNOWN_ACTION.
- It pings, and closes a connection that sent no `{"action": "pong"}` for 41 s; here by a clock that may be short.
- It takes ten subscriptions, and candles of four intervals. Whatever it refuses it tells; the socket stays open.
- HTTP 401 and the close code 4401 refuse a key, and so does 403, which it also answers when something of its own broke.
- What it sends while a client is away is lost.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from typing import Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

KEY = "ak_live_..."
PING_S, SILENCE_S = 30.0, 41.0
SUBSCRIPTIONS_MAX = 10
INTERVALS = {"1m", "5m", "1h", "1d"}
BTC = {"symbol": "BTCUSDT", "price": "65000.10", "timestamp": "2026-05-02T12:00:00Z"}
ETH = {"symbol": "ETHUSDT", "price": "3000.5", "timestamp": "2026-05-02T12:00:00Z"}
SOL = {"symbol": "SOLUSDT", "price": "178.41", "timestamp": "2026-05-02T12:00:00Z"}
CANDLE = {
    "time": "2026-05-02T12:00:00Z",
    "open": "1",
    "high": "2",
    "low": "0.5",
    "close": "1.5",
    "volume": "10",
    "is_closed": True,
}
ORDER = {
    "order_id": "o-1",
    "symbol": "BTCUSDT",
    "side": "buy",
    "status": "filled",
    "executed_price": "65000.10",
    "executed_quantity": "0.1",
}
PORTFOLIO = {"total_equity": "10000.00", "available_cash": "5000.00", "unrealized_pnl": "1.00", "roi_pct": "0.01"}


class Exchange:
    """`subscriptions` holds what each connection has asked for, in order; `pongs` and `closes` what it answered."""

    def __init__(
        self, *, flat: bool = False, news: bool = True, ping_s: float = PING_S, silence_s: float = SILENCE_S
    ) -> None:
        self.flat = flat
        self.news = news
        self.ping_s = ping_s
        self.silence_s = silence_s
        self.pings = 0
        self.errors: list[str] = []
        self.refuse_with: int | None = None
        self.close_with: int | None = None
        self.dials = 0
        self.subscriptions: list[list[dict]] = []
        self.pongs: list[dict] = []
        self.closes: list[int | None] = []
        self._sockets: list = []
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
    def open(self) -> int:
        return len(self._sockets)

    def say(self, message: object) -> None:
        """Send `message` on the newest connection; text goes as it is."""
        text = message if isinstance(message, str) else json.dumps(message)
        asyncio.run_coroutine_threadsafe(self._sockets[-1].send(text), self._loop).result(10)

    def tell(self, channel: str, data: dict, **about: str) -> None:
        self.say({"type": channel, **about, **data} if self.flat else {"channel": channel, **about, "data": data})

    def fill(self, number: int) -> None:
        """Send the fill of order `number` to whoever is there and asked for orders: nothing waits for the others."""
        text = json.dumps({"channel": "orders", "data": {**ORDER, "order_id": number}})
        asking = [each for each in self._sockets if {"channel": "orders"} in self.subscriptions[-1]]

        async def send() -> None:
            for socket in asking:
                with suppress(ConnectionClosed):
                    await socket.send(text)

        asyncio.run_coroutine_threadsafe(send(), self._loop).result(10)

    def cut(self) -> None:
        """Drop every connection without a word."""
        self._loop.call_soon_threadsafe(lambda: [socket.transport.abort() for socket in self._sockets])

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(self._attend, "127.0.0.1", 0, process_request=self._admit, close_timeout=1) as server:
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()

    def _admit(self, socket, request):
        self.dials += 1
        url = urlsplit(request.path)
        if self.refuse_with is not None:
            return socket.respond(self.refuse_with, "no\n")
        if url.path != "/ws/v1" or parse_qs(url.query).get("api_key") != [KEY]:
            return socket.respond(401, "no\n")
        return None

    async def _attend(self, socket) -> None:
        if self.close_with is not None:
            await socket.close(self.close_with)
            return
        asked: list[dict] = []
        self._sockets.append(socket)
        self.subscriptions.append(asked)
        socket.pong_at = self._loop.time()
        pinging = asyncio.create_task(self._ping(socket))
        try:
            async for text in socket:
                await self._answer(socket, json.loads(text), asked)
        except ConnectionClosed:
            pass
        finally:
            pinging.cancel()
            self._sockets.remove(socket)
            self.closes.append(socket.close_code)

    async def _ping(self, socket) -> None:
        with suppress(ConnectionClosed):
            while self._loop.time() - socket.pong_at < self.silence_s:
                await socket.send('{"type":"ping"}')
                self.pings += 1
                await asyncio.sleep(self.ping_s)
            await socket.close(1000, "no pong")

    async def _answer(self, socket, message: dict, asked: list[dict]) -> None:
        action = message.pop("action", None)
        if action == "pong":
            self.pongs.append(message)
            socket.pong_at = self._loop.time()
        elif action == "subscribe" and message.get("interval", "1m") not in INTERVALS:
            await self._refuse(socket, "INVALID_CHANNEL", "there is no such channel")
        elif action == "subscribe" and len(asked) >= SUBSCRIPTIONS_MAX:
            await self._refuse(socket, "SUBSCRIPTION_LIMIT", f"at most {SUBSCRIPTIONS_MAX} subscriptions")
        elif action == "subscribe":
            asked.append(message)
            await socket.send(json.dumps({"type": "subscribed", "channel": ":".join(message.values())}))
            if self.news:
                for told in self._news(message):
                    await socket.send(json.dumps(told))
        elif action == "unsubscribe":
            asked.remove(message)
            await socket.send(json.dumps({"type": "unsubscribed", "channel": ":".join(message.values())}))
        else:
            await self._refuse(socket, "UNKNOWN_ACTION", f"unknown action {action}")

    async def _refuse(self, socket, code: str, message: str) -> None:
        self.errors.append(code)
        await socket.send(json.dumps({"type": "error", "code": code, "message": message}))

    def _news(self, asked: dict) -> list[dict]:
        match asked:
            case {"channel": "ticker", "symbol": symbol}:
                told = [("ticker", {"symbol": symbol}, each) for each in (BTC, ETH, SOL) if each["symbol"] == symbol]
            case {"channel": "ticker_all"}:
                told = [("ticker", {"symbol": each["symbol"]}, each) for each in (BTC, ETH, SOL)]
            case {"channel": "candles", "symbol": symbol, "interval": interval}:
                about = {"symbol": symbol, "interval": interval}
                told = [("candles", about, {**CANDLE, "is_closed": False}), ("candles", about, CANDLE)]
            case {"channel": "orders"}:
                told = [("orders", {}, ORDER)]
            case _:
                told = [("portfolio", {}, PORTFOLIO)]
        if self.flat:
            return [{"type": channel, **about, **data} for channel, about, data in told]
        return [{"channel": channel, **about, "data": data} for channel, about, data in told]
