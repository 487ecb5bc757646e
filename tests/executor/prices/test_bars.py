"""Bars: each interval's prices, told once, when it is over."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from executor.prices.bars import LATE_MS_MAX, Bars
from executor.prices.protocol import INTERVALS_MS, Bar, Tick

DAY = 1_777_680_000_000  # 2026-05-02T00:00:00Z
MINUTE = 60_000


def tick(at_ms, price, symbol="SOL", *, stale=False):
    return Tick(symbol, Decimal(price), at_ms, "pyth", stale)


def minutes(bars):
    return [bar for bar in bars if bar.interval == "1m"]


def test_a_bar_has_the_first_the_last_and_the_extremes_of_its_interval():
    bars = Bars()
    for second, price in ((1, "5"), (2, "9"), (3, "2"), (59, "4")):
        bars.take(tick(DAY + second * 1_000, price), Decimal("0.5"))
    assert bars.over(DAY + MINUTE + LATE_MS_MAX - 1) == []
    (bar,) = bars.over(DAY + MINUTE + LATE_MS_MAX)
    assert bar == Bar("SOL", "1m", Decimal(5), Decimal(9), Decimal(2), Decimal(4), Decimal(2), DAY)
    assert bars.over(DAY + MINUTE + LATE_MS_MAX) == []


def test_the_end_of_an_interval_belongs_to_the_next():
    bars = Bars()
    bars.take(tick(DAY + MINUTE - 1, "1"))
    bars.take(tick(DAY + MINUTE, "2"))
    first, second = minutes(bars.over(DAY + 3 * MINUTE))
    assert (first.ts_ms, first.close, second.ts_ms, second.open) == (DAY, 1, DAY + MINUTE, 2)


def test_an_interval_without_ticks_has_no_bar():
    bars = Bars()
    bars.take(tick(DAY, "1"))
    bars.take(tick(DAY + 3 * MINUTE, "2"))
    assert [bar.ts_ms for bar in minutes(bars.over(DAY + 5 * MINUTE))] == [DAY, DAY + 3 * MINUTE]


def test_a_tick_that_was_a_moment_on_the_way_still_counts_and_one_that_was_longer_does_not():
    bars = Bars()
    bars.take(tick(DAY + 30_000, "5"))
    assert bars.over(DAY + MINUTE + 1) == []
    assert bars.take(tick(DAY + 59_000, "7"))
    (bar,) = bars.over(DAY + MINUTE + LATE_MS_MAX)
    assert bar.close == 7
    assert not bars.take(tick(DAY + 59_500, "100"))
    (bar,) = (each for each in bars.over(DAY + 6 * MINUTE) if each.interval == "5m")
    assert (bar.high, bar.close) == (100, 100)  # that one isn't told yet


def test_ticks_out_of_order_are_put_in_the_order_in_which_they_were_seen():
    bars = Bars()
    for second, price in ((30, "3"), (10, "1"), (50, "5"), (40, "4")):
        bars.take(tick(DAY + second * 1_000, price))
    (bar,) = bars.over(DAY + 2 * MINUTE)
    assert (bar.open, bar.close) == (1, 5)


def test_stale_ticks_count_for_nothing():
    bars = Bars()
    assert not bars.take(tick(DAY, "1", stale=True))
    assert bars.over(DAY + 10 * INTERVALS_MS["1d"]) == []


@given(st.lists(st.tuples(st.integers(0, 3 * 86_400_000), st.integers(1, 1_000), st.sampled_from("AB")), max_size=60))
def test_every_bar_is_what_its_ticks_say(seen):
    """Against a plain grouping of all ticks, told in time or at the end."""
    bars, ticks = Bars(), [tick(DAY + at, price, symbol) for at, price, symbol in sorted(seen)]
    told = []
    for each in ticks:
        told += bars.over(each.ts_ms)
        assert bars.take(each)
    told += bars.over(DAY + 10 * INTERVALS_MS["1d"])
    groups = {}
    for each in ticks:
        for interval, length in INTERVALS_MS.items():
            groups.setdefault((each.symbol, interval, each.ts_ms - each.ts_ms % length), []).append(each.price_usd)
    expected = {
        Bar(symbol, interval, prices[0], max(prices), min(prices), prices[-1], Decimal(0), at_ms)
        for (symbol, interval, at_ms), prices in groups.items()
    }
    assert len(told) == len(set(told)) == len(expected)
    assert set(told) == expected
