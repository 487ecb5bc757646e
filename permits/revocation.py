"""A revocation: by it a user spends a permit's nonce, so that this permit never comes, or stays, into force.

It is signed as a permit is, in the same envelopes, over canonical JSON of exactly two keys; a permit has seven others,
so neither is ever taken for the other.

>>> Revocation.from_json_object({"nonce": "00" * 16, "revokedAt": "2026-05-02T12:00:00Z"}).canonical_bytes()
b'{"nonce":"00000000000000000000000000000000","revokedAt":"2026-05-02T12:00:00Z"}'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from permits import keys
from permits.canonical import parse
from permits.envelopes import Envelope, enclose
from permits.model import Claim, check_keys, json_object, made, read_claim, read_nonce, read_time, read_transport
from permits.verification import RAW_ONLY, check_signature, check_wallet

if TYPE_CHECKING:
    from collections.abc import Collection

    from permits.signing import Signer

__all__ = ["Revocation", "SignedRevocation", "revoke", "verify_revocation"]

REVOCATION_KEYS: Final[tuple[str, ...]] = ("nonce", "revokedAt")


@dataclass(frozen=True, init=False)
class Revocation:
    """What a wallet signs to spend a nonce. Make one with `from_json_object`."""

    nonce: str
    """The permit's: 32 to 128 lowercase hex digits, an even number."""

    revoked_at: str
    """When the user decided so, as permits spell times; a record, not a rule."""

    def __init__(self) -> None:
        raise TypeError("a revocation is read, by Revocation.from_json_object")

    @classmethod
    def from_json_object(cls, value: object) -> Revocation:
        """Read it from a decoded JSON object. Raises SchemaError, the first broken rule."""
        document = json_object("revocation", value)
        check_keys((document, REVOCATION_KEYS, ()))
        nonce = read_nonce(document["nonce"])
        revoked_at, _ = read_time("revokedAt", document["revokedAt"])
        return made(Revocation, nonce=nonce, revoked_at=revoked_at)

    def to_json_object(self) -> dict[str, Any]:
        """Return its keys and values as they travel."""
        return {"nonce": self.nonce, "revokedAt": self.revoked_at}

    def canonical_bytes(self) -> bytes:
        """Return the bytes that a wallet signs."""
        return f'{{"nonce":"{self.nonce}","revokedAt":"{self.revoked_at}"}}'.encode("ascii")


@dataclass(frozen=True, init=False)
class SignedRevocation(Claim):
    """A revocation on its way. A claim, until `verify_revocation` has checked it."""

    revocation: Revocation

    @classmethod
    def from_json(cls, data: bytes) -> SignedRevocation:
        """Read it from strict JSON. Raises PermitError as `permits.Permit.from_json` does."""
        return cls.from_json_object(parse(data))

    @classmethod
    def from_json_object(cls, value: object) -> SignedRevocation:
        """Read it from a decoded JSON object. Raises SchemaError, the first broken rule."""
        signed = read_transport("revocation", REVOCATION_KEYS, value)
        revocation = Revocation.from_json_object(signed["revocation"])
        return made(SignedRevocation, revocation=revocation, **read_claim(signed))

    def to_json_object(self) -> dict[str, Any]:
        """Return its keys and values as they travel."""
        return {"revocation": self.revocation.to_json_object(), **super().to_json_object()}


def verify_revocation(
    signed: SignedRevocation | bytes, *, envelopes: Collection[Envelope] = RAW_ONLY
) -> tuple[str, Revocation]:
    """Return the wallet (base58) that signed, and what it revokes, or raise the first rule that is broken.

    Raises:
        PermitError: as `permits.verify`, for the layers that a revocation has.

    """
    if isinstance(signed, bytes):
        signed = SignedRevocation.from_json(signed)
    check_wallet(signed, None)
    check_signature(signed, signed.revocation.canonical_bytes(), envelopes)
    return signed.wallet_address, signed.revocation


def revoke(revocation: Revocation, signer: Signer, *, envelope: Envelope = "raw") -> SignedRevocation:
    """Have `signer` sign `revocation` in `envelope`, and return it as it travels.

    Raises:
        PermitError: the signer answered with anything but its signature over these bytes.

    """
    wallet = keys.decode_key(signer.wallet_address) or b""
    signature = signer.sign(enclose(envelope, wallet, revocation.canonical_bytes()))
    signed = SignedRevocation.from_json_object(
        {
            "revocation": revocation.to_json_object(),
            "walletAddress": signer.wallet_address,
            "signature": keys.encode(signature),
            "envelope": envelope,
        }
    )
    verify_revocation(signed, envelopes=(envelope,))
    return signed
