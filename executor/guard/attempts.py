"""What trades and fundings have in common: the steps of an attempt, and the claim that its holder proves it by."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from executor.evidence import decision_of, evidence_of
from executor.lifecycle import AttemptState, require_attempt_step

if TYPE_CHECKING:
    from executor.bounds import Bounds
    from executor.decide import Decision
    from executor.entries import Kind
    from executor.evidence import Evidence
    from executor.funding import FundingDecision, FundingEvidence
    from executor.ledger import SealedEntry, WalletView

__all__ = ["Execution", "claim_hash", "execution", "is_last", "step_to"]


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


def claim_hash(claim: str) -> str:
    """Return what the ledger keeps of a claim."""
    return sha256(claim.encode("ascii")).hexdigest()
