"""The right to sign one transaction, once, soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from executor.assets import Asset

__all__ = ["Authorization"]


class Authorization(NamedTuple):
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
    claim: str
    """Proof that its holder is who the guard gave it to: the ledger keeps only its hash."""

    def without_claim(self) -> Authorization:
        """Return what a rail may see of it: all but the right to use it."""
        return self._replace(claim="")

    def __repr__(self) -> str:
        return f"Authorization(execution_id={self.execution_id!r}, attempt={self.attempt}, ...)"  # no claim in any log

    @property
    def memo(self) -> bytes:
        """The memo that the transaction must carry, and by which it is traced back to the permit."""
        return b"holdfire:" + self.entry_hash.encode("ascii")
