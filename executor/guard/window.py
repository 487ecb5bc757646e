"""What a rolling window of 24 hours holds of a chain's numbered entries, by halving and never by counting.

Each such entry stores what all before it amount to. So what lies in the window is one subtraction, once its first
entry is found: times only grow with the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from executor.caps import slot_free_at_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from executor.ledger import WalletView

__all__ = ["Series", "first_in_window", "used_in_window"]


class Series(NamedTuple):
    """Entries of one chain that are numbered from 1 without gaps."""

    last: int
    """The number of the last one; 0 if there is none."""
    total: int
    """What all of them amount to."""
    at_ms: Callable[[int], int]
    """When the one of this number was authorized, Unix ms."""
    total_before: Callable[[int], int]
    """What all before this number amount to; for the number after the last, all."""

    @classmethod
    def of_trades(cls, view: WalletView) -> Series:
        """Return the wallet's attempts to trade, and what they were worth in 1e-6 USD."""
        head = view.head

        def worth_before(number: int) -> int:
            if number > head.attempts:
                return head.notional_micro_usd
            return int(view.attempt(number).entry.body["worthBefore"])

        return cls(head.attempts, head.notional_micro_usd, view.attempted_at_ms, worth_before)

    @classmethod
    def of_fundings(cls, view: WalletView) -> Series:
        """Return the fundings that the chain counts, in lamports."""
        head = view.head

        def lamports_before(number: int) -> int:
            if number > head.fundings:
                return head.funded_lamports
            return int(view.funding(number).entry.body["lamportsBefore"])

        return cls(
            head.fundings, head.funded_lamports, lambda number: view.funding(number).entry.at_ms, lamports_before
        )

    def amount(self, number: int) -> int:
        """Return what the one of this number amounts to; 0 for one that isn't there yet."""
        return 0 if number > self.last else self.total_before(number + 1) - self.total_before(number)


def first_in_window(series: Series, now_ms: int) -> int:
    """Return the number of the first entry that still counts at `now_ms`; the one after the last, if none does."""
    low, high = 1, series.last + 1
    while low < high:
        middle = (low + high) // 2
        if now_ms >= slot_free_at_ms(series.at_ms(middle)):
            low = middle + 1
        else:
            high = middle
    return low


def used_in_window(series: Series, now_ms: int, room: int, *, number: int) -> tuple[int, int | None]:
    """Return what the entries in the window amount to, without the one of this `number`, and when `room` is enough.

    The time is when at most `room` of it will be left, Unix ms; None if so much is left now, or never will be.
    """
    own = series.amount(number)
    first = first_in_window(series, now_ms)
    used = series.total - series.total_before(first) - own
    if used <= room or room < 0:
        return used, None
    low, high = first, series.last
    while low < high:
        middle = (low + high) // 2
        if series.total - series.total_before(middle + 1) - own <= room:
            high = middle
        else:
            low = middle + 1
    return used, slot_free_at_ms(series.at_ms(low))
