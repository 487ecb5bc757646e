r"""What a wallet really signs: the canonical permit, alone or behind Solana's off-chain message header.

A verifier *rebuilds* these bytes from the permit and the wallet; it never searches for JSON in a blob that somebody
else built.

| envelope | the signed bytes | who signs so |
|---|---|---|
| `raw` | the canonical bytes | browser wallets' `signMessage` |
| `offchain-v0` | domain, version 0, 32 zeros (application), format, one signer, u16 length, text | Ledger |
| `offchain-v1` | domain, version 1, one signer, text | Ledger, tried first |

The format is 0, printable ASCII, as permits are. A text that isn't, such as one of several lines, has 1, UTF-8.

>>> enclose("offchain-v1", bytes(32), b"{}")[:18]
b'\xffsolana offchain\x01\x01'
"""

from __future__ import annotations

import re
from typing import Final, Literal

from permits.errors import Code, SignatureError

__all__ = ["ENVELOPES", "Envelope", "enclose"]

Envelope = Literal["raw", "offchain-v0", "offchain-v1"]

ENVELOPES: Final[tuple[Envelope, ...]] = ("raw", "offchain-v0", "offchain-v1")

DOMAIN: Final = b"\xffsolana offchain"
V0_TEXT_BYTES_MAX: Final = 1_147
"""A Ledger takes messages of one packet, 1,232 bytes, of which the header with one signer uses 85."""


_is_printable_ascii = re.compile(rb"[ -~]*").fullmatch


def enclose(envelope: Envelope, wallet: bytes, canonical: bytes) -> bytes:
    """Return the bytes that `wallet` (32 bytes) signs for a permit's `canonical` bytes, or another text, in `envelope`.

    Raises:
        SignatureError: `SIGNATURE_ENVELOPE_TOO_LONG`, the permit doesn't fit into `offchain-v0`.

    """
    if envelope == "raw":
        return canonical
    if envelope == "offchain-v1":
        return DOMAIN + b"\x01\x01" + wallet + canonical
    if len(canonical) > V0_TEXT_BYTES_MAX:
        raise SignatureError(
            Code.SIGNATURE_ENVELOPE_TOO_LONG,
            "envelope",
            envelope,
            f"must hold at most {V0_TEXT_BYTES_MAX} bytes, but the text has {len(canonical)}",
        )
    text_format = b"\x00" if _is_printable_ascii(canonical) else b"\x01"
    length = len(canonical).to_bytes(2, "little")
    return DOMAIN + b"\x00" + bytes(32) + text_format + b"\x01" + wallet + length + canonical
