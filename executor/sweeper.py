"""The sweeper: after a stop or completion, everything finds its way home, and then the session key goes.

Step by step, since each transaction must be seen to land before the next is built on what it left. Nothing is
remembered between steps: what is left to do, the chain and the ledger say.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.errors import ChainError, IllegalTransition, TransactionRefused
from executor.lifecycle import AgentState
from executor.signing.sweep import FEE_LAMPORTS, Owned

if TYPE_CHECKING:
    from executor.guard import AsyncGuard
    from executor.rails import Chain
    from executor.signing import SigningGate

__all__ = ["Sweep", "Sweeper"]


HOLDINGS_MAX: Final = 40
"""Token accounts that one step looks at: with their mints, as many as a chain is asked for at once."""


class Sweep(NamedTuple):
    """How far a sweep has come."""

    done: bool
    """The session wallet is empty for good, and its key destroyed."""
    tx_signature: str | None = None
    """Of the transaction that this step sent, base58."""
    waits_for: str | None = None
    """What keeps it from being done now."""


class Sweeper:
    """Pays back for the agents of one guard, with one gate, on one chain."""

    def __init__(self, guard: AsyncGuard, gate: SigningGate, chain: Chain) -> None:
        self._guard = guard
        self._gate = gate
        self._chain = chain

    async def step(self, wallet: str, agent_id: str) -> Sweep:
        """Do the next thing there is to do for the agent; call it again until it is done.

        A session wallet with too little for a fee is empty: what is left of it is lost.

        Raises:
            ChainError: the chain couldn't be asked; nothing was signed.
            IllegalTransition: the agent is neither stopped nor completed, or there is none.
            VaultError, LedgerError: a fault; nothing was sent.

        """
        agent = await self._guard.agent(wallet, agent_id)
        if agent is None or agent.state not in {AgentState.STOPPED, AgentState.COMPLETED}:
            raise IllegalTransition(f"agent `{agent_id}` is not stopped or completed, so it is not swept")
        owned = await self._owned(agent.session_pubkey)
        if owned.movable or owned.lamports > FEE_LAMPORTS:
            return await self._pay_back(wallet, agent_id, owned)
        if owned.holdings:
            return Sweep(done=False, waits_for="token accounts that their mint's authority has frozen")
        if [each async for _, each in self._guard.in_doubt(wallet) if each.steps[0].entry.agent_id == agent_id]:
            return Sweep(done=False, waits_for="attempts that have not ended")
        if not await self._is_empty_for_good(agent.session_pubkey):
            return Sweep(done=False, waits_for="the chain to make it final")
        try:
            await self._guard.destroy_session_key(wallet, agent_id)
        except IllegalTransition as error:
            return Sweep(done=False, waits_for=str(error))
        return Sweep(done=True)

    async def _pay_back(self, wallet: str, agent_id: str, owned: Owned) -> Sweep:
        """Pay back the next accounts, or one alone, where one among them can't be moved; at last the lamports."""
        blockhash = await self._chain.latest_blockhash()
        movable, why = owned.movable, "nothing can be moved"
        for batch in (movable, *([each] for each in movable), []):
            try:
                signed = await self._gate.sign_sweep(wallet, agent_id, owned._replace(holdings=batch), blockhash)
            except TransactionRefused as error:
                why = str(error)
                continue
            # Turned away, or no answer: the next step sees what is left.
            with suppress(ChainError):
                await self._chain.send(signed.content)
            return Sweep(done=False, tx_signature=signed.tx_signature)
        return Sweep(done=False, waits_for=why)

    async def _owned(self, session_pubkey: str) -> Owned:
        found = await self._chain.holdings(session_pubkey)
        holdings = sorted(found, key=lambda holding: holding.frozen)[:HOLDINGS_MAX]  # the movable ones first
        asked = sorted({session_pubkey, *(each.address for each in holdings), *(each.mint for each in holdings)})
        accounts = dict(zip(asked, await self._chain.accounts(asked), strict=True))
        wallet = accounts[session_pubkey]
        return Owned(0 if wallet is None else wallet.lamports, holdings, accounts)

    async def _is_empty_for_good(self, session_pubkey: str) -> bool:
        if await self._chain.holdings(session_pubkey, finalized=True):
            return False
        (account,) = await self._chain.accounts([session_pubkey], finalized=True)
        return account is None or account.lamports <= FEE_LAMPORTS
