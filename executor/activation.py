"""The decision whether a verified permit may come into force. Pure, like `executor.decide`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from executor.bounds import Bounds
from executor.caps import is_expired
from executor.decide import Check, Refused
from executor.lifecycle import AgentState
from executor.limits import CLOCK_SKEW_MS
from executor.reasons import Reason
from permits import timestamp

if TYPE_CHECKING:
    from executor.assets import Asset, AssetRegistry
    from executor.halts import Halt
    from executor.limits import Limits
    from permits import Permit, VerifiedPermit

__all__ = ["Standing", "decide_activation"]


class Standing(NamedTuple):
    """What the ledger says of the agent and its user when a permit arrives."""

    reserved_for: str | None
    """The agentId that the permit's session key is reserved for; None: nobody's."""
    nonce_spent: bool
    current: Bounds | None
    """The agent's newest bounds; None if it never had any."""
    other_active_agents: int
    """The user's active, unexpired agents but this one."""
    agent_state: AgentState | None = None
    stopped_at_ms: int | None = None
    """When the user stopped the agent, if it stands stopped."""
    halts: tuple[Halt, ...] = ()
    """Those that hold the agent: its own, its wallet's, and those of everything."""


def decide_activation(
    verified: VerifiedPermit, standing: Standing, assets: AssetRegistry, limits: Limits, now_ms: int
) -> Bounds | Refused:
    """Return the bounds that `verified` puts into force at `now_ms` (Unix ms), or why it may not."""
    permit = verified.permit
    resolved = [assets.resolve(name) for name in permit.asset_whitelist]
    known = tuple(asset for asset in resolved if asset is not None)
    bounds = Bounds.of(verified, known) if len(known) == len(resolved) else None
    checks = (
        *(Check(reason=Reason.HALTED, limit="no halt", actual=str(halt)) for halt in standing.halts),
        _key_reserved(permit, standing),
        _not_yet_valid(permit, now_ms),
        _fresh_enough(permit, limits, now_ms),
        _newer(permit, standing),
        _nonce_unspent(permit, standing),
        _same_scope(bounds, standing),
        _assets_known(permit, resolved),
        _not_completed(standing),
        _unexpired(permit, now_ms),
        _agents_within_cap(standing, limits),
    )
    failed = [check for check in checks if check is not None]
    if failed or bounds is None:
        return Refused.because(failed)
    return bounds


def _key_reserved(permit: Permit, standing: Standing) -> Check | None:
    if standing.reserved_for == permit.agent_id:
        return None
    return Check(
        reason=Reason.SESSION_KEY_NOT_RESERVED, limit=permit.agent_id, actual=standing.reserved_for or "not reserved"
    )


def _not_yet_valid(permit: Permit, now_ms: int) -> Check | None:
    if permit.issued_at_ms <= now_ms + CLOCK_SKEW_MS:
        return None
    return Check(
        reason=Reason.PERMIT_NOT_YET_VALID,
        limit=timestamp(now_ms),
        actual=permit.issued_at,
        retry_at_ms=permit.issued_at_ms,
    )


def _fresh_enough(permit: Permit, limits: Limits, now_ms: int) -> Check | None:
    if now_ms - permit.issued_at_ms <= limits.max_permit_age_s * 1000:
        return None
    return Check(reason=Reason.PERMIT_TOO_OLD, limit=f"{limits.max_permit_age_s} s", actual=permit.issued_at)


def _newer(permit: Permit, standing: Standing) -> Check | None:
    if standing.stopped_at_ms is not None and permit.issued_at_ms <= standing.stopped_at_ms:
        stopped_at = timestamp(standing.stopped_at_ms)
        return Check(reason=Reason.PERMIT_NOT_NEWER, limit=f"after the stop at {stopped_at}", actual=permit.issued_at)
    if standing.current is None or standing.current.terms.issued_at_ms < permit.issued_at_ms:
        return None
    return Check(
        reason=Reason.PERMIT_NOT_NEWER, limit=f"after {standing.current.terms.issued_at}", actual=permit.issued_at
    )


def _nonce_unspent(permit: Permit, standing: Standing) -> Check | None:
    if not standing.nonce_spent:
        return None
    return Check(reason=Reason.NONCE_SPENT, limit="a new nonce", actual=permit.nonce)


def _same_scope(bounds: Bounds | None, standing: Standing) -> Check | None:
    current = standing.current
    if standing.agent_state is AgentState.STOPPED or bounds is None or current is None:
        return None
    if (bounds.scope, bounds.assets) == (current.scope, current.assets):
        return None
    return Check(reason=Reason.SCOPE_CHANGED, limit=current.scope, actual=bounds.scope)


def _assets_known(permit: Permit, resolved: list[Asset | None]) -> Check | None:
    unknown = [name for name, asset in zip(permit.asset_whitelist, resolved, strict=True) if asset is None]
    if not unknown:
        return None
    return Check(reason=Reason.ASSET_UNKNOWN, limit="known assets", actual=" ".join(unknown))


def _not_completed(standing: Standing) -> Check | None:
    if standing.agent_state is not AgentState.COMPLETED:
        return None
    return Check(reason=Reason.AGENT_COMPLETED, limit="an agent with work left", actual=AgentState.COMPLETED)


def _unexpired(permit: Permit, now_ms: int) -> Check | None:
    if not is_expired(permit.expires_at_ms, now_ms):
        return None
    return Check(reason=Reason.PERMIT_EXPIRED, limit=permit.expires_at, actual=timestamp(now_ms))


def _agents_within_cap(standing: Standing, limits: Limits) -> Check | None:
    if standing.other_active_agents < limits.active_agents:
        return None
    return Check(
        reason=Reason.AGENTS_OVER_CAP,
        limit=str(limits.active_agents),
        actual=str(standing.other_active_agents + 1),
    )
