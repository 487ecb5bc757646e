"""What trades and fundings have in common: the steps of an attempt, and the claim that its holder proves it by."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from executor.decide import Refused, agent_checks
from executor.entries import ENDS, Kind
from executor.errors import IllegalTransition
from executor.evidence import decision_of, evidence_of
from executor.guard.agents import activation, state
from executor.lifecycle import AgentState, AttemptState, require_attempt_step
from executor.reasons import Reason

if TYPE_CHECKING:
    from executor.bounds import Bounds
    from executor.decide import Decision
    from executor.evidence import Evidence
    from executor.funding import FundingDecision, FundingEvidence
    from executor.ledger import SealedEntry, WalletTransaction, WalletView

__all__ = [
    "Execution",
    "authorized_since",
    "claim_hash",
    "execution",
    "is_last",
    "may_send",
    "must_wait",
    "require_same",
    "step_to",
    "void_expired",
]


class Execution(NamedTuple):
    """The whole story of one execution, or of one funding."""

    state: AttemptState
    decision: Decision | FundingDecision
    evidence: Evidence | FundingEvidence
    """What it was decided from."""
    bounds: Bounds
    """What it was held to."""
    steps: tuple[SealedEntry, ...]
    """Its entries, in order."""

    @property
    def tx_signature(self) -> str | None:
        """Its transaction's signature, base58; None while it has none."""
        return next((step.entry.body["txSignature"] for step in self.steps if step.entry.kind is Kind.SIGNED), None)

    @property
    def reason(self) -> Reason | None:
        """Why it didn't land; None if it did, or may."""
        last = self.steps[-1].entry.body
        told = last.get("reason") or last.get("decision", {}).get("reason")
        return None if told is None else Reason(told)


def execution(view: WalletView, execution_id: str) -> Execution | None:
    """Return the story of one execution; None if the wallet has none of this id."""
    steps = tuple(view.execution(execution_id))
    if not steps:
        return None
    decided = steps[0].entry
    evidence = evidence_of(decided)
    return Execution(
        state=AttemptState(steps[-1].entry.kind),
        decision=decision_of(decided),
        evidence=evidence,
        bounds=view.entry(evidence.activation).bounds,
        steps=steps,
    )


def is_last(view: WalletView, execution_id: str, kind: Kind, body: dict[str, Any]) -> bool:
    """Tell whether the execution's last entry is exactly this one."""
    steps = view.execution(execution_id)
    return bool(steps) and (steps[-1].entry.kind, steps[-1].entry.body) == (kind, body)


def step_to(view: WalletView, execution_id: str, following: AttemptState) -> SealedEntry:
    """Return the entry that authorized the execution, if its attempt may go on to `following`."""
    steps = view.execution(execution_id)
    require_attempt_step(AttemptState(steps[-1].entry.kind) if steps else None, following)
    return steps[0]


def must_wait(view: WalletView, agent_id: str, execution_id: str, alone_since: int | None) -> bool:
    """Tell whether an attempt may not be signed on beside what else the session key has signed.

    One that must be alone goes beside nothing that may still land, and not after anything that its agent's attempts did
    since entry `alone_since`, when the chain was read for it. Nothing goes beside one that must be alone.
    """
    others = [
        steps[-1].entry
        for steps in (view.open_attempts() if view.head.open_attempts > 1 else ())
        if (steps[0].entry.agent_id, steps[-1].entry.kind) == (agent_id, Kind.SIGNED)
        and steps[0].entry.execution_id != execution_id
    ]
    if any("alone" in other.body for other in others):
        return True
    if alone_since is None:
        return False
    since = [each.entry for each in view.after(alone_since, SINCE_MAX)]
    moved = (
        each.execution_id != execution_id and (each.kind is Kind.SIGNED or each.kind in ENDS)
        for each in since
        if each.agent_id == agent_id
    )
    return bool(others) or len(since) == SINCE_MAX or any(moved)


def authorized_since(view: WalletView, agent_id: str, seq: int) -> bool:
    """Tell whether anything was authorized for the agent after entry `seq`, when the chain was read for it."""
    since = [each.entry for each in view.after(seq, SINCE_MAX)]
    return len(since) == SINCE_MAX or (Kind.AUTHORIZED, agent_id) in {(each.kind, each.agent_id) for each in since}


SINCE_MAX: Final = 1_000
"""Entries of a wallet that are looked through; more in the seconds of a signing is somebody's trick."""


def may_send(view: WalletView, execution_id: str) -> Refused | None:
    """Return why a signed transaction may not be sent, or sent again, now: its agent may not act any more."""
    steps = view.execution(execution_id)
    agent_id = steps[0].entry.agent_id or ""
    activated = activation(view, agent_id)
    if activated is None:
        return Refused(reason=Reason.AGENT_UNKNOWN)
    if activated.entry.seq > steps[-1].entry.seq:  # what was signed under older bounds, newer ones may forbid
        return Refused(reason=Reason.PERMIT_NOT_NEWER)
    now = state(view, agent_id) or AgentState.RESERVED
    checks = agent_checks(now, view.halts(agent_id), activated.bounds, view.now_ms)
    failed = [check for check in checks if check is not None]
    return Refused.because(failed) if failed else None


def void_expired(transaction: WalletTransaction, execution_id: str) -> bool:
    """Give up an attempt whose authorization wasn't used in its time; tell whether it was one."""
    steps = transaction.execution(execution_id)
    decided = steps[0].entry
    if steps[-1].entry.kind is not Kind.AUTHORIZED:
        return False
    if transaction.now_ms < decided.at_ms + evidence_of(decided).limits.authorization_ttl_s * 1000:
        return False
    body = {"reason": Reason.AUTHORIZATION_EXPIRED, "detail": "nobody used it"}
    transaction.append(Kind.VOIDED, decided.agent_id, body, execution_id=execution_id, funding=decided.funding)
    return True


def require_same(claimed: tuple[object, ...], given: tuple[object, ...]) -> None:
    """Raise IllegalTransition unless what a caller holds is what was given, value by value and class by class."""
    classes = [(type(each), *map(type, each)) for each in (claimed, given)]
    if classes[0] != classes[1] or claimed != given:  # another class may say that it equals anything
        raise IllegalTransition("the authorization is not the one that was given")


def claim_hash(claim: str) -> str:
    """Return what the ledger keeps of a claim."""
    return sha256(claim.encode("ascii")).hexdigest()
