"""The oracle: one price of each asset out of several sources, and whether it may be traded on.

A source may lie, stall, jump, or go back in time; the oracle can't know the truth, only whether enough sources that
are up to date agree. Where they don't, it goes on telling the best price it has, flagged stale.

- A reading is taken if it is newer than the last of its source, and not from the future; else it is passed over.
- Fresh sources are those whose last reading is within the asset's age budget.
- With three or more fresh ones, those further from their median than `apart_bps_max` are left out. With two that far
  apart nobody knows which one lies: stale.
- Fewer agreeing sources than `agreeing_min`: stale. None: the last price, stale.
- Alone, a source that jumps further than `apart_bps_max` from the last good price is stale until it has stayed there
  for the age budget.
- When a source that was used falls away, that is a fail-over. The second one within a minute opens the breaker: stale
  for a minute from then on.

It knows readings, rules and the time, and reads neither clocks nor sockets.
"""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.prices.protocol import Tick

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BREAKER_MS", "Oracle", "Reading", "Rule", "Sources"]

BREAKER_MS: Final = 60_000
FAILOVERS_TO_OPEN: Final = 2
AHEAD_MS_MAX: Final = 2_000
"""How far a source's clock may be ahead of ours."""
BPS: Final = 10_000
PRICE_USD_MIN: Final = Decimal("1e-12")
PRICE_USD_MAX: Final = Decimal(10**12)
"""As for quotes (`executor.prices.quote`)."""


class Rule(Enum):
    """How sources that agree make one price."""

    MEDIAN = "median"
    PRIORITY = "priority"
    """That of the first in the order."""


class Sources(NamedTuple):
    """Where an asset's price comes from."""

    names: tuple[str, ...]
    """For `PRIORITY`, the preferred first."""
    rule: Rule = Rule.MEDIAN
    age_ms_max: int = 10_000
    """The budget: a reading that is older doesn't count."""
    apart_bps_max: int = 200
    agreeing_min: int = 1


class Reading(NamedTuple):
    """What one source said."""

    symbol: str
    source: str
    price_usd: Decimal
    ts_ms: int
    """When it said so, by its own clock."""


class _Asset:
    """What is remembered of one asset."""

    __slots__ = ("failovers_ms", "good_usd", "jumped_at_ms", "open_until_ms", "readings", "told", "used")

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.used: frozenset[str] = frozenset()
        self.failovers_ms: list[int] = []
        self.open_until_ms = 0
        self.good_usd: Decimal | None = None
        self.jumped_at_ms: int | None = None
        self.told: Tick | None = None


class Oracle:
    """Merges what the sources of each asset say. `now_ms` is Unix time everywhere."""

    def __init__(self, assets: Mapping[str, Sources]) -> None:
        self._sources = dict(assets)
        self._assets = {symbol: _Asset() for symbol in assets}

    def take(self, reading: Reading, now_ms: int) -> Tick | None:
        """Return the asset's price after `reading`; None: it was passed over, or is of no source of this asset's."""
        sources = self._sources.get(reading.symbol)
        if sources is None or reading.source not in sources.names:
            return None
        price_usd = _usable(reading.price_usd)
        if price_usd is None or reading.ts_ms > now_ms + AHEAD_MS_MAX:
            return None
        asset = self._assets[reading.symbol]
        last = asset.readings.get(reading.source)
        if last is not None and reading.ts_ms <= last.ts_ms:
            return None
        asset.readings[reading.source] = reading._replace(price_usd=price_usd)
        return self._tell(reading.symbol, now_ms)

    def overdue(self, now_ms: int) -> list[Tick]:
        """Return the assets that went stale by time alone since they were last told, flagged."""
        stale = []
        for symbol, asset in self._assets.items():
            told = asset.told
            if told is None or told.stale:
                continue
            tick = self._tell(symbol, now_ms)
            if tick is not None and tick.stale:
                stale.append(tick)
        return stale

    def _tell(self, symbol: str, now_ms: int) -> Tick | None:
        sources, asset = self._sources[symbol], self._assets[symbol]
        fresh = [
            asset.readings[name]
            for name in sources.names
            if name in asset.readings and now_ms - asset.readings[name].ts_ms <= sources.age_ms_max
        ]
        agreeing = _agreeing(fresh, sources.apart_bps_max)
        self._note_failover(asset, sources, agreeing, now_ms)
        if not agreeing:
            told = asset.told
            if told is None and fresh:
                told = _tick(fresh[0], stale=True)
            asset.told = None if told is None else told._replace(stale=True)
            return asset.told
        tick = _tick(agreeing[0], stale=False) if sources.rule is Rule.PRIORITY else _median_tick(agreeing)
        stale = len(agreeing) < sources.agreeing_min or now_ms < asset.open_until_ms
        jumped = _has_jumped(asset, sources, agreeing, tick.price_usd, now_ms)
        if not jumped:
            asset.good_usd = tick.price_usd
        ts_ms = tick.ts_ms if asset.told is None else max(tick.ts_ms, asset.told.ts_ms)
        asset.told = tick._replace(ts_ms=ts_ms, stale=stale or jumped)
        return asset.told

    def _note_failover(self, asset: _Asset, sources: Sources, agreeing: Sequence[Reading], now_ms: int) -> None:
        taken = agreeing[:1] if sources.rule is Rule.PRIORITY else agreeing
        used = frozenset(each.source for each in taken)
        order = {name: rank for rank, name in enumerate(sources.names)}
        lost = asset.used - used
        if sources.rule is Rule.PRIORITY and used:  # back to a preferred one is no failure
            lost = frozenset(name for name in lost if order[name] < min(order[each] for each in used))
        if lost:
            asset.failovers_ms = [at_ms for at_ms in asset.failovers_ms if now_ms - at_ms < BREAKER_MS] + [now_ms]
            if len(asset.failovers_ms) >= FAILOVERS_TO_OPEN:
                asset.open_until_ms = now_ms + BREAKER_MS
                asset.failovers_ms = []
        asset.used = used


def _usable(price_usd: Decimal) -> Decimal | None:
    """Return the price in at most 12 decimals; None: it is no price."""
    if not price_usd.is_finite() or not PRICE_USD_MIN <= price_usd <= PRICE_USD_MAX:
        return None
    rounded = price_usd.quantize(PRICE_USD_MIN)
    return price_usd if rounded == price_usd else rounded


def _agreeing(fresh: Sequence[Reading], apart_bps_max: int) -> list[Reading]:
    """Return those of `fresh` that agree with the median of all; none, if that is less than half of them."""
    middle = _median([each.price_usd for each in fresh]) if fresh else Decimal(0)
    near = [each for each in fresh if _apart_bps(each.price_usd, middle) <= apart_bps_max]
    return near if 2 * len(near) > len(fresh) else []


def _has_jumped(asset: _Asset, sources: Sources, agreeing: Sequence[Reading], price_usd: Decimal, now_ms: int) -> bool:
    if len(agreeing) > 1 or asset.good_usd is None or _apart_bps(price_usd, asset.good_usd) <= sources.apart_bps_max:
        asset.jumped_at_ms = None
        return False
    if asset.jumped_at_ms is None:
        asset.jumped_at_ms = now_ms
    if now_ms - asset.jumped_at_ms < sources.age_ms_max:
        return True
    asset.jumped_at_ms = None
    return False


def _apart_bps(one: Decimal, other: Decimal) -> Decimal:
    return abs(one - other) * BPS / other


def _median(prices: Sequence[Decimal]) -> Decimal:
    """Return the middle one; of an even number, the exact mean of the two."""
    ordered = sorted(prices)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _median_tick(agreeing: Sequence[Reading]) -> Tick:
    """Return their median, as old as the oldest of them: it is no newer than what it rests on."""
    price_usd = _median([each.price_usd for each in agreeing])
    oldest_ms = min(each.ts_ms for each in agreeing)
    return Tick(agreeing[0].symbol, price_usd, oldest_ms, "median", stale=False)


def _tick(reading: Reading, *, stale: bool) -> Tick:
    return Tick(reading.symbol, reading.price_usd, reading.ts_ms, reading.source, stale=stale)
