"""Issue a permit: have a wallet sign it.

A `Signer` is whatever holds the wallet's key: `LocalSigner` here, a hardware wallet or a remote one elsewhere. What a
signer returns is verified before it leaves, so that a wallet that signed something else is noticed at once.

>>> signer = LocalSigner.from_seed(bytes(range(32)))
>>> signer.wallet_address
'FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF'
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import warnings
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

from nacl.signing import SigningKey

from permits import keys
from permits.envelopes import Envelope, enclose
from permits.model import Permit, SignedPermit, timestamp
from permits.verification import verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from pathlib import Path

__all__ = ["LocalSigner", "Signer", "SignerError", "draft", "issue", "new_nonce"]

NONCE_BYTES: Final = 16
SEED_BYTES: Final = 32
SECRET_BYTES: Final = 64
KEYPAIR_FILE_BYTES_MAX: Final = 4_096


class SignerError(Exception):
    """A key couldn't be read. The message never holds any of it."""


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

    @classmethod
    def from_base58(cls, secret: str) -> Self:
        """Return the wallet of a base58 secret of 64 bytes, as browser wallets export it: seed, then public key.

        Raises:
            SignerError: it isn't one, or its halves don't belong together.

        """
        return cls._from_halves(keys.decode_signature(secret), "the base58 secret")

    @classmethod
    def from_keypair_file(cls, path: Path) -> Self:
        """Return the wallet of a file that `solana-keygen` or `write_keypair_file` wrote: 64 numbers as JSON.

        Warns (UserWarning) if others than the file's owner may read it.

        Raises:
            SignerError: it holds no key pair, or its halves don't belong together.
            OSError: it can't be read.

        """
        with path.open("rb") as file:
            others = os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            content = file.read(KEYPAIR_FILE_BYTES_MAX)
        if others:
            warnings.warn(f"`{path}` can be read by others than its owner: chmod 600 it", stacklevel=2)
        try:
            numbers = json.loads(content)
            secret = bytes(numbers) if isinstance(numbers, list) else None  # of a number it makes that many zeros
        except (ValueError, TypeError, RecursionError):
            secret = None
        return cls._from_halves(secret, f"`{path}`")

    def write_keypair_file(self, path: Path) -> None:
        """Write the key pair to the new file `path`, mode 0600, as `solana-keygen` does.

        Raises:
            OSError: the file is there already, or can't be written.

        """
        secret = bytes(self._key) + bytes(self._key.verify_key)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(list(secret), file)
        except OSError as error:  # a part of a key is nobody's, and would be in the way
            path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error

    @classmethod
    def _from_halves(cls, secret: bytes | None, where: str) -> Self:
        if secret is None or len(secret) != SECRET_BYTES:
            raise SignerError(f"{where} must hold a key pair of {SECRET_BYTES} bytes")
        key = SigningKey(secret[:SEED_BYTES])
        if bytes(key.verify_key) != secret[SEED_BYTES:]:
            raise SignerError(f"{where} holds a public key that is not the private key's")
        return cls(key)

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
            "assetWhitelist": asset_whitelist if isinstance(asset_whitelist, str) else list(asset_whitelist),
            "maxAmountPerExecutionUsd": max_amount_usd,
            "expiresAt": _spelled(issued_at_ms + lifetime_s * 1000),
            "issuedAt": _spelled(issued_at_ms),
            "nonce": new_nonce() if nonce is None else nonce,
        }
    )


def _spelled(at_ms: int) -> str:
    """Return `at_ms` as a permit's timestamp; where the calendar has no such year, what no permit takes for one."""
    try:
        return timestamp(at_ms)
    except OverflowError:
        return f"{at_ms} ms after 1970"


def issue(permit: Permit, signer: Signer, *, envelope: Envelope = "raw") -> SignedPermit:
    """Have `signer` sign `permit` in `envelope`, and return it as it travels.

    Raises:
        PermitError: the permit is too long for the envelope, or the signer answered with anything but its signature
            over these bytes.

    """
    wallet = keys.decode_key(signer.wallet_address) or b""
    message = enclose(envelope, wallet, permit.canonical_bytes())
    claim: dict[str, Any] = {
        "permit": permit.to_json_object(),  # read anew: an object may have been changed past its rules
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
