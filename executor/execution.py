"""The executor: carries a request from the decision to the chain and back into the ledger.

authorize → build → sign at the gate → send → look what became of it → record. The ledger says at every moment how far
an execution has come; `settle` takes up a signed one where its process left it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from executor.decide import Refused
from executor.errors import ChainError, TransactionRefused
from executor.evidence import Evidence
from executor.fill import Landing
from executor.lifecycle import AttemptState
from executor.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from executor.assets import Asset
    from executor.authorization import Authorization
    from executor.decide import Decision
    from executor.guard import Execution, Guard
    from executor.rails import Chain, Rail, TransactionRecord
    from executor.request import FireRequest
    from executor.signing import SigningGate

__all__ = ["Executor", "Outcome"]


UNRECORDED: Final = frozenset(
    {Reason.LEDGER_TAMPERED, Reason.CLOCK_UNTRUSTED, Reason.AGENT_UNKNOWN, Reason.EXECUTION_CONFLICT}
)
"""Refusals that leave no entry under the request's executionId."""


class Outcome(NamedTuple):
    """What became of a request."""

    decision: Decision
    execution: Execution | None
    """What the ledger holds of it; None where a refusal isn't recorded: an unknown agent, a conflict, a fault."""


class Executor:
    """Fires over some rails, onto one chain, for the users of one guard."""

    def __init__(self, guard: Guard, gate: SigningGate, chain: Chain, rails: Iterable[Rail]) -> None:
        self._guard = guard
        self._gate = gate
        self._chain = chain
        self._rails = {rail.name: rail for rail in rails}

    def fire(self, request: FireRequest) -> Outcome:
        """Carry out `request` if the guard allows it. The same executionId again only returns what became of it.

        Raises:
            ChainError: there is no such rail, and nothing was authorized.
            LedgerError, VaultError: a fault; the execution stands as the ledger says.

        """
        if request.rail not in self._rails:
            raise ChainError(f"there is no rail `{request.rail}`")
        decision = self._guard.authorize(request)
        if decision.outcome == "allowed" and decision.authorization is not None:
            self._carry_out(decision.authorization)
        if isinstance(decision, Refused) and decision.reason in UNRECORDED:
            return Outcome(decision, None)
        return Outcome(decision, self._guard.execution(request.wallet, request.execution_id))

    def settle(self, wallet: str, execution_id: str) -> AttemptState:
        """Look what became of a signed execution, record it if that is final, and return where it stands now.

        Raises:
            ChainError: the wallet has no execution of this id.

        """
        execution = self._guard.execution(wallet, execution_id)
        if execution is None:
            raise ChainError(f"there is no execution `{execution_id}`")
        if execution.state is not AttemptState.SIGNED:
            return execution.state
        signed = execution.steps[-1].entry.body
        # INVARIANT: the height is read before the look-up; the other way round, it could land in between, unseen.
        expired = self._chain.block_height() > signed["lastValidBlockHeight"]
        record = self._chain.record(signed["txSignature"])
        if record is None:
            if not expired:
                return AttemptState.SIGNED
            self._guard.mark_dead(wallet, execution_id)
            return AttemptState.DEAD
        if record.error is not None:
            self._guard.mark_failed(wallet, execution_id, record.error)
            return AttemptState.FAILED
        self._guard.mark_landed(wallet, execution_id, _landing(record, execution))
        return AttemptState.LANDED

    def _carry_out(self, authorization: Authorization) -> None:
        wallet, execution_id = authorization.wallet, authorization.execution_id
        try:
            blockhash = self._chain.latest_blockhash()
            proposed = self._rails[authorization.rail].build(authorization.without_claim(), blockhash.hash)
        except ChainError as error:
            self._guard.void(wallet, execution_id, Reason.RAIL_UNAVAILABLE, str(error))
            return
        try:
            signed = self._gate.sign(authorization, proposed, blockhash)
        except TransactionRefused:
            return
        if isinstance(signed, Refused):
            return
        # Turned away or not: what became of it, only a look-up tells.
        with suppress(ChainError):
            self._chain.send(signed.content)
        self.settle(wallet, execution_id)


def _landing(record: TransactionRecord, execution: Execution) -> Landing:
    """Return what the transaction moved in and out of the session wallet."""
    if not isinstance(execution.evidence, Evidence):
        raise ChainError("a funding moves no tokens")
    whitelist = execution.bounds.whitelist
    session = Pubkey.from_string(execution.bounds.terms.session_pubkey)
    selling = _account(session, whitelist[execution.evidence.request.sell])
    buying = _account(session, whitelist[execution.evidence.request.buy])
    return Landing(
        slot=record.slot,
        sold=max(0, record.before.get(selling, 0) - record.after.get(selling, 0)),
        received=max(0, record.after.get(buying, 0) - record.before.get(buying, 0)),
        fee_lamports=record.fee_lamports,
    )


def _account(owner: Pubkey, asset: Asset) -> str:
    mint, program = Pubkey.from_string(asset.mint), Pubkey.from_string(asset.token_program)
    return str(get_associated_token_address(owner, mint, program))
