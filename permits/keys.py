"""base58 text to 32 or 64 bytes and back, and the byte rules that make a public key safe to trust.

A lax Ed25519 verifier lets anyone sign for a key of small order, and lets one key have several spellings. The rules
here leave each key one spelling and one owner:

- base58 is matched against a bounded pattern *before* it is decoded (the decoder strips white space and takes time
  that grows with the square of the length); the pattern and the decoded length make the spelling unique;
- the encoding of the point is canonical (RFC 8032, section 5.1.3: y < p) and none of the low-order points;
- a wallet's key also has prime order, as libsodium's `crypto_core_ed25519_is_valid_point` checks it.

>>> decode_key("So11111111111111111111111111111111111111112").hex()[:16]
'069b8857feab8184'
>>> decode_key("So11111111111111111111111111111111111111112 ") is None
True
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import base58
from nacl.bindings import crypto_core_ed25519_is_valid_point

__all__ = [
    "decode_key",
    "decode_signature",
    "encode",
    "has_prime_order",
    "is_canonical_point",
    "is_small_order",
]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_PATTERN: Final = r"[1-9A-HJ-NP-Za-km-z]{32,44}"
SIGNATURE_PATTERN: Final = r"[1-9A-HJ-NP-Za-km-z]{64,88}"

_is_key_text = re.compile(KEY_PATTERN).fullmatch
_is_signature_text = re.compile(SIGNATURE_PATTERN).fullmatch

P: Final = 2**255 - 19
SIGN_BIT: Final = 1 << 255

SMALL_ORDER_Y: Final = frozenset(
    {
        0,  # order 4
        1,  # order 1
        P - 1,  # order 2
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,  # order 8
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,  # order 8
    }
)
"""The y coordinates of the eight points of small order; each point with x ≠ 0 comes in two signs of x."""

PRIME_ORDER_KEYS_REMEMBERED: Final = 65_536
"""About 10 MB at most; a check costs nearly as much as a signature."""


def decode_key(text: str) -> bytes | None:
    """Return the 32 bytes that base58 `text` spells, or None if it is not a unique spelling of 32 bytes."""
    if not _is_key_text(text):
        return None
    decoded = base58.b58decode(text)
    return decoded if len(decoded) == KEY_BYTES else None


def decode_signature(text: str) -> bytes | None:
    """Return the 64 bytes that base58 `text` spells, or None if it is not a unique spelling of 64 bytes."""
    if not _is_signature_text(text):
        return None
    decoded = base58.b58decode(text)
    return decoded if len(decoded) == SIGNATURE_BYTES else None


def encode(data: bytes) -> str:
    """Return the base58 text of `data`."""
    return base58.b58encode(data).decode("ascii")


def is_canonical_point(key: bytes) -> bool:
    """Tell whether the 32 bytes of `key` spell their y coordinate below p (RFC 8032, section 5.1.3, step 1)."""
    return int.from_bytes(key, "little") & ~SIGN_BIT < P


def is_small_order(key: bytes) -> bool:
    """Tell whether `key` is one of the points whose order divides 8, whatever its sign bit says."""
    return int.from_bytes(key, "little") & ~SIGN_BIT in SMALL_ORDER_Y


@lru_cache(maxsize=PRIME_ORDER_KEYS_REMEMBERED)
def has_prime_order(key: bytes) -> bool:
    """Tell whether `key` is a point of the prime-order subgroup; remembered, since a wallet signs many permits."""
    return crypto_core_ed25519_is_valid_point(key)
