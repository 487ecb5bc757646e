"""Why a permit was refused, one code for each rule, layer by layer.

Verification walks the layers in the order of `Code` and stops at the first rule that fails, so a code also says
which layers had passed. Every refusal is a `PermitError`; catch one of its children to tell the layers apart::

    PermitError
    ├── EncodingError       the bytes are not the strict UTF-8 that a permit travels in
    ├── JsonError           the text is not strict JSON
    ├── SchemaError         a key is missing, unknown, or holds what its rule forbids
    ├── CanonicalFormError  the bytes are not the one canonical spelling
    ├── KeyEncodingError    a public key is not one that only its owner can sign for
    ├── SignatureError      the signature, its envelope or its signer is not the expected one
    └── TimeError           not yet valid, expired, or valid for too long

>>> error = SchemaError(Code.SCHEMA_NONCE, "nonce", "ABC", "must be 32 to 128 lowercase hex digits, an even number")
>>> print(error)
SCHEMA_NONCE: `nonce` must be 32 to 128 lowercase hex digits, an even number: `ABC`
"""

from __future__ import annotations

import json
from decimal import Decimal
from enum import StrEnum
from typing import Final

__all__ = [
    "CanonicalFormError",
    "Code",
    "EncodingError",
    "JsonError",
    "KeyEncodingError",
    "PermitError",
    "SchemaError",
    "SignatureError",
    "TimeError",
]

SHOWN_CHARACTERS_MAX: Final = 64
"""A hostile value is quoted, but never at length: messages land in logs and terminals."""


class Code(StrEnum):
    """The stable name of each rule, in the order in which the rules are checked."""

    ENCODING_TOO_LONG = "ENCODING_TOO_LONG"
    ENCODING_BOM = "ENCODING_BOM"
    ENCODING_NOT_UTF8 = "ENCODING_NOT_UTF8"

    JSON_SYNTAX = "JSON_SYNTAX"
    JSON_TOO_DEEP = "JSON_TOO_DEEP"
    JSON_DUPLICATE_KEY = "JSON_DUPLICATE_KEY"
    JSON_NUMBER_FORM = "JSON_NUMBER_FORM"
    JSON_LONE_SURROGATE = "JSON_LONE_SURROGATE"

    SCHEMA_NOT_AN_OBJECT = "SCHEMA_NOT_AN_OBJECT"
    SCHEMA_MISSING_KEY = "SCHEMA_MISSING_KEY"
    SCHEMA_UNKNOWN_KEY = "SCHEMA_UNKNOWN_KEY"
    SCHEMA_AGENT_ID = "SCHEMA_AGENT_ID"
    SCHEMA_SESSION_PUBKEY = "SCHEMA_SESSION_PUBKEY"
    SCHEMA_ASSET_WHITELIST = "SCHEMA_ASSET_WHITELIST"
    SCHEMA_MAX_AMOUNT = "SCHEMA_MAX_AMOUNT"
    SCHEMA_EXPIRES_AT = "SCHEMA_EXPIRES_AT"
    SCHEMA_ISSUED_AT = "SCHEMA_ISSUED_AT"
    SCHEMA_NONCE = "SCHEMA_NONCE"
    SCHEMA_TIME_ORDER = "SCHEMA_TIME_ORDER"
    SCHEMA_REVOKED_AT = "SCHEMA_REVOKED_AT"
    SCHEMA_WALLET_ADDRESS = "SCHEMA_WALLET_ADDRESS"
    SCHEMA_SIGNATURE = "SCHEMA_SIGNATURE"
    SCHEMA_ENVELOPE = "SCHEMA_ENVELOPE"

    CANONICAL_MISMATCH = "CANONICAL_MISMATCH"

    KEY_SESSION_ENCODING = "KEY_SESSION_ENCODING"
    KEY_SESSION_SMALL_ORDER = "KEY_SESSION_SMALL_ORDER"
    KEY_WALLET_ENCODING = "KEY_WALLET_ENCODING"
    KEY_WALLET_ORDER = "KEY_WALLET_ORDER"

    SIGNATURE_WRONG_WALLET = "SIGNATURE_WRONG_WALLET"
    SIGNATURE_ENVELOPE_NOT_ALLOWED = "SIGNATURE_ENVELOPE_NOT_ALLOWED"
    SIGNATURE_ENVELOPE_TOO_LONG = "SIGNATURE_ENVELOPE_TOO_LONG"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"

    TIME_LIFETIME_TOO_LONG = "TIME_LIFETIME_TOO_LONG"
    TIME_NOT_YET_VALID = "TIME_NOT_YET_VALID"
    TIME_EXPIRED = "TIME_EXPIRED"


class PermitError(Exception):
    """A permit was refused: `code` names the rule, `field` the key (None: the whole), `value` what stood there.

    `value` is cut to 64 characters and never holds a secret: nothing in a signed permit is one.
    """

    def __init__(self, code: Code, field: str | None, value: object, rule: str) -> None:
        self.code = code
        self.field = None if field is None else _shorten(field)
        self.value = None if value is None else _shorten(value)
        self.rule = _plain(rule)  # it may name what a caller expected, which is of any kind, too
        super().__init__(code, self.field, self.value, self.rule)

    def __str__(self) -> str:
        subject = f"`{self.field}` " if self.field else ""
        found = f": `{self.value}`" if self.value is not None else ""
        return f"{self.code}: {subject}{self.rule}{found}"


class EncodingError(PermitError):
    """The bytes are too long, or not UTF-8 without a byte order mark."""


class JsonError(PermitError):
    """The text is not strict JSON (RFC 8259 with unique keys and plain numbers)."""


class SchemaError(PermitError):
    """A key is missing or unknown, or its value breaks that key's rule."""


class CanonicalFormError(PermitError):
    """The bytes are not the canonical form of what they say."""


class KeyEncodingError(PermitError):
    """A public key's 32 bytes are not a point that exactly one private key signs for."""


class SignatureError(PermitError):
    """The signature is not the expected wallet's, in an allowed envelope, over exactly this permit."""


class TimeError(PermitError):
    """The permit is not valid at the given time, or would be for too long."""


def _shorten(value: object) -> str:
    text = _plain(value if isinstance(value, str) else _spelled(value))
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."


def _plain(text: str) -> str:
    """Return `text` in printable ASCII, all else escaped."""
    return text if text.isprintable() and text.isascii() else ascii(text)[1:-1]


def _spelled(value: object) -> str:
    """Return `value` as JSON spells it."""
    if isinstance(value, Decimal):
        return str(value)
    try:
        return json.dumps(value, default=str)
    except (ValueError, TypeError, RecursionError):  # among them an integer of more digits than Python spells out
        return "what JSON can't hold"
