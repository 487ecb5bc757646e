"""The audit against somebody who has the seal key: what they write must still add up."""

import json
import sqlite3

import pytest

from executor.audit import check_ledger
from executor.entries import Entry, Head, Kind, chain_start, index_of, next_hash
from executor.errors import LedgerTampered
from executor.halts import EVERYTHING, Halter
from executor.ledger import EVERYBODY
from executor.ledger.wallet import ENTRY_TAG, HEAD_TAG
from executor.limits import Limits
from executor.reasons import Reason
from tests.support import T0, key, mint, uuid


@pytest.fixture
def setup(sqlite_setup):
    """On SQLite alone: these tests reach into the file."""
    return sqlite_setup


def rewrite(setup, change, *, rechain=True, head=None):
    """Apply `change` to each entry's JSON (None deletes it), then seal and chain everything anew."""
    setup.guard.close()
    with sqlite3.connect(setup.path) as connection:
        for trigger in ("entries_refuse_update", "entries_refuse_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
        ((sealed_head,),) = connection.execute("SELECT content FROM heads WHERE wallet <> '*'").fetchall()
        top = json.loads(sealed_head)
        rows = connection.execute("SELECT seq, content, hash FROM entries WHERE wallet <> '*' ORDER BY seq").fetchall()
        chain = top["hash"]
        epoch = bytes.fromhex(top["epoch"])
        for place, (seq, old_content, old_hash) in enumerate(rows):
            entry = Entry.read(json.dumps(change(json.loads(old_content))).encode())
            content = entry.canonical_bytes()
            before = chain_start(top["epoch"], top["wallet"]) if place == 0 else chain
            chain = next_hash(before, content) if rechain else old_hash.hex()
            seal = setup.seal_keys.seal(ENTRY_TAG, epoch + bytes.fromhex(chain) + content)
            columns = {**index_of(entry), "content": content, "hash": bytes.fromhex(chain), **seal._asdict()}
            assignments = ", ".join(f"{name} = ?" for name in columns)
            connection.execute(
                f"UPDATE entries SET {assignments} WHERE seq = ? AND wallet <> '*'", [*columns.values(), seq]
            )
        top = {**top, "hash": chain, **(head or {})}
        content = Head.read(json.dumps(top).encode()).canonical_bytes()
        seal = setup.seal_keys.seal(HEAD_TAG, content)
        connection.execute("UPDATE heads SET content = ?, key_id = ?, mac = ? WHERE wallet <> '*'", [content, *seal])
    connection.close()
    setup.guard = setup.open()
    return check_ledger(setup.guard.ledger).findings


@pytest.fixture
def used(setup):
    setup.activate()
    setup.guard.authorize(setup.request(1))
    setup.guard.authorize(setup.request(2, sell="BONK"))
    setup.guard.authorize(setup.request(3))
    return setup


def changing(kind, **body):
    return lambda entry: {**entry, "body": {**entry["body"], **body}} if entry["kind"] == kind else entry


def test_a_head_that_names_another_entry_as_the_activation_fires_nothing(used):
    assert rewrite(used, lambda entry: entry, head={"active": {uuid(1): [1, T0 + 3_600_000, None]}}) != ()
    assert used.guard.authorize(used.request(9)).reason is Reason.LEDGER_TAMPERED


def test_a_head_that_knows_of_more_open_attempts_than_there_are_is_noticed(used):
    assert rewrite(used, lambda entry: entry, head={"openAttempts": 9}) != ()
    with pytest.raises(LedgerTampered, match="an open attempt is gone"):
        list(used.guard.in_doubt())


def test_an_honest_rewrite_has_nothing_to_find(used):
    assert rewrite(used, lambda entry: entry) == ()


def test_a_permit_whose_id_is_another(used):
    bounds = used.guard.entries(used.wallet)[1].entry.body["bounds"]
    widened = {**bounds, "permit": {**bounds["permit"], "maxAmountPerExecutionUsd": 10**6}}
    findings = rewrite(used, changing("activated", bounds=widened))
    assert any("the permit's id is not that of its bounds" in finding for finding in findings)


@pytest.mark.parametrize("kind", ["authorized", "refused"])
def test_a_decision_that_its_evidence_does_not_lead_to(used, kind):
    other = {"outcome": "allowed", "valueMicroUsd": "1"}
    findings = rewrite(used, changing(kind, decision=other))
    assert any("its evidence leads to another decision" in finding for finding in findings)


def test_a_decision_by_no_activation(used):
    evidence = {**used.guard.entries(used.wallet)[2].entry.body["evidence"], "activation": 1}
    findings = rewrite(used, changing("authorized", evidence=evidence))
    assert any("decided by no activation" in finding for finding in findings)


def test_a_decision_by_limits_that_never_held(used):
    evidence = used.guard.entries(used.wallet)[2].entry.body["evidence"]
    wider = {**evidence, "limits": {**evidence["limits"], "activeAgents": 21}}
    findings = rewrite(used, changing("authorized", evidence=wider))
    assert any("was decided by limits or halts that weren't in force" in finding for finding in findings)


def test_limits_that_nobody_changed(used):
    limits = Limits(active_agents=21).to_json_object()
    findings = rewrite(used, lambda entry: entry, head={"limits": limits})
    assert any("the head knows other limits than its entries" in finding for finding in findings)


def test_an_epoch_that_no_restore_gave(used):
    used.guard.ledger.change(EVERYBODY, lambda everybody: everybody.move_head(restored_epoch="00" * 8))
    (finding,) = check_ledger(used.guard.ledger).findings
    assert "gives the stream another epoch than its entries" in finding


def test_an_epoch_in_the_head_of_a_wallet(used):
    findings = rewrite(used, lambda entry: entry, head={"restoredEpoch": "00" * 8})
    assert any("gives the stream another epoch than its entries" in finding for finding in findings)


def test_a_restore_after_an_epoch_that_did_not_hold(used):
    body, moves = {"before": "11" * 8, "epoch": "00" * 8}, {"restored_epoch": "00" * 8}
    used.guard.ledger.change(EVERYBODY, lambda everybody: everybody.append(Kind.RESTORED, None, body, moves))
    (finding,) = check_ledger(used.guard.ledger).findings
    assert "got a new epoch after one that it didn't have" in finding


def test_a_change_of_limits_that_did_not_hold(used):
    body = {"old": Limits(active_agents=21).to_json_object(), "new": Limits(active_agents=22).to_json_object()}
    moves = {"limits": Limits(active_agents=22)}
    used.guard.ledger.change(EVERYBODY, lambda everybody: everybody.append(Kind.LIMITS_CHANGED, None, body, moves))
    (finding,) = check_ledger(used.guard.ledger).findings
    assert "limits were changed that weren't in force" in finding


@pytest.fixture
def halted(used):
    """Return a user whose fourth fire came after a change of limits, and whose fifth under a halt of everything."""
    used.guard.change_limits(Limits(active_agents=21))
    used.guard.authorize(used.request(4))
    used.guard.halt(EVERYTHING, Halter.OPERATOR, "stop")
    used.guard.authorize(used.request(5))
    return used


def evidence_of(setup, execution):
    return setup.guard.execution(setup.wallet, uuid(10_000 + execution)).steps[0].entry.body["evidence"]


def test_a_halt_of_everything_that_a_decision_left_out(halted):
    """The decision follows from its evidence; but everybody's chain says that there was a halt."""

    def leave_out(entry):
        if entry.get("executionId") != uuid(10_005):
            return entry
        evidence = entry["body"]["evidence"]
        usage = {name: value for name, value in evidence["usage"].items() if name != "halts"}
        body = {
            "evidence": {**evidence, "usage": usage},
            "decision": {"outcome": "allowed", "valueMicroUsd": "100000000"},
        }
        return {**entry, "body": {**entry["body"], **body}}

    findings = rewrite(halted, leave_out)
    assert findings
    assert all("limits or halts that weren't in force" in finding for finding in findings)


@pytest.mark.parametrize(("execution", "everybody"), [(4, 0), (5, 1), (4, 2), (5, 9), (5, -1)])
def test_a_decision_that_names_another_moment_of_everybodys_chain(halted, execution, everybody):
    def name(entry):
        if entry.get("executionId") != uuid(10_000 + execution):
            return entry
        evidence = {**entry["body"]["evidence"], "everybody": everybody}
        return {**entry, "body": {**entry["body"], "evidence": evidence}}

    findings = rewrite(halted, name)
    assert any("limits or halts that weren't in force" in finding for finding in findings)


def test_a_decision_that_goes_back_to_limits_from_before(halted):
    """What it names did hold once, but the wallet had seen what came after."""
    halted.guard.lift(EVERYTHING, Halter.OPERATOR)
    halted.guard.authorize(halted.request(6))
    assert check_ledger(halted.guard.ledger).findings == ()
    before = evidence_of(halted, 4)

    def go_back(entry):
        if entry.get("executionId") != uuid(10_006):
            return entry
        evidence = {**entry["body"]["evidence"], "everybody": before["everybody"], "limits": before["limits"]}
        return {**entry, "body": {**entry["body"], "evidence": evidence}}

    (finding,) = rewrite(halted, go_back)
    assert "limits or halts that weren't in force" in finding


@pytest.mark.parametrize(("changed_at", "fired_at"), [(30_000, 27_999), (60_000, 1_800_000)])
def test_clocks_that_stepped_between_a_change_and_a_fire_accuse_nobody(setup, changed_at, fired_at):
    setup.activate()
    steps = [(changed_at, "change"), (fired_at, "fire")]
    for at, step in steps if changed_at < 40_000 else reversed(steps):
        setup.now_ms = T0 + at
        if step == "change":
            setup.guard.change_limits(Limits(executions_per_24h=4))
        else:
            assert setup.guard.authorize(setup.request()).outcome == "allowed"
    assert check_ledger(setup.guard.ledger).findings == ()


def test_attempts_with_a_gap(used):
    findings = rewrite(
        used, lambda entry: {**entry, "attempt": 3} if entry.get("attempt") == 2 else entry, head={"attempts": 3}
    )
    assert any("is attempt 3, but should be 2" in finding for finding in findings)
    assert any("the head says 3 attempts, its entries 2" in finding for finding in findings)


def test_a_chain_that_does_not_join(used):
    findings = rewrite(used, changing("refused", reason="PRICE_STALE"), rechain=False)
    assert any("is not chained to the one before" in finding for finding in findings)


@pytest.mark.parametrize(
    "active",
    [{}, {uuid(9): [2, 2**50, None]}, {uuid(1): [1, 2**50, None]}],
)
def test_a_head_that_lets_others_fire(used, active):
    findings = rewrite(used, lambda entry: entry, head={"active": active})
    assert any("the head lets other agents fire" in finding for finding in findings)


def test_an_agent_that_only_its_entries_call_active_does_not_fire(used):
    rewrite(used, lambda entry: entry, head={"active": {}})
    assert used.guard.authorize(used.request(9)).reason == "LEDGER_TAMPERED"


@pytest.mark.parametrize("head", [{"epoch": "00" * 8}, {"wallet": mint(5)}])
def test_a_head_of_another_ledger_or_wallet_fires_nothing(used, head):
    rewrite(used, lambda entry: entry, head=head)
    assert used.guard.authorize(used.request(9)).reason == "LEDGER_TAMPERED"


def test_an_entry_of_another_wallet_is_none(used):
    other = key(4).wallet_address
    findings = rewrite(used, lambda entry: {**entry, "wallet": other} if entry["seq"] == 2 else entry)
    assert any("stands where another belongs" in finding for finding in findings)
    assert used.guard.authorize(used.request(9)).reason == "LEDGER_TAMPERED"
