"""What becomes of an agent: its key is reserved, permits are activated, and it is stopped or completed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from executor.activation import Standing, decide_activation
from executor.caps import count_unexpired, is_expired
from executor.decide import Refused
from executor.entries import ActiveAgent, Kind
from executor.errors import IllegalTransition, LedgerTampered
from executor.lifecycle import AgentState, require_agent_step
from permits import keys
from permits.model import UUID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable

    from executor.assets import AssetRegistry
    from executor.bounds import Bounds
    from executor.ledger import SealedEntry, WalletTransaction, WalletView
    from permits import VerifiedPermit

__all__ = [
    "Agent",
    "activate",
    "activation",
    "agent",
    "agents",
    "destroy_key",
    "end",
    "fired_at_ms",
    "record_sweep",
    "require_names",
    "reserve",
    "revoke",
    "state",
]


class Agent(NamedTuple):
    """An agent as the ledger knows it."""

    agent_id: str
    state: AgentState
    session_pubkey: str
    bounds: Bounds | None
    """The newest that were activated; None while it is reserved."""
    since_ms: int
    """When it came to that state, or to those bounds, Unix ms."""


def require_names(wallet: str, agent_id: str | None = None, session_pubkey: str | None = None) -> None:
    """Raise ValueError unless the addresses are base58 of 32 bytes, and the id is a UUID as permits spell it."""
    for address in (wallet, session_pubkey):
        if address is not None and keys.decode_key(address) is None:
            raise ValueError(f"`{address[:64]}` is not base58 of 32 bytes")
    if agent_id is not None and not _is_uuid(agent_id):
        raise ValueError(f"`{agent_id[:64]}` is not a UUID in lowercase with hyphens")


_is_uuid: Final = re.compile(UUID_PATTERN).fullmatch


def reserve(transaction: WalletTransaction, agent_id: str, session_pubkey: str) -> None:
    """Set a session key aside for the agent; again with the same it changes nothing."""
    held = transaction.reservation(session_pubkey)
    if held is not None and held.entry.agent_id == agent_id:
        return
    if held is not None:
        raise IllegalTransition(f"session key `{session_pubkey}` is reserved for another agent")
    require_agent_step(state(transaction, agent_id), AgentState.RESERVED)
    transaction.append(Kind.RESERVED, agent_id, {"sessionPubkey": session_pubkey}, agent_state=AgentState.RESERVED)


def activate(transaction: WalletTransaction, verified: VerifiedPermit, assets: AssetRegistry) -> Bounds | Refused:
    """Put a verified permit into force, or tell why not."""
    agent_id = verified.permit.agent_id
    if transaction.again and (done := _done(transaction, verified)):
        return done
    standing = _standing(transaction, verified)
    outcome = decide_activation(verified, standing, assets, transaction.limits, transaction.now_ms)
    if isinstance(outcome, Refused):
        return outcome
    require_agent_step(state(transaction, agent_id), AgentState.ACTIVE)
    last_fire_ms = fired_at_ms(transaction, agent_id)
    activated = transaction.append(
        Kind.ACTIVATED, agent_id, {"bounds": outcome.to_json_object()}, agent_state=AgentState.ACTIVE
    )
    transaction.forget_expired()
    active = ActiveAgent(activated.entry.seq, outcome.expires_at_ms, last_fire_ms)
    transaction.set_active(agent_id, active)
    return outcome


def end(transaction: WalletTransaction, agent_id: str, kind: Kind, reason: str, event_id: str) -> None:
    """Stop or complete the agent, for `reason`."""
    following = AgentState(kind)
    if transaction.again and state(transaction, agent_id) is following:
        return
    require_agent_step(state(transaction, agent_id), following)
    transaction.append(kind, agent_id, {"terminalReason": reason}, agent_state=following, execution_id=event_id)
    transaction.set_active(agent_id, None)


def revoke(transaction: WalletTransaction, nonce: str, event_id: str) -> bool:
    """Spend `nonce`; an agent that a permit with it lets fire is stopped. Tell whether anything changed."""
    for agent_id, active in transaction.head.active.items():
        if transaction.entry(active.activation).bounds.terms.nonce == nonce:
            end(transaction, agent_id, Kind.STOPPED, "revoked", event_id)
            return True
    if transaction.is_nonce_spent(nonce):
        return False
    transaction.append(Kind.REVOKED, None, {"nonce": nonce})
    return True


def record_sweep(transaction: WalletTransaction, agent_id: str, sign: Callable[[], dict[str, Any]]) -> None:
    """Have a transaction signed that pays back to the wallet, and record it; again with the same it changes nothing."""
    _require_over(transaction, agent_id)
    signed = sign()
    if transaction.signed(signed["txSignature"]) is None:
        transaction.append(Kind.SWEEP_SIGNED, agent_id, signed)


def destroy_key(transaction: WalletTransaction, agent_id: str) -> None:
    """Take the session key away for ever: with it a stopped agent ends."""
    if transaction.secret(agent_id) is None:
        return
    stopped = _require_over(transaction, agent_id) is AgentState.STOPPED
    if any(steps[0].entry.agent_id == agent_id for steps in transaction.open_attempts()):
        raise IllegalTransition(f"agent `{agent_id}` has attempts that have not ended")
    transaction.append(Kind.KEY_DESTROYED, agent_id, {}, agent_state=AgentState.COMPLETED if stopped else None)
    transaction.change_secret(agent_id, None)


def _require_over(view: WalletView, agent_id: str) -> AgentState:
    """Return the agent's state if it is one after which its key only pays back; else raise IllegalTransition."""
    now = state(view, agent_id)
    if now is AgentState.STOPPED or now is AgentState.COMPLETED:
        return now
    raise IllegalTransition(f"agent `{agent_id}` is {now or 'unknown'}: only what was stopped or completed is swept")


def agent(view: WalletView, agent_id: str) -> Agent | None:
    """Return the wallet's agent; None if there is none."""
    moved = view.agent_move(agent_id)
    if moved is None or moved.entry.agent_state is None:
        return None
    activated = view.agent_move(agent_id, AgentState.ACTIVE)
    reserved = view.agent_move(agent_id, AgentState.RESERVED)
    if reserved is None:
        raise LedgerTampered(f"agent `{agent_id}` has no reserved session key")
    bounds = None if activated is None else activated.bounds
    return Agent(agent_id, moved.entry.agent_state, reserved.entry.body["sessionPubkey"], bounds, moved.entry.at_ms)


def agents(view: WalletView) -> list[Agent]:
    """Return every agent of the wallet, in the order of their reservations."""
    found = (agent(view, reserved.entry.agent_id or "") for reserved in view.reservations())
    return [each for each in found if each is not None]


def state(view: WalletView, agent_id: str) -> AgentState | None:
    """Return where the agent stands. Who may fire, the sealed head says; entries only tell the rest."""
    if agent_id in view.head.active:
        return AgentState.ACTIVE
    moved = view.agent_move(agent_id)
    if moved is None:
        return None
    if moved.entry.agent_state is AgentState.ACTIVE and not is_expired(moved.bounds.expires_at_ms, view.now_ms):
        raise LedgerTampered(f"agent `{agent_id}` is active by its entries, but not by the head")
    return moved.entry.agent_state


def activation(view: WalletView, agent_id: str) -> SealedEntry | None:
    """Return the activation that the agent is held to; None if no permit was ever activated for it."""
    active = view.head.active.get(agent_id)
    if active is None:
        return view.agent_move(agent_id, AgentState.ACTIVE)
    activated = view.entry(active.activation)
    if (activated.entry.kind, activated.entry.agent_id) != (Kind.ACTIVATED, agent_id):
        raise LedgerTampered(f"the head names entry {active.activation} as the activation of `{agent_id}`")
    return activated


def fired_at_ms(view: WalletView, agent_id: str) -> int | None:
    """Return when the agent was last authorized, Unix ms; None if it never was.

    For an agent that may fire, the sealed head says it; one that was paused or stopped meanwhile is looked up.
    """
    active = view.head.active.get(agent_id)
    if active is not None:
        return active.fired_at_ms
    fired = view.last_fire(agent_id)
    return None if fired is None else fired.entry.at_ms


def _done(transaction: WalletTransaction, verified: VerifiedPermit) -> Bounds | None:
    """Return the bounds that this very permit has put into force already."""
    active = transaction.head.active.get(verified.permit.agent_id)
    bounds = None if active is None else transaction.entry(active.activation).bounds
    return bounds if bounds is not None and bounds.permit_id == verified.permit_id else None


def _standing(transaction: WalletTransaction, verified: VerifiedPermit) -> Standing:
    agent_id = verified.permit.agent_id
    reserved = transaction.reservation(verified.permit.session_pubkey)
    current = transaction.agent_move(agent_id, AgentState.ACTIVE)
    moved = transaction.agent_move(agent_id)
    stopped = moved is not None and moved.entry.agent_state is AgentState.STOPPED
    others = (held.expires_at_ms for each, held in transaction.head.active.items() if each != agent_id)
    return Standing(
        reserved_for=None if reserved is None else reserved.entry.agent_id,
        nonce_spent=transaction.is_nonce_spent(verified.permit.nonce),
        current=None if current is None else current.bounds,
        other_active_agents=count_unexpired(others, transaction.now_ms),
        agent_state=None if moved is None else moved.entry.agent_state,
        stopped_at_ms=moved.entry.at_ms if moved is not None and stopped else None,
        halts=transaction.halts(agent_id),
    )
