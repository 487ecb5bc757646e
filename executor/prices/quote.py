"""A quote: what one source says one token is worth, and until when that may be traded on."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, Self

from pydantic import Field

from executor.value import BigInt, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PICO", "FixedPrices", "PriceSource", "Quote"]

PICO: Final = 10**12
"""Prices are integers of 1e-12 USD: a token of a millionth of a cent still has four digits."""


PRICE_PICO_USD_MAX: Final = 10**12 * PICO
"""A source that says a token is worth more than a trillion dollars is broken."""


class Quote(Value):
    """One source's price of one whole token."""

    at_ms: int
    """When the source published it, Unix ms."""
    max_age_ms: Annotated[int, Field(ge=0)]
    """How old it may be and still be traded on, inclusive."""
    mint: str
    price_pico_usd: Annotated[BigInt, Field(ge=1, le=PRICE_PICO_USD_MAX)]
    """The price of 10**decimals base units, in 1e-12 USD."""
    source: str
    stale: bool = False
    """The source itself says not to trade on it."""

    @classmethod
    def of(cls, mint: str, price_usd: Decimal | str, *, at_ms: int, max_age_ms: int, source: str) -> Self:
        """Return the quote of a decimal price in USD; digits past 1e-12 are rounded up, against the trade.

        Raises:
            ValueError: the price is not a positive number.

        """
        try:
            pico = int((Decimal(price_usd) * PICO).to_integral_value(ROUND_CEILING))
        except (ArithmeticError, ValueError):
            raise ValueError(f"`{price_usd}` is not a price") from None
        return cls(mint=mint, price_pico_usd=pico, at_ms=at_ms, max_age_ms=max_age_ms, source=source)

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, copied since every fire stores some."""
        return self._json_object.copy()

    @cached_property
    def _json_object(self) -> dict[str, Any]:
        return {
            "atMs": self.at_ms,
            "maxAgeMs": self.max_age_ms,
            "mint": self.mint,
            "pricePicoUsd": str(self.price_pico_usd),
            "source": self.source,
            "stale": self.stale,
        }

    def is_fresh(self, now_ms: int, skew_ms: int) -> bool:
        """Tell whether it may be traded on at `now_ms`: not flagged, not too old, not from the future."""
        return not self.stale and -skew_ms <= now_ms - self.at_ms <= self.max_age_ms


class PriceSource(Protocol):
    """Whoever has quotes at hand.

    The guard asks it in the thread of the fire, from any number of threads at once, and under no lock: it may take its
    time and call the guard, at the cost of that fire alone. Quotes count for a second from before the question for the
    first of a fire's mints; what took longer is asked for once more, and then for nothing.
    """

    def quotes(self, mint: str) -> Sequence[Quote]:
        """Return what each source says of `mint`, stale ones too; empty if nobody knows it.

        Up to 64, of exactly this class and this mint, each naming its source in up to 200 characters. If one is
        otherwise, or this raises, nobody quotes `mint` for that fire: PRICE_MISSING, and one line in the log.
        """


class FixedPrices:
    """A price source whose quotes are set by hand."""

    def __init__(self, quotes: Iterable[Quote] = ()) -> None:
        self._by_mint: dict[str, tuple[Quote, ...]] = {}
        for quote in quotes:
            self.set(quote)

    def set(self, quote: Quote) -> None:
        """Make `quote` the only one of its mint."""
        self._by_mint[quote.mint] = (quote,)

    def quotes(self, mint: str) -> Sequence[Quote]:
        """Return the quotes set for `mint`."""
        return self._by_mint.get(mint, ())
