"""Who asks.

A token names one wallet, and all that it opens is that wallet's. A token that isn't believed is 401, whatever else the
request holds: nothing falls back to a weaker word.

| what | how it comes | what it opens |
|---|---|---|
| token (JWT) | `Authorization: Bearer` | everything of its wallet |
| ticket | `?ticket=`, once, within a minute | its wallet's stream |
| wallet's address | `?walletAddress=`, where the operator lets it | that wallet's stream |
| operator's token | `Authorization: Bearer` | the operator's halts, and `/metrics` |
"""

from __future__ import annotations

import asyncio
import hmac
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from executor.service.fences import too_many
from executor.service.files import read_secret
from executor.service.problems import Problem
from executor.service.rates import Rates
from executor.service.tokens import Caller, JwksUnavailable, TokenRefused, Tokens
from permits import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from executor.service.settings import Settings
    from executor.service.tickets import Tickets

__all__ = ["Authentication", "Caller"]

CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


class Authentication:
    """Tells who asks, or raises the `Problem` that says no."""

    def __init__(
        self, settings: Settings, *, tickets: Tickets | None = None, now_s: Callable[[], float] = time.time
    ) -> None:
        """Read the keys that `settings` name. Raises SecretRefused."""
        self._settings = settings
        self._tickets = tickets
        self._rates = Rates(settings.requests_per_minute_per_wallet)
        self._tokens = Tokens(settings, now_s)
        file = settings.operator_token_file
        self._operator_hash = None if file is None else sha256(read_secret(file)).digest()

    async def caller(self, request: Request) -> Caller:
        """Return whom the request's token is of.

        Raises:
            Problem: 401 without a token that is believed, 503 if that can't be known now, 429 if it asks too often.

        """
        try:
            caller = await self._tokens.caller(_bearer(request))
        except TokenRefused:
            raise _unauthenticated() from None
        except JwksUnavailable:
            raise Problem(503, "TOKEN_KEYS_UNAVAILABLE", "the keys of tokens can't be fetched now") from None
        wait_s = self._rates.wait_s(caller.wallet, asyncio.get_running_loop().time())
        if wait_s:
            raise too_many(wait_s)
        return caller

    async def stream_caller(self, request: Request) -> Caller:
        """Return whose events `request` may read, and only those. Raises Problem."""
        if "authorization" in request.headers:
            return await self.caller(request)
        if self._tickets is not None and "ticket" in request.query_params:
            return await self._tickets.take(request.query_params["ticket"])
        wallet = request.query_params.get("walletAddress", "")
        if keys.decode_key(wallet) is None:
            raise Problem(400, "WALLET_MALFORMED", "`walletAddress` must be the base58 of 32 bytes")
        if not self._settings.wallet_address_streams:
            raise _unauthenticated()
        return Caller(wallet)

    def require_operator(self, request: Request) -> None:
        """Return if the request holds the operator's token; else raise Problem: 401. It is not a coroutine."""
        told = sha256(_bearer(request).encode("latin-1")).digest()
        if self._operator_hash is None or not hmac.compare_digest(told, self._operator_hash):
            raise _unauthenticated()


def _bearer(request: Request) -> str:
    """Return the one token in the request's head. Raises Problem."""
    headers = request.headers.getlist("authorization")
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise _unauthenticated()
    return token


def _unauthenticated() -> Problem:
    return Problem(401, "UNAUTHENTICATED", "a token that is believed is required", headers=CHALLENGE)
