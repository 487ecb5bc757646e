"""The treasury: tops session wallets up from the operator's key, so that they can pay fees and rent.

It pays what the guard authorized, to the session wallet that the guard named, and goes a trade's way: the signature is
committed before the bytes leave, and settlement takes it up wherever it was left.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from executor.decide import Refused
from executor.errors import ChainError, IllegalTransition
from executor.funding import FundingAllowed, FundingEvidence, FundingRequest
from executor.solana import memo

if TYPE_CHECKING:
    from collections.abc import Callable

    from solders.keypair import Keypair

    from executor.funding import FundingAuthorization, FundingDecision
    from executor.guard import AsyncGuard
    from executor.rails import Blockhash, Chain
    from executor.settlement import Settlement

__all__ = ["Treasury"]


class Treasury:
    """Funds the agents of one guard with one key, which no session key and no rail ever sees."""

    def __init__(
        self,
        guard: AsyncGuard,
        chain: Chain,
        settlement: Settlement,
        keypair: Keypair,
        *,
        floor_lamports: int,
        new_id: Callable[[], str],
    ) -> None:
        """Fund with `keypair` up to `floor_lamports`; `new_id` gives a new UUID each time."""
        self._guard = guard
        self._chain = chain
        self._settlement = settlement
        self._keypair = keypair
        self._floor_lamports = floor_lamports
        self._new_id = new_id

    async def top_up(self, wallet: str, agent_id: str) -> FundingDecision | None:
        """Top the agent's session wallet up to the floor; return the guard's decision, or None without one.

        What is missing counts against both caps from the authorization on, whatever becomes of it. Nothing is asked for
        while the wallet is full, or a funding of the agent still open. Where something else was authorized for the
        agent meanwhile, by another replica too, what is missing has changed: SESSION_BUSY, and ask again.

        Raises:
            ChainError: there is no such agent, or the chain couldn't be asked; nothing was authorized.
            LedgerError: a fault; the funding stands as the ledger says.

        """
        agent = await self._guard.agent(wallet, agent_id)
        if agent is None:
            raise ChainError(f"there is no agent `{agent_id}`")
        since = await self._guard.head_seq(wallet)
        if await self._has_open(wallet, agent_id):
            return None
        (account,) = await self._chain.accounts([agent.session_pubkey])  # now: what was open may have landed
        missing = self._floor_lamports - (0 if account is None else account.lamports)
        if missing <= 0:
            return None
        blockhash = await self._chain.latest_blockhash()  # before: what is authorized counts, whatever becomes of it
        request = FundingRequest(wallet=wallet, agent_id=agent_id, execution_id=self._new_id(), lamports=missing)
        decision = await self._guard.authorize_funding(request, alone_since=since)
        if isinstance(decision, FundingAllowed) and decision.authorization is not None:
            try:
                await self._pay(decision.authorization, blockhash)
            except IllegalTransition:  # its time was over, and somebody else has given it up
                if not await self._settlement.was_taken_up(wallet, request.execution_id):
                    raise
        return decision

    async def _has_open(self, wallet: str, agent_id: str) -> bool:
        """Settle what is open of the wallet, and tell whether a funding of the agent still is."""
        if not await self._settlement.recover(wallet):
            return False
        return any(
            [
                isinstance(each.evidence, FundingEvidence) and each.evidence.request.agent_id == agent_id
                async for _, each in self._guard.in_doubt(wallet)
            ]
        )

    async def _pay(self, authorization: FundingAuthorization, blockhash: Blockhash) -> None:
        wallet, execution_id = authorization.wallet, authorization.execution_id
        payer, session = self._keypair.pubkey(), Pubkey.from_string(authorization.session_pubkey)
        moving = transfer(TransferParams(from_pubkey=payer, to_pubkey=session, lamports=authorization.lamports))
        instructions = [moving, memo(authorization.memo, payer)]
        message = MessageV0.try_compile(payer, instructions, [], Hash.from_string(blockhash.hash))
        transaction = VersionedTransaction(message, [self._keypair])
        refused = await self._guard.mark_signed(
            authorization,
            tx_signature=str(transaction.signatures[0]),
            transaction_bytes=bytes(transaction),
            last_valid_block_height=blockhash.last_valid_block_height,
        )
        if isinstance(refused, Refused):
            return
        await self._settlement.send(wallet, execution_id, bytes(transaction))
        with suppress(ChainError):
            await self._settlement.settle(wallet, execution_id)
