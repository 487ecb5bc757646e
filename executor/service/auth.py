"""Who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from executor.service.problems import Problem
from permits import keys

if TYPE_CHECKING:
    from starlette.requests import Request

    from executor.service.settings import Settings

__all__ = ["Authentication", "Caller"]


class Caller(NamedTuple):
    """Who asks, and for how long that is known."""

    wallet: str
    expires_at_s: int | None = None
    """When their token ends, Unix seconds; None: never, for what needs none."""


class Authentication:
    """Tells who asks, or raises the `Problem` that says no."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def stream_caller(self, request: Request) -> Caller:
        """Return whose events `request` may read, and only those."""
        wallet = request.query_params.get("walletAddress", "")
        if keys.decode_key(wallet) is None:
            raise Problem(400, "WALLET_MALFORMED", "`walletAddress` must be the base58 of 32 bytes")
        if not self._settings.wallet_address_streams:
            raise Problem(401, "UNAUTHENTICATED", "a token is required")
        return Caller(wallet)
