"""The arithmetic of the caps: what is used, and when room comes back.

Attempts of a user are numbered without gaps, so a rolling window needs one look: attempt n is allowed while attempt
n - 500 lies at least 24 hours back. No counter is ever reset, and none can drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from executor.limits import CLOCK_SKEW_MS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WINDOW_MS", "count_unexpired", "is_expired", "slot_free_at_ms", "value_micro_usd"]

WINDOW_MS: Final = 24 * 3_600_000


def slot_free_at_ms(attempt_back_at_ms: int | None) -> int:
    """Return when the next attempt has room, given when the attempt one window's cap back was authorized.

    None, too few attempts to matter, gives 0: at once.
    """
    return 0 if attempt_back_at_ms is None else attempt_back_at_ms + WINDOW_MS + CLOCK_SKEW_MS


def is_expired(expires_at_ms: int, now_ms: int) -> bool:
    """Tell whether a permit that ends at `expires_at_ms` (exclusive) is over, clocks disagreeing at their worst."""
    return now_ms + CLOCK_SKEW_MS >= expires_at_ms


def count_unexpired(expiries_ms: Iterable[int], now_ms: int) -> int:
    """Return how many agents count as active: an expired one gives its place back before that is recorded."""
    return len([expires_at_ms for expires_at_ms in expiries_ms if not is_expired(expires_at_ms, now_ms)])


def value_micro_usd(amount: int, decimals: int, price_pico_usd: int) -> int:
    """Return what `amount` base units are worth, rounded up to whole micro-USD.

    >>> value_micro_usd(1_500_000, 6, 2 * 10**12)  # 1.5 tokens at $2
    3000000
    >>> value_micro_usd(1, 9, 10**12)  # a billionth of a dollar still counts
    1
    """
    micro: int = -(-amount * price_pico_usd // 10 ** (decimals + 6))
    return micro
