"""What becomes of an agent, on each database: stopped, started anew, completed, revoked, and told of."""

import pytest

from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.decide import Refused
from executor.errors import IllegalTransition
from executor.lifecycle import AgentState
from executor.reasons import Reason
from permits import PermitError, Revocation, revoke, timestamp
from tests.support import HOUR_MS, Setup, key, uuid


def reason(outcome):
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


def revocation(setup, nonce, signer=None):
    document = Revocation.from_json_object({"nonce": nonce, "revokedAt": timestamp(setup.now_ms)})
    return revoke(document, signer or setup.signer)


def state(setup, agent=1):
    return setup.guard.agent(setup.wallet, uuid(agent)).state


@pytest.fixture(autouse=True)
def nothing_to_find(setup):
    yield
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_stopped_agent_does_not_fire(setup):
    setup.activate()
    assert setup.guard.stop(setup.wallet, uuid(1)) == []
    assert state(setup) is AgentState.STOPPED
    assert reason(setup.guard.authorize(setup.request(1))) is Reason.AGENT_STOPPED
    assert setup.guard.headroom(setup.wallet).active_agents.used == 0


def test_a_stop_hands_back_the_signatures_that_may_still_land(setup):
    setup.activate()
    open_, landed = (setup.guard.authorize(setup.request(number)).authorization for number in (1, 2))
    setup.sign(open_, "open")
    setup.sign(landed, "landed")
    setup.guard.mark_failed(setup.wallet, landed.execution_id, "")
    setup.guard.authorize(setup.request(3))
    assert setup.guard.stop(setup.wallet, uuid(1)) == ["open"]


def test_what_was_authorized_before_a_stop_is_not_signed_after_it(setup):
    setup.activate()
    authorization = setup.guard.authorize(setup.request(1)).authorization
    setup.guard.stop(setup.wallet, uuid(1))
    assert setup.sign(authorization).reason is Reason.AGENT_STOPPED
    assert setup.guard.execution(setup.wallet, authorization.execution_id).state == "voided"


def test_only_a_permit_signed_after_the_stop_starts_the_agent_again_with_any_scope(setup):
    setup.activate()
    before = setup.permit(usd=1)
    setup.now_ms += 1_000
    setup.guard.stop(setup.wallet, uuid(1))
    assert reason(setup.guard.activate(before)) is Reason.PERMIT_NOT_NEWER
    assert reason(setup.guard.activate(setup.permit(usd=1))) is Reason.PERMIT_NOT_NEWER
    setup.now_ms += 1_000
    bounds = setup.guard.activate(setup.permit(usd=1, assets=("JTO", "BONK")))
    assert isinstance(bounds, Bounds)
    assert (state(setup), bounds.terms.asset_whitelist) == (AgentState.ACTIVE, ("JTO", "BONK"))


def test_a_session_key_stays_the_agents_own_for_ever(setup):
    setup.activate()
    setup.guard.stop(setup.wallet, uuid(1))
    setup.now_ms += 1_000
    assert reason(setup.guard.activate(setup.permit(session=9))) is Reason.SESSION_KEY_NOT_RESERVED
    with pytest.raises(IllegalTransition):
        setup.guard.reserve_session_key(setup.wallet, uuid(1), key(9).wallet_address)


def test_a_completed_agent_is_over_for_ever(setup):
    setup.activate()
    setup.guard.complete(setup.wallet, uuid(1), "target reached")
    assert reason(setup.guard.authorize(setup.request(1))) is Reason.AGENT_COMPLETED
    setup.now_ms += 1_000
    assert reason(setup.guard.activate(setup.permit())) is Reason.AGENT_COMPLETED
    with pytest.raises(IllegalTransition):
        setup.guard.stop(setup.wallet, uuid(1))


def test_an_agent_without_a_permit_can_be_completed_but_not_stopped(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    with pytest.raises(IllegalTransition):
        setup.guard.stop(setup.wallet, uuid(1))
    setup.guard.complete(setup.wallet, uuid(1), "not needed")
    assert state(setup) is AgentState.COMPLETED


@pytest.mark.parametrize("end", ["stop", "complete", "arm_trigger", "set_next_run"])
def test_an_agent_that_is_none_has_no_steps(setup, end):
    setup.activate()
    more = {"complete": ["done"], "arm_trigger": ["SOL < 100"], "set_next_run": [None]}.get(end, [])
    with pytest.raises(IllegalTransition):
        getattr(setup.guard, end)(setup.wallet, uuid(2), *more)


def test_a_revoked_permit_never_comes_into_force(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    signed = setup.permit(nonce="ab" * 16)
    assert setup.guard.revoke(revocation(setup, "ab" * 16)) is True
    assert setup.guard.revoke(revocation(setup, "ab" * 16)) is False
    assert reason(setup.guard.activate(signed)) is Reason.NONCE_SPENT


def test_revoking_the_permit_in_force_stops_its_agent(setup):
    setup.activate(nonce="ab" * 16)
    setup.activate(2)
    assert setup.guard.revoke(revocation(setup, "ab" * 16)) is True
    assert (state(setup, 1), state(setup, 2)) == (AgentState.STOPPED, AgentState.ACTIVE)
    (_, told) = setup.guard.events(setup.wallet)[-1]
    assert (told.name, told.data["terminalReason"]) == ("completed", "revoked")


def test_only_the_wallet_itself_revokes(setup):
    setup.activate(nonce="ab" * 16)
    assert setup.guard.revoke(revocation(setup, "ab" * 16, signer=key(5))) is True
    assert state(setup) is AgentState.ACTIVE
    forged = revocation(setup, "ab" * 16).to_json_object() | {"walletAddress": key(5).wallet_address}
    with pytest.raises(PermitError):
        setup.guard.revoke(str(forged).replace("'", '"').encode())


def test_events_tell_of_agents_each_with_an_id_of_its_own(setup):
    setup.activate()
    setup.guard.arm_trigger(setup.wallet, uuid(1), "SOL < 100")
    setup.guard.set_next_run(setup.wallet, uuid(1), setup.now_ms + HOUR_MS)
    setup.guard.set_next_run(setup.wallet, uuid(1), None)
    setup.guard.complete(setup.wallet, uuid(1), "target reached")
    events = [event for _, event in setup.guard.events(setup.wallet)]
    ids = [event.data.pop("executionId") for event in events]
    assert len(set(ids)) == 4
    assert [(event.name, event.data) for event in events] == [
        ("trigger_armed", {"agentId": uuid(1), "condition": "SOL < 100"}),
        ("next_run_changed", {"agentId": uuid(1), "nextRunAt": timestamp(setup.now_ms + HOUR_MS)}),
        ("next_run_changed", {"agentId": uuid(1), "nextRunAt": None}),
        ("completed", {"agentId": uuid(1), "terminalReason": "target reached"}),
    ]


def test_agents_are_listed_as_they_were_reserved(setup):
    for number in (3, 1):
        setup.activate(number)
    setup.guard.reserve_session_key(setup.wallet, uuid(2), key(2).wallet_address)
    listed = [(each.agent_id, each.state) for each in setup.guard.agents(setup.wallet)]
    assert listed == [(uuid(3), "active"), (uuid(1), "active"), (uuid(2), "reserved")]
    assert list(setup.guard.agents(key(50).wallet_address)) == []


def test_an_expired_agent_frees_its_place_and_resumes_with_a_new_permit(setup):
    setup.activate()
    setup.now_ms += HOUR_MS
    assert reason(setup.guard.authorize(setup.request(1))) is Reason.PERMIT_EXPIRED
    assert (state(setup), reason(setup.guard.authorize(setup.request(2)))) == (AgentState.PAUSED, Reason.AGENT_PAUSED)
    assert isinstance(setup.guard.activate(setup.permit()), Bounds)
    assert setup.guard.authorize(setup.request(3)).outcome == "allowed"


def test_another_wallets_stop_reaches_nobody(setup):
    setup.activate()
    theirs = Setup.__new__(Setup)
    theirs.__dict__ = {**setup.__dict__, "signer": key(77), "wallet": key(77).wallet_address}
    theirs.activate(1, session=9)
    setup.guard.stop(theirs.wallet, uuid(1))
    assert state(setup) is AgentState.ACTIVE
