"""Bounds: what an activation stores of a permit, and every fire is held against.

They hold the whole permit but the raw signature, and each whitelisted asset resolved to its mint. The permit's
canonical bytes can be rebuilt from them, so the permit id can be checked again by anyone.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from executor.assets import Asset
from executor.value import Value
from permits import Envelope, Permit

if TYPE_CHECKING:
    from permits import VerifiedPermit

__all__ = ["Bounds"]


class Bounds(Value):
    """What one agent may do until its permit expires."""

    assets: Annotated[tuple[Asset, ...], Field(strict=False)]
    """What each whitelist entry stands for, in the whitelist's order."""
    envelope: Envelope
    permit: Annotated[dict[str, Any], Field(repr=False)]
    """The permit's seven keys and their values, in the order that was signed."""
    permit_id: str
    wallet: str

    @classmethod
    def of(cls, verified: VerifiedPermit, assets: tuple[Asset, ...]) -> Bounds:
        """Return the bounds of a verified permit, whose whitelist resolved to `assets` in its order."""
        return cls(
            wallet=verified.wallet,
            permit_id=verified.permit_id,
            envelope=verified.envelope,
            permit=dict(sorted(verified.permit.to_json_object().items())),
            assets=assets,
        )

    @cached_property
    def terms(self) -> Permit:
        """The permit, parsed."""
        return Permit.from_json_object(self.permit)

    @cached_property
    def whitelist(self) -> dict[str, Asset]:
        """Each whitelisted name, exactly as signed, with its asset."""
        return dict(zip(self.terms.asset_whitelist, self.assets, strict=True))

    @cached_property
    def expires_at_ms(self) -> int:
        """The permit's end (exclusive), Unix ms."""
        return self.terms.expires_at_ms

    @cached_property
    def cap_micro_usd(self) -> int:
        """The most that one execution may be worth, inclusive."""
        return self.terms.max_amount_cents * 10_000

    @property
    def scope(self) -> str:
        """What a new permit must leave as it is, unless the agent was stopped: whitelist, cap, session key."""
        names = " ".join(f"{name}={asset.mint}" for name, asset in self.whitelist.items())
        dollars, cents = divmod(self.terms.max_amount_cents, 100)
        return f"{names} ${dollars}.{cents:02} {self.terms.session_pubkey}"
