"""A market that is recorded or generated, and played."""

import asyncio
import random
from decimal import Decimal
from itertools import islice, pairwise

import pytest

from executor.prices.protocol import Tick
from executor.prices.replay import MARKET, RecordingError, generated, play, recorded, retimed


def tick(ts_ms, price="1.50"):
    return Tick("SOL", Decimal(price), ts_ms, "pyth", stale=False)


def test_a_recording_is_what_a_stream_sent_line_by_line():
    ticks = [tick(5), tick(5), tick(9, "2.00")]
    assert list(recorded(each.encode().encode() + b"\n" for each in ticks)) == ticks


@pytest.mark.parametrize("second", ['{"type":"ping","ts":6}', "{", '{"type":"news"}', tick(4).encode()])
def test_a_line_that_is_no_price_or_goes_back_is_named(second):
    with pytest.raises(RecordingError, match="line 2"):
        list(recorded([tick(5).encode().encode(), second.encode()]))


def test_the_same_seed_is_the_same_market():
    markets = [list(islice(generated(random.Random(seed)), 400)) for seed in (1, 1, 2)]
    assert markets[0] == markets[1] != markets[2]
    for each in markets[0]:
        each.encode()
    assert {each.symbol for each in markets[0]} == set(MARKET)
    assert all(earlier.ts_ms <= later.ts_ms for earlier, later in pairwise(markets[0]))


@pytest.mark.parametrize(("speed", "times"), [(1, [100, 110, 140]), (10, [100, 101, 104]), (0.5, [100, 120, 180])])
def test_played_ticks_keep_their_distances_divided_by_the_speed(speed, times):
    assert [each.ts_ms for each in retimed([tick(7), tick(17), tick(47)], speed, 100)] == times


def test_each_is_published_at_its_time():
    async def scene():
        loop, told = asyncio.get_running_loop(), []

        def now_ms():
            return int(loop.time() * 1_000)

        ticks = [tick(0), tick(400), tick(1_000)]
        await play(ticks, lambda each: told.append((each.ts_ms, now_ms())), speed=10, now_ms=now_ms)
        return told

    told = asyncio.run(scene())
    first = told[0][0]
    assert [at - first for at, _ in told] == [0, 40, 100]
    assert all(published >= at - 1 for at, published in told)
