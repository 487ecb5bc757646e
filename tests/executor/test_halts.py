"""Halts, on each database: what they hold, who lifts them, and that they give nothing back."""

import pytest

from executor.assets import KnownAssets
from executor.audit import check_ledger
from executor.decide import Refused
from executor.errors import ClockUntrusted
from executor.guard import Guard
from executor.halts import EVERYTHING, Halter, Scope
from executor.ledger import clock
from executor.ledger.store import _Change
from executor.reasons import Reason
from tests.support import HOUR_MS, JTO, USDC, Setup, key, uuid

USER, OPERATOR = Halter.USER, Halter.OPERATOR


@pytest.fixture(autouse=True)
def nothing_to_find(setup):
    yield
    assert check_ledger(setup.guard.ledger).findings == ()


@pytest.fixture
def theirs(setup):
    """Another user of the same guard."""
    made = Setup.__new__(Setup)
    made.__dict__ = {**setup.__dict__, "signer": key(77), "wallet": key(77).wallet_address}
    made.activate(1, session=9)
    return made


def outcomes(*requests):
    """Return for each (setup, request) the reason of its refusal, or `allowed`."""
    answers = [setup.guard.authorize(request) for setup, request in requests]
    return [each.reason if isinstance(each, Refused) else each.outcome for each in answers]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (lambda setup: Scope(setup.wallet, uuid(1)), ["HALTED", "allowed", "allowed"]),
        (lambda setup: Scope(setup.wallet), ["HALTED", "HALTED", "allowed"]),
        (lambda _: EVERYTHING, ["HALTED", "HALTED", "HALTED"]),
    ],
    ids=["agent", "wallet", "everything"],
)
def test_a_halt_holds_its_scope_until_it_is_lifted(setup, theirs, scope, expected):
    setup.activate(1)
    setup.activate(2)
    setup.guard.halt(scope(setup), OPERATOR, "prices look wrong")
    fires = [(setup, setup.request(1)), (setup, setup.request(2, agent=2)), (theirs, theirs.request(3))]
    assert outcomes(*fires) == expected
    assert setup.guard.lift(scope(setup), OPERATOR) is True
    again = [(setup, setup.request(4)), (setup, setup.request(5, agent=2)), (theirs, theirs.request(6))]
    assert outcomes(*again) == ["allowed"] * 3


def test_a_refusal_tells_who_halted_and_why(setup):
    setup.activate()
    setup.guard.halt(Scope(setup.wallet), USER, "on holiday")
    setup.guard.halt(EVERYTHING, OPERATOR, "maintenance")
    refused = setup.guard.authorize(setup.request(1))
    assert [check.actual for check in refused.checks] == [
        "everything, by the operator: maintenance",
        "the wallet, by the user: on holiday",
    ]


def test_a_halt_is_lifted_only_by_who_set_it(setup):
    setup.activate()
    setup.guard.halt(Scope(setup.wallet), USER, "mine")
    setup.guard.halt(Scope(setup.wallet), OPERATOR, "theirs")
    assert setup.guard.lift(Scope(setup.wallet), OPERATOR) is True
    assert setup.guard.lift(Scope(setup.wallet), OPERATOR) is False
    assert outcomes((setup, setup.request(1))) == ["HALTED"]
    assert setup.guard.lift(Scope(setup.wallet), USER) is True
    assert outcomes((setup, setup.request(2))) == ["allowed"]


def test_lifting_one_scope_leaves_the_others(setup):
    setup.activate()
    for scope in (EVERYTHING, Scope(setup.wallet), Scope(setup.wallet, uuid(1))):
        setup.guard.halt(scope, OPERATOR, "all")
    assert setup.guard.lift(Scope(setup.wallet), OPERATOR)
    assert [halt.scope for halt in setup.guard.halts(setup.wallet)] == [EVERYTHING, Scope(setup.wallet, uuid(1))]
    assert [halt.scope for halt in setup.guard.halts()] == [EVERYTHING]


def test_a_halt_again_is_one_halt_with_the_newest_reason(setup):
    for why in ("first", "second"):
        setup.guard.halt(EVERYTHING, OPERATOR, why)
    assert [halt.why for halt in setup.guard.halts()] == ["second"]


def test_nothing_is_activated_under_a_halt(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    setup.guard.halt(EVERYTHING, OPERATOR, "maintenance")
    assert setup.guard.activate(setup.permit()).reason is Reason.HALTED


def test_what_was_authorized_before_a_halt_is_not_signed_under_it(setup):
    setup.activate()
    first, second = (setup.guard.authorize(setup.request(number)).authorization for number in (1, 2))
    setup.sign(second, "may land")
    assert setup.guard.halt(Scope(setup.wallet, uuid(1)), USER, "stop it") == ["may land"]
    assert setup.sign(first).reason is Reason.HALTED


def test_lifting_restores_nothing_that_expired(setup):
    setup.activate()
    setup.guard.halt(EVERYTHING, OPERATOR, "maintenance")
    setup.now_ms += HOUR_MS
    setup.guard.lift(EVERYTHING, OPERATOR)
    assert outcomes((setup, setup.request(1))) == ["PERMIT_EXPIRED"]


def test_halts_survive_a_restart(setup):
    setup.activate()
    setup.guard.halt(EVERYTHING, OPERATOR, "maintenance")
    setup.guard.halt(Scope(setup.wallet, uuid(1)), USER, "mine")
    setup.reopen()
    assert len(setup.guard.halts(setup.wallet)) == 2
    assert outcomes((setup, setup.request(1))) == ["HALTED"]


def test_a_wallet_nobody_has_seen_can_be_halted(setup):
    setup.guard.halt(Scope(setup.wallet), USER, "not yet")
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    assert setup.guard.activate(setup.permit()).reason is Reason.HALTED


@pytest.mark.parametrize(
    "scope", [Scope(None, uuid(1)), Scope("*"), Scope("x"), Scope(""), Scope(key(1).wallet_address, "x")]
)
def test_a_scope_that_is_none_halts_nobody(setup, scope):
    setup.activate()
    for call in (lambda: setup.guard.halt(scope, OPERATOR, "why"), lambda: setup.guard.lift(scope, OPERATOR)):
        with pytest.raises(ValueError, match=r"a halt is of|an agent's id"):
            call()
    assert outcomes((setup, setup.request(1))) == ["allowed"]


@pytest.mark.parametrize("why", ["", "x" * 201])
def test_a_halt_says_why_in_a_line(setup, why):
    with pytest.raises(ValueError, match="why"):
        setup.guard.halt(EVERYTHING, OPERATOR, why)
    assert list(setup.guard.halts()) == []


def scopes(setup):
    return [EVERYTHING, Scope(setup.wallet), Scope(setup.wallet, uuid(1))]


@pytest.mark.parametrize("number", range(3), ids=["everything", "wallet", "agent"])
def test_a_halt_is_made_after_one_that_a_wrong_clock_dated_tomorrow(setup, number):
    setup.activate()
    scope = scopes(setup)[number]
    setup.now_ms += 24 * HOUR_MS
    setup.guard.halt(scope, OPERATOR, "a drill")
    setup.guard.lift(scope, OPERATOR)
    tomorrow_ms = setup.now_ms
    setup.now_ms -= 24 * HOUR_MS
    if scope == EVERYTHING:  # a wallet's own chain would refuse to fire, too
        assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    setup.guard.halt(scope, OPERATOR, "a drill")
    assert [halt.at_ms for halt in setup.guard.halts(scope.wallet)] == [tomorrow_ms]
    refused = setup.guard.authorize(setup.request(2)).reason
    assert refused is (Reason.HALTED if scope == EVERYTHING else Reason.CLOCK_UNTRUSTED)
    with pytest.raises(ClockUntrusted):  # that gives authority back
        setup.guard.lift(scope, OPERATOR)
    setup.now_ms += 24 * HOUR_MS
    assert setup.guard.authorize(setup.request(3)).reason is Reason.HALTED
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_halt_is_made_while_the_hosts_clock_is_not_believed(setup, monkeypatch):
    """The clock of the process was set, or is that of another host than the database's."""
    setup.activate()
    setup.guard.close()
    assets = KnownAssets([USDC, JTO])
    with Guard.open(setup.path, seal_keys=setup.seal_keys, prices=setup.prices, assets=assets) as guard:
        real = clock._wall_ms
        monkeypatch.setattr(clock, "_wall_ms", lambda: real() + 3_000)
        assert guard.authorize(setup.request(1)).reason is Reason.CLOCK_UNTRUSTED
        for scope in scopes(setup):
            guard.halt(scope, OPERATOR, "a drill")
    setup.guard = setup.open()
    assert {halt.scope for halt in setup.guard.halts(setup.wallet)} == set(scopes(setup))
    assert setup.guard.authorize(setup.request(1)).reason is Reason.HALTED
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_change_that_rides_with_such_a_halt_still_needs_the_time(setup):
    """Both are made in one transaction, of which only the halt is made at a time that nobody knows."""
    setup.activate()
    setup.now_ms -= 10_000
    ledger = setup.guard.ledger
    told = []

    def fire(transaction):
        told.append(transaction.now_ms)

    changes = [
        _Change(setup.wallet, lambda transaction: transaction.now_ms, any_clock=True),
        _Change(setup.wallet, fire),
        _Change(key(99).wallet_address, lambda transaction: transaction.now_ms, create=True),
    ]
    ledger._make(changes)
    assert changes[0].result() == setup.now_ms + 10_000
    with pytest.raises(ClockUntrusted):
        changes[1].result()
    assert changes[2].result() == setup.now_ms
    assert told == []
