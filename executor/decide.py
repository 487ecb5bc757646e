"""The decision whether a fire may happen, now, by this permit, under these limits.

`decide` is a pure function of its evidence. The guard asks for quotes, gathers all other evidence under the user's
lock, decides, and stores both, so that anyone can replay the decision later and get the same answer.

A refusal is a value. It names the first failing reason in the order of `Reason`, and lists every failing check with
its limit and what was found, so that nobody has to guess which clause said no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from executor.caps import is_expired, slot_free_at_ms, value_micro_usd
from executor.halts import Halt
from executor.lifecycle import AgentState
from executor.limits import CLOCK_SKEW_MS
from executor.reasons import Reason
from permits import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from executor.assets import Asset
    from executor.authorization import Authorization
    from executor.bounds import Bounds
    from executor.limits import Limits
    from executor.prices.quote import Quote
    from executor.request import FireRequest

__all__ = [
    "Allowed",
    "Check",
    "Decision",
    "Refused",
    "Usage",
    "agent_checks",
    "decide",
    "read_decision",
    "read_refusal",
    "trade_value_micro_usd",
]


class Usage(NamedTuple):
    """What the ledger says of the agent and its user at the moment of the decision."""

    agent_state: AgentState
    active_agents: int
    """The user's active, unexpired agents, this one included."""
    attempt: int
    """The number that this attempt would have among the user's, from 1 without gaps."""
    window_attempt_at_ms: int | None = None
    """When the attempt `executions_per_24h` numbers back was authorized; None if there is none."""
    halts: tuple[Halt, ...] = ()
    """Those that hold the agent: its own, its wallet's, and those of everything."""
    intent_held_by: str | None = None
    """The execution that the request's `intent_key` is under way or landed by; None if none."""
    window_micro_usd: int | None = None
    """What the user's attempts of the last 24 hours are worth; None where no limit asks."""
    window_room_at_ms: int | None = None
    """When enough of that will have left the window for this trade; None if it has room, or never will."""
    fired_at_ms: int | None = None
    """When the agent was last authorized; None if it never was, or no limit asks."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it."""
        members = {
            "activeAgents": self.active_agents,
            "agentState": self.agent_state._value_,
            "attempt": self.attempt,
            "firedAtMs": self.fired_at_ms,
            "halts": [halt.to_json_object() for halt in self.halts] if self.halts else None,
            "intentHeldBy": self.intent_held_by,
            "windowAttemptAtMs": self.window_attempt_at_ms,
            "windowMicroUsd": None if self.window_micro_usd is None else str(self.window_micro_usd),
            "windowRoomAtMs": self.window_room_at_ms,
        }
        return {name: member for name, member in members.items() if member is not None}

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> Usage:
        """Read back what `to_json_object` gave."""
        window_micro_usd = value.get("windowMicroUsd")
        return cls(
            agent_state=AgentState(value["agentState"]),
            active_agents=value["activeAgents"],
            attempt=value["attempt"],
            window_attempt_at_ms=value.get("windowAttemptAtMs"),
            halts=tuple(Halt.from_json_object(halt) for halt in value.get("halts", ())),
            intent_held_by=value.get("intentHeldBy"),
            window_micro_usd=None if window_micro_usd is None else int(window_micro_usd),
            window_room_at_ms=value.get("windowRoomAtMs"),
            fired_at_ms=value.get("firedAtMs"),
        )


class Check(NamedTuple):
    """One rule that said no: what it allows, and what it found."""

    reason: Reason
    limit: str
    actual: str
    retry_at_ms: int | None = None
    """When time alone will have cured it, Unix ms; None if time won't."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it."""
        return _without_none(actual=self.actual, limit=self.limit, reason=self.reason.value, retryAtMs=self.retry_at_ms)

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> Check:
        """Read back what `to_json_object` gave."""
        return cls(
            reason=Reason(value["reason"]),
            limit=value["limit"],
            actual=value["actual"],
            retry_at_ms=value.get("retryAtMs"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The fire may happen."""

    outcome: ClassVar[Literal["allowed"]] = "allowed"
    value_micro_usd: int
    """What the trade counts for against the caps."""
    authorization: Authorization | None = None
    """The right to sign it. None from `decide` itself, and in a stored answer: whoever asked first holds it."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it: without the authorization."""
        return {"outcome": self.outcome, "valueMicroUsd": str(self.value_micro_usd)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The fire may not happen."""

    outcome: ClassVar[Literal["refused"]] = "refused"
    reason: Reason
    checks: tuple[Check, ...] = ()
    """Every failing check, the decisive one first; empty where the evidence for checks was missing."""
    retry_at_ms: int | None = None
    """When time alone will have cured all of them, Unix ms; None if it won't."""

    @classmethod
    def because(cls, checks: Iterable[Check]) -> Refused:
        """Return the refusal that these failing checks make."""
        ordered = tuple(sorted(checks, key=lambda check: PRECEDENCE[check.reason]))
        cures = [check.retry_at_ms for check in ordered if check.retry_at_ms is not None]
        cured_by_time = len(cures) == len(ordered)
        return cls(reason=ordered[0].reason, checks=ordered, retry_at_ms=max(cures) if cured_by_time else None)

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it."""
        checks = [check.to_json_object() for check in self.checks]
        return _without_none(checks=checks, outcome=self.outcome, reason=self.reason.value, retryAtMs=self.retry_at_ms)


def _without_none(**members: object) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}


Decision = Allowed | Refused

PRECEDENCE = {reason: place for place, reason in enumerate(Reason)}


def read_decision(stored: dict[str, Any]) -> Decision:
    """Return the decision that `to_json_object` wrote."""
    if stored["outcome"] == "allowed":
        return Allowed(value_micro_usd=int(stored["valueMicroUsd"]))
    return read_refusal(stored)


def read_refusal(stored: dict[str, Any]) -> Refused:
    """Return the refusal that `to_json_object` wrote."""
    return Refused(
        reason=Reason(stored["reason"]),
        checks=tuple(Check.from_json_object(check) for check in stored["checks"]),
        retry_at_ms=stored.get("retryAtMs"),
    )


def decide(
    bounds: Bounds,
    request: FireRequest,
    usage: Usage,
    quotes: Sequence[Quote],
    limits: Limits,
    now_ms: int,
) -> Decision:
    """Hold `request` against everything that bounds it. Any doubt is a no.

    Args:
        bounds: the agent's activation.
        request: the intended execution.
        usage: the ledger's view, read under the user's lock.
        quotes: all known quotes of both legs' mints, stale ones too; others don't matter.
        limits: the caps for everyone.
        now_ms: the one time of this decision, Unix ms, read after the lock.

    """
    sell, buy = _legs(request, bounds, quotes, now_ms)
    value = _value_micro_usd(sell, buy)
    checks = (
        *agent_checks(usage.agent_state, usage.halts, bounds, now_ms),
        _permit_outlasts_transaction(bounds, limits, now_ms),
        _intent_free(usage),
        _whitelisted(sell, bounds),
        _whitelisted(buy, bounds),
        _assets_differ(sell, buy),
        _price_known(sell),
        _price_known(buy),
        _price_fresh(sell),
        _price_fresh(buy),
        _value_within_cap(value, bounds),
        _enough_received(sell, buy, limits),
        _agents_within_cap(usage, limits),
        _executions_within_cap(usage, limits, now_ms),
        _notional_within_cap(value, usage, limits),
        _interval_kept(usage, limits, now_ms),
    )
    failed = [check for check in checks if check is not None]
    if failed or value is None:
        return Refused.because(failed)
    return Allowed(value_micro_usd=value)


class _Leg(NamedTuple):
    """One side of the trade. No `asset`: not whitelisted; no `prices`: nothing to value it by."""

    name: str
    amount: int
    asset: Asset | None
    quoted: bool
    prices: list[int]
    """The fresh ones, in 1e-12 USD."""


def trade_value_micro_usd(bounds: Bounds, request: FireRequest, quotes: Sequence[Quote], now_ms: int) -> int | None:
    """Return what the trade counts for against the caps; None if a leg can't be valued."""
    return _value_micro_usd(*_legs(request, bounds, quotes, now_ms))


def _legs(request: FireRequest, bounds: Bounds, quotes: Sequence[Quote], now_ms: int) -> tuple[_Leg, _Leg]:
    return (
        _leg(request.sell, request.sell_amount, bounds, quotes, now_ms),
        _leg(request.buy, request.min_received, bounds, quotes, now_ms),
    )


def _leg(name: str, amount: int, bounds: Bounds, quotes: Sequence[Quote], now_ms: int) -> _Leg:
    asset = bounds.whitelist.get(name)
    mint = asset.mint if asset else None
    known, fresh = False, []
    for quote in quotes:
        if quote.mint == mint:
            known = True
            if quote.is_fresh(now_ms, CLOCK_SKEW_MS):
                fresh.append(quote.price_pico_usd)
    return _Leg(name, amount, asset, known, fresh)


def _value_micro_usd(sell: _Leg, buy: _Leg) -> int | None:
    """Return the larger of both legs' values at their highest fresh quotes; None if a leg has no price."""
    if not (sell.asset and sell.prices and buy.asset and buy.prices):
        return None
    return max(
        value_micro_usd(sell.amount, sell.asset.decimals, max(sell.prices)),
        value_micro_usd(buy.amount, buy.asset.decimals, max(buy.prices)),
    )


def agent_checks(state: AgentState, halts: Iterable[Halt], bounds: Bounds, now_ms: int) -> tuple[Check | None, ...]:
    """Return what keeps the agent from doing anything at all: its state, a halt, or the end of its permit."""
    return (
        _agent_known(state),
        *_halted(halts),
        _agent_active(state),
        _permit_unexpired(bounds, now_ms),
    )


def _agent_known(state: AgentState) -> Check | None:
    if state is not AgentState.RESERVED:
        return None
    return Check(reason=Reason.AGENT_UNKNOWN, limit=AgentState.ACTIVE, actual=state)


def _halted(halts: Iterable[Halt]) -> Iterable[Check]:
    return [Check(reason=Reason.HALTED, limit="no halt", actual=str(halt)) for halt in halts]


INACTIVE = {
    AgentState.COMPLETED: Reason.AGENT_COMPLETED,
    AgentState.STOPPED: Reason.AGENT_STOPPED,
    AgentState.PAUSED: Reason.AGENT_PAUSED,
}


def _agent_active(state: AgentState) -> Check | None:
    if state is AgentState.ACTIVE or state is AgentState.RESERVED:
        return None
    return Check(reason=INACTIVE[state], limit=AgentState.ACTIVE, actual=state)


def _permit_unexpired(bounds: Bounds, now_ms: int) -> Check | None:
    if not is_expired(bounds.expires_at_ms, now_ms):
        return None
    return Check(reason=Reason.PERMIT_EXPIRED, limit=bounds.terms.expires_at, actual=timestamp(now_ms))


def _permit_outlasts_transaction(bounds: Bounds, limits: Limits, now_ms: int) -> Check | None:
    latest_ms = now_ms + limits.expiry_margin_s * 1000
    if not is_expired(bounds.expires_at_ms, latest_ms) or is_expired(bounds.expires_at_ms, now_ms):
        return None
    return Check(reason=Reason.PERMIT_EXPIRING, limit=bounds.terms.expires_at, actual=timestamp(latest_ms))


def _intent_free(usage: Usage) -> Check | None:
    if usage.intent_held_by is None:
        return None
    return Check(reason=Reason.INTENT_TAKEN, limit="one execution an intent", actual=usage.intent_held_by)


def _whitelisted(leg: _Leg, bounds: Bounds) -> Check | None:
    if leg.asset:
        return None
    return Check(reason=Reason.ASSET_NOT_WHITELISTED, limit=" ".join(bounds.terms.asset_whitelist), actual=leg.name)


def _assets_differ(sell: _Leg, buy: _Leg) -> Check | None:
    if not (sell.asset and buy.asset) or sell.asset.mint != buy.asset.mint:
        return None
    return Check(reason=Reason.ASSETS_IDENTICAL, limit="two mints", actual=sell.asset.mint)


def _price_known(leg: _Leg) -> Check | None:
    if not leg.asset or leg.quoted:
        return None
    return Check(reason=Reason.PRICE_MISSING, limit="a quote", actual=f"none for {leg.name}")


def _price_fresh(leg: _Leg) -> Check | None:
    if not leg.quoted or leg.prices:
        return None
    return Check(reason=Reason.PRICE_STALE, limit="a fresh quote", actual=f"only stale ones for {leg.name}")


def _value_within_cap(value: int | None, bounds: Bounds) -> Check | None:
    if value is None or value <= bounds.cap_micro_usd:
        return None
    return Check(reason=Reason.AMOUNT_OVER_CAP, limit=_usd(bounds.cap_micro_usd), actual=_usd(value))


def _enough_received(sell: _Leg, buy: _Leg, limits: Limits) -> Check | None:
    """Hold the minimum received against the quotes: sold at the highest, bought at the lowest, less the slippage."""
    if not (sell.asset and sell.prices and buy.asset and buy.prices):
        return None
    owed = sell.amount * max(sell.prices) * 10**buy.asset.decimals * (10_000 - limits.max_slippage_bps)
    least = -(-owed // (min(buy.prices) * 10**sell.asset.decimals * 10_000))
    if buy.amount >= least:
        return None
    return Check(reason=Reason.MIN_RECEIVED_TOO_LOW, limit=str(least), actual=str(buy.amount))


def _agents_within_cap(usage: Usage, limits: Limits) -> Check | None:
    if usage.active_agents <= limits.active_agents:
        return None
    return Check(reason=Reason.AGENTS_OVER_CAP, limit=str(limits.active_agents), actual=str(usage.active_agents))


def _executions_within_cap(usage: Usage, limits: Limits, now_ms: int) -> Check | None:
    free_at_ms = slot_free_at_ms(usage.window_attempt_at_ms)
    if now_ms >= free_at_ms:
        return None
    return Check(
        reason=Reason.EXECUTIONS_OVER_CAP,
        limit=f"{limits.executions_per_24h} in 24 h",
        actual=f"{limits.executions_per_24h} in 24 h already",
        retry_at_ms=free_at_ms,
    )


def _notional_within_cap(value: int | None, usage: Usage, limits: Limits) -> Check | None:
    cap = limits.notional_micro_usd_per_24h
    if cap is None or value is None or (usage.window_micro_usd or 0) + value <= cap:
        return None
    return Check(
        reason=Reason.NOTIONAL_OVER_CAP,
        limit=f"{_usd(cap)} in 24 h",
        actual=f"{_usd(usage.window_micro_usd or 0)} in 24 h already, and {_usd(value)}",
        retry_at_ms=usage.window_room_at_ms,
    )


def _interval_kept(usage: Usage, limits: Limits, now_ms: int) -> Check | None:
    if usage.fired_at_ms is None or now_ms >= usage.fired_at_ms + limits.min_interval_ms:
        return None
    return Check(
        reason=Reason.INTERVAL_TOO_SHORT,
        limit=f"{limits.min_interval_ms} ms apart",
        actual=f"{now_ms - usage.fired_at_ms} ms after the last",
        retry_at_ms=usage.fired_at_ms + limits.min_interval_ms,
    )


def _usd(micro_usd: int) -> str:
    return f"${micro_usd // 10**6}.{micro_usd % 10**6:06}"
