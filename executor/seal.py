"""The seal: a keyed MAC by which the ledger's reader knows that the ledger's writer wrote it.

Keys have ids, so that a new one can take over while rows under the old one stay readable. They never lie in the
database that they protect: whoever can write there, without a key, can't make a row that checks.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from permits.canonical import parse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from hashlib import _Hash as Hash

__all__ = ["SEAL_KEY_BYTES", "Seal", "SealKeys"]

SEAL_KEY_BYTES: Final = 32
BLOCK_BYTES: Final = 64
INNER_PAD: Final = bytes(0x36 ^ byte for byte in range(256))
OUTER_PAD: Final = bytes(0x5C ^ byte for byte in range(256))
"""HMAC's, as RFC 2104 has them: tables for `bytes.translate`."""


class Seal(NamedTuple):
    """A MAC and the id of its key."""

    key_id: str
    mac: bytes
    """HMAC-SHA-256, 32 bytes."""


class SealKeys:
    """A keyring: seals with the current key, checks with any. Shows no key in its repr, and can't be pickled."""

    __slots__ = ("_begun", "current")

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        """Take `keys` of 32 bytes by their ids, and the id to seal with from now on.

        Raises:
            ValueError: a key has another length, or `current` is not among them.

        """
        for key_id, key in keys.items():
            if len(key) != SEAL_KEY_BYTES:
                raise ValueError(f"seal key `{key_id}` must be {SEAL_KEY_BYTES} bytes")
        if current not in keys:
            raise ValueError(f"there is no seal key `{current}`")
        self._begun = {key_id: _begin(key) for key_id, key in keys.items()}
        self.current: Final = current

    @classmethod
    def single(cls, key: bytes) -> SealKeys:
        """Return a keyring of one key, called `1`."""
        return cls({"1": key}, "1")

    @classmethod
    def read(cls, data: bytes) -> SealKeys:
        """Return the keyring in a file that holds `data`: a key's 64 hex digits, or a JSON object of keys.

        Raises:
            ValueError: it is neither.

        """
        if not data.lstrip().startswith(b"{"):
            return cls.single(_key(data.decode("ascii", "replace")))
        match parse(data):
            case {"current": str() as current, "keys": dict() as found}:
                return cls({key_id: _key(digits) for key_id, digits in found.items()}, current)
        raise ValueError('must hold 64 hex digits, or {"current": ID, "keys": {ID: HEX, ...}}')

    def seal(self, tag: bytes, data: bytes) -> Seal:
        """Return the seal over `data` as a `tag` (what kind of row it is)."""
        return Seal(self.current, self._mac(self.current, tag, data))

    def fits(self, seal: Seal, tag: bytes, data: bytes) -> bool:
        """Tell whether a holder of the named key sealed `data` as a `tag`; never for a key this ring lacks."""
        return seal.key_id in self._begun and compare_digest(self._mac(seal.key_id, tag, data), seal.mac)

    def _mac(self, key_id: str, tag: bytes, data: bytes) -> bytes:
        begun_inner, begun_outer = self._begun[key_id]
        inner, outer = begun_inner.copy(), begun_outer.copy()
        inner.update(tag + b"\x00" + data)
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        return f"SealKeys({', '.join(self._begun)}; current {self.current})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("seal keys don't leave their process")


def _begin(key: bytes) -> tuple[Hash, Hash]:
    """Return HMAC-SHA-256's two hashes once they have taken in `key`: the same for all that it seals.

    The module `hmac` does the same through a layer of Python, which takes as long as the hashes.
    """
    block = key.ljust(BLOCK_BYTES, b"\x00")
    return sha256(block.translate(INNER_PAD)), sha256(block.translate(OUTER_PAD))


def _key(digits: object) -> bytes:
    try:
        key = bytes.fromhex(str(digits))
    except ValueError:
        key = b""
    if len(key) != SEAL_KEY_BYTES:
        raise ValueError(f"a seal key must be {SEAL_KEY_BYTES} bytes in hex digits")
    return key
