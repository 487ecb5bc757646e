"""Sign-in: a wallet signs a text, and gets a token.

The text is Sign-In-With-Solana's (CAIP-122 for Solana): the wallet shows its user which site asks. Domain and URI are
the operator's setting and never the request's, so what another site had signed is worth nothing here.

No challenge is remembered. It is a token of the service to itself, which holds the fields that the text is made from;
what comes back is opened, the text is made again, the wallet's signature checked over it, and the challenge spent.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from starlette.responses import JSONResponse
from starlette.routing import Route

from executor.errors import LedgerError
from executor.service.problems import Problem
from executor.service.tokens import Issuer, Purpose, TokenRefused, spent_as
from permits import ENVELOPES, PermitError, keys, timestamp
from permits.canonical import parse
from permits.envelopes import enclose
from permits.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from executor.ledger import Ledger
    from executor.service.settings import Settings
    from permits.envelopes import Envelope

__all__ = ["Challenge", "SignIn", "members"]

CHALLENGE_LIFETIME_S: Final = 300
"""Enough to find a hardware wallet in a drawer."""
NONCE_BYTES: Final = 16
STATEMENT: Final = "Sign in to watch and stop your agents. This moves no funds and permits no trade."


class Challenge(NamedTuple):
    """What a wallet is asked to sign."""

    wallet: str
    nonce: str
    issued_at_s: int

    @property
    def expires_at_s(self) -> int:
        """When it ends, Unix seconds, exclusive."""
        return self.issued_at_s + CHALLENGE_LIFETIME_S

    def message(self, domain: str, uri: str) -> str:
        """Return the text, as the wallet shows and signs it, in UTF-8."""
        return (
            f"{domain} wants you to sign in with your Solana account:\n{self.wallet}\n\n{STATEMENT}\n\n"
            f"URI: {uri}\nVersion: 1\nChain ID: mainnet\nNonce: {self.nonce}\n"
            f"Issued At: {timestamp(self.issued_at_s * 1000)}\nExpiration Time: {timestamp(self.expires_at_s * 1000)}"
        )


class SignIn:
    """The two endpoints of sign-in."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        secret: bytes,
        *,
        now_s: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Sign wallets in to `settings.sign_in_domain`. Raises SecretRefused without a key to sign tokens with."""
        self._domain = settings.sign_in_domain or ""
        self._uri = settings.sign_in_uri or f"https://{self._domain}"
        self._issuer = Issuer(settings)
        self._challenges = Purpose(secret, "sign-in challenge")
        self._ledger = ledger
        self._now_s = now_s
        self._random_bytes = random_bytes

    def routes(self) -> list[BaseRoute]:
        """Return where they are."""
        return [
            Route("/api/sign-in/challenges", self._challenge, methods=["POST"]),
            Route("/api/sign-in", self._sign_in, methods=["POST"]),
        ]

    async def _challenge(self, request: Request) -> JSONResponse:
        [wallet] = await members(request, "walletAddress")
        if not is_wallet(wallet):
            raise Problem(400, "WALLET_MALFORMED", "`walletAddress` must be the base58 of a wallet's public key")
        challenge = Challenge(wallet, self._random_bytes(NONCE_BYTES).hex(), int(self._now_s()))
        sealed = self._challenges.seal({"fields": challenge[:3]}, challenge.expires_at_s)
        return JSONResponse(
            {"challenge": sealed, "message": challenge.message(self._domain, self._uri)}, 201, NOT_STORED
        )

    async def _sign_in(self, request: Request) -> JSONResponse:
        sealed, signature, envelope = await members(request, "challenge", "signature", envelope="raw")
        if envelope not in ENVELOPES:
            raise Problem(400, "BODY_MALFORMED", f"`envelope` must be one of {', '.join(ENVELOPES)}")
        now_s = self._now_s()
        try:
            challenge = Challenge(*self._challenges.open(sealed, now_s)["fields"])
        except TokenRefused:
            raise Problem(401, "CHALLENGE_REFUSED", "the challenge isn't ours, or is over: ask for another") from None
        message = challenge.message(self._domain, self._uri).encode()
        if not signed_by(challenge.wallet, signature, message, envelope):
            raise Problem(401, "SIGNATURE_INVALID", "`signature` must be the wallet's, base58, over exactly `message`")
        await spend_or_refuse(self._ledger, challenge.wallet, sealed, challenge.expires_at_s)
        token, expires_at_s = self._issuer.token(challenge.wallet, int(now_s))
        return JSONResponse({"token": token, "expiresAt": timestamp(expires_at_s * 1000)}, headers=NOT_STORED)


NOT_STORED: Final = {"Cache-Control": "no-store"}


async def members(request: Request, *names: str, **optional: str) -> list[str]:
    """Return the texts that the request's JSON object has under these names, and no others. Raises Problem: 400.

    `optional` has those that may be left out, and what they are then.
    """
    try:
        body = parse(await request.body())
    except PermitError:
        body = None
    texts = optional | body if isinstance(body, dict) else {}
    names += tuple(optional)
    if texts.keys() != set(names) or not all(isinstance(text, str) for text in texts.values()):
        wanted = ", ".join(f"`{name}`" for name in names)
        raise Problem(400, "BODY_MALFORMED", f"must be a JSON object of the texts {wanted}")
    return [texts[name] for name in names]


async def spend_or_refuse(ledger: Ledger, wallet: str, token: str, expires_at_s: int) -> None:
    """Return if `token` was never used, on any replica; now it is. Else raise Problem."""
    try:
        first = await asyncio.to_thread(ledger.spend, wallet, spent_as(token), expires_at_ms=expires_at_s * 1000)
    except LedgerError:
        raise Problem(503, "LEDGER_UNAVAILABLE", "the ledger can't be written") from None
    if not first:
        raise Problem(401, "ALREADY_USED", "this was used before: it is good for once")


def is_wallet(text: str) -> bool:
    """Tell whether `text` spells a key that permits may be signed with: see `permits.keys`."""
    key = keys.decode_key(text)
    return key is not None and text not in keys.NOT_CANONICAL_KEYS and keys.has_prime_order(key)


def signed_by(wallet: str, signature: str, message: bytes, envelope: Envelope = "raw") -> bool:
    """Tell whether `signature` (base58) is the wallet's over `message`, as strictly as a permit's is checked."""
    key, told = keys.decode_key(wallet), keys.decode_signature(signature)
    if key is None or told is None or not is_wallet(wallet):
        return False
    try:
        crypto_sign_open(told + enclose(envelope, key, message), key)
    except (BadSignatureError, SignatureError):  # the latter: it is too long for that envelope
        return False
    return True
