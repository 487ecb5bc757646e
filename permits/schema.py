"""The JSON Schemas (2020-12) of a permit, a signed one and a signed revocation, for editors, forms and other languages.

They say what a schema can. That a date is real, base58 spells 32 bytes, and time runs forward, only a reader checks.
"""

from __future__ import annotations

from typing import Any, Final

from permits.envelopes import ENVELOPES
from permits.keys import KEY_PATTERN, SIGNATURE_PATTERN
from permits.model import (
    MAX_AMOUNT_USD,
    NONCE_PATTERN,
    OPTIONAL_KEYS,
    SYMBOL_CHARACTERS_MAX,
    TIMESTAMP_PATTERN,
    UUID_PATTERN,
    WHITELIST_ASSETS_MAX,
)

__all__ = ["SCHEMAS"]


def _text(pattern: str, description: str) -> dict[str, Any]:
    end = r"(?!\n)$"  # ECMAScript's `$` is the end; some validators use engines that let a line feed follow
    return {"type": "string", "pattern": f"^({pattern}){end}", "description": description}


def _object(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": [key for key in properties if key not in OPTIONAL_KEYS],
        "additionalProperties": False,
    }


def _signed(title: str, name: str, document: dict[str, Any]) -> dict[str, Any]:
    return _object(
        title,
        {
            name: document,
            "walletAddress": _text(KEY_PATTERN, "the signer: base58 of 32 bytes"),
            "signature": _text(SIGNATURE_PATTERN, f"base58 of 64 bytes, over the canonical {name} in the envelope"),
            "envelope": {"enum": list(ENVELOPES), "default": "raw", "description": "what the wallet signed"},
        },
    )


def _nonce(description: str) -> dict[str, Any]:
    return _text(f"(?=(..)*$){NONCE_PATTERN}", description)


_PERMIT: Final = _object(
    "Permit",
    {
        "agentId": _text(UUID_PATTERN, "the agent that may act"),
        "sessionPubkey": _text(KEY_PATTERN, "the key that signs the agent's transactions: base58 of 32 bytes"),
        "assetWhitelist": {
            "type": "array",
            "items": _text(f"[A-Za-z0-9]{{1,{SYMBOL_CHARACTERS_MAX}}}|{KEY_PATTERN}", "a symbol or a base58 mint"),
            "minItems": 1,
            "maxItems": WHITELIST_ASSETS_MAX,
            "uniqueItems": True,
            "description": "what may be bought and sold; unique ignoring case",
        },
        "maxAmountPerExecutionUsd": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": MAX_AMOUNT_USD,
            "description": "the most that one execution may be worth, in USD, inclusive; at most two decimals",
        },
        "expiresAt": _text(TIMESTAMP_PATTERN, "the first instant at which the permit no longer holds"),
        "issuedAt": _text(TIMESTAMP_PATTERN, "the first instant at which it holds; before expiresAt"),
        "nonce": _nonce("what sets two permits of the same bounds apart"),
    },
)
_REVOCATION: Final = _object(
    "Revocation",
    {
        "nonce": _nonce("the permit's, which no permit may use from then on"),
        "revokedAt": _text(TIMESTAMP_PATTERN, "when the user decided so"),
    },
)

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    name: {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    for name, schema in {
        "permit": _PERMIT,
        "signed-permit": _signed("SignedPermit", "permit", _PERMIT),
        "signed-revocation": _signed("SignedRevocation", "revocation", _REVOCATION),
    }.items()
}
"""The schema of each document, by the name that `permits schema` knows it by."""
