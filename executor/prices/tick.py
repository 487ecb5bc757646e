"""What a market says: ticks and bars."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

__all__ = ["INTERVALS_MS", "Bar", "Tick"]

INTERVALS_MS: Final = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
}
"""The intervals of bars. Each divides a day, so that bars begin at midnight UTC."""


class Tick(NamedTuple):
    """What one source says one asset is worth."""

    symbol: str
    price_usd: Decimal
    """Above zero."""
    at_ms: int
    """When the source saw it, Unix ms."""
    source: str
    stale: bool = False
    """Not to be traded on."""
    volume: Decimal = Decimal(0)
    """What was traded since the tick before, in the asset; only bars tell it."""


class Bar(NamedTuple):
    """What one asset's price did in one interval."""

    symbol: str
    interval: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    at_ms: int
    """When the interval began, Unix ms."""
