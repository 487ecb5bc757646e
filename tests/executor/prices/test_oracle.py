"""Several sources, one price: a source may lie, stall, jump or go back in time, and nobody trades on that."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.prices.oracle import BREAKER_MS, FUTURE_MS_MAX, Feed, Oracle
from executor.prices.protocol import Tick
from tests.support import T0

SOURCES = ("pyth", "switchboard", "desk")
AGE_MS = 10_000


def oracle(**feed):
    return Oracle({"SOL": Feed(**{"sources": SOURCES, "age_ms_max": AGE_MS, **feed})})


def tick(source, price, at_ms=T0, *, stale=False):
    return Tick("SOL", Decimal(price), at_ms, source, stale)


def told(oracle, *ticks, now_ms=T0):
    """Have `oracle` hear all ticks, and return the price and the flag that it tells at last."""
    answer = [oracle.take(each, now_ms) for each in ticks][-1]
    return str(answer.price_usd), answer.stale


def test_the_median_of_three_is_told():
    assert told(oracle(), tick("pyth", "100"), tick("desk", "101"), tick("switchboard", "100.5")) == ("100.5", False)


def test_the_first_in_the_order_is_told_under_its_own_name():
    by_priority = oracle(merge="priority")
    by_priority.take(tick("desk", "101"), T0)
    answer = by_priority.take(tick("pyth", "100"), T0)
    assert (answer.source, answer.price_usd, answer.stale) == ("pyth", 100, False)
    assert by_priority.take(tick("switchboard", "101"), T0).source == "pyth"


@pytest.mark.parametrize("merge", ["median", "priority"])
def test_one_that_lies_is_not_heard(merge):
    ticks = [tick("desk", "100"), tick("switchboard", "100.2"), tick("pyth", "1")]
    price, stale = told(oracle(merge=merge), *ticks)
    assert Decimal(price) in {Decimal(100), Decimal("100.1"), Decimal("100.2")}
    assert not stale


def test_of_two_that_contradict_each_other_neither_is_believed():
    assert told(oracle(), tick("pyth", "100"), tick("desk", "110"))[1]


@pytest.mark.parametrize(("price", "stale"), [("102.02", False), ("102.03", True)])
def test_how_far_two_may_lie_apart(price, stale):
    """Of two, each lies half of what lies between them from their median."""
    assert told(oracle(apart_bps_max=100), tick("pyth", "100"), tick("desk", price))[1] == stale


def test_one_that_stalls_no_longer_counts_and_then_the_others_price_is_told():
    by_priority = oracle(merge="priority")
    by_priority.take(tick("pyth", "100"), T0)
    answer = by_priority.take(tick("desk", "101", T0 + AGE_MS), T0 + AGE_MS)
    assert answer.source == "pyth"
    answer = by_priority.take(tick("desk", "101", T0 + AGE_MS + 1), T0 + AGE_MS + 1)
    assert (answer.source, answer.stale) == ("desk", False)


def test_when_all_stall_the_last_price_is_told_as_stale_once():
    one = oracle()
    one.take(tick("pyth", "100"), T0)
    assert one.look(T0 + AGE_MS) == []
    (answer,) = one.look(T0 + AGE_MS + 1)
    assert (answer.price_usd, answer.ts_ms, answer.stale) == (100, T0, True)
    assert one.look(T0 + AGE_MS + 2) == []


def test_a_lone_source_that_jumps_is_believed_at_its_second_tick():
    one = oracle()
    assert told(one, tick("pyth", "100")) == ("100", False)
    assert told(one, tick("pyth", "150", T0 + 1), now_ms=T0 + 1)[1]
    assert one.look(T0 + 2) == []
    assert told(one, tick("pyth", "150.1", T0 + 3), now_ms=T0 + 3) == ("150.1", False)


def test_a_jump_that_another_bears_out_is_believed_at_once():
    one = oracle()
    one.take(tick("pyth", "100"), T0)
    assert told(one, tick("desk", "150", T0 + AGE_MS), now_ms=T0 + AGE_MS)[1]  # which of the two?
    later_ms = T0 + AGE_MS + 1
    assert told(one, tick("pyth", "150", later_ms), now_ms=later_ms) == ("150", False)


def test_a_market_that_jumps_source_by_source_is_believed_after_a_minute():
    one = oracle(age_ms_max=10**9)
    for price in ("100", "150"):
        for source in SOURCES:
            answer = one.take(tick(source, price, T0), T0)
    assert (answer.price_usd, answer.stale) == (150, True)
    assert one.look(T0 + BREAKER_MS - 1) == []
    assert [(each.price_usd, each.stale) for each in one.look(T0 + BREAKER_MS)] == [(150, False)]


@pytest.mark.parametrize(
    "strange",
    [
        tick("pyth", "99", T0 - 1),
        tick("pyth", "99", T0 + FUTURE_MS_MAX + 1),
        tick("pyth", "0"),
        tick("pyth", "-1"),
        tick("pyth", "NaN"),
        tick("stranger", "99"),
        tick("pyth", "99")._replace(symbol="BTC"),
    ],
    ids=["back in time", "from the future", "zero", "negative", "no number", "of a stranger", "of another asset"],
)
def test_what_can_not_be_is_not_heard(strange):
    one = oracle()
    one.take(tick("pyth", "100"), T0)
    assert one.take(strange, T0) is None
    assert told(one, tick("pyth", "100.1", T0 + 1), now_ms=T0 + 1) == ("100.1", False)


def test_what_its_source_calls_stale_does_not_count():
    assert told(oracle(), tick("pyth", "100"), tick("desk", "104", stale=True)) == ("100", False)
    one = oracle()
    one.take(tick("pyth", "100"), T0)
    assert told(one, tick("pyth", "100", T0 + 1, stale=True), now_ms=T0 + 1)[1]


def test_two_fail_overs_within_a_minute_open_the_breaker_for_a_minute():
    one = oracle(age_ms_max=10**9)
    for source in SOURCES:
        one.take(tick(source, "100"), T0)
    one.take(tick("pyth", "1", T0 + 1), T0 + 1)
    assert not told(one, tick("desk", "100", T0 + 2), now_ms=T0 + 2)[1]
    one.take(tick("pyth", "100", T0 + 3), T0 + 3)
    second_ms = T0 + 4
    assert told(one, tick("pyth", "1", second_ms), now_ms=second_ms)[1]
    almost_ms = second_ms + BREAKER_MS - 1
    assert told(one, *(tick(each, "100", almost_ms) for each in SOURCES), now_ms=almost_ms)[1]
    after_ms = almost_ms + 1
    assert [each.stale for each in one.look(after_ms)] == [False]


def test_fail_overs_further_apart_open_nothing():
    one = oracle(age_ms_max=10**9)
    for source in SOURCES:
        one.take(tick(source, "100"), T0)
    one.take(tick("pyth", "1", T0 + 1), T0 + 1)
    one.take(tick("pyth", "100", T0 + 2), T0 + 2)
    later_ms = T0 + 2 + BREAKER_MS
    assert not told(one, tick("pyth", "1", later_ms), now_ms=later_ms)[1]


moves = st.tuples(
    st.sampled_from(SOURCES), st.integers(1, 400), st.integers(-3_000, 3_000), st.integers(0, 5_000), st.booleans()
)


@given(st.lists(moves, max_size=40), st.sampled_from(["median", "priority"]))
def test_a_price_to_trade_on_is_fresh_and_borne_out_by_most(moves, merge):
    """Whatever the sources say: it lies between what fresh ones say, more than half of which are near."""
    one, now_ms, last = oracle(merge=merge), T0, {}
    for source, price, skew_ms, passed_ms, stale in moves:
        now_ms += passed_ms
        said = tick(source, price, now_ms + skew_ms, stale=stale)
        answer = one.take(said, now_ms)
        if answer is None:
            continue
        last[source] = said
        if answer.stale:
            continue
        fresh = [each.price_usd for each in last.values() if not each.stale and now_ms - each.ts_ms <= AGE_MS]
        near = [each for each in fresh if abs(each - answer.price_usd) * 100 <= 4 * max(each, answer.price_usd)]
        assert min(fresh) <= answer.price_usd <= max(fresh)
        assert 2 * len(near) > len(fresh)
        assert now_ms - answer.ts_ms <= AGE_MS
