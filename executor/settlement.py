"""Settlement: what becomes of a signed transaction, whoever signed it, and however often its process died since.

The ledger has the exact bytes, so anybody may send them again: they land at most once. What the chain says is recorded
when it is final; of two that record the same, the second finds it done.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from executor.assets import NATIVE_MINT
from executor.errors import ChainError, ClockUntrusted, IllegalTransition, LedgerError, LedgerTampered
from executor.evidence import Evidence
from executor.fill import Landing
from executor.lifecycle import ATTEMPT_STEPS, AttemptState
from executor.rails import Pending, SendingRail, earliest_slot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from executor.guard import AsyncGuard, Execution
    from executor.rails import Balances, Chain, Rail, TransactionRecord

__all__ = ["Settlement"]

SENDING_S_MAX: Final = 20
"""How long a rail, or the chain, may take to be handed a transaction: others wait to be taken up behind it."""


class Settlement:
    """Sends what is signed and records what became of it, for one guard on one chain.

    Of `rails`, those that send by themselves do so, also what another process has left.
    """

    def __init__(self, guard: AsyncGuard, chain: Chain, rails: Iterable[Rail] = ()) -> None:
        self._guard = guard
        self._chain = chain
        self._sending = {rail.name: rail for rail in rails if isinstance(rail, SendingRail)}

    async def send(self, wallet: str, execution_id: str, content: bytes, rail: str | None = None) -> None:
        """Hand a signed transaction over, if its agent may still act: by its rail, or else by the executor's chain.

        Whether it was turned away, or no answer came, only a look-up tells: `settle`.
        """
        with suppress(IllegalTransition):  # somebody else has settled it meanwhile
            if await self._guard.may_send(wallet, execution_id) is None:
                with suppress(ChainError, TimeoutError):
                    async with asyncio.timeout(SENDING_S_MAX):
                        await (self._sending.get(rail or "") or self._chain).send(content)

    async def settle(self, wallet: str, execution_id: str) -> AttemptState:
        """Look what became of a signed execution, record it if that is final, and return where it stands now.

        Raises:
            ChainError: the wallet has no execution of this id, or the chain couldn't be asked; nothing is recorded.
            LedgerError: as `Ledger.change`.

        """
        execution = await self._guard.execution(wallet, execution_id)
        if execution is None:
            raise ChainError(f"there is no execution `{execution_id}`")
        if execution.state is not AttemptState.SIGNED:
            return execution.state
        signed = execution.steps[-1].entry.body
        # INVARIANT: the height is read before the look-up; the other way round, it could land in between, unseen.
        newest = await self._chain.finalized_block()
        last_valid = signed["lastValidBlockHeight"]
        record = await self._chain.record(
            signed["txSignature"], as_of_slot=newest.slot, since_slot=earliest_slot(last_valid, newest)
        )
        if isinstance(record, Pending) or (record is None and newest.height <= last_valid):
            return AttemptState.SIGNED
        with suppress(IllegalTransition):  # somebody else has recorded it since
            await self._record(wallet, execution, record)
        settled = await self._guard.execution(wallet, execution_id)
        return AttemptState.SIGNED if settled is None else settled.state

    async def was_taken_up(self, wallet: str, execution_id: str) -> bool:
        """Tell whether an execution has gone on from its authorization, by whoever's hand. Raises as `Ledger.view`."""
        execution = await self._guard.execution(wallet, execution_id)
        return execution is not None and execution.state is not AttemptState.AUTHORIZED

    async def recover(self, wallet: str | None = None) -> int:
        """Take up every attempt that has not ended, or those of `wallet`, once; return how many are still open.

        A service calls it when it starts, and again from time to time. An authorization that is out of date is voided;
        a signed transaction is looked up, and sent again while it can still land and its agent may act. Replicas may do
        so at the same time.

        Raises:
            LedgerTampered, ClockUntrusted, or whatever a rail's `send` raised: of some attempt, once all others were
                taken up.
            LedgerError: as `Ledger.change`. A chain that can't be asked is no fault: what it hides stays open.

        """
        still_open = 0
        fault: Exception | None = None
        async for whose, execution in self._guard.in_doubt(wallet):
            execution_id = execution.steps[0].entry.execution_id or ""
            state = execution.state
            try:
                state = await self._take_up(whose, execution_id, execution)
            except ChainError:
                pass
            except (LedgerTampered, ClockUntrusted) as error:
                fault = fault or error
            except LedgerError:  # of the ledger itself: no other attempt would fare better
                raise
            except Exception as error:  # noqa: BLE001 - a rail is foreign code: whatever it fails by keeps nobody else
                fault = fault or error
            still_open += bool(ATTEMPT_STEPS[state])
        if fault is not None:
            raise fault
        return still_open

    async def _take_up(self, wallet: str, execution_id: str, execution: Execution) -> AttemptState:
        if execution.state is AttemptState.AUTHORIZED:
            voided = await self._guard.void_expired(wallet, execution_id)
            return AttemptState.VOIDED if voided else AttemptState.AUTHORIZED
        state = await self.settle(wallet, execution_id)
        if state is not AttemptState.SIGNED:
            return state
        rail = execution.evidence.request.rail if isinstance(execution.evidence, Evidence) else None
        await self.send(wallet, execution_id, bytes.fromhex(execution.steps[-1].entry.body["transaction"]), rail)
        return await self.settle(wallet, execution_id)

    async def _record(self, wallet: str, execution: Execution, record: TransactionRecord | None) -> None:
        execution_id = execution.steps[0].entry.execution_id or ""
        if record is None:
            await self._guard.mark_dead(wallet, execution_id)
        elif record.error is not None:
            await self._guard.mark_failed(wallet, execution_id, record.error)
        elif isinstance(execution.evidence, Evidence):
            await self._guard.mark_landed(wallet, execution_id, _landing(record, execution, execution.evidence))
        else:
            await self._guard.mark_funded(wallet, execution_id, slot=record.slot, fee_lamports=record.fee_lamports)


def _landing(record: TransactionRecord, execution: Execution, evidence: Evidence) -> Landing:
    """Return what the transaction moved in and out of the session wallet."""
    whitelist, request = execution.bounds.whitelist, evidence.request
    session = execution.bounds.terms.session_pubkey
    return Landing(
        slot=record.slot,
        sold=max(0, -_gained(record, session, whitelist[request.sell].mint)),
        received=max(0, _gained(record, session, whitelist[request.buy].mint)),
        fee_lamports=record.fee_lamports,
    )


def _gained(record: TransactionRecord, session: str, mint: str) -> int:
    """Return the base units that the session wallet holds more than before; of SOL wrapped or not, without the fee."""
    if mint != NATIVE_MINT:
        return record.after.of(session, mint) - record.before.of(session, mint)
    own = {session}
    for moment in (record.before, record.after):
        own |= {address for address, balance in moment.tokens.items() if balance.owner == session}
    return _lamports(record.after, own) - _lamports(record.before, own) + record.fee_lamports


def _lamports(balances: Balances, own: set[str]) -> int:
    """Return the lamports in these accounts together: rent that moves between them is no gain."""
    return sum(balances.lamports.get(address, 0) for address in own)
