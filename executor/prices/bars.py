"""Bars: what each interval saw of one symbol, from ticks.

An interval of `5m` begins at each whole five minutes of Unix time and includes its beginning, not its end. Its bar is
made of the ticks whose own time lies in it, whenever they arrive:

- A bar closes when a tick of its symbol comes whose time lies past its end, or 2 s after its end by the clock.
- A tick that comes after its bar closed is late: no bar changes. One that is out of order in an open bar counts for
  high, low, volume and, if it is the earliest, open; never for close.
- An interval without a tick has no bar. Nothing is made up, so the next bar may begin where no bar ended.
- A tick flagged stale, or from more than 2 s ahead of the clock, is in no bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from executor.prices.protocol import INTERVALS_MS, Bar

if TYPE_CHECKING:
    from decimal import Decimal

    from executor.prices.protocol import Tick

__all__ = ["Bars"]

GRACE_MS: Final = 2_000
"""How long after its end a bar waits for ticks under way."""

AHEAD_MS_MAX: Final = 2_000
"""A tick further ahead would close bars that others are still to fill."""


class _Open:
    """A bar that still takes ticks."""

    __slots__ = ("close", "first_ms", "high", "last_ms", "low", "open", "start_ms", "volume")

    def __init__(self, start_ms: int, tick: Tick, volume: Decimal) -> None:
        self.start_ms = start_ms
        self.open = self.high = self.low = self.close = tick.price_usd
        self.first_ms = self.last_ms = tick.ts_ms
        self.volume = volume

    def add(self, tick: Tick, volume: Decimal) -> None:
        self.high = max(self.high, tick.price_usd)
        self.low = min(self.low, tick.price_usd)
        self.volume += volume
        if tick.ts_ms < self.first_ms:
            self.first_ms, self.open = tick.ts_ms, tick.price_usd
        if tick.ts_ms >= self.last_ms:
            self.last_ms, self.close = tick.ts_ms, tick.price_usd

    def closed(self, symbol: str, interval: str) -> Bar:
        return Bar(symbol, interval, self.open, self.high, self.low, self.close, self.volume, self.start_ms)


class Bars:
    """The open bars of all symbols, of all six intervals."""

    def __init__(self) -> None:
        self.late = 0
        """How many ticks came after their 1m bar had closed."""
        self._open: dict[tuple[str, str], _Open] = {}
        self._closed_until_ms: dict[tuple[str, str], int] = {}

    def add(self, tick: Tick, volume: Decimal, now_ms: int) -> list[Bar]:
        """Count `tick` in, with what was traded at it, and return the bars that it closed, the shortest first."""
        if tick.stale or tick.ts_ms > now_ms + AHEAD_MS_MAX:
            return []
        closed = []
        for interval, length_ms in INTERVALS_MS.items():
            key = (tick.symbol, interval)
            start_ms = tick.ts_ms - tick.ts_ms % length_ms
            if start_ms < self._closed_until_ms.get(key, 0):
                self.late += interval == "1m"
                continue
            bar = self._open.get(key)
            if bar is not None and start_ms > bar.start_ms:
                closed.append(self._close(key, bar))
                bar = None
            if bar is None:
                self._open[key] = _Open(start_ms, tick, volume)
            elif start_ms == bar.start_ms:
                bar.add(tick, volume)
            else:
                self.late += interval == "1m"
        return closed

    def close_until(self, now_ms: int) -> list[Bar]:
        """Return the bars whose time is over at `now_ms`, in the order of their ends."""
        over = [
            (bar.start_ms + INTERVALS_MS[key[1]], key, bar)
            for key, bar in self._open.items()
            if bar.start_ms + INTERVALS_MS[key[1]] + GRACE_MS <= now_ms
        ]
        return [self._close(key, bar) for _, key, bar in sorted(over, key=lambda each: each[0])]

    def _close(self, key: tuple[str, str], bar: _Open) -> Bar:
        del self._open[key]
        self._closed_until_ms[key] = bar.start_ms + INTERVALS_MS[key[1]]
        return bar.closed(*key)
