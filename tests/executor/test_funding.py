"""Fundings on each database: two rolling caps, each exact, one list, and the way of every attempt."""

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from executor.audit import check_ledger
from executor.cli import main
from executor.errors import IllegalTransition
from executor.events import event_of
from executor.funding import FundingAuthorization, FundingRequest
from executor.halts import EVERYTHING, Halter
from executor.ledger import TREASURY
from executor.lifecycle import AttemptState
from executor.limits import Limits
from executor.reasons import Reason
from tests.support import HOUR_MS, key, uuid

CAPS = Limits(autofund_lamports_per_24h=1_000, autofund_lamports_per_24h_in_all=1_500)


@pytest.fixture
def funded(setup):
    """Return a user whose agent is active, and whose wallet the operator funds."""
    setup.guard.change_limits(CAPS)
    setup.limits = CAPS
    setup.activate()
    setup.guard.set_fundable(setup.wallet, fundable=True)
    yield setup
    assert check_ledger(setup.guard.ledger).findings == ()


def request(setup, number=1, lamports=100, **fields):
    made = {"wallet": setup.wallet, "agent_id": uuid(1), "execution_id": uuid(20_000 + number), "lamports": lamports}
    return FundingRequest(**{**made, **fields})


def authorize(setup, *arguments, **fields):
    return setup.guard.authorize_funding(request(setup, *arguments, **fields))


@pytest.mark.parametrize("lamports", [0, -1, 1.5, 2**64, "1.0", True, None, float("nan")])
def test_only_whole_lamports_are_asked_for(sqlite_setup, lamports):
    with pytest.raises(ValidationError):
        request(sqlite_setup, lamports=lamports)


def test_a_subclass_is_not_believed(funded):
    class Mine(FundingRequest):
        pass

    with pytest.raises(TypeError):
        funded.guard.authorize_funding(Mine(**dict(request(funded))))


def test_a_funding_goes_from_its_authorization_to_its_end(funded):
    authorization = authorize(funded).authorization
    assert authorization.session_pubkey == key(1).wallet_address
    assert (authorization.lamports, authorization.expires_at_ms) == (100, funded.now_ms + 60_000)
    assert [each.state for _, each in funded.guard.in_doubt()] == [AttemptState.AUTHORIZED]
    assert funded.sign(authorization) is None
    assert [each.state for _, each in funded.guard.in_doubt()] == [AttemptState.SIGNED]
    funded.guard.mark_funded(funded.wallet, authorization.execution_id, slot=7, fee_lamports=5_000)
    assert list(funded.guard.in_doubt()) == []
    assert funded.guard.execution(funded.wallet, authorization.execution_id).state is AttemptState.LANDED


def test_whoever_asked_first_holds_the_authorization_and_nobody_sees_the_claim(funded):
    first, second = authorize(funded), authorize(funded)
    assert isinstance(first.authorization, FundingAuthorization)
    assert second.authorization is None
    assert first.authorization.claim not in repr(first)
    assert authorize(funded, lamports=101).reason is Reason.EXECUTION_CONFLICT
    assert funded.guard.headroom(funded.wallet).autofund_lamports == (100, 1_000)


@pytest.mark.parametrize(
    "change", [{"lamports": 101}, {"session_pubkey": key(9).wallet_address}, {"claim": "00" * 16}, {"expires_at_ms": 0}]
)
def test_an_authorization_that_was_changed_signs_nothing(funded, change):
    authorization = authorize(funded).authorization
    with pytest.raises(IllegalTransition):
        funded.sign(authorization._replace(**change))
    assert funded.sign(authorization) is None


def test_the_steps_of_trades_and_fundings_are_not_each_others(funded):
    trade, funding = funded.guard.authorize(funded.request(1)).authorization, authorize(funded).authorization
    with pytest.raises(IllegalTransition):
        funded.sign(funding._replace(execution_id=trade.execution_id, claim=trade.claim))
    with pytest.raises(IllegalTransition):
        funded.sign(trade._replace(execution_id=funding.execution_id, claim=funding.claim))
    funded.sign(trade, "trade")
    funded.sign(funding, "funding")
    with pytest.raises(IllegalTransition):
        funded.guard.mark_funded(funded.wallet, trade.execution_id, slot=7, fee_lamports=5_000)


def test_a_refused_funding_leaves_nothing_and_may_be_asked_again(funded):
    funded.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
    before = funded.guard.entries(funded.wallet)
    assert authorize(funded).reason is Reason.HALTED
    assert funded.guard.entries(funded.wallet) == before
    assert funded.guard.lift(EVERYTHING, Halter.OPERATOR)
    assert authorize(funded).authorization is not None


def test_fundings_use_up_no_execution_and_tell_no_client(funded):
    for number in range(3):
        funded.sign(authorize(funded, number).authorization, f"signature {number}")
    funded.guard.mark_failed(funded.wallet, uuid(20_000), "no rent")
    funded.guard.mark_dead(funded.wallet, uuid(20_001))
    headroom = funded.guard.headroom(funded.wallet)
    assert (headroom.executions.used, headroom.autofund_lamports.used) == (0, 300)
    assert funded.guard.events(funded.wallet) == []
    assert all(event_of(each.entry) is None for each in funded.guard.entries(TREASURY))
    assert funded.guard.executions(funded.wallet, uuid(1)) == []


def test_nothing_is_credited_back_within_the_24_hours(funded):
    authorization = authorize(funded, 1, 1_000).authorization
    funded.guard.void(funded.wallet, authorization.execution_id, Reason.RAIL_UNAVAILABLE, "no funds")
    refused = authorize(funded, 2, 1)
    assert (refused.reason, refused.retry_at_ms) == (Reason.FUNDING_OVER_CAP, funded.now_ms + 24 * HOUR_MS + 1_000)


def test_a_restart_forgets_nothing(funded):
    authorize(funded, 1, 1_000)
    funded.reopen()
    assert authorize(funded, 2, 1).reason is Reason.FUNDING_OVER_CAP


DAMAGE = {
    "the count for all is gone": ("DELETE FROM entries WHERE wallet = '$'", "DELETE FROM heads WHERE wallet = '$'"),
    "the user's count is gone": ("DELETE FROM entries WHERE wallet <> '$' AND funding = 1",),
    "the list was widened": ("UPDATE heads SET content = CAST(content AS BLOB) || x'20' WHERE wallet = '$'",),
}


@pytest.mark.parametrize("statements", DAMAGE.values(), ids=DAMAGE)
def test_a_count_that_somebody_took_away_is_found(sqlite_setup, statements):
    setup = sqlite_setup
    setup.guard.change_limits(CAPS)
    setup.limits = CAPS
    setup.activate()
    setup.guard.set_fundable(setup.wallet, fundable=True)
    authorize(setup)
    with setup.guard.ledger.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER entries_refuse_delete"))
        for statement in statements:
            connection.execute(text(statement))
    assert check_ledger(setup.guard.ledger).findings != ()
    if len(statements) == 1:
        assert authorize(setup, 2).reason is Reason.LEDGER_TAMPERED


def test_the_operator_names_wallets_by_command(setup, tmp_path, capsys):
    setup.guard.ledger.change_limits(CAPS)
    setup.guard.close()
    seal_key = tmp_path / "seal.key"
    seal_key.write_text((b"s" * 32).hex())
    where = ["--db", str(setup.path), "--seal-key", str(seal_key)]
    assert main(["funding", "allow", setup.wallet, *where]) == 0
    assert main(["funding", "allow", setup.wallet, *where]) == 0
    assert capsys.readouterr().out == "as it was\n"
    assert main(["status", *where]) == 0
    assert "SOL given in 24 h   0 of 0.000001 " in capsys.readouterr().out
    assert main(["funding", "deny", setup.wallet, *where]) == 0
    assert main(["status", *where]) == 0
    assert "lamports" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["funding", "allow", "nobody", *where])
    setup.limits = CAPS
    setup.guard = setup.open()
