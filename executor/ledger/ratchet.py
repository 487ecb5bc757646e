"""What this process has seen of each chain: nothing older is believed, whatever the database says.

A seal tells that a head was written by a holder of the key, not that it is the newest. But a process that has committed
a head knows of it. So a wallet, a halt or limits that were put back, and a standby that lagged and was promoted, are
noticed by each process that saw more. This lies in memory, some 300 bytes a wallet, and a restart forgets it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from executor.errors import LedgerTampered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from executor.entries import Head

__all__ = ["Ratchet", "Seen", "StoredHead", "require_newest"]


class StoredHead(NamedTuple):
    """A head as the database holds it, its seal checked."""

    head: Head
    mac: bytes
    """Of its seal: no other head has it."""


class Seen(NamedTuple):
    """What is remembered of a head."""

    version: int
    mac: bytes
    seq: int
    hash: str
    """Hex of the chain's hash at `seq`."""


class Ratchet:
    """The newest head of each wallet that was in a commit of this process. Threads may share it."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._lock = threading.Lock()

    def get(self, wallet: str) -> Seen | None:
        """Return what was seen of `wallet`; None if nothing was."""
        return self._seen.get(wallet)

    def all(self) -> Mapping[str, Seen]:
        """Return what has been seen by now of every wallet."""
        return self._seen.copy()

    def rise(self, stored: StoredHead) -> None:
        """Remember a head that was read or written under its lock.

        INVARIANT: only once this process's own commit was answered without a warning. What it read is then as durable
        as what it wrote.
        """
        head = stored.head
        with self._lock:
            seen = self._seen.get(head.wallet)
            if seen is None or head.version > seen.version:
                self._seen[head.wallet] = Seen(head.version, stored.mac, head.seq, head.hash)


def require_newest(seen: Seen | None, stored: StoredHead, hash_at: Callable[[int], str]) -> None:
    """Raise LedgerTampered unless `stored` is what was `seen` before it was read, or goes on from there.

    `hash_at` tells the hash, in hex, of the wallet's entry at a sequence number.
    """
    if seen is None:
        return
    head = stored.head
    if head.version == seen.version:
        follows = stored.mac == seen.mac
    elif head.version > seen.version:
        hash_then = head.hash if head.seq == seen.seq else hash_at(seen.seq) if 0 < seen.seq < head.seq else None
        follows = hash_then == seen.hash or seen.seq == 0
    else:
        follows = False
    if not follows:
        raise LedgerTampered(f"wallet `{head.wallet}` was put back to before what this process has seen of it")
