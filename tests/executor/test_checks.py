"""What each check says, to the letter, where it just fails: its limit, what it found, and the time that cures it.

Users read these texts and times, so they are rules like the edges themselves. Each row stands beside the last input
that the same check still lets pass.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest

from executor.activation import Standing, decide_activation
from executor.assets import KnownAssets
from executor.bounds import Bounds
from executor.caps import WINDOW_MS, count_unexpired, is_expired, slot_free_at_ms
from executor.decide import Allowed, Check, Refused, Usage, decide
from executor.errors import IllegalTransition
from executor.halts import Halt, Halter
from executor.lifecycle import AgentState, AttemptState, require_agent_step, require_attempt_step
from executor.limits import CLOCK_SKEW_MS, Limits
from executor.prices.quote import Quote
from executor.reasons import Reason
from executor.request import FireRequest
from permits import draft, issue, verify
from tests.support import BONK, HOUR_MS, JTO, T0, USDC, WALLET, key, uuid

DAY_MS = 24 * HOUR_MS
PICO = 10**12
NONCE = "ab" * 16
NOTHING = MappingProxyType({})


def permit(**changes):
    fields = {
        "agent_id": uuid(1),
        "session_pubkey": key(1).wallet_address,
        "asset_whitelist": ["USDC", "JTO"],
        "max_amount_usd": 250,
        "issued_at_ms": T0,
        "lifetime_s": 3_600,
        "nonce": NONCE,
    }
    return verify(issue(draft(**{**fields, **changes}), WALLET))


def bounds(**changes):
    return Bounds.of(permit(**changes), (USDC, JTO))


def quote(asset, pico, *, stale=False):
    return Quote(mint=asset.mint, price_pico_usd=pico, at_ms=T0, max_age_ms=HOUR_MS, source="test", stale=stale)


FAIR = (quote(USDC, PICO), quote(JTO, 5 * PICO // 2))


class Fire(NamedTuple):
    """A fire that is allowed: 100 USDC for at least 39.6 JTO."""

    request: Mapping = NOTHING
    usage: Mapping = NOTHING
    limits: Mapping = NOTHING
    quotes: tuple = FAIR
    now_ms: int = T0

    def decided(self):
        asked = {"wallet": WALLET.wallet_address, "agent_id": uuid(1), "execution_id": uuid(2), "rail": "local",
                 "sell": "USDC", "sell_amount": 100 * 10**6, "buy": "JTO", "min_received": 396 * 10**8}  # fmt: skip
        found = {"agent_state": AgentState.ACTIVE, "active_agents": 1, "attempt": 1}
        request, usage = FireRequest(**{**asked, **self.request}), Usage(**{**found, **self.usage})
        return decide(bounds(), request, usage, self.quotes, Limits(**self.limits), self.now_ms)


def halt(**scope):
    return Halt(by=Halter.OPERATOR, why="a drill", at_ms=T0, **scope)


WINDOW = {"attempt": 501, "window_attempt_at_ms": T0 - DAY_MS - CLOCK_SKEW_MS}
NOTIONAL = {"notional_micro_usd_per_24h": 300 * 10**6}
END_MS = T0 + HOUR_MS - CLOCK_SKEW_MS
BOUGHT_250_05 = {"sell_amount": 250 * 10**6, "min_received": 100 * 10**9 + 20 * 10**6}

FIRES = [
    (
        Fire(),
        Fire(usage={"agent_state": AgentState.RESERVED}),
        Check(Reason.AGENT_UNKNOWN, "active", "reserved"),
    ),
    (
        Fire(),
        Fire(usage={"halts": (halt(wallet=WALLET.wallet_address),)}),
        Check(Reason.HALTED, "no halt", "the wallet, by the operator: a drill"),
    ),
    (
        Fire(),
        Fire(usage={"halts": (halt(wallet=WALLET.wallet_address, agent_id=uuid(1)),)}),
        Check(Reason.HALTED, "no halt", f"agent {uuid(1)}, by the operator: a drill"),
    ),
    (
        Fire(),
        Fire(usage={"halts": (halt(),)}),
        Check(Reason.HALTED, "no halt", "everything, by the operator: a drill"),
    ),
    (
        Fire(),
        Fire(usage={"agent_state": AgentState.COMPLETED}),
        Check(Reason.AGENT_COMPLETED, "active", "completed"),
    ),
    (Fire(), Fire(usage={"agent_state": AgentState.STOPPED}), Check(Reason.AGENT_STOPPED, "active", "stopped")),
    (Fire(), Fire(usage={"agent_state": AgentState.PAUSED}), Check(Reason.AGENT_PAUSED, "active", "paused")),
    (
        Fire(now_ms=END_MS - 1, limits={"expiry_margin_s": 0}),
        Fire(now_ms=END_MS, limits={"expiry_margin_s": 0}),
        Check(Reason.PERMIT_EXPIRED, "2026-05-02T13:00:00Z", "2026-05-02T12:59:59Z"),
    ),
    (
        Fire(now_ms=END_MS - 90_001),
        Fire(now_ms=END_MS - 90_000),
        Check(Reason.PERMIT_EXPIRING, "2026-05-02T13:00:00Z", "2026-05-02T12:59:59Z"),
    ),
    (
        Fire(now_ms=END_MS - 90_001),
        Fire(now_ms=END_MS - 1),
        Check(Reason.PERMIT_EXPIRING, "2026-05-02T13:00:00Z", "2026-05-02T13:01:28.999Z"),
    ),
    (
        Fire(),
        Fire(usage={"intent_held_by": uuid(9)}),
        Check(Reason.INTENT_TAKEN, "one execution an intent", uuid(9)),
    ),
    (Fire(), Fire(request={"sell": "BONK"}), Check(Reason.ASSET_NOT_WHITELISTED, "USDC JTO", "BONK")),
    (Fire(), Fire(request={"buy": "jto"}), Check(Reason.ASSET_NOT_WHITELISTED, "USDC JTO", "jto")),
    (
        Fire(),
        Fire(request={"buy": "USDC", "min_received": 100 * 10**6}),
        Check(Reason.ASSETS_IDENTICAL, "two mints", USDC.mint),
    ),
    (Fire(), Fire(quotes=FAIR[1:]), Check(Reason.PRICE_MISSING, "a quote", "none for USDC")),
    (Fire(), Fire(quotes=FAIR[:1]), Check(Reason.PRICE_MISSING, "a quote", "none for JTO")),
    (
        Fire(quotes=(*FAIR, quote(USDC, PICO, stale=True))),
        Fire(quotes=(quote(USDC, PICO, stale=True), FAIR[1])),
        Check(Reason.PRICE_STALE, "a fresh quote", "only stale ones for USDC"),
    ),
    (
        Fire(quotes=(*FAIR, quote(JTO, PICO, stale=True))),
        Fire(quotes=(FAIR[0], quote(JTO, PICO, stale=True))),
        Check(Reason.PRICE_STALE, "a fresh quote", "only stale ones for JTO"),
    ),
    (
        Fire(request={"sell_amount": 250 * 10**6, "min_received": 97 * 10**9}),
        Fire(request={"sell_amount": 250 * 10**6 + 1, "min_received": 97 * 10**9 + 1_000}),
        Check(Reason.AMOUNT_OVER_CAP, "$250.000000", "$250.000001"),
    ),
    (Fire(), Fire(request=BOUGHT_250_05), Check(Reason.AMOUNT_OVER_CAP, "$250.000000", "$250.050000")),
    (
        Fire(request={"min_received": 388 * 10**8}),
        Fire(request={"min_received": 388 * 10**8 - 1}),
        Check(Reason.MIN_RECEIVED_TOO_LOW, "38800000000", "38799999999"),
    ),
    (
        Fire(usage={"active_agents": 20}),
        Fire(usage={"active_agents": 21}),
        Check(Reason.AGENTS_OVER_CAP, "20", "21"),
    ),
    (
        Fire(usage=WINDOW),
        Fire(usage=WINDOW, now_ms=T0 - 1),
        Check(Reason.EXECUTIONS_OVER_CAP, "500 in 24 h", "500 in 24 h already", T0),
    ),
    (
        Fire(limits=NOTIONAL, usage={"window_micro_usd": 200 * 10**6}),
        Fire(limits=NOTIONAL, usage={"window_micro_usd": 200 * 10**6 + 1, "window_room_at_ms": T0 + 7}),
        Check(
            Reason.NOTIONAL_OVER_CAP,
            "$300.000000 in 24 h",
            "$200.000001 in 24 h already, and $100.000000",
            T0 + 7,
        ),
    ),
    (
        Fire(limits={"notional_micro_usd_per_24h": 100 * 10**6}),
        Fire(limits={"notional_micro_usd_per_24h": 100 * 10**6 - 1}),
        Check(Reason.NOTIONAL_OVER_CAP, "$99.999999 in 24 h", "$0.000000 in 24 h already, and $100.000000"),
    ),
    (
        Fire(limits={"min_interval_ms": 10_000}, usage={"fired_at_ms": T0 - 10_000}),
        Fire(limits={"min_interval_ms": 10_000}, usage={"fired_at_ms": T0 - 9_999}),
        Check(Reason.INTERVAL_TOO_SHORT, "10000 ms apart", "9999 ms after the last", T0 + 1),
    ),
]


@pytest.mark.parametrize(("within", "beyond", "check"), FIRES, ids=[f"{row[2].reason}: {row[2][2]}" for row in FIRES])
def test_a_check_of_a_fire_says_its_limit_and_what_it_found(within, beyond, check):
    assert within.decided() == Allowed(value_micro_usd=within.decided().value_micro_usd)
    refused = beyond.decided()
    assert refused == Refused(reason=check.reason, checks=(check,), retry_at_ms=check.retry_at_ms)


def test_every_leg_is_told_of():
    refused = Fire(request={"sell": "BONK", "buy": "WIF"}).decided()
    assert [check.actual for check in refused.checks] == ["BONK", "WIF"]
    refused = Fire(quotes=()).decided()
    assert [check.actual for check in refused.checks] == ["none for USDC", "none for JTO"]


def test_a_trade_of_no_value_leaves_the_day_as_it_was():
    """Without a price there is no value: that, and not the day's cap, is what is told."""
    refused = Fire(limits={"notional_micro_usd_per_24h": 0}, quotes=FAIR[:1]).decided()
    assert [check.reason for check in refused.checks] == [Reason.PRICE_MISSING]


class Activation(NamedTuple):
    """A permit that may come into force."""

    permit: Mapping = NOTHING
    standing: Mapping = NOTHING
    limits: Mapping = NOTHING
    assets: tuple = (USDC, JTO, BONK)
    now_ms: int = T0

    def decided(self):
        standing = {"reserved_for": uuid(1), "nonce_spent": False, "current": None, "other_active_agents": 0}
        return decide_activation(
            permit(**self.permit),
            Standing(**{**standing, **self.standing}),
            KnownAssets(self.assets),
            Limits(**self.limits),
            self.now_ms,
        )


OLD = {"issued_at_ms": T0 - HOUR_MS, "lifetime_s": 2 * 3_600}
CURRENT = bounds(issued_at_ms=T0 - 1, nonce="cd" * 16)
STOPPED = {"agent_state": AgentState.STOPPED}

ACTIVATIONS = [
    (
        Activation(),
        Activation(standing={"halts": (halt(),)}),
        Check(Reason.HALTED, "no halt", "everything, by the operator: a drill"),
    ),
    (
        Activation(),
        Activation(standing={"reserved_for": None}),
        Check(Reason.SESSION_KEY_NOT_RESERVED, uuid(1), "not reserved"),
    ),
    (
        Activation(),
        Activation(standing={"reserved_for": uuid(2)}),
        Check(Reason.SESSION_KEY_NOT_RESERVED, uuid(1), uuid(2)),
    ),
    (
        Activation(now_ms=T0 - CLOCK_SKEW_MS),
        Activation(now_ms=T0 - CLOCK_SKEW_MS - 1),
        Check(Reason.PERMIT_NOT_YET_VALID, "2026-05-02T11:59:58.999Z", "2026-05-02T12:00:00Z", T0),
    ),
    (
        Activation(permit=OLD),
        Activation(permit=OLD, now_ms=T0 + 1),
        Check(Reason.PERMIT_TOO_OLD, "3600 s", "2026-05-02T11:00:00Z"),
    ),
    (
        Activation(standing={"current": CURRENT}),
        Activation(standing={"current": bounds(nonce="cd" * 16)}),
        Check(Reason.PERMIT_NOT_NEWER, "after 2026-05-02T12:00:00Z", "2026-05-02T12:00:00Z"),
    ),
    (
        Activation(standing={**STOPPED, "stopped_at_ms": T0 - 1}),
        Activation(standing={**STOPPED, "stopped_at_ms": T0}),
        Check(Reason.PERMIT_NOT_NEWER, "after the stop at 2026-05-02T12:00:00Z", "2026-05-02T12:00:00Z"),
    ),
    (
        Activation(),
        Activation(standing={"nonce_spent": True}),
        Check(Reason.NONCE_SPENT, "a new nonce", NONCE),
    ),
    (
        Activation(standing={**STOPPED, "current": CURRENT}, permit={"max_amount_usd": 251}),
        Activation(standing={"current": CURRENT}, permit={"max_amount_usd": 251}),
        Check(
            Reason.SCOPE_CHANGED,
            f"USDC={USDC.mint} JTO={JTO.mint} $250.00 {key(1).wallet_address}",
            f"USDC={USDC.mint} JTO={JTO.mint} $251.00 {key(1).wallet_address}",
        ),
    ),
    (
        Activation(permit={"asset_whitelist": ["USDC", "BONK", "JTO"]}),
        Activation(permit={"asset_whitelist": ["USDC", "BONK", "JTO"]}, assets=(USDC,)),
        Check(Reason.ASSET_UNKNOWN, "known assets", "BONK JTO"),
    ),
    (
        Activation(),
        Activation(standing={"agent_state": AgentState.COMPLETED}),
        Check(Reason.AGENT_COMPLETED, "an agent with work left", "completed"),
    ),
    (
        Activation(now_ms=END_MS - 1),
        Activation(now_ms=END_MS),
        Check(Reason.PERMIT_EXPIRED, "2026-05-02T13:00:00Z", "2026-05-02T12:59:59Z"),
    ),
    (
        Activation(standing={"other_active_agents": 19}),
        Activation(standing={"other_active_agents": 20}),
        Check(Reason.AGENTS_OVER_CAP, "20", "21"),
    ),
]


@pytest.mark.parametrize(
    ("within", "beyond", "check"), ACTIVATIONS, ids=[f"{row[2].reason}: {row[2][2]}" for row in ACTIVATIONS]
)
def test_a_check_of_an_activation_says_its_limit_and_what_it_found(within, beyond, check):
    assert isinstance(within.decided(), Bounds)
    refused = beyond.decided()
    assert refused == Refused(reason=check.reason, checks=(check,), retry_at_ms=check.retry_at_ms)


def test_nothing_is_compared_with_a_scope_that_is_not_known():
    refused = Activation(standing={"current": CURRENT}, assets=(USDC,)).decided()
    assert [check.reason for check in refused.checks] == [Reason.ASSET_UNKNOWN]


# The arithmetic and the tables that the checks rest on


def test_the_window_is_a_day_and_the_clocks_skew():
    assert WINDOW_MS == 86_400_000
    assert CLOCK_SKEW_MS == 1_000
    assert (slot_free_at_ms(None), slot_free_at_ms(0), slot_free_at_ms(T0)) == (0, 86_401_000, T0 + 86_401_000)


def test_a_permit_ends_a_second_early():
    assert [is_expired(T0, T0 - before_ms) for before_ms in (1_001, 1_000, 0)] == [False, True, True]
    assert count_unexpired([T0, T0 + 1, T0 + 1_000, T0 + 1_001, T0 + 1_002], T0) == 2
    assert count_unexpired([], T0) == 0


AGENTS = {
    None: "reserved",
    "reserved": "active completed",
    "active": "active paused stopped completed",
    "paused": "active stopped completed",
    "stopped": "active completed",
    "completed": "",
}
ATTEMPTS = {
    None: "refused authorized",
    "refused": "",
    "authorized": "voided signed",
    "voided": "",
    "signed": "landed failed dead",
    "landed": "",
    "failed": "",
    "dead": "",
}


@pytest.mark.parametrize(
    ("require", "states", "steps", "what"),
    [
        (require_agent_step, AgentState, AGENTS, "an agent"),
        (require_attempt_step, AttemptState, ATTEMPTS, "an attempt"),
    ],
)
def test_every_step_that_there_is_and_no_other(require, states, steps, what):
    assert [None, *states] == sorted(steps, key=[None, *states].index)
    for current, following in steps.items():
        state = None if current is None else states(current)
        for each in states:
            if each in following.split():
                require(state, each)
                continue
            with pytest.raises(IllegalTransition) as refused:
                require(state, each)
            assert str(refused.value) == f"{what} can't go from {current or 'nothing'} to {each}"
