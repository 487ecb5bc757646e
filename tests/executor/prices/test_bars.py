"""Bars: each interval's prices, told once, when it is over."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.prices.bars import AHEAD_MS_MAX, GRACE_MS, Bars
from executor.prices.protocol import INTERVALS_MS, Bar, Tick

DAY = 1_777_680_000_000  # 2026-05-02T00:00:00Z
MINUTE = 60_000
NOTHING = Decimal(0)


def tick(ts_ms, price, symbol="SOL", *, stale=False):
    return Tick(symbol, Decimal(price), ts_ms, "pyth", stale=stale)


def add(bars, ts_ms, price, volume=NOTHING):
    return bars.add(tick(ts_ms, price), volume, ts_ms)


def minutes(bars):
    return [bar for bar in bars if bar.interval == "1m"]


def test_a_bar_has_the_first_the_last_and_the_extremes_of_its_interval():
    bars = Bars()
    for second, price in ((1, "5"), (2, "9"), (3, "2"), (59, "4")):
        assert add(bars, DAY + second * 1_000, price, Decimal("0.5")) == []
    assert bars.close_until(DAY + MINUTE + GRACE_MS - 1) == []
    (bar,) = bars.close_until(DAY + MINUTE + GRACE_MS)
    assert bar == Bar("SOL", "1m", Decimal(5), Decimal(9), Decimal(2), Decimal(4), Decimal(2), DAY)
    assert bars.close_until(DAY + MINUTE + GRACE_MS) == []


def test_the_end_of_an_interval_belongs_to_the_next_and_closes_it():
    bars = Bars()
    add(bars, DAY + MINUTE - 1, "1")
    (first,) = add(bars, DAY + MINUTE, "2")
    (second,) = minutes(bars.close_until(DAY + 3 * MINUTE))
    assert (first.ts_ms, first.close, second.ts_ms, second.open) == (DAY, 1, DAY + MINUTE, 2)


def test_an_interval_without_ticks_has_no_bar():
    bars = Bars()
    add(bars, DAY, "1")
    closed = minutes(add(bars, DAY + 3 * MINUTE, "2")) + minutes(bars.close_until(DAY + 5 * MINUTE))
    assert [bar.ts_ms for bar in closed] == [DAY, DAY + 3 * MINUTE]


def test_a_late_tick_changes_no_bar_that_was_told():
    bars = Bars()
    add(bars, DAY + 30_000, "5")
    bars.close_until(DAY + MINUTE + GRACE_MS)
    assert bars.add(tick(DAY + 59_500, "100"), NOTHING, DAY + MINUTE + GRACE_MS) == []
    assert bars.late == 1
    (bar,) = (each for each in bars.close_until(DAY + 6 * MINUTE) if each.interval == "5m")
    assert (bar.high, bar.close) == (100, 100)  # that one wasn't told yet


def test_ticks_out_of_order_are_put_in_the_order_in_which_they_were_seen():
    bars = Bars()
    for second, price in ((30, "3"), (10, "1"), (50, "5"), (40, "4")):
        bars.add(tick(DAY + second * 1_000, price), NOTHING, DAY + 50_000)
    (bar,) = bars.close_until(DAY + 2 * MINUTE)
    assert (bar.open, bar.close) == (1, 5)


@pytest.mark.parametrize(
    "strange", [tick(DAY, "1", stale=True), tick(DAY + AHEAD_MS_MAX + 1, "1")], ids=["stale", "of tomorrow"]
)
def test_what_may_not_be_traded_on_is_in_no_bar(strange):
    bars = Bars()
    assert bars.add(strange, NOTHING, DAY) == []
    assert bars.close_until(DAY + 10 * INTERVALS_MS["1d"]) == []


@given(st.lists(st.tuples(st.integers(0, 3 * 86_400_000), st.integers(1, 1_000), st.sampled_from("AB")), max_size=60))
def test_every_bar_is_what_its_ticks_say(seen):
    """Against a plain grouping of all ticks, told as they come and at the end."""
    bars, ticks = Bars(), [tick(DAY + at, price, symbol) for at, price, symbol in sorted(seen)]
    told = [bar for each in ticks for bar in bars.add(each, NOTHING, each.ts_ms)]
    told += bars.close_until(DAY + 10 * INTERVALS_MS["1d"])
    groups = {}
    for each in ticks:
        for interval, length in INTERVALS_MS.items():
            groups.setdefault((each.symbol, interval, each.ts_ms - each.ts_ms % length), []).append(each.price_usd)
    expected = {
        Bar(symbol, interval, prices[0], max(prices), min(prices), prices[-1], NOTHING, ts_ms)
        for (symbol, interval, ts_ms), prices in groups.items()
    }
    assert len(told) == len(set(told)) == len(expected)
    assert set(told) == expected
    assert bars.late == 0
