"""The latest quote of each asset."""

import random
import sys
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.assets import KnownAssets
from executor.prices.book import MAX_AGE_MS, SOURCES_MAX, PriceBook, Put
from executor.prices.protocol import Tick
from tests.support import JTO, T0, USDC

ASSETS = KnownAssets([USDC, JTO])


def tick(price="2.5", at_ms=T0, source="pyth", *, stale=False, symbol="JTO"):
    return Tick(symbol, Decimal(price), at_ms, source, stale)


@pytest.fixture
def book():
    return PriceBook(ASSETS, now_ms=lambda: T0, max_age_ms={"USDC": 60_000})


def seen(book):
    return [(quote.source, quote.at_ms, quote.price_pico_usd, quote.stale) for quote in book.quotes(JTO.mint)]


def test_it_has_one_quote_a_source_under_the_mint(book):
    assert book.put(tick("2.5")) is Put.TAKEN
    assert book.put(tick("2.6", T0 + 1)) is Put.TAKEN
    assert book.put(tick("2.55", source="other")) is Put.TAKEN
    assert seen(book) == [("pyth", T0 + 1, 2_600_000_000_000, False), ("other", T0, 2_550_000_000_000, False)]
    assert book.quotes("unknown") == ()


def test_each_asset_has_its_own_age_budget(book):
    book.put(tick())
    book.put(tick("1", symbol="USDC"))
    assert book.quotes(JTO.mint)[0].max_age_ms == MAX_AGE_MS
    assert book.quotes(USDC.mint)[0].max_age_ms == 60_000


def test_a_stream_that_is_down_makes_its_quote_stale_by_age(book):
    book.put(tick())
    (quote,) = book.quotes(JTO.mint)
    assert quote.is_fresh(T0 + MAX_AGE_MS, 1_000)
    assert not quote.is_fresh(T0 + MAX_AGE_MS + 1, 1_000)


def test_a_source_never_goes_back_in_time(book):
    book.put(tick("2.5", T0))
    before = seen(book)
    assert book.put(tick("9", T0 - 1)) is Put.OLDER
    assert seen(book) == before


@pytest.mark.parametrize(
    ("wrong", "outcome"),
    [
        (tick(at_ms=T0 + 1_001), Put.FUTURE),
        (tick(symbol="NOPE"), Put.UNKNOWN),
        (tick("1e13"), Put.NO_PRICE),
        (tick("0"), Put.NO_PRICE),
        (tick("-1"), Put.NO_PRICE),
        (tick("NaN"), Put.NO_PRICE),
        (tick("Infinity"), Put.NO_PRICE),
    ],
)
def test_what_is_not_taken_changes_nothing_and_is_said(book, wrong, outcome):
    book.put(tick(at_ms=T0 - 5))
    before = seen(book)
    assert book.put(wrong) is outcome
    assert seen(book) == before


def test_a_refusal_is_logged_once_an_asset(book, caplog):
    book.put(tick("1e13"))
    book.put(tick("1e13"))
    assert len(caplog.records) == 1


def test_a_flagged_tick_is_shown_and_nothing_of_its_asset_that_is_no_newer_is_traded_on(book):
    book.put(tick("2.4", T0 - 9, "other"))
    book.put(tick("2.6", T0 + 9, "newer"))
    book.put(tick("2.5", T0, stale=True))
    assert {quote.source: quote.is_fresh(T0, 1_000) for quote in book.quotes(JTO.mint)} == {
        "other": False,
        "newer": True,
        "pyth": False,
    }


def test_a_doubt_about_a_moment_is_not_taken_back_by_another_word_about_it(book):
    book.put(tick(stale=True))
    book.put(tick())
    assert book.quotes(JTO.mint)[0].stale
    book.put(tick(at_ms=T0 + 1))
    assert not book.quotes(JTO.mint)[0].stale


def test_names_of_sources_can_not_fill_the_memory(book):
    outcomes = [book.put(tick(source=f"s{number}")) for number in range(SOURCES_MAX + 5)]
    assert outcomes == [Put.TAKEN] * SOURCES_MAX + [Put.TOO_MANY_SOURCES] * 5
    assert len(book.quotes(JTO.mint)) == SOURCES_MAX


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.booleans()), max_size=30))
def test_it_holds_the_newest_of_each_source_and_trades_on_no_flagged_moment(updates):
    book = PriceBook(ASSETS, now_ms=lambda: T0)
    for number, (source, back_ms, stale) in enumerate(updates):
        book.put(tick(str(number + 1), T0 - back_ms, source, stale=stale))
    newest = {source: max(T0 - back for name, back, _ in updates if name == source) for source, _, _ in updates}
    assert {quote.source: quote.at_ms for quote in book.quotes(JTO.mint)} == newest
    flagged = {(source, T0 - back) for source, back, stale in updates if stale}
    assert all(quote.stale for quote in book.quotes(JTO.mint) if (quote.source, quote.at_ms) in flagged)


def read_until(ended, book, wrong):
    """Read until `ended`, and add to `wrong` each quote that nobody put, or that is older than one read before."""
    last = {}
    while not ended.is_set():
        for quote in book.quotes(JTO.mint):
            at = quote.at_ms - T0 + 2_000
            if quote.price_pico_usd != (at + 1) * 10**12 or quote.source != f"s{at % 2}":
                wrong.append(quote)
            if quote.at_ms < last.get(quote.source, 0):
                wrong.append((last, quote))
            last[quote.source] = quote.at_ms


@pytest.fixture
def restless():
    """Have threads take turns a hundred times as often: more orders in less time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 100)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_readers_of_many_threads_see_only_what_was_put_and_never_an_older_one_after_a_newer():
    book = PriceBook(ASSETS, now_ms=lambda: T0)
    ended, wrong = threading.Event(), []

    def write(seed):
        order = list(range(2_000))
        random.Random(seed).shuffle(order)
        for at in sorted(order[:1_000]) + order[1_000:]:
            book.put(tick(str(at + 1), T0 - 2_000 + at, f"s{at % 2}"))

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    readers = [threading.Thread(target=read_until, args=(ended, book, wrong)) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join(60)
    ended.set()
    for thread in readers:
        thread.join(60)
    assert wrong == []
    assert [quote.at_ms for quote in sorted(book.quotes(JTO.mint), key=lambda quote: quote.source)] == [T0 - 2, T0 - 1]


def test_it_answers_from_memory(book):
    book.put(tick())
    began = time.perf_counter()
    for _ in range(10_000):
        book.quotes(JTO.mint)
    assert time.perf_counter() - began < 1
