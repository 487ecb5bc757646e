"""What a user signs: `Permit`, and what travels: `SignedPermit`.

A permit has exactly the seven keys of TrueFinance's realtime API ("Permit JSON"). Each field's type carries its whole
rule, so a `Permit` that exists is a valid one; whether somebody signed it is for `permits.verification`.

>>> permit = Permit.from_json_object({
...     "agentId": "6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10",
...     "sessionPubkey": "9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu",
...     "assetWhitelist": ["SOL", "USDC"],
...     "maxAmountPerExecutionUsd": 250.5,
...     "expiresAt": "2026-08-01T00:00:00Z",
...     "issuedAt": "2026-05-02T12:00:00Z",
...     "nonce": "a1b2c3d4e5f60718293a4b5c6d7e8f90",
... })
>>> permit.max_amount_cents
25050
>>> permit.canonical_bytes()[:67]
b'{"agentId":"6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10","assetWhitelist":'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar, cast

from permits import keys
from permits.canonical import parse
from permits.envelopes import ENVELOPES, Envelope
from permits.errors import Code, SchemaError

__all__ = ["Permit", "SignedPermit", "timestamp", "utc_ms"]

T = TypeVar("T")

WHITELIST_ASSETS_MAX: Final = 50
SYMBOL_CHARACTERS_MAX: Final = 16
MAX_AMOUNT_USD: Final = 10**9

UUID_PATTERN: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TIMESTAMP_PATTERN: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{3})?Z"
NONCE_PATTERN: Final = "[0-9a-f]{32,128}"

_is_uuid = re.compile(UUID_PATTERN).fullmatch
_is_timestamp = re.compile(TIMESTAMP_PATTERN).fullmatch
_is_nonce = re.compile(NONCE_PATTERN).fullmatch

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MS: Final = timedelta(milliseconds=1)


def utc_ms(timestamp: str) -> int:
    """Return the Unix time in ms of a permit's timestamp. Raises ValueError if it is none, or names no date."""
    at_ms = _read_timestamp(timestamp)
    if at_ms is None:
        raise ValueError(f"no timestamp of a permit: {timestamp!r}")
    return at_ms


def timestamp(at_ms: int) -> str:
    """Return Unix time `at_ms` as a permit's timestamp: `YYYY-MM-DDTHH:MM:SSZ`, with `.mmm` unless that is zero."""
    at = EPOCH + at_ms * MS
    precision = "milliseconds" if at_ms % 1000 else "seconds"
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


@dataclass(frozen=True, init=False)
class Permit:
    """The bounds that a wallet signs for one agent. Make one with `from_json` or `from_json_object`."""

    agent_id: str
    """The agent that may act: a UUID in lowercase, with hyphens."""

    session_pubkey: str
    """The key that signs the agent's transactions."""

    asset_whitelist: tuple[str, ...]
    """What may be bought and sold, in the user's order: symbols or base58 mints, unique ignoring case."""

    max_amount_cents: int
    """The most that one execution may be worth, in US cents, inclusive: 1 to 100,000,000,000."""

    expires_at: str
    """The first instant at which the permit no longer holds (exclusive), spelled as it was signed."""

    issued_at: str
    """The first instant at which it holds, spelled as it was signed; before `expires_at`."""

    nonce: str
    """What sets two permits of the same bounds apart: 32 to 128 lowercase hex digits, an even number."""

    expires_at_ms: int = field(repr=False)
    """`expires_at` (exclusive) as Unix time in ms."""

    issued_at_ms: int = field(repr=False)
    """`issued_at` as Unix time in ms."""

    def __init__(self) -> None:
        raise TypeError("a permit is read, by Permit.from_json or Permit.from_json_object")

    @classmethod
    def from_json(cls, data: bytes) -> Permit:
        """Read it from strict JSON `data`, at most 16 KiB.

        Raises:
            EncodingError, JsonError: as `permits.canonical.parse`.
            SchemaError: the first broken rule: a missing key, an unknown one, else in the order of the fields.

        """
        return cls.from_json_object(parse(data))

    @classmethod
    def from_json_object(cls, value: object) -> Permit:
        """Read it from a decoded JSON object. Raises SchemaError as `from_json` does."""
        permit = json_object(None, value)
        check_keys((permit, PERMIT_KEYS, ()))
        return _read_permit(permit)

    def to_json_object(self) -> dict[str, Any]:
        """Return its keys and values as they travel."""
        return {
            "agentId": self.agent_id,
            "sessionPubkey": self.session_pubkey,
            "assetWhitelist": list(self.asset_whitelist),
            "maxAmountPerExecutionUsd": _dollars(self.max_amount_cents),
            "expiresAt": self.expires_at,
            "issuedAt": self.issued_at,
            "nonce": self.nonce,
        }

    def canonical_bytes(self) -> bytes:
        """Return the bytes that a wallet signs: printable ASCII, at most 3,072, as the fields' rules add up.

        They are canonical JSON (RFC 8785). Written out: no field holds a character that JSON would escape.
        """
        assets = '","'.join(self.asset_whitelist)
        return (
            f'{{"agentId":"{self.agent_id}","assetWhitelist":["{assets}"],'
            f'"expiresAt":"{self.expires_at}","issuedAt":"{self.issued_at}",'
            f'"maxAmountPerExecutionUsd":{_dollars(self.max_amount_cents)},'
            f'"nonce":"{self.nonce}","sessionPubkey":"{self.session_pubkey}"}}'
        ).encode("ascii")


@dataclass(frozen=True, init=False)
class Claim:
    """Who is said to have signed, and by what: what travels with a document until it is verified."""

    wallet_address: str
    """The signer, base58 of 32 bytes."""

    signature: str
    """base58 of 64 bytes, over the document's canonical bytes in the envelope."""

    envelope: Envelope
    """What the wallet signed; a document that names none is `raw`."""

    wallet_bytes: bytes = field(repr=False)
    signature_bytes: bytes = field(repr=False)

    def __init__(self) -> None:
        raise TypeError("what is signed is read, by its from_json or from_json_object")

    def to_json_object(self) -> dict[str, Any]:
        """Return its keys and values as they travel."""
        return {"walletAddress": self.wallet_address, "signature": self.signature, "envelope": self.envelope}


@dataclass(frozen=True, init=False)
class SignedPermit(Claim):
    """A permit on its way: with the wallet that signed it, the signature, and the envelope that was signed.

    A claim, until `permits.verify` has checked it. Make one with `from_json`, `from_json_object` or `permits.issue`.
    """

    permit: Permit

    @classmethod
    def from_json(cls, data: bytes) -> SignedPermit:
        """Read it from strict JSON `data`, at most 16 KiB. Raises what `Permit.from_json` does."""
        return cls.from_json_object(parse(data))

    @classmethod
    def from_json_object(cls, value: object) -> SignedPermit:
        """Read it from a decoded JSON object. Raises SchemaError as `from_json` does."""
        signed = read_transport("permit", PERMIT_KEYS, value)
        return made(SignedPermit, permit=_read_permit(signed["permit"]), **read_claim(signed))

    def to_json_object(self) -> dict[str, Any]:
        """Return its keys and values as they travel."""
        return {"permit": self.permit.to_json_object(), **super().to_json_object()}


def made(cls: type[T], /, **fields: object) -> T:
    """Return a `cls` with these fields, past the constructor that refuses: for the one place that checks its rules."""
    it = object.__new__(cls)
    it.__dict__.update(fields)
    return it


PERMIT_KEYS: Final[tuple[str, ...]] = (
    "agentId",
    "sessionPubkey",
    "assetWhitelist",
    "maxAmountPerExecutionUsd",
    "expiresAt",
    "issuedAt",
    "nonce",
)
CLAIM_KEYS: Final[tuple[str, ...]] = ("walletAddress", "signature")
OPTIONAL_KEYS: Final[tuple[str, ...]] = ("envelope",)


def json_object(key: str | None, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SchemaError(Code.SCHEMA_NOT_AN_OBJECT, key, value, "must be a JSON object")
    return value


def check_keys(*documents: tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]) -> None:
    """Refuse missing keys, then unknown ones, of each (document, required, optional). Raises SchemaError."""
    for document, required, _ in documents:
        for key in required:
            if key not in document:
                raise SchemaError(Code.SCHEMA_MISSING_KEY, key, None, "must be there")
    for document, required, optional in documents:
        for key in document:
            if key not in required and key not in optional:
                raise SchemaError(Code.SCHEMA_UNKNOWN_KEY, key, None, "is not a key of this document")


def read_transport(name: str, document_keys: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return `value`, what travels: at `name` a document of `document_keys`, and a claim. Raises SchemaError.

    Only the shape is checked, of both objects at once: that they are objects, then missing keys, then unknown ones.
    """
    signed = json_object(None, value)
    documents = [(signed, (name, *CLAIM_KEYS), OPTIONAL_KEYS)]
    if name in signed:
        documents.append((json_object(name, signed[name]), document_keys, ()))
    check_keys(*documents)
    return signed


def _read_permit(document: dict[str, Any]) -> Permit:
    """Check the values of a `document` that has a permit's keys, in the order of the specification."""
    agent_id = document["agentId"]
    if type(agent_id) is not str or not _is_uuid(agent_id):
        raise _broken("agentId", agent_id)
    session_pubkey = document["sessionPubkey"]
    if type(session_pubkey) is not str or not keys.is_key(session_pubkey):
        raise _broken("sessionPubkey", session_pubkey)
    assets = document["assetWhitelist"]
    _check_assets(assets)
    max_amount_cents = _cents(document["maxAmountPerExecutionUsd"])
    if max_amount_cents is None:
        raise _broken("maxAmountPerExecutionUsd", document["maxAmountPerExecutionUsd"])
    expires_at, expires_at_ms = read_time("expiresAt", document["expiresAt"])
    issued_at, issued_at_ms = read_time("issuedAt", document["issuedAt"])
    nonce = read_nonce(document["nonce"])
    if issued_at_ms >= expires_at_ms:
        raise SchemaError(Code.SCHEMA_TIME_ORDER, "issuedAt", None, "must be before `expiresAt`")
    return made(
        Permit,
        agent_id=agent_id,
        session_pubkey=session_pubkey,
        asset_whitelist=tuple(assets),
        max_amount_cents=max_amount_cents,
        expires_at=expires_at,
        issued_at=issued_at,
        nonce=nonce,
        expires_at_ms=expires_at_ms,
        issued_at_ms=issued_at_ms,
    )


def read_claim(document: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a `Claim` from a `document` that has its keys. Raises SchemaError, the first broken rule."""
    wallet_address = document["walletAddress"]
    wallet_bytes = keys.decode_wallet(wallet_address) if type(wallet_address) is str else None
    if wallet_bytes is None:
        raise _broken("walletAddress", wallet_address)
    signature = document["signature"]
    signature_bytes = keys.decode_signature(signature) if type(signature) is str else None
    if signature_bytes is None:
        raise _broken("signature", signature)
    envelope = document.get("envelope", "raw")
    if type(envelope) is not str or envelope not in ENVELOPES:
        raise _broken("envelope", envelope)
    return {
        "wallet_address": wallet_address,
        "signature": signature,
        "envelope": envelope,
        "wallet_bytes": wallet_bytes,
        "signature_bytes": signature_bytes,
    }


def read_time(key: str, value: object) -> tuple[str, int]:
    """Return a timestamp as it is spelled, and as Unix time in ms. Raises SchemaError if it is none."""
    at_ms = _read_timestamp(value)
    if at_ms is None:
        raise _broken(key, value)
    return cast("str", value), at_ms


def read_nonce(value: object) -> str:
    """Return a nonce. Raises SchemaError if it is none."""
    if type(value) is not str or not _is_nonce(value) or len(value) % 2:
        raise _broken("nonce", value)
    return value


def _check_assets(assets: object) -> None:
    if not isinstance(assets, list | tuple) or not 1 <= len(assets) <= WHITELIST_ASSETS_MAX:
        raise _broken("assetWhitelist", assets)
    for asset in assets:
        if type(asset) is not str or not (_is_symbol(asset) or keys.is_key(asset)):
            raise _broken("assetWhitelist", asset)
    if len({asset.lower() for asset in assets}) != len(assets):
        raise _broken("assetWhitelist", assets)


def _is_symbol(text: str) -> bool:
    return len(text) <= SYMBOL_CHARACTERS_MAX and text.isascii() and text.isalnum()


def _read_timestamp(text: object) -> int | None:
    """Return the Unix time in ms of a timestamp in the specified form; None if it has another, or names no date."""
    if type(text) is not str or not _is_timestamp(text):
        return None
    try:
        return (datetime.fromisoformat(text) - EPOCH) // MS
    except ValueError:
        return None


def _cents(amount: object) -> int | None:
    """Return `amount` dollars in cents, exactly: no float is ever rounded into them. None: it is no such amount."""
    if type(amount) is int:
        return amount * 100 if 0 < amount <= MAX_AMOUNT_USD else None
    if not isinstance(amount, float | Decimal):
        return None
    dollars = Decimal(str(amount))
    exponent = dollars.as_tuple().exponent
    if not isinstance(exponent, int) or not 0 < dollars <= MAX_AMOUNT_USD:
        return None
    if exponent < -2 and not isinstance(amount, float):  # noqa: PLR2004 - two decimals, as they were written
        return None
    cents = dollars * 100
    return int(cents) if cents == int(cents) else None


def _dollars(cents: int) -> int | float:
    """Return `cents` as a JSON number of dollars.

    Whole dollars are integers; others are floats, which spell cents exactly: at most 12 of a float's 15 digits.
    """
    return cents // 100 if cents % 100 == 0 else cents / 100


RULES: Final = {
    "agentId": (Code.SCHEMA_AGENT_ID, "must be a UUID in lowercase with hyphens"),
    "sessionPubkey": (Code.SCHEMA_SESSION_PUBKEY, "must be base58 of 32 bytes"),
    "assetWhitelist": (
        Code.SCHEMA_ASSET_WHITELIST,
        "must be 1 to 50 symbols (1 to 16 letters and digits) or base58 mints, none twice, ignoring case",
    ),
    "maxAmountPerExecutionUsd": (
        Code.SCHEMA_MAX_AMOUNT,
        "must be a number above 0, at most 1000000000, with at most 2 decimals",
    ),
    "expiresAt": (Code.SCHEMA_EXPIRES_AT, "must be a real date as YYYY-MM-DDTHH:MM:SSZ, with .mmm at most"),
    "issuedAt": (Code.SCHEMA_ISSUED_AT, "must be a real date as YYYY-MM-DDTHH:MM:SSZ, with .mmm at most"),
    "nonce": (Code.SCHEMA_NONCE, "must be 32 to 128 lowercase hex digits, an even number"),
    "revokedAt": (Code.SCHEMA_REVOKED_AT, "must be a real date as YYYY-MM-DDTHH:MM:SSZ, with .mmm at most"),
    "walletAddress": (Code.SCHEMA_WALLET_ADDRESS, "must be base58 of 32 bytes"),
    "signature": (Code.SCHEMA_SIGNATURE, "must be base58 of 64 bytes"),
    "envelope": (Code.SCHEMA_ENVELOPE, "must be raw, offchain-v0 or offchain-v1"),
}
"""The code and the sentence for each key. What is wrong with a value is that it breaks this rule."""


def _broken(key: str, value: object) -> SchemaError:
    code, rule = RULES[key]
    return SchemaError(code, key, value, rule)
