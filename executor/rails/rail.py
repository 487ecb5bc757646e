"""What the executor asks of a rail, and of the chain.

A rail only proposes: it builds a transaction, and the signing gate decides whether it is the authorized one. What
landed is asked of the executor's own chain connection, never of the rail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from executor.authorization import Authorization

__all__ = ["Account", "Blockhash", "Chain", "Rail", "TransactionRecord"]


class Account(NamedTuple):
    """An account as the chain holds it."""

    owner: str
    """The program that it belongs to, base58."""
    lamports: int
    data: bytes


class Blockhash(NamedTuple):
    """A recent blockhash, and the last block height at which a transaction with it may still land."""

    hash: str
    last_valid_block_height: int


class TransactionRecord(NamedTuple):
    """What the chain knows of a transaction that it executed."""

    slot: int
    error: str | None
    """What undid it; None if it landed."""
    fee_lamports: int
    before: Mapping[str, int]
    """Base units in each token account that it touched, before it ran, by address."""
    after: Mapping[str, int]
    """The same, after it ran."""


class Chain(Protocol):
    """The executor's own connection to the chain."""

    def latest_blockhash(self) -> Blockhash:
        """Return a blockhash to build on."""

    def block_height(self) -> int:
        """Return the height of the newest finalized block."""

    def send(self, transaction: bytes) -> None:
        """Hand over a signed transaction. The same bytes again land at most once.

        Raises:
            ChainError: it was turned away before it was executed, so it didn't land by this call.

        """

    def record(self, tx_signature: str) -> TransactionRecord | None:
        """Return what is finalized of the transaction; None if nothing is known of it, now, in the full history."""


class Rail(Protocol):
    """A way to trade."""

    @property
    def name(self) -> str:
        """What `FireRequest.rail` calls it."""

    def build(self, authorization: Authorization, blockhash: str) -> bytes:
        """Return the transaction that carries out `authorization`, complete but for the session key's signature.

        Wire format of a v0 transaction: the session key pays the fee, so its (empty) signature stands first; other
        signers have signed already; the recent blockhash is `blockhash`; the memo is `authorization.memo`.

        Raises:
            ChainError: it can't offer the trade.

        """
