"""The executor: carries a request from the decision to the chain and back into the ledger.

authorize → build → sign at the gate → send → look what became of it → record. The ledger says at every moment how far
an execution has come; `executor.settlement` takes it up where its process left it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.decide import Refused
from executor.errors import ChainError, IllegalTransition, TransactionRefused
from executor.reasons import Reason
from executor.settlement import Settlement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from executor.authorization import Authorization
    from executor.decide import Decision
    from executor.guard import AsyncGuard, Execution
    from executor.rails import Chain, Rail
    from executor.request import FireRequest
    from executor.signing import SigningGate

__all__ = ["Executor", "Outcome"]


UNRECORDED: Final = frozenset(
    {Reason.LEDGER_TAMPERED, Reason.CLOCK_UNTRUSTED, Reason.AGENT_UNKNOWN, Reason.EXECUTION_CONFLICT}
)
"""Refusals that leave no entry under the request's executionId."""

RAIL_S_MAX: Final = 20
"""How long a rail may take to build: an authorization lives 60 s, and an agent waits."""

BLOCKHASH_S_MAX: Final = 10
"""How long the chain may take for a blockhash, tries and pauses included."""


class Outcome(NamedTuple):
    """What became of a request."""

    decision: Decision
    execution: Execution | None
    """What the ledger holds of it; None where a refusal isn't recorded: an unknown agent, a conflict, a fault."""


class Executor:
    """Fires over some rails, onto one chain, for the users of one guard. It never blocks the event loop."""

    def __init__(self, guard: AsyncGuard, gate: SigningGate, chain: Chain, rails: Iterable[Rail]) -> None:
        self._guard = guard
        self._gate = gate
        self._chain = chain
        self.rails: Final = {rail.name: rail for rail in rails}
        """Those that a request may name."""
        self.settlement: Final = Settlement(guard, chain, self.rails.values())
        """What takes up an execution where it was left."""

    async def fire(self, request: FireRequest) -> Outcome:
        """Carry out `request` if the guard allows it. The same executionId again only returns what became of it.

        It looks once whether the transaction landed, and doesn't wait: a signed attempt is for `settlement`, later.
        A task that is cancelled leaves the execution as the ledger says, to be voided or settled.

        Raises:
            ChainError: there is no such rail, and nothing was authorized.
            LedgerError, VaultError: a fault; the execution stands as the ledger says.

        """
        if request.rail not in self.rails:
            raise ChainError(f"there is no rail `{request.rail}`")
        decision = await self._guard.authorize(request)
        if decision.outcome == "allowed" and decision.authorization is not None:
            try:
                await self._carry_out(decision.authorization)
            except IllegalTransition:  # its time was over, and somebody else has given it up
                if not await self.settlement.was_taken_up(request.wallet, request.execution_id):
                    raise
        if isinstance(decision, Refused) and decision.reason in UNRECORDED:
            return Outcome(decision, None)
        return Outcome(decision, await self._guard.execution(request.wallet, request.execution_id))

    async def _carry_out(self, authorization: Authorization) -> None:
        wallet, execution_id = authorization.wallet, authorization.execution_id
        rail = self.rails[authorization.rail]
        late = f"the chain told no blockhash within {BLOCKHASH_S_MAX} s"
        try:
            async with asyncio.timeout(BLOCKHASH_S_MAX):
                blockhash = await self._chain.latest_blockhash()
            late = f"the rail built nothing within {RAIL_S_MAX} s"
            async with asyncio.timeout(RAIL_S_MAX):
                proposed = await rail.build(authorization.without_claim(), blockhash.hash)
        except (ChainError, TimeoutError) as error:
            await self._guard.void(wallet, execution_id, Reason.RAIL_UNAVAILABLE, str(error) or late)
            return
        except Exception as error:
            # A rail is foreign code: whatever it fails by, nothing was signed. The text may hold a secret of its own.
            detail = f"the rail failed: {type(error).__name__}"
            await self._guard.void(wallet, execution_id, Reason.RAIL_UNAVAILABLE, detail)
            raise
        if type(proposed) is not bytes:
            await self._guard.void(wallet, execution_id, Reason.TRANSACTION_REFUSED, "the rail built no bytes")
            return
        try:
            signed = await self._gate.sign(authorization, proposed, blockhash, rail.cosigners)
        except TransactionRefused:
            return
        except ChainError as error:
            await self._guard.void(wallet, execution_id, Reason.RAIL_UNAVAILABLE, str(error))
            return
        if isinstance(signed, Refused):
            return
        await self.settlement.send(wallet, execution_id, signed.content, rail.name)
        with suppress(ChainError):
            await self.settlement.settle(wallet, execution_id)
