"""What becomes of a fire: it is decided on, signed on, and ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from executor.authorization import Authorization
from executor.caps import WINDOW_MS, count_unexpired
from executor.decide import Allowed, Refused, Usage, read_decision, trade_value_micro_usd
from executor.entries import Kind
from executor.errors import IllegalTransition
from executor.evidence import Evidence
from executor.fill import Fill
from executor.guard.agents import activation, fired_at_ms, state
from executor.guard.attempts import claim_hash, is_last, must_wait, require_same, step_to
from executor.guard.window import Series, used_in_window
from executor.lifecycle import AgentState, AttemptState
from executor.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from executor.bounds import Bounds
    from executor.decide import Decision
    from executor.fill import Landing
    from executor.guard.prefetch import Prefetched
    from executor.ledger import SealedEntry, WalletTransaction, WalletView
    from executor.request import FireRequest

__all__ = ["authorize", "explain", "land", "record_signature", "require_genuine"]

REFUSALS_RECORDED_MAX: Final = 1_000
"""A wallet's refusals beyond this many in 24 hours are only counted: nobody fills the disk with them."""


def authorize(transaction: WalletTransaction, request: FireRequest, fetched: Prefetched, claim: str) -> Decision:
    """Decide on `request`, record that, and count it if it is allowed: its holder then proves it by `claim`.

    Raises Lacking before anything is recorded.
    """
    stored = transaction.execution(request.execution_id)
    if stored:
        return _stored_answer(transaction, stored, request, claim)
    decided = _decide(transaction, request, fetched)
    if decided is None:
        return Refused(reason=Reason.AGENT_UNKNOWN)
    evidence, bounds, decision = decided
    body = {"evidence": evidence.to_json_object(), "decision": decision.to_json_object()}
    if isinstance(decision, Refused):
        _refuse(transaction, request, decision, body)
        return decision
    head = transaction.head
    fired = head.active[request.agent_id]._replace(fired_at_ms=transaction.now_ms)
    moves = {
        "notional_micro_usd": head.notional_micro_usd + decision.value_micro_usd,
        "active": {**head.active, request.agent_id: fired},
    }
    decided_entry = transaction.append(
        Kind.AUTHORIZED,
        request.agent_id,
        {**body, "claimHash": claim_hash(claim), "worthBefore": str(head.notional_micro_usd)},
        moves,
        execution_id=request.execution_id,
        attempt=evidence.usage.attempt,
    )
    authorization = _authorization(decided_entry, evidence, bounds, claim)
    return Allowed(value_micro_usd=decision.value_micro_usd, authorization=authorization)


def explain(view: WalletView, request: FireRequest, fetched: Prefetched) -> Decision:
    """Return what `authorize` would answer, and write nothing. Raises Lacking."""
    stored = view.execution(request.execution_id)
    if stored:
        return _stored_answer(view, stored, request, claim=None)
    decided = _decide(view, request, fetched)
    return Refused(reason=Reason.AGENT_UNKNOWN) if decided is None else decided[2]


def record_signature(
    transaction: WalletTransaction,
    authorization: Authorization,
    sign: Callable[[], dict[str, Any]],
    fetched: Prefetched,
    alone_since: int | None,
) -> Refused | None:
    """Have it signed and record that, if the rules still allow it at this moment; else void the attempt and tell why.

    `sign` returns the entry's body: what it returns again for the same is the same. Raises Lacking before it is called.
    """
    if transaction.again and is_last(transaction, authorization.execution_id, Kind.SIGNED, sign()):
        return None
    decided = step_to(transaction, authorization.execution_id, AttemptState.SIGNED)
    require_genuine(transaction, decided, authorization)
    refused, evidence = _decide_again(transaction, decided, fetched)
    if refused is None and must_wait(transaction, authorization.agent_id, authorization.execution_id, alone_since):
        refused, evidence = Refused(reason=Reason.SESSION_BUSY), {}
    kind = Kind.SIGNED if refused is None else Kind.VOIDED
    body = sign() if refused is None else {"reason": refused.reason, **evidence, "decision": refused.to_json_object()}
    transaction.append(kind, authorization.agent_id, body, execution_id=authorization.execution_id)
    return refused


def land(transaction: WalletTransaction, execution_id: str, landing: Landing) -> Fill:
    """Record what the signed transaction moved."""
    last = transaction.execution(execution_id)[-1:] if transaction.again else []
    if last and last[0].entry.kind is Kind.LANDED:
        return Fill.from_json_object(last[0].entry.body["fill"])
    decided = step_to(transaction, execution_id, AttemptState.LANDED)
    if decided.entry.attempt is None:
        raise IllegalTransition("a funding is no trade that could have been filled")
    signed = transaction.execution(execution_id)[-1]
    evidence = Evidence.from_json_object(decided.entry.body["evidence"])
    whitelist = transaction.entry(evidence.activation).bounds.whitelist
    sell, buy = whitelist[evidence.request.sell], whitelist[evidence.request.buy]
    fill = Fill.of(landing, evidence, decided.entry.at_ms, sell, buy)
    body = {
        "rail": evidence.request.rail,
        "txSignature": signed.entry.body["txSignature"],
        "fill": fill.to_json_object(),
    }
    transaction.append(Kind.LANDED, decided.entry.agent_id, body, execution_id=execution_id)
    return fill


def require_genuine(view: WalletView, decided: SealedEntry, authorization: Authorization) -> None:
    """Hold `authorization` against the entry that it says it is from: callers' objects are not trusted."""
    if decided.entry.attempt is None or decided.entry.body["claimHash"] != claim_hash(authorization.claim):
        raise IllegalTransition("the attempt was authorized to another caller")
    evidence = Evidence.from_json_object(decided.entry.body["evidence"])
    bounds = view.entry(evidence.activation).bounds
    given = _authorization(decided, evidence, bounds, authorization.claim)
    require_same(authorization, given)


def _decide(view: WalletView, request: FireRequest, fetched: Prefetched) -> tuple[Evidence, Bounds, Decision] | None:
    activated = activation(view, request.agent_id)
    if activated is None:
        return None
    attempt = view.head.attempts + 1
    evidence = _evidence(view, request, activated, attempt, fetched)
    return evidence, activated.bounds, evidence.decide(activated.bounds, view.now_ms)


def _decide_again(
    transaction: WalletTransaction, decided: SealedEntry, fetched: Prefetched
) -> tuple[Refused | None, dict[str, Any]]:
    """Hold an authorized attempt against everything once more, at this moment's state, quotes and time.

    The second value is the evidence, as an entry keeps it; empty where the decision needed none.
    """
    entry = decided.entry
    before = Evidence.from_json_object(entry.body["evidence"])
    request = before.request
    ttl_s = min(before.limits.authorization_ttl_s, transaction.limits.authorization_ttl_s)
    if transaction.now_ms >= entry.at_ms + ttl_s * 1000:
        return Refused(reason=Reason.AUTHORIZATION_EXPIRED), {}
    activated = activation(transaction, request.agent_id)
    if activated is None or entry.attempt is None:
        return Refused(reason=Reason.AGENT_UNKNOWN), {}
    evidence = _evidence(transaction, request, activated, entry.attempt, fetched)
    decision = evidence.decide(activated.bounds, transaction.now_ms)
    return decision if isinstance(decision, Refused) else None, {"evidence": evidence.to_json_object()}


def _evidence(
    view: WalletView, request: FireRequest, activated: SealedEntry, attempt: int, fetched: Prefetched
) -> Evidence:
    """Gather what the decision on the user's `attempt` needs; one that is authorized already doesn't count itself."""
    bounds, active, limits = activated.bounds, view.head.active, view.limits
    back = attempt - limits.executions_per_24h
    quotes = fetched.quotes(request, bounds.whitelist)
    window, room_at_ms = None, None
    is_new = attempt > view.head.attempts
    if limits.notional_micro_usd_per_24h is not None:
        value = trade_value_micro_usd(bounds, request, quotes, view.now_ms) or 0
        room = limits.notional_micro_usd_per_24h - value
        window, room_at_ms = used_in_window(Series.of_trades(view), view.now_ms, room, number=attempt)
    return Evidence(
        activation=activated.entry.seq,
        request=request,
        usage=Usage(
            agent_state=state(view, request.agent_id) or AgentState.RESERVED,
            active_agents=count_unexpired([each.expires_at_ms for each in active.values()], view.now_ms),
            attempt=attempt,
            window_attempt_at_ms=view.attempted_at_ms(back) if back > 0 else None,
            halts=view.halts(request.agent_id),
            intent_held_by=_intent_held_by(view, request),
            window_micro_usd=window,
            window_room_at_ms=room_at_ms,
            fired_at_ms=fired_at_ms(view, request.agent_id) if is_new and limits.min_interval_ms else None,
        ),
        quotes=quotes,
        limits=limits,
        everybody=view.everybody,
    )


def _intent_held_by(view: WalletView, request: FireRequest) -> str | None:
    """Return the agent's other execution for the same intent that is under way or landed; None if there is none."""
    if request.intent_key is None:
        return None
    for authorized in view.intents(request.agent_id, request.intent_key):
        execution_id = authorized.entry.execution_id or ""
        last = AttemptState(view.execution(execution_id)[-1].entry.kind)
        if execution_id != request.execution_id and last in HOLDS_INTENT:
            return execution_id
    return None


HOLDS_INTENT: Final = frozenset({AttemptState.AUTHORIZED, AttemptState.SIGNED, AttemptState.LANDED})


def _stored_answer(view: WalletView, stored: list[SealedEntry], request: FireRequest, claim: str | None) -> Decision:
    """Return what was answered before. Only the caller who gets it again by the claim of then may sign on it."""
    decided = stored[0]
    if decided.entry.body["evidence"]["request"] != request.to_json_object():
        return Refused(reason=Reason.EXECUTION_CONFLICT)
    decision = read_decision(decided.entry.body["decision"])
    if isinstance(decision, Refused) or claim is None or decided.entry.body["claimHash"] != claim_hash(claim):
        return decision
    evidence = Evidence.from_json_object(decided.entry.body["evidence"])
    bounds = view.entry(evidence.activation).bounds
    return replace(decision, authorization=_authorization(decided, evidence, bounds, claim))


def _refuse(transaction: WalletTransaction, request: FireRequest, refused: Refused, body: dict[str, Any]) -> None:
    """Record a refusal, or only count it where there were too many.

    That the permit is over, the first fire to find out records by pausing the agent.
    """
    pauses = refused.reason is Reason.PERMIT_EXPIRED
    head = transaction.head
    back = head.refusals - REFUSALS_RECORDED_MAX + 1
    if not pauses and back > 0 and transaction.now_ms < transaction.refusal(back).entry.at_ms + WINDOW_MS:
        transaction.move_head(refusals_unrecorded=head.refusals_unrecorded + 1)
        return
    transaction.append(
        Kind.REFUSED,
        request.agent_id,
        {"reason": refused.reason, **body},
        execution_id=request.execution_id,
        refusal=head.refusals + 1,
        agent_state=AgentState.PAUSED if pauses else None,
    )
    if pauses:
        transaction.set_active(request.agent_id, None)


def _authorization(decided: SealedEntry, evidence: Evidence, bounds: Bounds, claim: str) -> Authorization:
    request = evidence.request
    return Authorization(
        wallet=request.wallet,
        agent_id=request.agent_id,
        execution_id=request.execution_id,
        attempt=evidence.usage.attempt,
        rail=request.rail,
        session_pubkey=bounds.terms.session_pubkey,
        sell=bounds.whitelist[request.sell],
        sell_amount=request.sell_amount,
        buy=bounds.whitelist[request.buy],
        min_received=request.min_received,
        entry_hash=decided.hash,
        expires_at_ms=decided.entry.at_ms + evidence.limits.authorization_ttl_s * 1000,
        claim=claim,
    )
