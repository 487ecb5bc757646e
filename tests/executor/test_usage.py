"""What is counted, and what a caller can ask about it, on each database."""

import threading

import pytest

from executor.audit import check_ledger
from executor.decide import Refused
from executor.entries import Kind
from executor.errors import LedgerError, UnknownWallet
from executor.guard import fires
from executor.halts import EVERYTHING, Halter
from executor.limits import CLOCK_SKEW_MS, Limits
from executor.prices.quote import FixedPrices
from executor.reasons import Reason
from tests.support import BONK, HOUR_MS, JTO, USDC, Setup, key, uuid

DAY_MS = 24 * HOUR_MS
TRADE_MICRO_USD = 100 * 10**6
"""What `Setup.request` sells: 100 USDC."""


@pytest.fixture(params=["sqlite", "postgresql"])
def limited(request, tmp_path):
    """Return a function that makes a user under other limits."""
    made = []
    where = tmp_path / "ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgres_ledger")

    def make(**limits):
        made.append(Setup(where, limits=Limits(**limits)))
        return made[0]

    yield make
    assert check_ledger(made[0].guard.ledger).findings == ()
    made[0].guard.close()


def reason(outcome):
    return outcome.reason if isinstance(outcome, Refused) else outcome.outcome


def test_what_a_day_may_be_worth_is_exact_and_rolls(limited):
    setup = limited(notional_micro_usd_per_24h=3 * TRADE_MICRO_USD)
    setup.activate(lifetime_s=3 * 86_400)
    start = setup.now_ms
    for number in range(3):
        setup.now_ms = start + number * HOUR_MS
        assert reason(setup.guard.authorize(setup.request(number))) == "allowed"
    refused = setup.guard.authorize(setup.request(3, sell_amount=1, min_received=10**9))
    assert refused.reason is Reason.NOTIONAL_OVER_CAP
    assert refused.retry_at_ms == start + DAY_MS + CLOCK_SKEW_MS
    two = setup.guard.authorize(setup.request(4, sell_amount=200 * 10**6, min_received=792 * 10**8))
    assert two.retry_at_ms == start + HOUR_MS + DAY_MS + CLOCK_SKEW_MS
    setup.now_ms = refused.retry_at_ms - 1
    assert reason(setup.guard.authorize(setup.request(5))) is Reason.NOTIONAL_OVER_CAP
    setup.now_ms += 1
    assert reason(setup.guard.authorize(setup.request(6))) == "allowed"
    assert reason(setup.guard.authorize(setup.request(7))) is Reason.NOTIONAL_OVER_CAP


def test_a_trade_worth_more_than_a_day_has_no_time_that_cures_it(limited):
    setup = limited(notional_micro_usd_per_24h=TRADE_MICRO_USD - 1)
    setup.activate()
    refused = setup.guard.authorize(setup.request(1))
    assert (refused.reason, refused.retry_at_ms) == (Reason.NOTIONAL_OVER_CAP, None)


def test_an_agent_keeps_its_distance_and_the_others_keep_theirs(limited):
    setup = limited(min_interval_ms=10_000)
    setup.activate(1)
    setup.activate(2)
    assert reason(setup.guard.authorize(setup.request(1))) == "allowed"
    assert reason(setup.guard.authorize(setup.request(2, agent=2))) == "allowed"
    setup.now_ms += 9_999
    refused = setup.guard.authorize(setup.request(3))
    assert (refused.reason, refused.retry_at_ms) == (Reason.INTERVAL_TOO_SHORT, setup.now_ms + 1)
    assert isinstance(setup.guard.activate(setup.permit(1)), Refused) is False
    assert reason(setup.guard.authorize(setup.request(4))) is Reason.INTERVAL_TOO_SHORT
    setup.now_ms += 1
    assert reason(setup.guard.authorize(setup.request(5))) == "allowed"


@pytest.mark.parametrize("how", ["stopped", "paused", "forgotten"])
def test_the_distance_is_kept_past_a_stop_or_a_pause(limited, how):
    setup = limited(min_interval_ms=2 * HOUR_MS)
    setup.activate(1)
    fired_ms = setup.now_ms
    assert reason(setup.guard.authorize(setup.request(1))) == "allowed"
    setup.now_ms += HOUR_MS
    if how == "stopped":
        setup.guard.stop(setup.wallet, uuid(1))
        setup.now_ms += 1
    elif how == "paused":
        assert reason(setup.guard.authorize(setup.request(2))) is Reason.PERMIT_EXPIRED
    else:
        setup.activate(2)
    setup.activate(1, lifetime_s=7200)
    refused = setup.guard.authorize(setup.request(3))
    assert (refused.reason, refused.retry_at_ms) == (Reason.INTERVAL_TOO_SHORT, fired_ms + 2 * HOUR_MS)
    setup.now_ms = refused.retry_at_ms
    assert reason(setup.guard.authorize(setup.request(4))) == "allowed"


def test_an_attempt_does_not_stand_in_its_own_way_when_it_is_signed(limited):
    setup = limited(min_interval_ms=10_000, notional_micro_usd_per_24h=TRADE_MICRO_USD)
    setup.activate()
    assert setup.sign(setup.guard.authorize(setup.request(1)).authorization) is None


def test_a_day_is_counted_again_at_the_price_of_signing(limited):
    setup = limited(notional_micro_usd_per_24h=2 * TRADE_MICRO_USD)
    setup.activate()
    first, second = (setup.guard.authorize(setup.request(number)).authorization for number in range(2))
    assert setup.sign(first, "a") is None
    setup.quote(USDC, "1.01")
    setup.quote(JTO, "2.50")
    refused = setup.sign(second, "b")
    assert refused.reason is Reason.NOTIONAL_OVER_CAP
    assert refused.checks[0].actual == "$100.000000 in 24 h already, and $101.000000"


def test_one_intent_has_one_execution_until_that_fails(setup):
    setup.activate(1)
    setup.activate(2)
    first = setup.guard.authorize(setup.request(1, intent_key="buy the dip")).authorization
    taken = setup.guard.authorize(setup.request(2, intent_key="buy the dip"))
    assert (taken.reason, taken.checks[0].actual) == (Reason.INTENT_TAKEN, uuid(10_001))
    assert reason(setup.guard.authorize(setup.request(3, intent_key="another"))) == "allowed"
    assert reason(setup.guard.authorize(setup.request(4, agent=2, intent_key="buy the dip"))) == "allowed"
    assert setup.sign(first) is None
    assert reason(setup.guard.authorize(setup.request(5, intent_key="buy the dip"))) is Reason.INTENT_TAKEN
    setup.guard.mark_dead(setup.wallet, first.execution_id)
    assert reason(setup.guard.authorize(setup.request(6, intent_key="buy the dip"))) == "allowed"


def test_refusals_are_recorded_up_to_a_bound_and_then_counted(setup, monkeypatch):
    monkeypatch.setattr(fires, "REFUSALS_RECORDED_MAX", 3)
    setup.activate(lifetime_s=3 * 86_400)
    for number in range(5):
        setup.now_ms += 1_000
        assert reason(setup.guard.authorize(setup.request(number, sell="BONK"))) is Reason.ASSET_NOT_WHITELISTED
    with setup.guard.ledger.view(setup.wallet) as view:
        assert (view.head.refusals, view.head.refusals_unrecorded) == (3, 2)
    assert setup.guard.execution(setup.wallet, uuid(10_004)) is None
    assert reason(setup.guard.authorize(setup.request(9))) == "allowed"
    setup.now_ms += DAY_MS - 4_000
    setup.guard.authorize(setup.request(10, sell="BONK"))
    assert setup.guard.execution(setup.wallet, uuid(10_010)).state == "refused"
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_thousand_refusals_a_day_are_recorded(sqlite_setup):
    setup = sqlite_setup
    setup.activate()
    setup.guard.authorize_many([setup.request(number, sell="BONK") for number in range(1_001)])
    with setup.guard.ledger.view(setup.wallet) as view:
        assert (view.head.refusals, view.head.refusals_unrecorded) == (1_000, 1)


def test_that_a_permit_is_over_is_recorded_however_many_refusals_there_were(setup, monkeypatch):
    monkeypatch.setattr(fires, "REFUSALS_RECORDED_MAX", 1)
    setup.activate()
    setup.guard.authorize(setup.request(1, sell="BONK"))
    setup.now_ms += HOUR_MS
    assert reason(setup.guard.authorize(setup.request(2))) is Reason.PERMIT_EXPIRED
    assert setup.guard.agent(setup.wallet, uuid(1)).state == "paused"


def test_explain_says_what_authorize_will_and_writes_nothing(setup):
    setup.activate()
    for request in (setup.request(1), setup.request(2, sell="BONK"), setup.request(3, agent=9)):
        before = setup.guard.entries(setup.wallet)
        explained = setup.guard.explain(request)
        assert setup.guard.entries(setup.wallet) == before
        assert explained.to_json_object() == setup.guard.authorize(request).to_json_object()
        assert setup.guard.explain(request).to_json_object() == explained.to_json_object()
    assert reason(setup.guard.explain(setup.request(1, sell_amount=1))) is Reason.EXECUTION_CONFLICT
    assert reason(setup.guard.explain(setup.request(wallet=key(50).wallet_address))) is Reason.AGENT_UNKNOWN


def test_headroom_is_what_is_left(limited):
    setup = limited(executions_per_24h=3, notional_micro_usd_per_24h=10**12)
    setup.activate(1, lifetime_s=3 * 86_400)
    setup.activate(2, lifetime_s=3 * 86_400)
    start = setup.now_ms
    for number in range(2):
        setup.guard.authorize(setup.request(number))
        setup.now_ms += HOUR_MS
    setup.guard.halt(EVERYTHING, Halter.OPERATOR, "why not")
    left = setup.guard.headroom(setup.wallet)
    assert (left.active_agents.used, left.active_agents.left) == (2, 18)
    assert (left.executions.used, left.executions.left) == (2, 1)
    assert left.next_slot_at_ms == start + DAY_MS + CLOCK_SKEW_MS
    assert left.notional_micro_usd.used == 2 * TRADE_MICRO_USD
    assert [halt.why for halt in left.halts] == ["why not"]
    setup.now_ms = left.next_slot_at_ms
    assert setup.guard.headroom(setup.wallet).executions.used == 1
    setup.now_ms += HOUR_MS
    assert setup.guard.headroom(setup.wallet).executions.used == 0
    assert setup.guard.headroom(setup.wallet).next_slot_at_ms is None


def test_there_is_no_headroom_of_a_wallet_that_nobody_has_seen(setup):
    with pytest.raises(UnknownWallet):
        setup.guard.headroom(key(50).wallet_address)


def test_many_requests_at_once_have_the_answers_that_each_would(setup):
    theirs = Setup.__new__(Setup)
    theirs.__dict__ = {**setup.__dict__, "signer": key(77), "wallet": key(77).wallet_address}
    setup.activate(1)
    theirs.activate(1, session=9)
    requests = [
        setup.request(1),
        theirs.request(1),
        setup.request(1),
        setup.request(1, sell_amount=7),
        setup.request(2, sell="BONK"),
        setup.request(wallet=key(50).wallet_address),
        theirs.request(2),
    ]
    answers = setup.guard.authorize_many(requests)
    assert [reason(answer) for answer in answers] == [
        "allowed",
        "allowed",
        "allowed",
        Reason.EXECUTION_CONFLICT,
        Reason.ASSET_NOT_WHITELISTED,
        Reason.AGENT_UNKNOWN,
        "allowed",
    ]
    assert [answer.authorization is not None for answer in answers if reason(answer) == "allowed"] == [
        True,
        True,
        False,
        True,
    ]
    assert setup.guard.headroom(setup.wallet).executions.used == 1
    assert list(setup.guard.authorize_many([])) == []


def test_a_cap_holds_within_one_transaction_too(limited):
    setup = limited(executions_per_24h=5)
    setup.activate()
    answers = [reason(each) for each in setup.guard.authorize_many(setup.request(number) for number in range(9))]
    assert answers == ["allowed"] * 5 + [Reason.EXECUTIONS_OVER_CAP] * 4


class BrokenFor(FixedPrices):
    """Prices whose source fails for one mint."""

    def __init__(self, prices, mint):
        self._by_mint = prices._by_mint
        self._mint = mint

    def quotes(self, mint):
        if mint == self._mint:
            raise OSError("the source is gone")
        return super().quotes(mint)


def test_a_fault_in_one_request_harms_no_other_that_rides_with_it(setup):
    setup.activate(assets=("USDC", "JTO", "BONK"))
    setup.prices = BrokenFor(setup.prices, BONK.mint)
    setup.reopen()
    gate, outcomes = threading.Barrier(8), {}

    def fire(number):
        request = setup.request(number, **({"sell": "BONK"} if number == 3 else {}))
        gate.wait()
        outcomes[number] = reason(setup.guard.authorize(request))

    threads = [threading.Thread(target=fire, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == {number: Reason.PRICE_MISSING if number == 3 else "allowed" for number in range(8)}
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_fault_of_the_source_among_many_refuses_only_its_own_fire(setup):
    setup.activate(assets=("USDC", "JTO", "BONK"))
    setup.prices = BrokenFor(setup.prices, BONK.mint)
    setup.reopen()
    asked = [setup.request(1), setup.request(2, sell="BONK"), setup.request(3)]
    assert [reason(each) for each in setup.guard.authorize_many(asked)] == ["allowed", Reason.PRICE_MISSING, "allowed"]


def test_executions_are_listed_newest_first_page_by_page(setup):
    setup.activate(1)
    setup.activate(2)
    for number in range(5):
        setup.guard.authorize(setup.request(number))
    setup.guard.authorize(setup.request(9, agent=2))
    setup.guard.authorize(setup.request(7, sell="BONK"))
    first = setup.guard.executions(setup.wallet, uuid(1), count_max=4)
    assert [each.evidence.request.execution_id for each in first] == [uuid(10_000 + each) for each in (7, 4, 3, 2)]
    rest = setup.guard.executions(setup.wallet, uuid(1), before=first[-1].steps[0].entry.seq)
    assert [each.evidence.request.execution_id for each in rest] == [uuid(10_001), uuid(10_000)]
    assert list(setup.guard.executions(key(50).wallet_address, uuid(1))) == []


def test_what_has_not_ended_is_in_doubt(setup):
    setup.activate()
    authorized = [setup.guard.authorize(setup.request(number)).authorization for number in range(5)]
    setup.sign(authorized[0], "a")
    setup.sign(authorized[1], "b")
    setup.guard.mark_dead(setup.wallet, authorized[1].execution_id)
    setup.guard.void(setup.wallet, authorized[2].execution_id, Reason.RAIL_UNAVAILABLE, "")
    doubts = [(wallet, each.evidence.request.execution_id, each.state) for wallet, each in setup.guard.in_doubt()]
    assert doubts == [
        (setup.wallet, uuid(10_004), "authorized"),
        (setup.wallet, uuid(10_003), "authorized"),
        (setup.wallet, uuid(10_000), "signed"),
    ]
    for number in (3, 4):
        setup.guard.void(setup.wallet, authorized[number].execution_id, Reason.RAIL_UNAVAILABLE, "")
    setup.guard.mark_failed(setup.wallet, authorized[0].execution_id, "")
    assert list(setup.guard.in_doubt()) == []


def test_a_change_that_raises_after_it_wrote_takes_nobody_with_it(setup):
    setup.activate()

    def half(transaction):
        transaction.append(Kind.STOPPED, uuid(1), {})
        raise LedgerError("after the write")

    outcomes = setup.guard.ledger.change_many(
        [(setup.wallet, work, None) for work in (half, lambda wallet: wallet.head.seq, half)]
    )
    assert [str(each) for each in outcomes] == ["after the write", "2", "after the write"]
    assert setup.guard.headroom(setup.wallet).active_agents.used == 1
