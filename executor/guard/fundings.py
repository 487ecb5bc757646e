"""What becomes of a funding: it is decided on, counted for its user and for everybody, and signed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from executor.decide import Refused
from executor.entries import Kind
from executor.errors import IllegalTransition
from executor.funding import FundingAllowed, FundingAuthorization, FundingEvidence, FundingRequest, FundingUsage, Spent
from executor.guard.agents import activation, state
from executor.guard.attempts import authorized_since, claim_hash, is_last, must_wait, require_same, step_to
from executor.guard.window import Series, used_in_window
from executor.lifecycle import AgentState, AttemptState
from executor.reasons import Reason

if TYPE_CHECKING:
    from executor.bounds import Bounds
    from executor.funding import FundingDecision
    from executor.ledger import SealedEntry, WalletTransaction, WalletView

__all__ = ["authorize", "land", "record_signature", "set_fundable"]


def set_fundable(transaction: WalletTransaction, *, fundable: bool) -> bool:
    """Let the wallet's agents be funded, or no longer; tell whether that changed anything."""
    if transaction.head.fundable is fundable:
        return False
    transaction.append(Kind.FUNDING_SET, None, {"fundable": fundable}, {"fundable": fundable})
    return True


def authorize(
    transaction: WalletTransaction, request: FundingRequest, claim: str, alone_since: int | None
) -> FundingDecision:
    """Decide on `request`, and count it if it is allowed: its holder then proves it by `claim`.

    A refusal is recorded nowhere: nothing was promised, nobody is told, and the same may be asked again.
    """
    stored = transaction.execution(request.execution_id)
    if stored:
        return _stored_answer(transaction, stored[0], request, claim)
    activated = activation(transaction, request.agent_id)
    if activated is None:
        return Refused(reason=Reason.AGENT_UNKNOWN)
    if alone_since is not None and authorized_since(transaction, request.agent_id, alone_since):
        return Refused(reason=Reason.SESSION_BUSY)
    evidence = _evidence(
        transaction, request, activated, transaction.head.fundings + 1, transaction.treasury.head.fundings + 1
    )
    decision = evidence.decide(activated.bounds, transaction.now_ms)
    if isinstance(decision, Refused):
        return decision
    counted = {"executionId": request.execution_id, "lamports": str(request.lamports), "wallet": request.wallet}
    _count(transaction.treasury, Kind.FUNDING_COUNTED, None, counted, request, funding=evidence.usage.total_number)
    body = {
        "claimHash": claim_hash(claim),
        "decision": decision.to_json_object(),
        "evidence": evidence.to_json_object(),
    }
    decided = _count(
        transaction,
        Kind.AUTHORIZED,
        request.agent_id,
        body,
        request,
        funding=evidence.usage.number,
        execution_id=request.execution_id,
    )
    return FundingAllowed(authorization=_authorization(decided, evidence, activated.bounds, claim))


def record_signature(
    transaction: WalletTransaction, authorization: FundingAuthorization, signed: dict[str, Any]
) -> Refused | None:
    """Record what was `signed`, if the rules still allow it at this moment; else void the funding and tell why."""
    execution_id = authorization.execution_id
    if transaction.again and is_last(transaction, execution_id, Kind.SIGNED, signed):
        return None
    decided = step_to(transaction, execution_id, AttemptState.SIGNED)
    evidence, bounds = _require_genuine(transaction, decided, authorization)
    refused, again = _decide_again(transaction, decided, evidence)
    if refused is None and must_wait(transaction, authorization.agent_id, execution_id, alone_since=None):
        refused, again = Refused(reason=Reason.SESSION_BUSY), {}
    kind = Kind.SIGNED if refused is None else Kind.VOIDED
    body = signed if refused is None else {"reason": refused.reason, **again, "decision": refused.to_json_object()}
    transaction.append(kind, bounds.terms.agent_id, body, execution_id=execution_id, funding=decided.entry.funding)
    return refused


def land(transaction: WalletTransaction, execution_id: str, slot: int, fee_lamports: int) -> None:
    """Record that the lamports arrived."""
    body = {"feeLamports": str(fee_lamports), "slot": slot}
    if transaction.again and is_last(transaction, execution_id, Kind.LANDED, body):
        return
    decided = step_to(transaction, execution_id, AttemptState.LANDED).entry
    if decided.funding is None:
        raise IllegalTransition("a trade is no funding")
    transaction.append(Kind.LANDED, decided.agent_id, body, execution_id=execution_id, funding=decided.funding)


def _evidence(
    transaction: WalletTransaction, request: FundingRequest, activated: SealedEntry, number: int, total_number: int
) -> FundingEvidence:
    """Gather what the decision on a funding of these numbers needs; one that was counted doesn't count itself."""
    limits = transaction.limits
    user_room = limits.autofund_lamports_per_24h - request.lamports
    total_room = limits.autofund_lamports_per_24h_in_all - request.lamports
    user, total = Series.of_fundings(transaction), Series.of_fundings(transaction.treasury)
    usage = FundingUsage(
        agent_state=state(transaction, request.agent_id) or AgentState.RESERVED,
        fundable=transaction.head.fundable,
        number=number,
        total_number=total_number,
        user=Spent(*used_in_window(user, transaction.now_ms, user_room, number=number)),
        total=Spent(*used_in_window(total, transaction.now_ms, total_room, number=total_number)),
        halts=transaction.halts(request.agent_id),
    )
    return FundingEvidence(activated.entry.seq, request, usage, limits, transaction.everybody)


def _count(
    chain: WalletTransaction,
    kind: Kind,
    agent_id: str | None,
    body: dict[str, Any],
    request: FundingRequest,
    **fields: Any,  # noqa: ANN401 - the types are those of Entry's fields
) -> SealedEntry:
    """Append the entry that counts the funding on `chain`."""
    before = chain.head.funded_lamports
    moves = {"funded_lamports": before + request.lamports}
    return chain.append(kind, agent_id, {**body, "lamportsBefore": str(before)}, moves, **fields)


def _decide_again(
    transaction: WalletTransaction, decided: SealedEntry, before: FundingEvidence
) -> tuple[Refused | None, dict[str, Any]]:
    """Hold an authorized funding against everything once more, at this moment's state and time.

    The second value is the evidence, as an entry keeps it; empty where the decision needed none.
    """
    ttl_s = min(before.limits.authorization_ttl_s, transaction.limits.authorization_ttl_s)
    if transaction.now_ms >= decided.entry.at_ms + ttl_s * 1000:
        return Refused(reason=Reason.AUTHORIZATION_EXPIRED), {}
    activated = activation(transaction, before.request.agent_id)
    if activated is None:
        return Refused(reason=Reason.AGENT_UNKNOWN), {}
    usage = before.usage
    evidence = _evidence(transaction, before.request, activated, usage.number, usage.total_number)
    decision = evidence.decide(activated.bounds, transaction.now_ms)
    refused = decision if isinstance(decision, Refused) else None
    return refused, {"evidence": evidence.to_json_object()}


def _stored_answer(view: WalletView, decided: SealedEntry, request: FundingRequest, claim: str) -> FundingDecision:
    """Return what was answered before. Only the caller who gets it again by the claim of then may sign on it."""
    if decided.entry.body["evidence"]["request"] != request.to_json_object():
        return Refused(reason=Reason.EXECUTION_CONFLICT)
    if decided.entry.body["claimHash"] != claim_hash(claim):
        return FundingAllowed()
    evidence = FundingEvidence.from_json_object(decided.entry.body["evidence"])
    return FundingAllowed(
        authorization=_authorization(decided, evidence, view.entry(evidence.activation).bounds, claim)
    )


def _require_genuine(
    view: WalletView, decided: SealedEntry, authorization: FundingAuthorization
) -> tuple[FundingEvidence, Bounds]:
    """Hold `authorization` against the entry that it says it is from: callers' objects are not trusted."""
    if decided.entry.funding is None or decided.entry.body["claimHash"] != claim_hash(authorization.claim):
        raise IllegalTransition("the funding was authorized to another caller")
    evidence = FundingEvidence.from_json_object(decided.entry.body["evidence"])
    bounds = view.entry(evidence.activation).bounds
    given = _authorization(decided, evidence, bounds, authorization.claim)
    require_same(authorization, given)
    return evidence, bounds


def _authorization(decided: SealedEntry, evidence: FundingEvidence, bounds: Bounds, claim: str) -> FundingAuthorization:
    request = evidence.request
    return FundingAuthorization(
        wallet=request.wallet,
        agent_id=request.agent_id,
        execution_id=request.execution_id,
        session_pubkey=bounds.terms.session_pubkey,
        lamports=request.lamports,
        entry_hash=decided.hash,
        expires_at_ms=decided.entry.at_ms + evidence.limits.authorization_ttl_s * 1000,
        claim=claim,
    )
