"""Bars built from ticks: open, high, low and close of each interval, told once, when it is over.

A bar belongs to the interval in which its ticks were seen by their source, whenever they came. It is told `LATE_MS_MAX`
after its interval's end, so that a tick which was a moment on the way still counts; one that comes later than that is
left out: what was told doesn't change. An interval without ticks has no bar: none is made up. Stale ticks count for
nothing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from executor.prices.protocol import INTERVALS_MS, Bar

if TYPE_CHECKING:
    from executor.prices.protocol import Tick

__all__ = ["LATE_MS_MAX", "Bars"]

LATE_MS_MAX: Final = 1_000
"""How long after the end of an interval a tick of it is waited for."""
NOTHING: Final = Decimal(0)


class Bars:
    """The bars under way, of every asset and interval."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, int], _Open] = {}
        self._told_ms = 0

    def take(self, tick: Tick, volume: Decimal = NOTHING) -> bool:
        """Count `tick` into its bars, and what was traded since the tick before; tell whether it came in time for all.

        `volume` is in the asset; a stream that tells only prices knows none.
        """
        if tick.stale:
            return False
        in_time = True
        for interval, length_ms in INTERVALS_MS.items():
            begin_ms = tick.ts_ms - tick.ts_ms % length_ms
            if begin_ms + length_ms <= self._told_ms:
                in_time = False
                continue
            key = (tick.symbol, interval, begin_ms)
            if key in self._open:
                self._open[key].count(tick, volume)
            else:
                self._open[key] = _Open(tick, volume)
        return in_time

    def over(self, now_ms: int) -> list[Bar]:
        """Return the bars that are over, in the order of their ends, shorter ones first; each is returned once."""
        self._told_ms = max(self._told_ms, now_ms - LATE_MS_MAX)
        ends = {key: key[2] + INTERVALS_MS[key[1]] for key in self._open}
        over = sorted((end_ms, INTERVALS_MS[key[1]], key) for key, end_ms in ends.items() if end_ms <= self._told_ms)
        return [self._open.pop(key).bar(*key) for _, _, key in over]


class _Open:
    """A bar under way."""

    __slots__ = ("_first", "_high", "_last", "_low", "_volume")

    def __init__(self, tick: Tick, volume: Decimal) -> None:
        self._first = self._last = tick
        self._high = self._low = tick.price_usd
        self._volume = volume

    def count(self, tick: Tick, volume: Decimal) -> None:
        if tick.ts_ms < self._first.ts_ms:
            self._first = tick
        if tick.ts_ms >= self._last.ts_ms:
            self._last = tick
        self._high = max(self._high, tick.price_usd)
        self._low = min(self._low, tick.price_usd)
        self._volume += volume

    def bar(self, symbol: str, interval: str, at_ms: int) -> Bar:
        opened, closed = self._first.price_usd, self._last.price_usd
        return Bar(symbol, interval, opened, self._high, self._low, closed, self._volume, at_ms)
