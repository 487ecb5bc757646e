"""The client of the price stream, against the protocol's own server end."""

import asyncio
import itertools
import json
import re
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from executor.prices.client import AuthenticationError, DoesNotFit, PriceStream
from executor.prices.protocol import CloseCode, Tick, Tier
from tests.executor.prices.hub import TestHub
from tests.support import T0, until

DOCS = Path(__file__).parents[3] / "docs"


def soon():
    return itertools.repeat(0.01)


def following(hub, *symbols, key="key"):
    stream = PriceStream(hub.url, key, delays=soon)
    stream.subscribe(*symbols)
    return stream


def tick(symbol="JTO", price="2.50", ts_ms=T0):
    return Tick(symbol, Decimal(price), ts_ms, "pyth", stale=False)


def asked(hub):
    """Return what was subscribed to, of every connection in order."""
    frames = [json.loads(each) for each in hub.received]
    return [frame["assets"] for frame in frames if frame["type"] == "subscribe"]


def test_it_subscribes_once_and_hands_prices_on():
    with TestHub() as hub:
        stream, told = following(hub, "JTO", "SOL"), []
        stream.on_price(told.append)
        with stream:
            until(lambda: hub.subscribed == [{"JTO", "SOL"}])
            hub.publish(tick())
            until(lambda: told == [tick()])
        assert asked(hub) == [["JTO", "SOL"]]


def test_after_a_loss_it_asks_for_exactly_what_is_wanted_now():
    with TestHub() as hub:
        stream = following(hub, "JTO", "SOL")
        with stream:
            until(lambda: hub.subscribed == [{"JTO", "SOL"}])
            hub.tokens.clear()  # nobody is let in meanwhile
            hub.tokens.add("key")
            stream.unsubscribe("SOL")
            stream.subscribe("BTC")
            hub.close(CloseCode.RESTARTING)
            until(lambda: len(hub.seen) > 1 and hub.subscribed == [{"JTO", "BTC"}])
        assert sorted(asked(hub)[-1]) == ["BTC", "JTO"]
        assert len(hub.seen) == 2


def test_what_changes_while_nothing_is_connected_counts_too():
    with TestHub() as hub:
        stream = following(hub, "JTO")
        stream.subscribe("BTC")
        stream.unsubscribe("JTO")
        with stream:
            until(lambda: hub.subscribed == [{"BTC"}])
        assert asked(hub) == [["BTC"]]


def test_what_one_connection_does_not_hold_is_spread_and_what_none_holds_is_said():
    with TestHub(Tier("pro", 2, 2)) as hub:
        stream, errors = following(hub, *"ABCDE"), []
        stream.on_error(errors.append)
        with stream:
            until(lambda: sorted(map(sorted, hub.subscribed)) == [["A", "B"], ["C", "D"]])
            until(lambda: [type(each) for each in errors] == [DoesNotFit])
            assert stream.left_out == errors[0].symbols == ("E",)
            stream.unsubscribe("A")
            until(lambda: sorted(map(sorted, hub.subscribed)) == [["B", "E"], ["C", "D"]])
            assert stream.left_out == ()


def test_a_token_is_asked_for_anew_at_each_connection():
    numbers = itertools.count(1)
    with TestHub(tokens=("token1", "token2")) as hub:
        with following(hub, "JTO", key=lambda: f"token{next(numbers)}"):
            until(lambda: hub.subscribed == [{"JTO"}])
            hub.close(CloseCode.TOKEN_EXPIRED)
            until(lambda: len(hub.seen) == 2 and hub.subscribed == [{"JTO"}])
        assert hub.seen == ["token1", "token2"]


def test_a_refused_key_ends_it_for_good():
    with TestHub() as hub:
        stream, errors = following(hub, "JTO", key="wrong"), []
        stream.on_error(errors.append)
        with pytest.raises(AuthenticationError):
            asyncio.run(stream.connect())
        assert hub.seen == ["wrong"]
        assert [type(each) for each in errors] == [AuthenticationError]


def test_a_handlers_mistake_is_reported_and_ends_nothing():
    with TestHub() as hub:
        stream, errors, told = following(hub, "JTO"), [], []
        stream.on_error(errors.append)

        @stream.on_price
        async def fail(_tick):
            raise ValueError("a mistake")

        stream.on_price(told.append)
        with stream:
            until(lambda: hub.subscribed == [{"JTO"}])
            for number in (1, 2):
                hub.publish(tick(ts_ms=T0 + number))
                until(lambda number=number: len(told) == len(errors) == number)
        assert [str(each) for each in errors] == ["a mistake"] * 2


def test_a_slow_handler_delays_no_other_and_gets_the_latest():
    with TestHub() as hub:
        stream, slow, quick, go_on = following(hub, "JTO"), [], [], threading.Event()

        @stream.on_price
        def wait(told):
            slow.append(told.ts_ms - T0)
            assert go_on.wait(60)

        stream.on_price(quick.append)
        with stream:
            until(lambda: hub.subscribed == [{"JTO"}])
            for number in range(1, 6):
                hub.publish(tick(ts_ms=T0 + number))
                until(lambda number=number: len(quick) == number)
            go_on.set()
            until(lambda: len(slow) == 2)
        assert slow == [1, 5]


def test_an_async_for_yields_prices_until_it_is_left():
    async def first(hub):
        async for told in following(hub, "JTO"):
            return told
        return None

    async def run(hub):
        waiting = asyncio.create_task(first(hub))
        await asyncio.to_thread(until, lambda: hub.subscribed == [{"JTO"}])
        hub.publish(tick())
        return await waiting

    with TestHub() as hub:
        assert asyncio.run(run(hub)) == tick()
        until(lambda: hub.sessions == [])


async def publish(hub, number):
    """Publish `number` as the price once so many connections have asked for it."""
    await asyncio.to_thread(until, lambda: len(asked(hub)) == number and hub.subscribed[-1:] == [{"JTO"}])
    hub.publish(tick(price=str(number)))


async def one_price(hub, ticks):
    """Return the first tick of `ticks`, a loop that is left at once."""
    publishing = asyncio.create_task(publish(hub, 1))
    async for told in ticks:
        await publishing
        return told
    return None


def test_a_loop_that_was_left_may_be_followed_by_another_at_once():
    async def run(hub):
        stream = following(hub, "JTO")
        prices = []
        for number in (1, 2, 3):
            publishing = asyncio.create_task(publish(hub, number))
            async for told in stream:
                prices.append(told)
                break
            await publishing
        return prices

    with TestHub() as hub:
        assert [each.price_usd for each in asyncio.run(asyncio.wait_for(run(hub), 30))] == [1, 2, 3]
        assert asked(hub) == [["JTO"]] * 3
        until(lambda: hub.sessions == [])


def test_a_loop_that_was_left_may_be_followed_by_connect_at_once():
    async def run(hub):
        stream, told = following(hub, "JTO"), []
        stream.on_price(told.append)
        assert await one_price(hub, stream) == tick(price="1")
        connected = asyncio.create_task(stream.connect())
        await asyncio.sleep(0)
        await asyncio.to_thread(until, lambda: len(asked(hub)) == 2 and hub.subscribed == [{"JTO"}])
        hub.publish(tick(price="2"))
        await asyncio.to_thread(until, lambda: tick(price="2") in told)
        stream.close()
        await connected

    with TestHub() as hub:
        asyncio.run(asyncio.wait_for(run(hub), 30))


def test_two_loops_at_a_time_are_refused():
    async def run(hub):
        stream = following(hub, "JTO")
        first = aiter(stream)
        assert await one_price(hub, first) == tick(price="1")
        with pytest.raises(RuntimeError, match="running already"):
            await anext(aiter(stream))
        hub.publish(tick(price="2"))
        assert await anext(first) == tick(price="2"), "the first goes on"
        await first.aclose()

    with TestHub() as hub:
        asyncio.run(asyncio.wait_for(run(hub), 30))


def test_a_stream_that_was_closed_says_so():
    with TestHub() as hub:
        stream = following(hub, "JTO")
        with stream:
            until(lambda: hub.subscribed == [{"JTO"}])
        with pytest.raises(RuntimeError, match="for good"), stream:
            pass


def test_the_pages_example_runs():
    """The one that follows a hub, as it stands there, but for the address."""
    example, _source_of_ones_own = re.findall(
        r"^```python\n(.*?)^```", (DOCS / "how-to" / "follow-prices.md").read_text(), re.DOTALL | re.MULTILINE
    )
    with TestHub() as hub:
        names = {}
        exec(example.replace("wss://quotes.example/v1/stream", hub.url), names)  # noqa: S102 - our own page
        now_ms, mint, quotes = time.time_ns() // 10**6, names["jto"].mint, names["book"].quotes
        with names["stream"]:
            until(lambda: hub.subscribed == [{"JTO"}])
            hub.publish(tick(ts_ms=now_ms))
            until(lambda: quotes(mint))
        assert [quotes(mint)[0].is_fresh(now_ms + age_ms, 0) for age_ms in (5_000, 5_001)] == [True, False]
