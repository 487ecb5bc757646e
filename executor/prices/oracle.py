"""One price an asset out of several sources, and whether it may be traded on.

Sources fail: one lies, one stalls, one jumps, one goes back in time. So each asset says who is asked (`Feed`), how old
a price may be, and how far sources may lie apart. What a source says counts while it is fresh and near the median of
those that are; a price that more than half of them don't bear out is told as stale, and so is a lone source's that
jumped, until its next tick lies near. That a source which counted no longer does is a *fail-over*; two of them within a
minute open the *breaker*: for the next minute everything of that asset is told as stale, however good it looks. A
market that moves so fast that its sources fall apart opens it too.

Values in, values out: the time is an argument, and nothing is told by itself.
"""

from __future__ import annotations

from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from executor.prices.protocol import Tick

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BREAKER_MS", "FUTURE_MS_MAX", "Feed", "Oracle"]

BREAKER_MS: Final = 60_000
"""How long an open breaker stays open, and within which time two fail-overs open it."""
FUTURE_MS_MAX: Final = 1_000
"""How far a source's clock may run before ours."""
BPS: Final = 10_000


class Feed(NamedTuple):
    """Whose word counts for one asset."""

    sources: tuple[str, ...]
    """In order of priority."""
    merge: Literal["median", "priority"] = "median"
    """Of those that count: the median, or the first in the order."""
    age_ms_max: int = 10_000
    """How old a source's price may be and still count, inclusive."""
    apart_bps_max: int = 200
    """How far a source may lie from the median of all fresh ones and still count, inclusive; further from its own tick
    before, it has jumped."""


class Oracle:
    """Merges the ticks of the assets' sources. What is remembered is each source's last tick, no more."""

    def __init__(self, feeds: Mapping[str, Feed]) -> None:
        self._assets = {symbol: _Asset(symbol, feed) for symbol, feed in feeds.items()}

    def take(self, tick: Tick, now_ms: int) -> Tick | None:
        """Hear `tick` from its source, and return what is to be told of its asset now.

        None: it changes nothing. The asset or the source is unknown, the price isn't above zero, or the tick is older
        than one that the source gave before, or from the future.
        """
        asset = self._assets.get(tick.symbol)
        return None if asset is None else asset.take(tick, now_ms)

    def look(self, now_ms: int) -> list[Tick]:
        """Return what is to be told since time has passed: prices that became stale, or good again. Call it often."""
        found = (asset.look(now_ms) for asset in self._assets.values())
        return [tick for tick in found if tick is not None]


class _Asset:
    """What is known of one asset."""

    def __init__(self, symbol: str, feed: Feed) -> None:
        self._symbol = symbol
        self._feed = feed
        self._last: dict[str, Tick] = {}
        self._jumped: set[str] = set()
        self._counting: frozenset[str] = frozenset()
        self._told: Tick | None = None
        self._failed_over_ms: int | None = None
        self._open_until_ms = 0

    def take(self, tick: Tick, now_ms: int) -> Tick | None:
        before = self._last.get(tick.source)
        if tick.source not in self._feed.sources or not (tick.price_usd.is_finite() and tick.price_usd > 0):
            return None
        if tick.ts_ms > now_ms + FUTURE_MS_MAX or (before is not None and tick.ts_ms < before.ts_ms):
            return None
        if before is None or self._is_near(tick.price_usd, before.price_usd):
            self._jumped.discard(tick.source)
        else:
            self._jumped.add(tick.source)
        self._last[tick.source] = tick
        return self._tell(now_ms)

    def look(self, now_ms: int) -> Tick | None:
        before = self._told
        after = self._tell(now_ms)
        changed = after is not None and before is not None and after.stale != before.stale
        return after if changed else None

    def _tell(self, now_ms: int) -> Tick | None:
        counting = self._count(now_ms)
        if self._counting - counting.keys():
            self._fail_over(now_ms)
        self._counting = frozenset(counting)
        if counting:
            first = next(source for source in self._feed.sources if source in counting)
            newest = max(tick.ts_ms for tick in counting.values())
            if self._feed.merge == "median":
                price = Decimal(median(tick.price_usd for tick in counting.values()))
                merged = Tick(self._symbol, price, newest, "median", stale=False)
            else:
                merged = counting[first]
            self._told = merged._replace(stale=now_ms < self._open_until_ms)
        elif self._told is not None:
            self._told = self._told._replace(stale=True)
        return self._told

    def _count(self, now_ms: int) -> dict[str, Tick]:
        """Return the ticks that count, by their sources: none, if not more than half of the fresh ones lie together."""
        fresh = {
            source: tick
            for source, tick in self._last.items()
            if not tick.stale and now_ms - tick.ts_ms <= self._feed.age_ms_max
        }
        if not fresh:
            return {}
        middle = Decimal(median(tick.price_usd for tick in fresh.values()))
        near = {source: tick for source, tick in fresh.items() if self._is_near(tick.price_usd, middle)}
        alone = len(near) == 1 and not near.keys().isdisjoint(self._jumped)
        return near if 2 * len(near) > len(fresh) and not alone else {}

    def _is_near(self, price: Decimal, other: Decimal) -> bool:
        return abs(price - other) * BPS <= other * self._feed.apart_bps_max

    def _fail_over(self, now_ms: int) -> None:
        if self._failed_over_ms is not None and now_ms - self._failed_over_ms <= BREAKER_MS:
            self._open_until_ms = now_ms + BREAKER_MS
        self._failed_over_ms = now_ms
