"""The demo's market: a hub on a port of this machine, a stream of it, and the book that the stream fills.

The guard of `StreamedWorld` trades by the book, so every price that it sees has come over the hub's WebSocket.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from executor.assets import KnownAssets
from executor.demo.world import PRICES_USD, QUOTE_AGE_S_MAX, SOL, World
from executor.errors import ExecutorError
from executor.prices.api_keys import KeyFile
from executor.prices.book import PriceBook
from executor.prices.client import PriceStream
from executor.prices.hub import Hub
from executor.prices.protocol import Tick
from executor.prices.socket import app_of, server_of
from executor.service.server import bind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from socket import socket

__all__ = ["Market", "StreamedWorld"]

TRIES_MAX: Final = 100
HEARD_S_MAX: Final = 0.1
"""How long a price may take to the book before it is told again: what isn't subscribed to yet isn't sent."""


class StreamedWorld(World):
    """The world, with prices that come over a stream."""

    def quote_again(self) -> None:
        """Publish every price anew, and return once the guard has them."""
        self._market.tell(Tick(symbol, usd, self.now_ms, "demo", stale=False) for symbol, usd in PRICES_USD.items())

    def __exit__(self, *exception: object) -> None:
        """End the world, then its market."""
        super().__exit__(*exception)
        self._market.close()

    def _open_prices(self) -> PriceBook:
        max_age_ms = dict.fromkeys(PRICES_USD, QUOTE_AGE_S_MAX * 1000)
        assets = KnownAssets([self.usdc, self.jto, SOL])
        book = PriceBook(assets, max_age_ms=max_age_ms, now_ms=lambda: self.now_ms)
        self._market = Market(self.folder, book, PRICES_USD)
        return book


class Market:
    """Publishes prices at one end of a stream, and has them in a book at the other."""

    def __init__(self, folder: Path, book: PriceBook, symbols: Iterable[str]) -> None:
        """Open the hub, and a stream of `symbols` with a key from `folder`; `close` ends both."""
        keys = KeyFile(folder / "prices.keys")
        key, _ = keys.add("demo", "free", secret=secrets.token_bytes(32), now_s=int(time.time()))
        self._hub = Hub(keys)
        self._server = server_of(app_of(self._hub))
        self._loop = asyncio.new_event_loop()
        self._heard: SimpleQueue[Tick] = SimpleQueue()
        self._closing = ExitStack()

        bound = self._closing.enter_context(bind("127.0.0.1", 0))
        serving = threading.Thread(target=self._serve, args=(bound,), name="price hub", daemon=True)
        serving.start()
        self._closing.callback(serving.join)
        self._closing.callback(setattr, self._server, "should_exit", True)

        host, port = bound.getsockname()
        stream = PriceStream(f"ws://{host}:{port}/v1/stream", key)
        stream.subscribe(*symbols)
        stream.feed(book)
        stream.on_price(self._heard.put)
        self._closing.enter_context(stream)

    def tell(self, ticks: Iterable[Tick]) -> None:
        """Publish `ticks`, and return once the book has them all. Raises ExecutorError if it never does."""
        missing = set(ticks)
        for _ in range(TRIES_MAX):
            for tick in missing:
                self._loop.call_soon_threadsafe(self._hub.publish, tick)
            try:
                while missing:
                    missing.discard(self._heard.get(timeout=HEARD_S_MAX))
            except Empty:
                continue
            return
        raise ExecutorError("the demo's price stream doesn't tell its prices")

    def close(self) -> None:
        """End the stream, then the hub."""
        self._closing.close()

    def _serve(self, bound: socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[bound]))
