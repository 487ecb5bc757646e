"""The right to sign one transaction, once, soon."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executor.assets import Asset

__all__ = ["Authorization"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """What the guard allowed, in the words of the chain. The signing gate signs exactly this and nothing else."""

    wallet: str
    agent_id: str
    execution_id: str
    attempt: int
    rail: str
    session_pubkey: str
    """The key that signs, and owns both token accounts."""
    sell: Asset
    sell_amount: int
    """The most that may leave."""
    buy: Asset
    min_received: int
    """The least that must come back in the same transaction."""
    entry_hash: str
    """Hex of the chain hash of the entry that allowed it: the transaction's memo carries it."""
    expires_at_ms: int
    """From then on (exclusive) it can only be voided, Unix ms."""
    claim: str = field(repr=False)
    """Proof that its holder is who the guard gave it to: the ledger keeps only its hash."""

    def without_claim(self) -> Authorization:
        """Return what a rail may see of it: all but the right to use it."""
        return replace(self, claim="")

    @property
    def memo(self) -> bytes:
        """The memo that the transaction must carry, and by which it is traced back to the permit."""
        return b"holdfire:" + self.entry_hash.encode("ascii")
