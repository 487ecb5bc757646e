"""Check, offline, that a wallet signed a permit: the only way to a `VerifiedPermit`.

The layers of `permits.errors` are walked in their order, and the first rule that fails is raised. A signature is
checked as libsodium does (cofactorless, S < L, canonical encodings, A and R not of small order), and the wallet's key
must have prime order besides, so that no second key and no second signature stands for the same consent.

Time is an argument. Without it, time isn't judged: what was signed stays provable for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NoReturn

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from permits import keys
from permits.envelopes import Envelope, enclose
from permits.errors import (
    CanonicalFormError,
    Code,
    KeyEncodingError,
    SignatureError,
    TimeError,
)
from permits.explain import duration
from permits.model import Claim, Permit, SignedPermit, made

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["VerifiedPermit", "permit_id", "verify", "verify_bytes"]

RAW_ONLY: Final[tuple[Envelope, ...]] = ("raw",)
PERMIT_ID_TAG: Final = b"holdfire/permit/v1\x00"
NOT_CANONICAL: Final = "must spell its point canonically (y < 2**255 - 19)"
LIFETIME_MS_MAX: Final = 366 * 86_400_000
"""A year and a day: a permit that outlives the attention of the user who signed it protects nobody."""


@dataclass(frozen=True, init=False)
class VerifiedPermit:
    """A permit that `verify` has checked: a wallet really signed these bounds. It can't be made in another way."""

    permit: Permit
    permit_id: str
    """SHA-256 of the tag, the wallet and the canonical bytes, lowercase hex: what executions are traced back to."""
    wallet: str
    """The signer, base58."""
    envelope: Envelope
    canonical: bytes
    """The permit's canonical bytes: what the wallet signed, inside `envelope`."""

    def __init__(self) -> None:
        raise TypeError("a verified permit comes from permits.verify alone")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a verified permit doesn't travel: send the signed permit and verify it there")


def verify(
    signed: SignedPermit | bytes,
    *,
    now_ms: int | None = None,
    wallet: str | None = None,
    envelopes: Collection[Envelope] = RAW_ONLY,
    lifetime_ms_max: int = LIFETIME_MS_MAX,
    clock_skew_ms: int = 0,
) -> VerifiedPermit:
    """Return the permit in `signed` (transport JSON as bytes, or parsed), or raise the first rule that it breaks.

    Args:
        signed: what travels; see `SignedPermit`.
        now_ms: Unix time in ms to judge by; None: don't judge time (the maximum lifetime still holds).
        wallet: the base58 address that must have signed; None: whichever wallet `signed` names.
        envelopes: what the wallet may have signed. The caller names them; only `raw` if it names none.
        lifetime_ms_max: the longest time from `issuedAt` to `expiresAt`.
        clock_skew_ms: how far the caller's clock may be off: a permit ends that much early, and may be that much
            "from the future".

    Raises:
        PermitError: the child and the code tell the layer and the rule.

    """
    if isinstance(signed, bytes):
        signed = SignedPermit.from_json(signed)
    permit = signed.permit
    canonical = permit.canonical_bytes()
    _check_session_key(permit.session_pubkey)
    check_wallet(signed, wallet)
    check_signature(signed, canonical, envelopes)
    _check_time(permit, now_ms, lifetime_ms_max, clock_skew_ms)
    return made(
        VerifiedPermit,
        permit=permit,
        permit_id=permit_id(signed.wallet_bytes, canonical),
        wallet=signed.wallet_address,
        envelope=signed.envelope,
        canonical=canonical,
    )


def verify_bytes(
    message: bytes,
    *,
    signature: str,
    wallet: str,
    now_ms: int | None = None,
    lifetime_ms_max: int = LIFETIME_MS_MAX,
    clock_skew_ms: int = 0,
) -> VerifiedPermit:
    """Return the permit whose canonical bytes `message` is, signed `raw` by `wallet`: both base58.

    Raises:
        PermitError: as `verify`; `CANONICAL_MISMATCH` if `message` spells a permit in any but the canonical way.

    """
    permit = Permit.from_json(message)
    if permit.canonical_bytes() != message:
        raise CanonicalFormError(Code.CANONICAL_MISMATCH, None, None, "must be the permit's canonical bytes")
    signed = SignedPermit.from_json_object(
        {"permit": permit.to_json_object(), "walletAddress": wallet, "signature": signature}
    )
    return verify(signed, now_ms=now_ms, lifetime_ms_max=lifetime_ms_max, clock_skew_ms=clock_skew_ms)


def permit_id(wallet: bytes, canonical: bytes) -> str:
    """Return the id of the permit with these `canonical` bytes, signed by `wallet` (32 bytes): 64 hex digits.

    The same text signed by another wallet is another permit.
    """
    return sha256(PERMIT_ID_TAG + wallet + canonical).hexdigest()


def _check_session_key(text: str) -> None:
    if text in keys.NOT_CANONICAL_KEYS:
        raise KeyEncodingError(Code.KEY_SESSION_ENCODING, "sessionPubkey", text, NOT_CANONICAL)
    if text in keys.SMALL_ORDER_KEYS:
        raise KeyEncodingError(Code.KEY_SESSION_SMALL_ORDER, "sessionPubkey", text, "must not be of small order")


def check_wallet(signed: Claim, expected: str | None) -> None:
    """Check the key that is said to have signed. Raises KeyEncodingError, or SignatureError if it isn't `expected`."""
    text = signed.wallet_address
    if text in keys.NOT_CANONICAL_KEYS:
        raise KeyEncodingError(Code.KEY_WALLET_ENCODING, "walletAddress", text, NOT_CANONICAL)
    if not keys.has_prime_order(signed.wallet_bytes):
        raise KeyEncodingError(Code.KEY_WALLET_ORDER, "walletAddress", text, "must be a point of prime order")
    if expected is not None and text != expected:
        raise SignatureError(Code.SIGNATURE_WRONG_WALLET, "walletAddress", text, f"must be `{expected}`")


def check_signature(signed: Claim, canonical: bytes, envelopes: Collection[Envelope]) -> None:
    """Check the signature over `canonical`, in one of the `envelopes`. Raises SignatureError."""
    if signed.envelope not in envelopes:
        raise SignatureError(
            Code.SIGNATURE_ENVELOPE_NOT_ALLOWED,
            "envelope",
            signed.envelope,
            f"must be one of {', '.join(envelopes)}",
        )
    message = enclose(signed.envelope, signed.wallet_bytes, canonical)
    try:
        crypto_sign_open(signed.signature_bytes + message, signed.wallet_bytes)
    except BadSignatureError:
        raise SignatureError(
            Code.SIGNATURE_INVALID,
            "signature",
            signed.signature,
            "must be the wallet's, over exactly this document",
        ) from None


def _check_time(permit: Permit, now_ms: int | None, lifetime_ms_max: int, clock_skew_ms: int) -> None:
    issued_at_ms, expires_at_ms = permit.issued_at_ms, permit.expires_at_ms
    if expires_at_ms - issued_at_ms > lifetime_ms_max:
        raise TimeError(
            Code.TIME_LIFETIME_TOO_LONG,
            "expiresAt",
            permit.expires_at,
            f"must be at most {duration(max(0, lifetime_ms_max))} after `issuedAt`",
        )
    if now_ms is None:
        return
    if now_ms + clock_skew_ms < issued_at_ms:
        raise TimeError(Code.TIME_NOT_YET_VALID, "issuedAt", permit.issued_at, "must not be in the future")
    if now_ms + clock_skew_ms >= expires_at_ms:
        raise TimeError(Code.TIME_EXPIRED, "expiresAt", permit.expires_at, "must be in the future")
