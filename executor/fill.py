"""Fills: what a landed transaction really moved, and what that is in dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executor.amounts import LAMPORT_DECIMALS, plain
from executor.assets import NATIVE_MINT
from executor.limits import CLOCK_SKEW_MS
from executor.value import BigInt, Value

if TYPE_CHECKING:
    from executor.assets import Asset
    from executor.evidence import Evidence
    from executor.prices.quote import Quote

__all__ = ["Fill", "Landing"]


class Landing(Value):
    """What the chain says of a landed transaction."""

    fee_lamports: BigInt
    received: BigInt
    """Base units that came into the session wallet."""
    slot: int
    sold: BigInt
    """Base units that left it."""


class Fill(Value):
    """A landing, valued at the quotes that the fire was decided by. Decimals as plain strings, digits exact."""

    fee_lamports: BigInt
    fee_usd: str | None = None
    """The network fee in USD; None where no quote for SOL was known."""
    filled_amount: str
    """Whole tokens bought."""
    filled_price_usd: str
    """What one of them cost: the sold amount at its highest fresh quote, over the bought, rounded down to 1e-12."""
    received: BigInt
    slot: int
    sold: BigInt

    @classmethod
    def of(cls, landing: Landing, evidence: Evidence, decided_at_ms: int, sell: Asset, buy: Asset) -> Fill:
        """Value `landing` at the quotes in `evidence` that were fresh at `decided_at_ms` (Unix ms)."""
        fresh = [quote for quote in evidence.quotes if quote.is_fresh(decided_at_ms, CLOCK_SKEW_MS)]
        sell_price, sol_price = _highest(fresh, sell.mint), _highest(fresh, NATIVE_MINT)
        paid_pico_usd = landing.sold * (sell_price or 0) * 10**buy.decimals // 10**sell.decimals
        fee_pico_usd = None if sol_price is None else landing.fee_lamports * sol_price // 10**LAMPORT_DECIMALS
        return cls(
            **landing.model_dump(by_alias=False),
            filled_amount=plain(landing.received, buy.decimals),
            filled_price_usd=plain(paid_pico_usd // landing.received if landing.received else 0, 12),
            fee_usd=None if fee_pico_usd is None else plain(fee_pico_usd, 12),
        )


def _highest(quotes: list[Quote], mint: str) -> int | None:
    return max((quote.price_pico_usd for quote in quotes if quote.mint == mint), default=None)
