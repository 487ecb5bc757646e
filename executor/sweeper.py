"""The sweeper: after a stop or completion, everything finds its way home, and then the session key goes.

Step by step, since each transaction must be seen to land before the next is built on what it left. What is left to do,
the chain and the ledger say. Only which token accounts can't be moved is remembered between steps, since anybody may
send thousands of such accounts, and each must be tried:

| of the session wallet's token accounts | |
|---|---|
| those of the permit's own mints | go first, so that no stranger's account is paid for before them |
| those that are only closed, empty ones and wrapped SOL | go next: they need no lamports, and bring some |
| all other | go then |
| those by which a step came to no end: a passing fault, too few lamports for rent | are tried after all other |
| frozen ones, and those that were shown not to move | stay |

INVARIANT: the lamports go last, in a step that reads no token account but those that stay. Without them no fee can be
paid, so whatever else would still lie there lay there for good. What a passing fault hides is not shown.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.assets import NATIVE_MINT
from executor.errors import ChainError, IllegalTransition, TransactionRefused, Unmovable
from executor.lifecycle import AgentState
from executor.signing.sweep import ACCOUNTS_MAX, FEE_LAMPORTS, Owned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.guard import AsyncGuard
    from executor.guard.agents import Agent
    from executor.rails import Chain, Holding
    from executor.signing import SignedTransaction, SigningGate

__all__ = ["Sweep", "Sweeper"]


HOLDINGS_MAX: Final = 49
"""Token accounts that one step tries: with their mints and the wallet, as many as a chain is asked for at once."""


class Sweep(NamedTuple):
    """How far a sweep has come. One that neither is done nor waits goes on with the next step."""

    done: bool
    """The session wallet is empty for good, and its key destroyed."""
    tx_signature: str | None = None
    """Of the transaction that this step sent, base58."""
    waits_for: str | None = None
    """What keeps it from going on now."""


class _Tried(NamedTuple):
    """What steps have found out about the token accounts of one session wallet, each as it was then."""

    unmovable: set[Holding]
    """They can't be moved: so said the chain, of each alone."""
    later: dict[Holding, str]
    """Nothing was said of them, and why. They are tried after all other, each alone, in the order of this."""

    def put_off(self, holding: Holding, why: str) -> None:
        """Try `holding` after all other."""
        self.later.pop(holding, None)
        self.later[holding] = why


class Sweeper:
    """Pays back for the agents of one guard, with one gate, on one chain.

    Keep it from step to step: one that is made anew for each would try the same token accounts again and again.
    """

    def __init__(self, guard: AsyncGuard, gate: SigningGate, chain: Chain) -> None:
        self._guard = guard
        self._gate = gate
        self._chain = chain
        self._tried: dict[str, _Tried] = {}

    async def step(self, wallet: str, agent_id: str) -> Sweep:
        """Do the next thing there is to do for the agent; call it again until it is done.

        At most one transaction is sent, and some 60 are tried. A session wallet with too little for a fee is empty:
        what is left of it is lost.

        Raises:
            ChainError: the chain couldn't be asked what is there; nothing was signed.
            IllegalTransition: the agent is neither stopped nor completed, or there is none.
            VaultError, LedgerError: a fault; nothing was sent.

        """
        agent = await self._guard.agent(wallet, agent_id)
        if agent is None or agent.state not in {AgentState.STOPPED, AgentState.COMPLETED}:
            raise IllegalTransition(f"agent `{agent_id}` is not stopped or completed, so it is not swept")
        session = agent.session_pubkey
        holdings = await self._chain.holdings(session)
        tried = self._still(session, holdings)
        movable = [each for each in holdings if not each.frozen and each not in tried.unmovable]
        waiting = _in_order(agent, movable, tried)
        owned = await self._owned(session, waiting[:HOLDINGS_MAX])
        if owned.lamports < FEE_LAMPORTS and not all(each.frozen for each in holdings):
            del self._tried[session]  # once there are lamports again, all is tried again
            return Sweep(done=False, waits_for=f"lamports: the session wallet has {owned.lamports}, less than the fee")
        if waiting:
            return await self._pay_back(wallet, agent_id, owned, tried) or self._after_all_of(waiting, tried)
        if owned.lamports > FEE_LAMPORTS:
            return await self._pay_lamports(wallet, agent_id, owned)
        if tried.unmovable:
            return Sweep(done=False, waits_for="token accounts that can't be moved")
        if holdings:
            return Sweep(done=False, waits_for="token accounts that their mint's authority has frozen")
        if [each async for _, each in self._guard.in_doubt(wallet) if each.steps[0].entry.agent_id == agent_id]:
            return Sweep(done=False, waits_for="attempts that have not ended")
        if not await self._is_empty_for_good(session):
            return Sweep(done=False, waits_for="the chain to make it final")
        try:
            await self._guard.destroy_session_key(wallet, agent_id)
        except IllegalTransition as error:
            return Sweep(done=False, waits_for=str(error))
        del self._tried[session]
        return Sweep(done=True)

    def _still(self, session_pubkey: str, holdings: Sequence[Holding]) -> _Tried:
        """Return what was found out about those of `holdings` that are as they were."""
        before, now = self._tried.get(session_pubkey, _Tried(set(), {})), set(holdings)
        later = {each: why for each, why in before.later.items() if each in now}
        self._tried[session_pubkey] = _Tried(before.unmovable & now, later)
        return self._tried[session_pubkey]

    async def _pay_back(self, wallet: str, agent_id: str, owned: Owned, tried: _Tried) -> Sweep | None:
        """Pay back the first accounts of `owned` that can be moved, and remember what is found out about others."""
        for holdings in _together(owned.holdings, tried):
            try:
                signed = await self._sign(wallet, agent_id, owned._replace(holdings=holdings), tried)
            except ChainError as error:
                for each in holdings:
                    tried.put_off(each, str(error))
                return Sweep(done=False, waits_for=str(error))
            if signed is not None:
                return await self._send(signed)
        return None

    async def _sign(self, wallet: str, agent_id: str, together: Owned, tried: _Tried) -> SignedTransaction | None:
        """Have a transaction signed that moves these accounts, or the first that can be moved alone; None: none can."""
        blockhash = await self._chain.latest_blockhash()
        alone = [together._replace(holdings=[each]) for each in together.holdings]
        for owned in (together, *alone) if len(alone) > 1 else alone:
            only = owned.holdings[0] if len(owned.holdings) == 1 else None
            try:
                return await self._gate.sign_sweep(wallet, agent_id, owned, blockhash)
            except Unmovable:
                if only:
                    tried.unmovable.add(only)
            except TransactionRefused as error:  # by something else than these accounts: for want of lamports
                if only:
                    tried.put_off(only, str(error))
        return None

    def _after_all_of(self, waiting: Sequence[Holding], tried: _Tried) -> Sweep:
        """Go on, unless each of `waiting` was tried, and something other than itself keeps one of them."""
        left = [each for each in waiting if each not in tried.unmovable]
        if not left or not tried.later.keys() >= set(left):
            return Sweep(done=False)
        why = tried.later[left[0]]
        tried.later.clear()  # and begin again
        return Sweep(done=False, waits_for=why)

    async def _pay_lamports(self, wallet: str, agent_id: str, owned: Owned) -> Sweep:
        try:
            signed = await self._gate.sign_sweep(wallet, agent_id, owned, await self._chain.latest_blockhash())
        except (TransactionRefused, ChainError) as error:
            return Sweep(done=False, waits_for=str(error))
        return await self._send(signed)

    async def _send(self, signed: SignedTransaction) -> Sweep:
        # Turned away, or no answer: the next step sees what is left.
        with suppress(ChainError):
            await self._chain.send(signed.content)
        return Sweep(done=False, tx_signature=signed.tx_signature)

    async def _owned(self, session_pubkey: str, holdings: Sequence[Holding]) -> Owned:
        asked = sorted({session_pubkey, *(each.address for each in holdings), *(each.mint for each in holdings)})
        accounts = dict(zip(asked, await self._chain.accounts(asked), strict=True))
        wallet = accounts[session_pubkey]
        return Owned(0 if wallet is None else wallet.lamports, holdings, accounts)

    async def _is_empty_for_good(self, session_pubkey: str) -> bool:
        if await self._chain.holdings(session_pubkey, finalized=True):
            return False
        (account,) = await self._chain.accounts([session_pubkey], finalized=True)
        return account is None or account.lamports <= FEE_LAMPORTS


def _in_order(agent: Agent, holdings: Sequence[Holding], tried: _Tried) -> list[Holding]:
    own = set() if agent.bounds is None else {asset.mint for asset in agent.bounds.assets}

    waiting = {each: place for place, each in enumerate(tried.later)}

    def rank(holding: Holding) -> tuple[int, bool, bool]:
        brings_lamports = not holding.amount or holding.mint == NATIVE_MINT
        return waiting.get(holding, -1), holding.mint not in own, not brings_lamports

    return sorted(holdings, key=rank)


def _together(holdings: Sequence[Holding], tried: _Tried) -> list[Sequence[Holding]]:
    """Return `holdings` by what is tried in one transaction: what was put off once may be what keeps others."""
    fresh = [each for each in holdings if each not in tried.later]
    fours = [fresh[first : first + ACCOUNTS_MAX] for first in range(0, len(fresh), ACCOUNTS_MAX)]
    return [*fours, *([each] for each in holdings if each in tried.later)]
