"""Halts, on each database: what they hold, who lifts them, and that they give nothing back."""

import pytest

from executor.audit import check_ledger
from executor.decide import Refused
from executor.halts import EVERYTHING, Halter, Scope
from executor.reasons import Reason
from tests.support import HOUR_MS, Setup, key, uuid

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
