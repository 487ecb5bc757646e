"""Several sources, one price: a source may lie, stall, jump or go back in time, and nobody trades on that."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.prices.oracle import AHEAD_MS_MAX, BREAKER_MS, Oracle, Reading, Rule, Sources
from tests.support import T0

SOURCES = ("pyth", "switchboard", "desk")
AGE_MS = 10_000
LONG_MS = 10**9


def oracle(**rules):
    return Oracle({"SOL": Sources(**{"names": SOURCES, "age_ms_max": AGE_MS, **rules})})


def reading(source, price, ts_ms=T0, symbol="SOL"):
    return Reading(symbol, source, Decimal(price), ts_ms)


def told(oracle, *readings, now_ms=T0):
    """Have `oracle` hear all readings, and return the price and the flag that it tells at last."""
    tick = [oracle.take(each, now_ms) for each in readings][-1]
    return str(tick.price_usd), tick.stale


def test_the_median_of_three_is_told_as_old_as_its_oldest():
    one = oracle()
    one.take(reading("pyth", "100", T0 - 5), T0)
    one.take(reading("desk", "101"), T0)
    tick = one.take(reading("switchboard", "100.5"), T0)
    assert (tick.price_usd, tick.source, tick.stale) == (Decimal("100.5"), "median", False)
    assert tick.ts_ms == T0 - 5


def test_the_first_in_the_order_is_told_under_its_own_name():
    one = oracle(rule=Rule.PRIORITY)
    one.take(reading("desk", "101"), T0)
    tick = one.take(reading("pyth", "100"), T0)
    assert (tick.source, tick.price_usd, tick.stale) == ("pyth", 100, False)
    assert one.take(reading("switchboard", "101"), T0).source == "pyth"


@pytest.mark.parametrize("rule", Rule)
def test_one_that_lies_is_not_heard(rule):
    price, stale = told(
        oracle(rule=rule), reading("desk", "100"), reading("switchboard", "100.2"), reading("pyth", "1")
    )
    assert 100 <= Decimal(price) <= Decimal("100.2")
    assert not stale


def test_of_two_that_contradict_each_other_neither_is_believed():
    assert told(oracle(), reading("pyth", "100"), reading("desk", "110"))[1]


@pytest.mark.parametrize(("price", "stale"), [("102.02", False), ("102.03", True)])
def test_how_far_two_may_lie_apart(price, stale):
    """Of two, each lies half of what lies between them from their median."""
    assert told(oracle(apart_bps_max=100), reading("pyth", "100"), reading("desk", price))[1] == stale


def test_fewer_than_must_agree_are_stale():
    one = oracle(agreeing_min=2)
    assert told(one, reading("pyth", "100"))[1]
    assert not told(one, reading("desk", "100"))[1]


def test_one_that_stalls_no_longer_counts_and_then_the_next_one_is_told():
    one = oracle(rule=Rule.PRIORITY)
    one.take(reading("pyth", "100"), T0)
    assert one.take(reading("desk", "101", T0 + AGE_MS), T0 + AGE_MS).source == "pyth"
    tick = one.take(reading("desk", "101", T0 + AGE_MS + 1), T0 + AGE_MS + 1)
    assert (tick.source, tick.stale) == ("desk", False)


def test_when_all_stall_the_last_price_is_told_as_stale_once():
    one = oracle()
    one.take(reading("pyth", "100"), T0)
    assert one.overdue(T0 + AGE_MS) == []
    (tick,) = one.overdue(T0 + AGE_MS + 1)
    assert (tick.price_usd, tick.ts_ms, tick.stale) == (100, T0, True)
    assert one.overdue(T0 + AGE_MS + 2) == []


def test_a_lone_source_that_jumps_is_believed_once_it_has_stayed_there():
    one = oracle()
    assert told(one, reading("pyth", "100")) == ("100", False)
    for passed_ms, stale in ((1, True), (AGE_MS, True), (AGE_MS + 1, False)):
        now_ms = T0 + passed_ms
        assert told(one, reading("pyth", "150", now_ms), now_ms=now_ms) == ("150", stale)


@pytest.mark.parametrize(
    "strange",
    [
        reading("pyth", "99", T0 - 1),
        reading("pyth", "99"),
        reading("pyth", "99", T0 + AHEAD_MS_MAX + 1),
        reading("pyth", "0", T0 + 1),
        reading("pyth", "-1", T0 + 1),
        reading("pyth", "NaN", T0 + 1),
        reading("pyth", "Infinity", T0 + 1),
        reading("stranger", "99", T0 + 1),
        reading("pyth", "99", T0 + 1, symbol="BTC"),
    ],
    ids=["back in time", "again", "of tomorrow", "zero", "negative", "no number", "endless", "a stranger's", "unknown"],
)
def test_what_can_not_be_is_not_heard(strange):
    one = oracle()
    one.take(reading("pyth", "100"), T0)
    assert one.take(strange, T0) is None
    assert told(one, reading("pyth", "100.1", T0 + 2), now_ms=T0 + 2) == ("100.1", False)


def test_two_fail_overs_within_a_minute_open_the_breaker_for_a_minute():
    one = oracle(age_ms_max=LONG_MS)
    for source in SOURCES:
        one.take(reading(source, "100"), T0)
    one.take(reading("pyth", "1", T0 + 1), T0 + 1)
    assert not told(one, reading("desk", "100", T0 + 2), now_ms=T0 + 2)[1]
    one.take(reading("pyth", "100", T0 + 3), T0 + 3)
    opened_ms = T0 + 4
    assert told(one, reading("pyth", "1", opened_ms), now_ms=opened_ms)[1]
    almost_ms = opened_ms + BREAKER_MS - 1
    assert told(one, *(reading(each, "100", almost_ms) for each in SOURCES), now_ms=almost_ms)[1]
    assert not told(one, reading("desk", "100", almost_ms + 1), now_ms=almost_ms + 1)[1]


def test_fail_overs_a_minute_apart_open_nothing():
    one = oracle(age_ms_max=LONG_MS)
    for source in SOURCES:
        one.take(reading(source, "100"), T0)
    one.take(reading("pyth", "1", T0 + 1), T0 + 1)
    one.take(reading("pyth", "100", T0 + 2), T0 + 2)
    later_ms = T0 + 1 + BREAKER_MS
    assert not told(one, reading("pyth", "1", later_ms), now_ms=later_ms)[1]


def test_going_back_to_a_preferred_source_is_no_fail_over():
    one = oracle(rule=Rule.PRIORITY, age_ms_max=LONG_MS)
    one.take(reading("desk", "100"), T0)
    one.take(reading("switchboard", "100", T0 + 1), T0 + 1)
    assert told(one, reading("pyth", "100", T0 + 2), now_ms=T0 + 2) == ("100", False)


moves = st.tuples(st.sampled_from(SOURCES), st.integers(1, 400), st.integers(-3_000, 3_000), st.integers(0, 5_000))


@given(st.lists(moves, max_size=40), st.sampled_from(list(Rule)))
def test_a_price_to_trade_on_is_fresh_and_borne_out_by_most(moves, rule):
    """Whatever the sources say: it lies between what fresh ones say, more than half of which are near."""
    one, now_ms, last = oracle(rule=rule), T0, {}
    for source, price, skew_ms, passed_ms in moves:
        now_ms += passed_ms
        said = reading(source, price, now_ms + skew_ms)
        tick = one.take(said, now_ms)
        if tick is None:
            continue
        last[source] = said
        if tick.stale:
            continue
        fresh = [each.price_usd for each in last.values() if now_ms - each.ts_ms <= AGE_MS]
        near = [each for each in fresh if abs(each - tick.price_usd) * 100 <= 4 * max(each, tick.price_usd)]
        assert min(fresh) <= tick.price_usd <= max(fresh)
        assert 2 * len(near) > len(fresh)
