"""Limits that are changed on purpose, on each database: from one moment on, everywhere, and provably."""

import threading
import time

import pytest
from sqlalchemy import text

from executor.audit import check_ledger
from executor.decide import Refused
from executor.entries import Kind
from executor.errors import LedgerError, LedgerTampered
from executor.halts import EVERYTHING, Halter
from executor.ledger import EVERYBODY
from executor.limits import CLOCK_SKEW_MS, Limits
from executor.reasons import Reason
from tests.support import HOUR_MS, Setup, until

DAY_MS = 24 * HOUR_MS
CAP = Reason.EXECUTIONS_OVER_CAP


@pytest.fixture(autouse=True)
def nothing_to_find(setup):
    yield
    assert check_ledger(setup.guard.ledger).findings == ()


def reason(outcome):
    return outcome.reason if isinstance(outcome, Refused) else outcome.outcome


def fire(setup, *executions):
    return [reason(setup.guard.authorize(setup.request(number))) for number in executions]


def test_they_hold_from_then_on_and_are_told_on_everybodys_chain(setup):
    setup.activate()
    assert fire(setup, 1) == ["allowed"]
    setup.guard.change_limits(Limits(executions_per_24h=1))
    assert setup.guard.ledger.limits == Limits(executions_per_24h=1)
    assert fire(setup, 1, 2) == ["allowed", CAP]
    held = [each.evidence.limits for each in setup.guard.executions(setup.wallet, setup.request().agent_id)]
    assert held == [Limits(executions_per_24h=1), Limits()]
    (changed,) = setup.guard.entries(EVERYBODY)
    assert (changed.entry.kind, changed.entry.body["new"]["executionsPer24H"]) == (Kind.LIMITS_CHANGED, 1)
    setup.guard.change_limits(Limits(executions_per_24h=1))
    assert len(setup.guard.entries(EVERYBODY)) == 1


def test_the_ledger_opens_with_what_holds_and_not_with_what_held(setup):
    setup.guard.change_limits(Limits(active_agents=21))
    setup.reopen()
    assert setup.guard.ledger.limits == Limits(active_agents=21)
    setup.limits = Limits(active_agents=21)
    setup.reopen()
    setup.limits = Limits()
    setup.guard.close()
    with pytest.raises(LedgerError, match="other limits"):
        setup.open()
    setup.limits = None
    setup.guard = setup.open()


def test_the_window_stays_exact_when_the_cap_rises_and_falls(setup):
    setup.activate(lifetime_s=10 * 86_400)
    setup.guard.change_limits(Limits(executions_per_24h=3))
    start = setup.now_ms
    for number in range(3):
        setup.now_ms = start + number * HOUR_MS
        assert fire(setup, number) == ["allowed"]
    assert fire(setup, 3) == [CAP]
    setup.guard.change_limits(Limits(executions_per_24h=5))
    for number in (4, 5):
        setup.now_ms = start + number * HOUR_MS
        assert fire(setup, number) == ["allowed"]
    assert fire(setup, 6) == [CAP]
    setup.guard.change_limits(Limits(executions_per_24h=2))
    refused = setup.guard.authorize(setup.request(7))
    assert refused.retry_at_ms == start + 4 * HOUR_MS + DAY_MS + CLOCK_SKEW_MS
    left = setup.guard.headroom(setup.wallet)
    assert (left.executions.used, left.executions.left, left.next_slot_at_ms) == (5, 0, refused.retry_at_ms)
    setup.now_ms = refused.retry_at_ms - 1
    assert fire(setup, 8) == [CAP]
    setup.now_ms += 1
    assert fire(setup, 9, 10) == ["allowed", CAP]


def test_storage_itself_keeps_the_new_cap(setup):
    setup.activate()
    assert fire(setup, 1) == ["allowed"]
    setup.guard.change_limits(Limits(executions_per_24h=1))

    def past_the_guard(transaction):
        transaction.append(Kind.AUTHORIZED, None, {"evidence": {"request": {}}}, attempt=2, execution_id="x")

    with pytest.raises(LedgerTampered, match="use up the cap"):
        setup.guard.ledger.change(setup.wallet, past_the_guard)


def test_what_was_authorized_before_is_signed_under_what_holds_now(setup):
    setup.activate()
    authorized = [setup.guard.authorize(setup.request(number)).authorization for number in range(4)]
    setup.guard.change_limits(Limits(authorization_ttl_s=600))
    setup.guard.check(authorized[0])
    assert setup.sign(authorized[0], "a") is None
    setup.now_ms += 30_000
    setup.guard.change_limits(Limits(authorization_ttl_s=31))
    assert setup.sign(authorized[1], "b") is None
    setup.now_ms += 1_000
    assert setup.sign(authorized[2], "c").reason is Reason.AUTHORIZATION_EXPIRED
    setup.guard.change_limits(Limits(authorization_ttl_s=600))
    setup.now_ms += 29_000
    assert setup.sign(authorized[3], "d").reason is Reason.AUTHORIZATION_EXPIRED  # 60 s is what it was given


def test_a_lowered_cap_lets_only_as_many_be_signed(setup):
    setup.activate()
    authorized = [setup.guard.authorize(setup.request(number)).authorization for number in range(3)]
    setup.guard.change_limits(Limits(executions_per_24h=2))
    assert [setup.sign(each, each.execution_id) is None for each in authorized] == [True, True, False]


def test_an_interval_counts_from_fires_before_it_was_asked_for(setup):
    setup.activate()
    assert fire(setup, 1) == ["allowed"]
    setup.guard.change_limits(Limits(min_interval_ms=10_000))
    setup.now_ms += 9_999
    assert fire(setup, 2) == [Reason.INTERVAL_TOO_SHORT]
    setup.now_ms += 1
    assert fire(setup, 3) == ["allowed"]


def test_a_day_is_worth_what_it_was_before_anybody_asked(setup):
    setup.activate()
    assert fire(setup, 1, 2) == ["allowed"] * 2
    setup.guard.change_limits(Limits(notional_micro_usd_per_24h=250 * 10**6))
    assert fire(setup, 3) == [Reason.NOTIONAL_OVER_CAP]


def test_limits_past_their_rules_change_nothing(setup):
    for wrong in ({"executions_per_24h": 0}, {"executions_per_24h": 2**53}, {"expiry_margin_s": 10**9}):
        with pytest.raises(ValueError, match="Limits"):
            setup.guard.change_limits(Limits().model_copy(update=wrong))
    assert setup.guard.ledger.limits == Limits()


def test_what_concerns_everybody_rides_with_fires_that_it_concerns(setup):
    """A halt of everything and fires in one transaction: the fires see it, and nobody calls that tampering."""
    setup.activate()
    guard, ledger = setup.guard, setup.guard.ledger
    waiting = [(EVERYBODY, lambda everybody: everybody.change_limits(Limits(executions_per_24h=1)), None)]
    waiting += [(setup.wallet, setup.authorizing(number), None) for number in (1, 2)]
    assert [reason(each) for each in ledger.change_many(waiting)[1:]] == ["allowed", CAP]
    halting = threading.Thread(target=guard.halt, args=(EVERYTHING, Halter.OPERATOR, "stop"))
    entered, go_on = threading.Event(), threading.Event()

    def hold_the_queue(_transaction):
        entered.set()
        go_on.wait(30)

    holding = threading.Thread(target=ledger.change, args=(setup.wallet, hold_the_queue))
    holding.start()
    assert entered.wait(30)
    halting.start()
    firing = threading.Thread(target=guard.authorize, args=(setup.request(3),))
    firing.start()
    until(lambda: ledger._turns._writing + len(ledger._turns) == 3)
    go_on.set()
    for each in (holding, halting, firing):
        each.join(30)
    assert guard.execution(setup.wallet, setup.request(3).execution_id).decision.reason in {Reason.HALTED, CAP}


def test_after_the_change_nobody_is_authorized_by_the_old(setup):
    """Threads fire, on PostgreSQL through two ledgers, while the cap falls to one that is used up."""
    setup.activate()
    others = Setup.__new__(Setup)
    others.__dict__ = dict(setup.__dict__)
    both = [setup.guard] if setup.guard.ledger.engine.name == "sqlite" else [setup.guard, others.open()]
    stop, granted = threading.Event(), []

    def fire_on(guard, thread):
        number = 1_000 * thread
        while not stop.is_set():
            number += 1
            began = time.monotonic()
            granted.append((began, reason(guard.authorize(setup.request(number)))))

    threads = [threading.Thread(target=fire_on, args=(both[each % len(both)], each + 1)) for each in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: granted)
    setup.guard.change_limits(Limits(executions_per_24h=1))
    changed = time.monotonic()
    until(lambda: sum(began > changed for began, _ in list(granted)) >= len(threads))
    stop.set()
    for thread in threads:
        thread.join(30)
    assert {outcome for began, outcome in granted if began > changed} == {CAP}
    assert {outcome for _, outcome in granted} == {"allowed", CAP}
    decided = setup.guard.executions(setup.wallet, setup.request().agent_id, count_max=10_000)
    held = [each.evidence.limits.executions_per_24h for each in decided]
    assert held == sorted(held)  # newest first: all by the new, then all by the old
    for guard in both[1:]:
        guard.close()


def test_a_cap_in_storage_that_is_another_is_found(setup):
    with setup.guard.ledger.engine.begin() as connection:
        connection.execute(text("UPDATE ledger SET executions_per_24h = 7"))
    (finding,) = check_ledger(setup.guard.ledger).findings
    assert "another cap" in finding
    with setup.guard.ledger.engine.begin() as connection:
        connection.execute(text("UPDATE ledger SET executions_per_24h = 500"))


def test_of_many_that_make_a_ledger_at_once_one_does(postgres_ledger):
    together, ids = threading.Barrier(4), []

    def make():
        together.wait(30)
        made = Setup(postgres_ledger)
        ids.append(made.guard.ledger.id)
        made.guard.close()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ids) == 4
    assert len(set(ids)) == 1
