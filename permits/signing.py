"""Issue a permit: have a wallet sign it.

A `Signer` is whatever holds the wallet's key: `LocalSigner` here, a hardware wallet or a remote one elsewhere. What a
signer returns is verified before it leaves, so that a wallet that signed something else is noticed at once.

>>> signer = LocalSigner.from_seed(bytes(range(32)))
>>> signer.wallet_address
'FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF'
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

from nacl.signing import SigningKey

from permits import keys
from permits.envelopes import Envelope, enclose
from permits.model import Permit, SignedPermit, timestamp
from permits.verification import verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

__all__ = ["LocalSigner", "Signer", "draft", "issue", "new_nonce"]

NONCE_BYTES: Final = 16


class Signer(Protocol):
    """Whoever holds a wallet's key."""

    @property
    def wallet_address(self) -> str:
        """The wallet, base58 of 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return the wallet's Ed25519 signature (64 bytes) over `message`, which it shows to its user first."""


class LocalSigner:
    """A wallet whose key lies in this process. The key is never shown, printed, copied or pickled."""

    __slots__ = ("_key", "wallet_address")

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self.wallet_address: Final = keys.encode(bytes(key.verify_key))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the wallet of a 32-byte `seed`."""
        return cls(SigningKey(seed))

    @classmethod
    def generate(cls) -> Self:
        """Return a new wallet, from the operating system's randomness."""
        return cls(SigningKey.generate())

    def sign(self, message: bytes) -> bytes:
        """Return the signature (64 bytes) over `message`."""
        return self._key.sign(message).signature

    def __repr__(self) -> str:
        return f"LocalSigner({self.wallet_address})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signer's key doesn't leave its process")


def draft(
    *,
    agent_id: str,
    session_pubkey: str,
    asset_whitelist: Sequence[str],
    max_amount_usd: int | Decimal,
    issued_at_ms: int,
    lifetime_s: int,
    nonce: str | None = None,
) -> Permit:
    """Return an unsigned permit that holds from `issued_at_ms` (Unix, ms) for `lifetime_s`; a fresh nonce if None.

    Raises:
        SchemaError: the first rule that a value breaks.

    """
    return Permit.from_json_object(
        {
            "agentId": agent_id,
            "sessionPubkey": session_pubkey,
            "assetWhitelist": list(asset_whitelist),
            "maxAmountPerExecutionUsd": max_amount_usd,
            "expiresAt": timestamp(issued_at_ms + lifetime_s * 1000),
            "issuedAt": timestamp(issued_at_ms),
            "nonce": nonce or new_nonce(),
        }
    )


def issue(permit: Permit, signer: Signer, *, envelope: Envelope = "raw") -> SignedPermit:
    """Have `signer` sign `permit` in `envelope`, and return it as it travels.

    Raises:
        PermitError: the permit is too long for the envelope, or the signer answered with anything but its signature
            over these bytes.

    """
    wallet = keys.decode_key(signer.wallet_address) or b""
    message = enclose(envelope, wallet, permit.canonical_bytes())
    claim: dict[str, Any] = {
        "permit": permit,
        "walletAddress": signer.wallet_address,
        "signature": keys.encode(signer.sign(message)),
        "envelope": envelope,
    }
    signed = SignedPermit.from_json_object(claim)
    verify(signed, wallet=signer.wallet_address, envelopes=(envelope,))
    return signed


def new_nonce() -> str:
    """Return 128 fresh random bits in hex, from the operating system."""
    return secrets.token_hex(NONCE_BYTES)
