"""The decision as a table: one rule broken at a time, both sides of each edge."""

import pytest

from executor.bounds import Bounds
from executor.decide import Allowed, Check, Refused, Usage, decide, read_decision
from executor.lifecycle import AgentState
from executor.limits import CLOCK_SKEW_MS, Limits
from executor.prices.quote import Quote
from executor.reasons import Reason
from permits import draft, issue, verify
from tests.support import BONK, HOUR_MS, JTO, T0, USDC, WALLET, key, uuid

HOUR_S = 3_600
PICO = 10**12


def bounds(*, usd=250, lifetime_s=HOUR_S):
    permit = draft(
        agent_id=uuid(1),
        session_pubkey=key(1).wallet_address,
        asset_whitelist=["USDC", "JTO"],
        max_amount_usd=usd,
        issued_at_ms=T0,
        lifetime_s=lifetime_s,
        nonce="ab" * 16,
    )
    return Bounds.of(verify(issue(permit, WALLET)), (USDC, JTO))


def quote(asset, pico, **changes):
    fields = {"mint": asset.mint, "price_pico_usd": pico, "at_ms": T0, "max_age_ms": 30_000, "source": "test"}
    return Quote(**{**fields, **changes})


QUOTES = {USDC.mint: [quote(USDC, PICO)], JTO.mint: [quote(JTO, 5 * PICO // 2)]}
USAGE = Usage(agent_state=AgentState.ACTIVE, active_agents=1, attempt=1)


def ask(setup_request, *, quotes=QUOTES, now_ms=T0, limits=None, held=None, **usage):
    found = USAGE._replace(**usage)
    known = [each for quoted in quotes.values() for each in quoted]
    return decide(held or bounds(), setup_request, found, known, limits or Limits(), now_ms)


@pytest.fixture
def request_(setup):
    return setup.request


def reasons(decision):
    return [check.reason for check in decision.checks]


def test_a_fire_within_everything_is_allowed_at_the_larger_leg(request_):
    assert ask(request_()) == Allowed(value_micro_usd=100_000_000)
    assert ask(request_(min_received=41 * 10**9)) == Allowed(value_micro_usd=102_500_000)


def test_the_cap_is_inclusive_to_the_base_unit(request_):
    exactly = {"sell_amount": 250_000_000, "min_received": 100 * 10**9}
    assert isinstance(ask(request_(**exactly)), Allowed)
    over = ask(request_(**{**exactly, "sell_amount": 250_000_001}))
    assert reasons(over) == [Reason.AMOUNT_OVER_CAP]
    assert (over.checks[0].limit, over.checks[0].actual) == ("$250.000000", "$250.000001")
    over = ask(request_(**{**exactly, "min_received": 100 * 10**9 + 1}))
    assert reasons(over) == [Reason.AMOUNT_OVER_CAP]


def test_the_cap_is_held_against_the_highest_fresh_quote(request_):
    at_250 = request_(sell_amount=250_000_000, min_received=100 * 10**9)
    higher = {**QUOTES, USDC.mint: [quote(USDC, PICO), quote(USDC, PICO + 10**4)]}
    assert Reason.AMOUNT_OVER_CAP in reasons(ask(at_250, quotes=higher))
    stale_higher = {**QUOTES, USDC.mint: [quote(USDC, PICO), quote(USDC, 2 * PICO, stale=True)]}
    assert isinstance(ask(at_250, quotes=stale_higher), Allowed)


def test_the_minimum_received_may_lie_three_percent_below_the_quotes(request_):
    assert isinstance(ask(request_(min_received=388 * 10**8)), Allowed)  # 40 JTO less 3 %
    low = ask(request_(min_received=388 * 10**8 - 1))
    assert reasons(low) == [Reason.MIN_RECEIVED_TOO_LOW]
    assert low.checks[0].limit == "38800000000"
    assert isinstance(ask(request_(min_received=1), limits=Limits(max_slippage_bps=10_000)), Allowed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sell": "BONK"}, Reason.ASSET_NOT_WHITELISTED),
        ({"buy": "BONK"}, Reason.ASSET_NOT_WHITELISTED),
        ({"sell": "usdc"}, Reason.ASSET_NOT_WHITELISTED),
        ({"buy": JTO.mint}, Reason.ASSET_NOT_WHITELISTED),
        ({"buy": "USDC", "min_received": 100_000_000}, Reason.ASSETS_IDENTICAL),
    ],
)
def test_both_legs_are_whitelisted_exactly_as_signed(request_, changes, reason):
    assert ask(request_(**changes)).reason is reason


@pytest.mark.parametrize(
    ("quotes", "now_ms", "reason"),
    [
        ({JTO.mint: QUOTES[JTO.mint]}, T0, Reason.PRICE_MISSING),
        ({USDC.mint: QUOTES[USDC.mint], JTO.mint: []}, T0, Reason.PRICE_MISSING),
        (QUOTES, T0 + 30_000, None),
        (QUOTES, T0 + 30_001, Reason.PRICE_STALE),
        (QUOTES, T0 - CLOCK_SKEW_MS, None),
        (QUOTES, T0 - CLOCK_SKEW_MS - 1, Reason.PRICE_STALE),
        ({**QUOTES, JTO.mint: [quote(JTO, PICO, stale=True)]}, T0, Reason.PRICE_STALE),
    ],
)
def test_no_trade_without_a_fresh_price_of_both_legs(request_, quotes, now_ms, reason):
    decision = ask(request_(), quotes=quotes, now_ms=now_ms)
    assert (decision.reason if isinstance(decision, Refused) else None) is reason


@pytest.mark.parametrize(
    ("before_expiry_ms", "reason"),
    [
        (90_000 + CLOCK_SKEW_MS + 1, None),
        (90_000 + CLOCK_SKEW_MS, Reason.PERMIT_EXPIRING),
        (CLOCK_SKEW_MS + 1, Reason.PERMIT_EXPIRING),
        (CLOCK_SKEW_MS, Reason.PERMIT_EXPIRED),
        (0, Reason.PERMIT_EXPIRED),
        (-HOUR_MS, Reason.PERMIT_EXPIRED),
    ],
)
def test_the_permits_end_is_held_against_the_agent(request_, before_expiry_ms, reason):
    now_ms = T0 + HOUR_MS - before_expiry_ms
    fresh = {mint: [each.model_copy(update={"at_ms": now_ms}) for each in held] for mint, held in QUOTES.items()}
    decision = ask(request_(), now_ms=now_ms, quotes=fresh)
    assert (decision.reason if isinstance(decision, Refused) else None) is reason


def test_a_paused_agent_says_so_first_and_all_else_too(request_):
    decision = ask(request_(sell="BONK"), agent_state=AgentState.PAUSED, now_ms=T0 + HOUR_MS)
    assert decision.reason is Reason.AGENT_PAUSED
    assert reasons(decision) == [
        Reason.AGENT_PAUSED,
        Reason.PERMIT_EXPIRED,
        Reason.ASSET_NOT_WHITELISTED,
        Reason.PRICE_STALE,
    ]


@pytest.mark.parametrize(("active", "allowed"), [(20, True), (21, False)])
def test_twenty_active_agents_are_allowed(request_, active, allowed):
    assert isinstance(ask(request_(), active_agents=active), Allowed) is allowed


DAY_MS = 24 * HOUR_MS


@pytest.mark.parametrize(
    ("back_at_ms", "allowed"),
    [
        (None, True),
        (T0 - DAY_MS - CLOCK_SKEW_MS, True),
        (T0 - DAY_MS - CLOCK_SKEW_MS + 1, False),
        (T0, False),
    ],
)
def test_a_slot_frees_a_day_and_the_clocks_skew_later(request_, back_at_ms, allowed):
    decision = ask(request_(), attempt=501, window_attempt_at_ms=back_at_ms)
    assert isinstance(decision, Allowed) is allowed
    if not allowed:
        assert decision.reason is Reason.EXECUTIONS_OVER_CAP
        assert decision.retry_at_ms == back_at_ms + DAY_MS + CLOCK_SKEW_MS


def test_the_minimum_is_held_against_what_is_worst_for_the_agent(request_):
    """Sold at the highest quote, bought at the lowest: no source that lags may hide a bad price."""
    both = {USDC.mint: [quote(USDC, PICO), quote(USDC, PICO * 102 // 100)],
            JTO.mint: [quote(JTO, 5 * PICO // 2), quote(JTO, 25 * PICO // 10 * 98 // 100)]}  # fmt: skip
    owed = 100 * 102 * 97 * 10**9 * 100 // (250 * 98 * 100)  # 100 USDC at 1.02, less 3 %, in JTO at 2.45
    refused = ask(request_(min_received=1), quotes=both)
    assert [(check.reason, check.limit) for check in refused.checks] == [
        (Reason.MIN_RECEIVED_TOO_LOW, str(owed + 1))  # rounded up
    ]
    assert isinstance(ask(request_(min_received=owed + 1), quotes=both), Allowed)


def test_two_names_of_one_mint_are_one_asset(request_):
    twin = JTO.model_copy(update={"mint": USDC.mint, "decimals": 6})
    held = bounds().model_copy(update={"assets": (USDC, twin)})
    assert Reason.ASSETS_IDENTICAL in reasons(ask(request_(), held=held))


def test_all_must_be_cured_before_a_retry():
    first = Check(reason=Reason.EXECUTIONS_OVER_CAP, limit="", actual="", retry_at_ms=5)
    second = Check(reason=Reason.AGENTS_OVER_CAP, limit="", actual="", retry_at_ms=9)
    refused = Refused.because([first, second])
    assert (refused.reason, refused.retry_at_ms) == (Reason.AGENTS_OVER_CAP, 9)


def test_no_retry_time_where_time_alone_cures_nothing(request_):
    decision = ask(request_(sell="BONK"), attempt=501, window_attempt_at_ms=T0)
    assert decision.retry_at_ms is None


@pytest.mark.parametrize("decision", [Allowed(value_micro_usd=2**70), Refused(reason=Reason.AGENT_UNKNOWN)])
def test_a_stored_decision_is_read_back(decision):
    assert read_decision(decision.to_json_object()) == decision


def test_a_refusal_with_its_checks_is_read_back(request_):
    refused = ask(request_(sell="BONK"), attempt=501, window_attempt_at_ms=T0)
    assert read_decision(refused.to_json_object()) == refused


def test_checks_come_in_the_order_of_reason(request_):
    found = reasons(ask(request_(sell="BONK"), agent_state=AgentState.PAUSED, active_agents=99, now_ms=T0 + HOUR_MS))
    assert found == sorted(found, key=list(Reason).index)


def test_an_unlisted_asset_needs_no_price(request_):
    assert reasons(ask(request_(sell="BONK"), quotes={JTO.mint: QUOTES[JTO.mint], BONK.mint: []})) == [
        Reason.ASSET_NOT_WHITELISTED
    ]
