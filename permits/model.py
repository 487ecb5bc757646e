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

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from permits import keys
from permits.canonical import parse
from permits.envelopes import Envelope
from permits.errors import Code, SchemaError

__all__ = ["Permit", "SignedPermit", "timestamp", "utc_ms"]

WHITELIST_ASSETS_MAX: Final = 50
MAX_AMOUNT_USD: Final = 10**9

UUID_PATTERN: Final = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
SYMBOL_PATTERN: Final = "[A-Za-z0-9]{1,16}"
SYMBOL_CHARACTERS_MAX: Final = 16
TIMESTAMP_PATTERN: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{3})?Z"

TIMESTAMPS_REMEMBERED: Final = 4_096
"""Each of a permit's times is asked for several times."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MS: Final = timedelta(milliseconds=1)


@lru_cache(maxsize=TIMESTAMPS_REMEMBERED)
def utc_ms(timestamp: str) -> int:
    """Return the Unix time in ms of a permit's timestamp. Raises ValueError for a date that no calendar has."""
    return (datetime.fromisoformat(timestamp) - EPOCH) // MS


def timestamp(at_ms: int) -> str:
    """Return Unix time `at_ms` as a permit's timestamp: `YYYY-MM-DDTHH:MM:SSZ`, with `.mmm` unless that is zero."""
    at = EPOCH + at_ms * MS
    precision = "milliseconds" if at_ms % 1000 else "seconds"
    return at.isoformat(timespec=precision).replace("+00:00", "Z")


def _spells_32_bytes(text: str) -> str:
    if keys.decode_key(text) is None:
        raise ValueError
    return text


def _spells_64_bytes(text: str) -> str:
    if keys.decode_signature(text) is None:
        raise ValueError
    return text


def _mints_and_unique(assets: tuple[str, ...]) -> tuple[str, ...]:
    """Check what the pattern of one asset can't: that what is no symbol is a mint, and that none stands twice."""
    for asset in assets:
        if len(asset) > SYMBOL_CHARACTERS_MAX and keys.decode_key(asset) is None:
            raise ValueError
    if len({asset.lower() for asset in assets}) != len(assets):
        raise ValueError
    return assets


def _real_date(text: str) -> str:
    utc_ms(text)
    return text


def _cents(amount: object) -> int:
    """Return `amount` dollars in cents, exactly: no float is ever rounded into them."""
    if type(amount) is int and 0 < amount <= MAX_AMOUNT_USD:
        return amount * 100
    if isinstance(amount, bool) or not isinstance(amount, int | float | Decimal):
        raise ValueError  # noqa: TRY004 - pydantic turns a ValueError into a refusal
    dollars = Decimal(str(amount))
    exponent = dollars.as_tuple().exponent
    if not isinstance(exponent, int) or not 0 < dollars <= MAX_AMOUNT_USD:
        raise ValueError
    if exponent < -2 and not isinstance(amount, float):  # noqa: PLR2004 - two decimals, as they were written
        raise ValueError
    cents = dollars * 100
    if cents != int(cents):
        raise ValueError
    return int(cents)


def _dollars(cents: int) -> int | float:
    """Return `cents` as a JSON number of dollars.

    Whole dollars are integers; others are floats, which spell cents exactly: at most 12 of a float's 15 digits.
    """
    return cents // 100 if cents % 100 == 0 else cents / 100


def _spells_a_wallet(text: str) -> str:
    if keys.decode_wallet(text) is None:
        raise ValueError
    return text


PublicKey = Annotated[str, Field(pattern=f"^{keys.KEY_PATTERN}$"), AfterValidator(_spells_32_bytes)]
Asset = Annotated[str, Field(pattern=f"^({SYMBOL_PATTERN}|{keys.KEY_PATTERN})$")]
Timestamp = Annotated[str, Field(pattern=f"^{TIMESTAMP_PATTERN}$"), AfterValidator(_real_date)]
UsdCents = Annotated[
    int,
    BeforeValidator(_cents),
    PlainSerializer(_dollars),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_AMOUNT_USD, "multipleOf": 0.01}),
]

RULES: Final = {
    "permit": (Code.SCHEMA_NOT_AN_OBJECT, "must be a JSON object"),
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
    "walletAddress": (Code.SCHEMA_WALLET_ADDRESS, "must be base58 of 32 bytes"),
    "signature": (Code.SCHEMA_SIGNATURE, "must be base58 of 64 bytes"),
    "envelope": (Code.SCHEMA_ENVELOPE, "must be raw, offchain-v0 or offchain-v1"),
}
"""The code and the sentence for each key. What is wrong with a value is that it breaks this rule."""


class _Document(BaseModel):
    """What permits and their transport share: immutable, no key unknown, nothing coerced, one error for one rule."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read it from strict JSON `data`, at most 16 KiB.

        Raises:
            EncodingError, JsonError: as `permits.canonical.parse`.
            SchemaError: the first broken rule: a missing key, an unknown one, else in the order of the fields.

        """
        return cls.from_json_object(parse(data))

    @classmethod
    def from_json_object(cls, value: object) -> Self:
        """Read it from a decoded JSON object. Raises SchemaError as `from_json` does."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise _first_broken_rule(error) from None

    def to_json_object(self) -> dict[str, Any]:
        """Return its keys and values as they travel."""
        return self.model_dump(mode="json", by_alias=True)


class Permit(_Document):
    """The bounds that a wallet signs for one agent. Make one with `from_json` or `from_json_object`."""

    agent_id: Annotated[
        str,
        Field(alias="agentId", pattern=f"^{UUID_PATTERN}$"),
    ]
    """The agent that may act: a UUID in lowercase, with hyphens."""

    session_pubkey: Annotated[PublicKey, Field(alias="sessionPubkey")]
    """The key that signs the agent's transactions."""

    asset_whitelist: Annotated[
        tuple[Asset, ...],
        Field(alias="assetWhitelist", min_length=1, max_length=WHITELIST_ASSETS_MAX, strict=False),
        AfterValidator(_mints_and_unique),
    ]
    """What may be bought and sold, in the user's order: symbols or base58 mints, unique ignoring case."""

    max_amount_cents: Annotated[UsdCents, Field(alias="maxAmountPerExecutionUsd")]
    """The most that one execution may be worth, in US cents, inclusive: 1 to 100,000,000,000."""

    expires_at: Annotated[Timestamp, Field(alias="expiresAt")]
    """The first instant at which the permit no longer holds (exclusive), spelled as it was signed."""

    issued_at: Annotated[Timestamp, Field(alias="issuedAt")]
    """The first instant at which it holds, spelled as it was signed; before `expires_at`."""

    nonce: Annotated[str, Field(pattern="^([0-9a-f]{2}){16,64}$")]
    """What sets two permits of the same bounds apart: 32 to 128 lowercase hex digits, an even number."""

    @model_validator(mode="after")
    def _begin_before_end(self) -> Self:
        if self.issued_at_ms >= self.expires_at_ms:
            raise PydanticCustomError("time_order", "")
        return self

    @property
    def issued_at_ms(self) -> int:
        """`issued_at` as Unix time in ms."""
        return utc_ms(self.issued_at)

    @property
    def expires_at_ms(self) -> int:
        """`expires_at` (exclusive) as Unix time in ms."""
        return utc_ms(self.expires_at)

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


class SignedPermit(_Document):
    """A permit on its way: with the wallet that signed it, the signature, and the envelope that was signed.

    A claim, until `permits.verify` has checked it.
    """

    permit: Permit
    wallet_address: Annotated[
        str, Field(alias="walletAddress", pattern=f"^{keys.KEY_PATTERN}$"), AfterValidator(_spells_a_wallet)
    ]
    """The signer, base58 of 32 bytes."""

    signature: Annotated[str, Field(pattern=f"^{keys.SIGNATURE_PATTERN}$"), AfterValidator(_spells_64_bytes)]
    """base58 of 64 bytes, over the permit's canonical bytes in the envelope."""

    envelope: Envelope = "raw"


STRUCTURE_FIRST: Final = {"model_type": 0, "missing": 1, "extra_forbidden": 2}


def _first_broken_rule(error: ValidationError) -> SchemaError:
    """Return the first of pydantic's findings: the shape of the document, then its fields in their order."""
    finding = min(
        error.errors(include_url=False, include_context=False),
        key=lambda each: STRUCTURE_FIRST.get(each["type"], len(STRUCTURE_FIRST)),
    )
    place = [part for part in finding["loc"] if isinstance(part, str)]
    field = place[-1] if place else None
    match finding["type"]:
        case "missing":
            return SchemaError(Code.SCHEMA_MISSING_KEY, field, None, "must be there")
        case "extra_forbidden":
            return SchemaError(Code.SCHEMA_UNKNOWN_KEY, field, None, "is not a key of this document")
        case "time_order":
            return SchemaError(Code.SCHEMA_TIME_ORDER, "issuedAt", None, "must be before `expiresAt`")
    code, rule = RULES.get(field or "permit", RULES["permit"])
    return SchemaError(code, field, finding["input"], rule)
