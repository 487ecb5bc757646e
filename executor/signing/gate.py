"""The signing gate: the one place where a session key signs, and only what was authorized.

The order is the safety: check the authorization against the ledger → inspect → sign → let the guard decide once more
and commit the signature → release the bytes. A signature that the guard didn't commit never leaves this function.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from solders.message import to_bytes_versioned
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from executor.errors import TransactionRefused
from executor.reasons import Reason
from executor.signing.inspection import inspect

if TYPE_CHECKING:
    from executor.authorization import Authorization
    from executor.decide import Refused
    from executor.guard import AsyncGuard
    from executor.rails import Blockhash
    from executor.signing.vault import SessionVault

__all__ = ["SignedTransaction", "SigningGate"]


class SignedTransaction(NamedTuple):
    """A transaction that may be sent: its signature is committed to the ledger."""

    tx_signature: str
    """base58 of the session key's signature, the transaction's id."""
    content: bytes
    """Wire format."""
    last_valid_block_height: int


class SigningGate:
    """Signs for the agents of one guard with the keys of one vault."""

    def __init__(self, guard: AsyncGuard, vault: SessionVault) -> None:
        self._guard = guard
        self._vault = vault

    async def sign(
        self, authorization: Authorization, transaction: bytes, blockhash: Blockhash
    ) -> SignedTransaction | Refused:
        """Sign `transaction` if it is exactly what `authorization` allows, and may still happen.

        Returns:
            The transaction to send, or the guard's refusal at this moment; then the attempt is voided.

        Raises:
            TransactionRefused: it is not the authorized trade; the attempt is voided.
            IllegalTransition: `authorization` is not one that the guard gave to this caller, or it is used up.
            VaultError, LedgerError: nothing was released.

        """
        await self._guard.check(authorization)
        try:
            inspected = inspect(transaction, authorization, blockhash.hash)
        except TransactionRefused as error:
            await self._guard.void(
                authorization.wallet, authorization.execution_id, Reason.TRANSACTION_REFUSED, str(error)
            )
            raise
        message = to_bytes_versioned(inspected.message)
        signature = Signature(
            await asyncio.to_thread(
                self._vault.sign, authorization.wallet, authorization.agent_id, authorization.session_pubkey, message
            )
        )
        content = bytes(VersionedTransaction.populate(inspected.message, [signature, *inspected.signatures[1:]]))
        refused = await self._guard.mark_signed(
            authorization,
            tx_signature=str(signature),
            transaction_bytes=content,
            last_valid_block_height=blockhash.last_valid_block_height,
        )
        if refused is not None:
            return refused
        return SignedTransaction(str(signature), content, blockhash.last_valid_block_height)
