"""Tickets: a browser's EventSource can't send a token, so it exchanges one for a ticket that its URL may hold.

URLs end up in logs and histories. A ticket opens one stream, once, within a minute; the stream ends when the token
that it was made from would.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

from executor.service.problems import Problem
from executor.service.sign_in import NOT_STORED, spend_or_refuse
from executor.service.tokens import Caller, Purpose, TokenRefused
from permits import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from executor.ledger import Ledger
    from executor.service.auth import Authentication

__all__ = ["Tickets"]

TICKET_LIFETIME_S: Final = 60
"""A page opens its stream at once."""
TICKET_BYTES: Final = 16


class Tickets:
    """Makes tickets, and takes each once."""

    def __init__(
        self,
        ledger: Ledger,
        secret: bytes,
        *,
        now_s: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._ledger = ledger
        self._purpose = Purpose(secret, "stream ticket")
        self._now_s = now_s
        self._random_bytes = random_bytes

    def routes(self, authentication: Authentication) -> list[BaseRoute]:
        """Return where they are made, for whom `authentication` believes."""

        async def make(request: Request) -> JSONResponse:
            caller = await authentication.caller(request)
            expires_at_s = int(self._now_s()) + TICKET_LIFETIME_S
            claims = {"caller": caller, "nonce": self._random_bytes(TICKET_BYTES).hex()}
            ticket = self._purpose.seal(claims, expires_at_s)
            return JSONResponse({"ticket": ticket, "expiresAt": timestamp(expires_at_s * 1000)}, 201, NOT_STORED)

        return [Route("/api/stream-tickets", make, methods=["POST"])]

    async def take(self, ticket: str) -> Caller:
        """Return whose stream `ticket` opens, and until when; it is used up. Raises Problem."""
        try:
            claims = self._purpose.open(ticket, self._now_s())
        except TokenRefused:
            raise Problem(401, "TICKET_REFUSED", "the ticket isn't ours, or is over: ask for another") from None
        caller = Caller(*claims["caller"])
        await spend_or_refuse(self._ledger, caller.wallet, ticket, claims["exp"])
        return caller
