"""The guard over a real SQLite file, with a clock that stands still."""

import copy
import sqlite3
import threading
from dataclasses import replace

import pytest
from pydantic import ValidationError

from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.decide import Allowed, Refused
from executor.entries import Kind
from executor.errors import IllegalTransition, LedgerTampered
from executor.evidence import replay
from executor.fill import Landing
from executor.lifecycle import AgentState, AttemptState
from executor.limits import CLOCK_SKEW_MS, Limits
from executor.reasons import Reason
from executor.request import FireRequest
from permits import ENVELOPES, Permit, PermitError, issue
from tests.support import HOUR_MS, JTO, USDC, Setup, as_json, key, uuid

DAY_MS = 24 * HOUR_MS


def reason(decision):
    return decision.reason if isinstance(decision, Refused) else None


def sign(setup, authorization, signature="5" * 87):
    return setup.guard.mark_signed(
        authorization, tx_signature=signature, transaction_bytes=b"\1", last_valid_block_height=150
    )


def state(setup, request):
    return setup.guard.execution(setup.wallet, request.execution_id).state


# Activation


def test_no_activation_without_a_reservation(setup):
    assert reason(setup.guard.activate(setup.permit())) is Reason.SESSION_KEY_NOT_RESERVED
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    assert reason(setup.guard.activate(setup.permit(2, session=1))) is Reason.SESSION_KEY_NOT_RESERVED
    assert isinstance(setup.guard.activate(setup.permit()), Bounds)


def test_an_agent_keeps_one_session_key_and_a_key_one_agent(setup):
    for _ in range(2):
        setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    with pytest.raises(IllegalTransition):
        setup.guard.reserve_session_key(setup.wallet, uuid(1), key(2).wallet_address)
    with pytest.raises(IllegalTransition):
        setup.guard.reserve_session_key(setup.wallet, uuid(2), key(1).wallet_address)
    assert setup.guard.agent(setup.wallet, uuid(1)).state is AgentState.RESERVED
    assert setup.guard.agent(setup.wallet, uuid(2)) is None


@pytest.mark.parametrize("agent_id", ["", "Not A Uuid", uuid(0xABCDEF).upper(), uuid(1) + "\n"])
def test_an_agent_id_that_no_permit_could_name_is_refused(setup, agent_id):
    with pytest.raises(ValueError, match="UUID"):
        setup.guard.reserve_session_key(setup.wallet, agent_id, key(1).wallet_address)


@pytest.mark.parametrize("address", ["", "x", "0" * 44, key(1).wallet_address + " "])
def test_an_address_that_is_none_is_refused(setup, address):
    with pytest.raises(ValueError, match="base58"):
        setup.guard.reserve_session_key(setup.wallet, uuid(1), address)
    assert setup.guard.entries(setup.wallet) == ()


def test_a_permit_is_activated_as_the_bytes_that_came(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    signed = setup.permit()
    assert setup.guard.activate(as_json(signed.to_json_object())).terms == signed.permit


def test_a_guard_is_closed_at_the_end_of_its_block(setup):
    setup.guard.close()
    with setup.open() as guard:
        guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    setup.guard = setup.open()  # nobody holds it any more
    assert setup.guard.agent(setup.wallet, uuid(1)).state is AgentState.RESERVED


def test_a_forged_permit_is_no_permit(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    other = setup.permit(usd=249).to_json_object()
    forged = type(setup.permit()).from_json_object({**setup.permit().to_json_object(), "signature": other["signature"]})
    with pytest.raises(PermitError):
        setup.guard.activate(forged)
    assert setup.guard.agent(setup.wallet, uuid(1)).bounds is None


def test_a_permit_that_lies_about_its_bytes_is_read_again(setup):
    """An object of a class of its own shows the narrow permit to the signature, and the wide one to the rules."""
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    signed = setup.permit(usd=1)

    class Wide(Permit):
        def canonical_bytes(self):
            return signed.permit.canonical_bytes()

    wide, lying = object.__new__(Wide), copy.copy(signed)
    vars(wide).update(vars(signed.permit), max_amount_cents=10**8)
    vars(lying)["permit"] = wide
    with pytest.raises(PermitError):
        setup.guard.activate(lying)


def test_another_users_agent_of_the_same_id_is_another_agent(setup):
    setup.activate(1)
    theirs = Setup.__new__(Setup)
    theirs.__dict__ = {**setup.__dict__, "signer": key(77), "wallet": key(77).wallet_address}
    assert reason(setup.guard.activate(theirs.permit(1))) is Reason.SESSION_KEY_NOT_RESERVED
    theirs.activate(1, session=9)
    assert setup.guard.agent(setup.wallet, uuid(1)).session_pubkey == key(1).wallet_address
    assert reason(setup.guard.authorize(setup.request(wallet=key(78).wallet_address))) is Reason.AGENT_UNKNOWN


def test_a_permit_is_activated_soon_after_it_was_signed_or_never(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    signed = setup.permit(lifetime_s=10 * 3600)
    setup.now_ms += HOUR_MS + 1
    assert reason(setup.guard.activate(signed)) is Reason.PERMIT_TOO_OLD
    setup.now_ms -= 1
    assert isinstance(setup.guard.activate(signed), Bounds)


def test_a_permit_from_the_future_waits(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    setup.now_ms += CLOCK_SKEW_MS + 1
    signed = setup.permit()
    setup.now_ms -= CLOCK_SKEW_MS + 1
    refused = setup.guard.activate(signed)
    assert refused.reason is Reason.PERMIT_NOT_YET_VALID
    assert refused.retry_at_ms == signed.permit.issued_at_ms
    setup.now_ms += 1
    assert isinstance(setup.guard.activate(signed), Bounds)


def test_an_expired_permit_is_not_activated(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    signed = setup.permit(lifetime_s=60)
    setup.now_ms += 60_000 - CLOCK_SKEW_MS
    assert reason(setup.guard.activate(signed)) is Reason.PERMIT_EXPIRED
    setup.now_ms -= 1
    assert isinstance(setup.guard.activate(signed), Bounds)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_permit_signed_by_any_wallet_is_activated(setup, envelope):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    bounds = setup.guard.activate(issue(setup.permit().permit, setup.signer, envelope=envelope))
    assert bounds.envelope == envelope


def test_a_clock_that_went_back_far_activates_nothing(setup):
    setup.activate(1)
    signed = setup.permit(1)
    setup.now_ms -= 2_001
    assert reason(setup.guard.activate(signed)) is Reason.CLOCK_UNTRUSTED


def test_a_nonce_is_spent_once_even_by_another_agent(setup):
    setup.activate(1, nonce="ab" * 16)
    setup.guard.reserve_session_key(setup.wallet, uuid(2), key(2).wallet_address)
    assert reason(setup.guard.activate(setup.permit(2, nonce="ab" * 16))) is Reason.NONCE_SPENT


def test_the_same_permit_is_not_activated_twice(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    signed = setup.permit()
    assert isinstance(setup.guard.activate(signed), Bounds)
    assert reason(setup.guard.activate(signed)) is Reason.PERMIT_NOT_NEWER


@pytest.mark.parametrize("change", [{"usd": 251}, {"assets": ("USDC",)}, {"assets": ("JTO", "USDC")}])
def test_a_running_agents_scope_does_not_change(setup, change):
    setup.activate(1)
    setup.now_ms += 1000
    refused = setup.guard.activate(setup.permit(1, **change))
    assert refused.reason is Reason.SCOPE_CHANGED


def test_renewal_before_expiry_moves_the_end(setup):
    setup.activate(1)
    setup.now_ms += HOUR_MS // 2
    renewed = setup.activate(1)
    setup.now_ms += HOUR_MS // 2
    assert isinstance(setup.guard.authorize(setup.request()), Allowed)
    assert setup.guard.agent(setup.wallet, uuid(1)).bounds == renewed


def test_an_asset_that_nobody_knows_is_not_signed_for(setup):
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    refused = setup.guard.activate(setup.permit(assets=("USDC", "WIF")))
    assert refused.reason is Reason.ASSET_UNKNOWN
    assert refused.checks[0].actual == "WIF"


def test_the_twenty_first_active_agent_is_refused_until_one_expires(setup):
    for agent in range(1, 20):
        setup.activate(agent, lifetime_s=7200)
    setup.activate(20, lifetime_s=3600)
    setup.guard.reserve_session_key(setup.wallet, uuid(21), key(21).wallet_address)
    assert reason(setup.guard.activate(setup.permit(21))) is Reason.AGENTS_OVER_CAP
    setup.now_ms += HOUR_MS
    assert isinstance(setup.guard.activate(setup.permit(21)), Bounds)
    assert check_ledger(setup.guard.ledger).findings == ()


# Fires


def test_a_fire_is_authorized_once(setup):
    setup.activate()
    first = setup.guard.authorize(setup.request())
    assert first.authorization.attempt == 1
    again = setup.guard.authorize(setup.request())
    assert again == replace(first, authorization=None)
    assert len(setup.guard.entries(setup.wallet)) == 3


def test_the_same_execution_id_with_other_content_is_a_conflict(setup):
    setup.activate()
    setup.guard.authorize(setup.request())
    assert reason(setup.guard.authorize(setup.request(sell_amount=1))) is Reason.EXECUTION_CONFLICT


def test_a_refusal_is_final_for_its_execution_id(setup):
    setup.activate()
    setup.quote(JTO, "2.50", stale=True)
    assert reason(setup.guard.authorize(setup.request())) is Reason.PRICE_STALE
    setup.quote(JTO, "2.50")
    assert reason(setup.guard.authorize(setup.request())) is Reason.PRICE_STALE
    assert isinstance(setup.guard.authorize(setup.request(2)), Allowed)


def test_an_unknown_agent_writes_nothing(setup):
    setup.activate()
    before = len(setup.guard.entries(setup.wallet))
    assert reason(setup.guard.authorize(setup.request(agent=9))) is Reason.AGENT_UNKNOWN
    setup.guard.reserve_session_key(setup.wallet, uuid(8), key(8).wallet_address)
    assert reason(setup.guard.authorize(setup.request(agent=8))) is Reason.AGENT_UNKNOWN
    assert len(setup.guard.entries(setup.wallet)) == before + 1


def test_expiry_pauses_and_a_new_permit_resumes(setup):
    setup.activate()
    setup.now_ms += HOUR_MS
    assert setup.guard.agent(setup.wallet, uuid(1)).state is AgentState.ACTIVE
    assert reason(setup.guard.authorize(setup.request(1))) is Reason.PERMIT_EXPIRED
    assert setup.guard.agent(setup.wallet, uuid(1)).state is AgentState.PAUSED
    assert reason(setup.guard.authorize(setup.request(2))) is Reason.AGENT_PAUSED
    setup.activate()
    assert isinstance(setup.guard.authorize(setup.request(3)), Allowed)
    assert check_ledger(setup.guard.ledger).findings == ()


def test_the_head_never_outgrows_the_cap(setup):
    for agent in range(1, 30):
        setup.activate(agent)
        setup.now_ms += HOUR_MS
    with setup.guard.ledger.view(setup.wallet) as view:
        assert len(view.head.active) == 1


def test_an_expired_agent_forgotten_by_the_head_still_pauses_at_its_next_fire(setup):
    setup.activate(1)
    setup.now_ms += HOUR_MS
    setup.activate(2)  # takes agent 1 out of the head
    assert reason(setup.guard.authorize(setup.request(1, agent=1))) is Reason.PERMIT_EXPIRED
    assert setup.guard.agent(setup.wallet, uuid(1)).state is AgentState.PAUSED
    assert check_ledger(setup.guard.ledger).findings == ()


def test_the_window_rolls(tmp_path):
    setup = Setup(tmp_path / "ledger.db", limits=Limits(executions_per_24h=3))
    setup.activate(lifetime_s=3 * 24 * 3600)
    start_ms = setup.now_ms
    for execution in range(3):
        assert isinstance(setup.guard.authorize(setup.request(execution)), Allowed)
        setup.now_ms += 1000
    refused = setup.guard.authorize(setup.request(3))
    assert refused.reason is Reason.EXECUTIONS_OVER_CAP
    assert refused.retry_at_ms == start_ms + DAY_MS + CLOCK_SKEW_MS
    setup.now_ms = refused.retry_at_ms - 1
    assert reason(setup.guard.authorize(setup.request(4))) is Reason.EXECUTIONS_OVER_CAP
    setup.now_ms = refused.retry_at_ms
    assert isinstance(setup.guard.authorize(setup.request(5)), Allowed)
    assert reason(setup.guard.authorize(setup.request(6))) is Reason.EXECUTIONS_OVER_CAP
    setup.guard.close()


def test_a_voided_attempt_keeps_its_slot(tmp_path):
    setup = Setup(tmp_path / "ledger.db", limits=Limits(executions_per_24h=1))
    setup.activate()
    setup.guard.authorize(setup.request(1))
    setup.guard.void(setup.wallet, setup.request(1).execution_id, Reason.RAIL_UNAVAILABLE, "gone")
    assert reason(setup.guard.authorize(setup.request(2))) is Reason.EXECUTIONS_OVER_CAP
    setup.guard.close()


@pytest.mark.parametrize(("limit", "threads"), [(5, 16)])
def test_threads_never_get_past_the_window(tmp_path, limit, threads):
    setup = Setup(tmp_path / "ledger.db", limits=Limits(executions_per_24h=limit))
    setup.activate()
    together, granted = threading.Barrier(threads), []

    def fire(number):
        together.wait()
        for execution in range(3):
            decision = setup.guard.authorize(setup.request(100 * number + execution))
            granted.append(isinstance(decision, Allowed))

    workers = [threading.Thread(target=fire, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(granted) == limit
    assert len(granted) == 3 * threads
    assert check_ledger(setup.guard.ledger).findings == ()
    setup.guard.close()


def test_a_clock_that_went_back_far_decides_nothing(setup):
    setup.activate()
    setup.now_ms -= 2_000
    assert isinstance(setup.guard.authorize(setup.request(1)), Allowed)
    assert setup.guard.entries(setup.wallet)[-1].entry.at_ms == setup.now_ms + 2_000
    setup.now_ms -= 1
    before = len(setup.guard.entries(setup.wallet))
    assert reason(setup.guard.authorize(setup.request(2))) is Reason.CLOCK_UNTRUSTED
    assert len(setup.guard.entries(setup.wallet)) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"sell_amount": 0},
        {"sell_amount": -1},
        {"sell_amount": 2**64},
        {"sell_amount": 1.0},
        {"sell_amount": float("nan")},
        {"sell_amount": True},
        {"sell_amount": "١"},
        {"min_received": 0},
        {"min_received": None},
        {"execution_id": "1"},
        {"agent_id": "../1"},
        {"wallet": "x" * 5000},
        {"rail": "LOCAL"},
        {"sell": ""},
        {"bypass": True},
    ],
)
def test_a_request_of_the_wrong_form_never_gets_that_far(setup, fields):
    with pytest.raises(ValidationError):
        setup.request(**fields)


def test_a_request_changed_past_its_rules_is_caught_by_the_guard(setup):
    setup.activate()
    with pytest.raises(ValidationError):
        setup.guard.authorize(setup.request().model_copy(update={"rail": "LOCAL"}))
    assert len(setup.guard.entries(setup.wallet)) == 2


def test_a_request_of_a_class_of_its_own_is_none(setup):
    """It may check less than the class that it is made from."""

    class Lax(FireRequest):
        pass

    setup.activate()
    with pytest.raises(TypeError, match="FireRequest"):
        setup.guard.authorize(Lax.model_validate(setup.request().to_json_object()))
    assert len(setup.guard.entries(setup.wallet)) == 2


# Attempts


def test_an_attempt_goes_its_way_once(setup):
    setup.activate()
    request = setup.request()
    authorization = setup.guard.authorize(request).authorization
    landing = Landing(slot=1, sold=100 * 10**6, received=40 * 10**9, fee_lamports=5000)
    with pytest.raises(IllegalTransition):
        setup.guard.mark_landed(setup.wallet, request.execution_id, landing)
    assert sign(setup, authorization) is None
    for illegal in (
        lambda: sign(setup, authorization),
        lambda: setup.guard.void(setup.wallet, request.execution_id, Reason.RAIL_UNAVAILABLE, ""),
    ):
        with pytest.raises(IllegalTransition):
            illegal()
    assert state(setup, request) is AttemptState.SIGNED
    fill = setup.guard.mark_landed(setup.wallet, request.execution_id, landing)
    assert (fill.filled_amount, fill.filled_price_usd, fill.fee_usd) == ("40", "2.5", None)
    for illegal in (
        lambda: setup.guard.mark_landed(setup.wallet, request.execution_id, landing),
        lambda: setup.guard.mark_failed(setup.wallet, request.execution_id, "x"),
        lambda: setup.guard.mark_dead(setup.wallet, request.execution_id),
    ):
        with pytest.raises(IllegalTransition):
            illegal()
    assert state(setup, request) is AttemptState.LANDED


def test_only_the_claims_holder_may_sign(setup):
    setup.activate()
    authorization = setup.guard.authorize(setup.request()).authorization
    with pytest.raises(IllegalTransition):
        sign(setup, authorization._replace(claim="00" * 16))
    assert state(setup, setup.request()) is AttemptState.AUTHORIZED
    assert authorization.claim not in repr(authorization)
    assert len(bytes.fromhex(authorization.claim)) == 16


def test_one_signature_stands_for_one_execution(setup):
    setup.activate()
    first, second = (setup.guard.authorize(setup.request(each)).authorization for each in (1, 2))
    sign(setup, first)
    with pytest.raises(LedgerTampered):
        sign(setup, second)
    assert state(setup, setup.request(2)) is AttemptState.AUTHORIZED


def test_an_authorization_is_signed_on_within_its_minute_or_never(setup):
    setup.activate()
    authorization = setup.guard.authorize(setup.request()).authorization
    setup.now_ms += 60_000
    assert authorization.expires_at_ms == setup.now_ms
    assert sign(setup, authorization).reason is Reason.AUTHORIZATION_EXPIRED
    assert state(setup, setup.request()) is AttemptState.VOIDED
    with pytest.raises(IllegalTransition):
        sign(setup, authorization)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda setup: setup.quote(USDC, "2.51"), Reason.AMOUNT_OVER_CAP),
        (lambda setup: setup.quote(JTO, "2.40"), Reason.MIN_RECEIVED_TOO_LOW),
        (lambda setup: setup.quote(JTO, "2.50", stale=True), Reason.PRICE_STALE),
    ],
)
def test_signing_is_decided_again_at_the_price_of_the_moment(setup, change, expected):
    setup.activate()
    authorization = setup.guard.authorize(setup.request()).authorization
    change(setup)
    assert expected in [check.reason for check in sign(setup, authorization).checks]
    assert state(setup, setup.request()) is AttemptState.VOIDED


def test_no_signing_close_to_the_permits_end(setup):
    setup.activate()
    setup.now_ms += HOUR_MS - 91_001
    authorization = setup.guard.authorize(setup.request()).authorization
    setup.now_ms += 1
    assert sign(setup, authorization).reason is Reason.PERMIT_EXPIRING


# The ledger as a proof


def test_every_decision_is_made_again_from_its_entry(setup):
    setup.activate()
    setup.guard.authorize(setup.request(1))
    setup.guard.authorize(setup.request(2, sell="BONK"))
    setup.guard.authorize(setup.request(3, sell_amount=251 * 10**6))
    entries = [sealed.entry for sealed in setup.guard.entries(setup.wallet)]
    decided = [entry for entry in entries if entry.kind in (Kind.AUTHORIZED, Kind.REFUSED)]
    assert len(decided) == 3
    for entry in decided:
        stored = setup.guard.execution(setup.wallet, entry.execution_id).decision
        assert replay(entry, entries[entry.body["evidence"]["activation"] - 1]) == stored


def test_the_signature_itself_is_nowhere_in_the_database(sqlite_setup):
    signed = sqlite_setup.permit()
    sqlite_setup.guard.reserve_session_key(sqlite_setup.wallet, uuid(1), key(1).wallet_address)
    sqlite_setup.guard.activate(signed)
    sqlite_setup.guard.close()
    with sqlite3.connect(sqlite_setup.path) as connection:
        dump = "\n".join(
            str(row) for table in ("entries", "heads") for row in connection.execute(f"SELECT * FROM {table}")
        )
    assert signed.permit.nonce in dump
    assert signed.signature not in dump


def test_it_goes_on_after_a_restart(setup):
    setup.activate()
    request = setup.request()
    first = setup.guard.authorize(request)
    setup.reopen()
    assert setup.guard.authorize(request) == replace(first, authorization=None)
    assert sign(setup, first.authorization) is None
    assert setup.guard.authorize(setup.request(2)).authorization.attempt == 2


@pytest.mark.parametrize("price", [float("inf"), 2.5e12, -5])
def test_a_quote_of_another_class_authorizes_nothing(setup, price):
    class Looser:
        def __init__(self, mint):
            self.mint, self.price_pico_usd, self.at_ms, self.max_age_ms = mint, price, setup.now_ms, 10**6
            self.source, self.stale = "looser", False

        def is_fresh(self, *_):
            return True

    class Source:
        def quotes(self, mint):
            return [Looser(mint)]

    setup.activate()
    setup.prices = Source()
    setup.reopen()
    assert setup.guard.authorize(setup.request(1)).reason is Reason.PRICE_MISSING
    assert setup.guard.headroom(setup.wallet).executions.used == 0
