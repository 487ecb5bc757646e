"""The latest quote of each asset, out of any number of streams: what a guard's prices come from.

A reader looks at a tuple that is never changed, only replaced: it waits for nobody, which matters since every fire
asks. Each source's quote only moves forward in time. A stream that is down needs no word of
its own: its quotes get older than their budget (`Quote.max_age_ms`) and count no more.

A tick flagged stale speaks of its asset: from then on no quote of the asset that isn't newer is traded on, whichever
source it came from. All of them are still shown.
"""

from __future__ import annotations

import logging
import threading
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from executor.limits import CLOCK_SKEW_MS
from executor.prices.quote import Quote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from executor.assets import AssetRegistry
    from executor.prices.protocol import Tick

__all__ = ["MAX_AGE_MS", "SOURCES_MAX", "PriceBook", "Put"]

log = logging.getLogger("executor.prices")

MAX_AGE_MS: Final = 10_000
"""How old a price may be and still be traded on, unless its asset says otherwise."""

SOURCES_MAX: Final = 16
"""How many sources one asset may have: a server that makes up names can't fill the memory, or a ledger's entries."""


class Put(StrEnum):
    """What became of a tick."""

    TAKEN = "taken"
    OLDER = "older than what its source said before"
    FUTURE = "from the future"
    UNKNOWN = "of no known asset"
    NO_PRICE = "out of the range of prices"
    TOO_MANY_SOURCES = "of one source more than an asset may have"


class PriceBook:
    """A `PriceSource` that streams write into. Every method may be called from any thread, and answers at once."""

    def __init__(
        self,
        assets: AssetRegistry,
        *,
        max_age_ms: Mapping[str, int] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Make an empty book.

        Args:
            assets: which mint a stream's symbol stands for.
            max_age_ms: how old a price may be, by symbol, where that isn't `MAX_AGE_MS`.
            now_ms: the clock, Unix ms, that tells a tick from the future.

        """
        self._assets = assets
        self._max_age_ms = dict(max_age_ms or {})
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._by_mint: dict[str, tuple[Quote, ...]] = {}
        self._told: set[tuple[str, Put]] = set()

    def quotes(self, mint: str) -> Sequence[Quote]:
        """Return the latest quote of each source, stale ones too; empty if nobody knows `mint`."""
        return self._by_mint.get(mint, ())

    def put(self, tick: Tick) -> Put:
        """Take a tick, and say what became of it. What isn't taken changes nothing, and is logged once per asset."""
        outcome = self._put(tick)
        if outcome not in {Put.TAKEN, Put.OLDER, Put.UNKNOWN} and (tick.symbol, outcome) not in self._told:
            self._told.add((tick.symbol, outcome))
            log.warning("a price of `%s` from `%s` isn't taken: %s", tick.symbol, tick.source, outcome)
        return outcome

    def _put(self, tick: Tick) -> Put:
        asset = self._assets.resolve(tick.symbol)
        if asset is None:
            return Put.UNKNOWN
        if tick.ts_ms > self._now_ms() + CLOCK_SKEW_MS:
            return Put.FUTURE  # taken, it would keep out every honest tick until its time comes
        max_age_ms = self._max_age_ms.get(asset.symbol, MAX_AGE_MS)
        try:
            quote = Quote.of(asset.mint, tick.price_usd, at_ms=tick.ts_ms, max_age_ms=max_age_ms, source=tick.source)
        except ValueError:
            return Put.NO_PRICE
        with self._lock:
            return self._enter(quote.model_copy(update={"stale": True}) if tick.stale else quote)

    def _enter(self, quote: Quote) -> Put:
        known = self._by_mint.get(quote.mint, ())
        before = next((each for each in known if each.source == quote.source), None)
        others = tuple(each for each in known if each is not before)
        if before is not None and quote.at_ms < before.at_ms:
            return Put.OLDER
        if before is None and len(known) >= SOURCES_MAX:
            return Put.TOO_MANY_SOURCES
        if before is not None and quote.at_ms == before.at_ms and before.stale:
            quote = _doubted(quote)  # a doubt about a moment isn't taken back by another word about the same moment
        if quote.stale:
            others = tuple(_doubted(each) if each.at_ms <= quote.at_ms else each for each in others)
        self._by_mint[quote.mint] = (*others, quote)
        return Put.TAKEN


def _doubted(quote: Quote) -> Quote:
    return quote if quote.stale else quote.model_copy(update={"stale": True})
