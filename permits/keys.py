"""base58 text to 32 or 64 bytes and back, and the byte rules that make a public key safe to trust.

A lax Ed25519 verifier lets anyone sign for a key of small order, and lets one key have several spellings. The rules
here leave each key one spelling and one owner:

- base58 is matched against a bounded pattern *before* it is decoded; the pattern and the decoded length make the
  spelling unique (the `base58` package strips white space, and takes time that grows with the square of the length);
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
from typing import TYPE_CHECKING, Final

import base58
from nacl.bindings import crypto_core_ed25519_is_valid_point

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NOT_CANONICAL_KEYS",
    "SMALL_ORDER_KEYS",
    "decode_key",
    "decode_signature",
    "decode_wallet",
    "encode",
    "has_prime_order",
]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_DIGITS_MAX: Final = 44
KEY_PATTERN: Final = "[1-9A-HJ-NP-Za-km-z]{32,44}"
SIGNATURE_PATTERN: Final = "[1-9A-HJ-NP-Za-km-z]{64,88}"

_is_key_text = re.compile(KEY_PATTERN).fullmatch
_is_signature_text = re.compile(SIGNATURE_PATTERN).fullmatch

P: Final = 2**255 - 19
SIGN_BIT: Final = 1 << 255

SMALL_ORDER_Y: Final = (
    0,  # order 4
    1,  # order 1
    P - 1,  # order 2
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,  # order 8
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,  # order 8
)
"""The y coordinates of the eight points of small order; each point with x ≠ 0 comes in two signs of x."""

WALLETS_REMEMBERED: Final = 16_384
"""A few MB at most. A wallet signs many permits, and its check costs nearly as much as a signature's."""


def decode_key(text: str) -> bytes | None:
    """Return the 32 bytes that base58 `text` spells, or None if it is not their one spelling."""
    return _decode(text, KEY_BYTES) if _is_key_text(text) else None


def is_key(text: str) -> bool:
    """Tell whether `decode_key` would return 32 bytes.

    Without decoding: base58's digits are in the order of ASCII, so texts of one length compare as their numbers do.
    """
    if not _is_key_text(text):
        return False
    zeros = len(text) - len(text.lstrip(ZERO))
    if zeros > KEY_BYTES:
        return False
    least, greatest = KEYS_WITH_ZEROS[zeros]
    return least <= text.rjust(KEY_DIGITS_MAX, ZERO) <= greatest


@lru_cache(maxsize=WALLETS_REMEMBERED)
def decode_wallet(text: str) -> bytes | None:
    """Return what `decode_key` does, from memory if it can."""
    return decode_key(text)


def decode_signature(text: str) -> bytes | None:
    """Return the 64 bytes that base58 `text` spells, or None if it is not their one spelling."""
    return _decode(text, SIGNATURE_BYTES) if _is_signature_text(text) else None


def encode(data: bytes) -> str:
    """Return the base58 text of `data`."""
    return base58.b58encode(data).decode("ascii")


@lru_cache(maxsize=WALLETS_REMEMBERED)
def has_prime_order(key: bytes) -> bool:
    """Tell whether `key` is a point of the prime-order subgroup."""
    return crypto_core_ed25519_is_valid_point(key)


ZERO: Final = "1"
DIGITS: Final = bytes.maketrans(b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", bytes(range(58)))
DIGITS_MAX: Final = 128


def _lanes() -> tuple[tuple[int, int, int], ...]:
    """Return for each doubling of the lanes: their width in bits, a mask of every second one, 2**width - base."""
    lanes, bits, base = [], 8, 58
    while bits < 8 * DIGITS_MAX:
        mask = sum(((1 << bits) - 1) << at for at in range(0, 8 * DIGITS_MAX, 2 * bits))
        lanes.append((bits, mask, (1 << bits) - base))
        bits, base = 2 * bits, base * base
    return tuple(lanes)


LANES: Final = _lanes()


def _decode(text: str, size: int) -> bytes | None:
    """Return the `size` bytes that base58 `text`, of at most 128 digits, spells; None if that takes more or fewer.

    All digits at once: they stand in one big integer, a lane of 8 bits each; then each pair of neighboring lanes
    becomes one of twice the width, high * 2**width + low less high * (2**width - base), until one is left. Seven steps
    instead of 88.
    """
    number = int.from_bytes(text.encode("ascii").translate(DIGITS), "big")
    for bits, mask, excess in LANES:
        number -= (number >> bits & mask) * excess
    zeros = len(text) - len(text.lstrip(ZERO))
    if (number.bit_length() + 7) // 8 + zeros != size:
        return None
    return number.to_bytes(size, "big")


def _key_digits(data: bytes) -> str:
    """Return all 44 digits of the key that `data` begins with."""
    return encode(data[:KEY_BYTES]).rjust(KEY_DIGITS_MAX, ZERO)


KEYS_WITH_ZEROS: Final = tuple(
    (_key_digits(bytes(zeros) + b"\x01" + bytes(KEY_BYTES)), _key_digits(bytes(zeros) + b"\xff" * KEY_BYTES))
    for zeros in range(KEY_BYTES + 1)
)
"""The least and the greatest key that begins with so many zero bytes, and with no more."""


def _spellings(ys: Iterable[int]) -> frozenset[str]:
    """Return the base58 texts of the keys with these y coordinates, with both signs of x."""
    return frozenset(encode((y | sign).to_bytes(KEY_BYTES, "little")) for y in ys for sign in (0, SIGN_BIT))


NOT_CANONICAL_KEYS: Final = _spellings(range(P, SIGN_BIT))
"""All 38 keys whose y is not below p: second spellings of other keys (RFC 8032, section 5.1.3, step 1)."""

SMALL_ORDER_KEYS: Final = _spellings(SMALL_ORDER_Y)
"""All 10 keys, spelled canonically but for the sign of x = 0, whose point's order divides 8."""
