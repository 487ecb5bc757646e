"""Streams behind a network that breaks in every way we know.

After each fault the hub holds exactly what the stream wants, within the time that the stream promises; and whatever
was missed, no guard has traded on: all that the book has was published, and what it hasn't heard of lately is stale.
"""

import asyncio
import contextlib
import itertools
import random
import socket
import time
from collections import Counter
from decimal import Decimal

import pytest

from executor.assets import KnownAssets
from executor.guard import Guard
from executor.prices import protocol
from executor.prices.book import PriceBook
from executor.prices.client import PriceStream
from executor.prices.connection import CLOSE_S_MAX, DELAY_S_MIN, backoff
from executor.prices.protocol import Tick
from executor.reasons import Reason
from tests.executor.prices.market import market
from tests.faulty_proxy import FaultyProxy
from tests.support import JTO, USDC, Setup

TRADED = {"USDC": USDC, "JTO": JTO}
OTHERS = ("SOL", "BTC", "ETH", "WIF", "PYTH")
TICK_S = 0.025
MAX_AGE_MS = 1_000
QUIET_MS = 2_000
"""Instead of 45 s, so that silence is tried as often as the rest."""
MARGIN_S = 5.0
"""For a machine that has other things to do."""


class Feed:
    """Publishes a price of each asset again and again, and remembers which."""

    def __init__(self, hub):
        self._hub = hub
        self.published = set()

    async def run(self):
        for number in itertools.count():
            now_ms = _now_ms()
            for symbol in (*TRADED, *OTHERS):
                price = Decimal(1 if symbol == "USDC" else "2.5") + Decimal(number % 7) / 10_000
                self.published.add((symbol, now_ms, int(price * 10**12)))
                self._hub.publish(Tick(symbol, price, now_ms, "test", stale=False))
            await asyncio.sleep(TICK_S)


class Live(Setup):
    """A guard that lives now, and trades on `book`."""

    def __init__(self, path, book):
        self._book = book
        super().__init__(path)
        self.now_ms = _now_ms()
        self.activate()

    def open(self):
        assets = KnownAssets(TRADED.values())
        return Guard.open(self.path, seal_keys=self.seal_keys, prices=self._book, assets=assets)


class Follower:
    """A stream behind a proxy, and the guard that trades on its prices."""

    def __init__(self, number, folder, market, feed):
        self._random = random.Random(number)
        self._name = f"quant-{number}"
        self._feed = feed
        self._delays_s = []
        self._joined = []
        self.proxy = FaultyProxy(market.port)
        self.book = PriceBook(KnownAssets(TRADED.values()), max_age_ms=dict.fromkeys(TRADED, MAX_AGE_MS))
        url = f"ws://127.0.0.1:{self.proxy.port}/v1/stream"
        self.stream = PriceStream(url, self._name, delays=self._delays)
        self.stream.subscribe(*TRADED)
        self.stream.feed(self.book)
        self._live = Live(folder / f"{number}.db", self.book)
        _listen(market.hub, self._name, self._joined)

    async def goes_through(self, faults):
        """Stream, suffer `faults` one after the other, and be whole after each; return how often each was."""
        suffered = Counter()
        streaming = asyncio.create_task(self.stream.connect())
        try:
            await self.is_whole_soon()
            for fault in faults:
                self._delays_s.clear()
                self._want_others()
                await fault(self)
                await self.is_whole_soon()
                suffered[fault.__name__] += 1
        finally:
            self.stream.close()
            await streaming
            self.proxy.close()
            self._live.guard.close()
        return suffered

    def _delays(self):
        for delay_s in backoff(self._random.random):
            self._delays_s.append(delay_s)
            yield delay_s

    def _want_others(self):
        wanted = self._random.sample(OTHERS, self._random.randrange(len(OTHERS)))
        self.stream.unsubscribe(*OTHERS)
        self.stream.subscribe(*wanted)

    async def is_whole_soon(self):
        """Wait until the hub holds what is wanted, no more, and the guard would trade: no longer than promised.

        That is: it notices the silence, closes, waits as its backoff says, and connects.
        """
        await _until(
            lambda: self._held() == set(self.stream.wanted) and self._decision().outcome == "allowed",
            lambda: QUIET_MS / 1_000 + CLOSE_S_MAX + max([DELAY_S_MIN, *self._delays_s]) + MARGIN_S,
        )

    async def is_stale_soon(self):
        """Wait until the guard refuses since prices are old: as soon as their age says."""
        await _until(self._is_stale, lambda: MAX_AGE_MS / 1_000 + MARGIN_S)

    async def gives_up(self, times=1):
        """Wait until it has lost its connection, or failed to get another, `times` in all."""
        await _until(lambda: len(self._delays_s) >= times, lambda: QUIET_MS / 1_000 + CLOSE_S_MAX + times**2 + MARGIN_S)

    def _held(self):
        return set(self._joined[-1].session.subscribed) if self._joined else None

    def _is_stale(self):
        decision = self._decision()
        return decision.outcome == "refused" and decision.reason is Reason.PRICE_STALE

    def _decision(self):
        """Return what a fire would get now, having held the book against what was published."""
        for symbol, asset in TRADED.items():
            for quote in self.book.quotes(asset.mint):
                assert (symbol, quote.at_ms, quote.price_pico_usd) in self._feed.published
        return self._live.guard.explain(self._live.request())


async def a_cut(follower):
    follower.proxy.cut()
    await follower.gives_up()


async def a_stall(follower):
    follower.proxy.stall()
    await follower.is_stale_soon()
    follower.proxy.flow()


async def a_stall_that_outlasts_its_patience(follower):
    follower.proxy.stall()
    await follower.is_stale_soon()
    await follower.gives_up()
    follower.proxy.flow()


async def a_server_that_is_gone_without_a_word(follower):
    follower.proxy.lose_server()
    await follower.is_stale_soon()


async def a_client_that_is_gone_without_a_word(follower):
    follower.proxy.lose_client()
    await follower.gives_up()


async def a_server_that_is_down(follower):
    up = follower.proxy.target
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        follower.proxy.target = unused.getsockname()[1]
        follower.proxy.cut()
        await follower.is_stale_soon()
        await follower.gives_up(times=3)
    follower.proxy.target = up


async def a_connection_that_is_overtaken_by_the_next(follower):
    follower.proxy.hold()
    await follower.is_stale_soon()
    await follower.is_whole_soon()
    follower.proxy.flow()


async def frames_that_come_twice(follower):
    await _spoil(follower.proxy, lambda data: data + data)


async def a_frame_that_is_cut_short(follower):
    await _spoil(follower.proxy, lambda data: data[:-3])
    await follower.gives_up()


FAULTS = (
    a_cut,
    a_stall,
    a_stall_that_outlasts_its_patience,
    a_server_that_is_gone_without_a_word,
    a_client_that_is_gone_without_a_word,
    a_server_that_is_down,
    a_connection_that_is_overtaken_by_the_next,
    frames_that_come_twice,
    a_frame_that_is_cut_short,
)


def each_once():
    """Return the faults of as many followers as there are: one each."""
    return [[fault] for fault in FAULTS]


def for_two_minutes():
    """Return the faults of six followers, in an order of each's own, until two minutes are over."""
    ends_at = time.monotonic() + 120

    def shuffled(number):
        order = random.Random(number)
        while True:
            for fault in order.sample(FAULTS, len(FAULTS)):
                if time.monotonic() >= ends_at:
                    return
                yield fault

    return [shuffled(number) for number in range(6)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("plan", [each_once, pytest.param(for_two_minutes, marks=pytest.mark.campaign)])
def test_after_each_fault_it_holds_what_it_wants_and_nobody_traded_on_what_it_missed(tmp_path, monkeypatch, plan):
    monkeypatch.setattr(protocol, "QUIET_MS_MAX", QUIET_MS)

    async def main():
        async with market() as made:
            feed = Feed(made.hub)
            feeding = asyncio.create_task(feed.run())
            plans = [Follower(number, tmp_path, made, feed).goes_through(each) for number, each in enumerate(plan())]
            suffered = sum(await asyncio.gather(*plans), Counter())
            await _until(lambda: made.hub.connections == 0, lambda: MARGIN_S)
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
        return suffered

    suffered = asyncio.run(main())
    assert suffered.keys() == {fault.__name__ for fault in FAULTS}


def _listen(hub, name, joined):
    """Have `joined` hold each connection of the subject `name`, as the hub knows it."""
    join = hub.join

    def joining(wire, subject, credential):
        connection = join(wire, subject, credential)
        if connection is not None and subject.name == name:
            joined.append(connection)
        return connection

    hub.join = joining


async def _spoil(proxy, spoil):
    proxy.spoil = spoil
    await _until(lambda: proxy.spoil is None, lambda: MARGIN_S)


async def _until(holds, within_s):
    """Wait until `holds()` does, for `within_s()` at most, which may change meanwhile."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within_s()
        await asyncio.sleep(0.01)


def _now_ms():
    return time.time_ns() // 1_000_000
