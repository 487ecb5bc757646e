"""The limits that hold for every user, whatever a permit says.

They live in the sealed head that every fire reads: opening the ledger with others fails, and only
`Ledger.change_limits` changes them, for everybody at once. The defaults are those of TrueFinance's realtime
API ("Caps that bound everything"), where it gives any.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import Field

from executor.value import Value

__all__ = ["CLOCK_SKEW_MS", "Limits"]

CLOCK_SKEW_MS: Final = 1_000
"""How far clocks may disagree. It is held against the agent: permits end early, slots free late."""

COUNT_MAX: Final = 2**53 - 1
"""The integers that JSON readers agree on."""
YEAR_S: Final = 366 * 86_400
"""No permit lives longer, so no time needs to be."""


class Limits(Value):
    """Limits for all users of one ledger."""

    active_agents: Annotated[int, Field(ge=0, le=COUNT_MAX)] = 20
    """Active, unexpired agents of one user."""
    authorization_ttl_s: Annotated[int, Field(ge=1, le=YEAR_S)] = 60
    """How long an authorization may be signed on."""
    autofund_lamports_per_24h: Annotated[int, Field(ge=0, le=COUNT_MAX)] = 0
    """What one user's session wallets may be given in any 24 hours, inclusive, in lamports."""
    autofund_lamports_per_24h_in_all: Annotated[int, Field(ge=0, le=COUNT_MAX)] = 0
    """The same for all users together."""
    executions_per_24h: Annotated[int, Field(ge=1, le=COUNT_MAX)] = 500
    """Authorized attempts of one user in any 24 hours."""
    expiry_margin_s: Annotated[int, Field(ge=0, le=YEAR_S)] = 90
    """No fire this close to the permit's end: a transaction may take as long to land (150 blocks of 0.4 s)."""
    max_permit_age_s: Annotated[int, Field(ge=1, le=YEAR_S)] = 3_600
    """How long after `issuedAt` a permit may still be activated."""
    max_slippage_bps: Annotated[int, Field(ge=0, le=10_000)] = 300
    """How far the minimum received may lie below the quotes, in 1/10,000, inclusive."""
    min_interval_ms: Annotated[int, Field(ge=0, le=YEAR_S * 1000)] = 0
    """The least time between two attempts of one agent."""
    notional_micro_usd_per_24h: Annotated[int | None, Field(ge=0, le=COUNT_MAX)] = None
    """What one user's attempts of any 24 hours may be worth together, inclusive, in 1e-6 USD; None: no such limit."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, copied since every fire stores it."""
        return self._json_object.copy()

    @cached_property
    def _json_object(self) -> dict[str, Any]:
        members = {
            "activeAgents": self.active_agents,
            "authorizationTtlS": self.authorization_ttl_s,
            "autofundLamportsPer24H": self.autofund_lamports_per_24h,
            "autofundLamportsPer24HInAll": self.autofund_lamports_per_24h_in_all,
            "executionsPer24H": self.executions_per_24h,
            "expiryMarginS": self.expiry_margin_s,
            "maxPermitAgeS": self.max_permit_age_s,
            "maxSlippageBps": self.max_slippage_bps,
            "minIntervalMs": self.min_interval_ms,
        }
        if self.notional_micro_usd_per_24h is not None:
            members["notionalMicroUsdPer24H"] = self.notional_micro_usd_per_24h
        return members
