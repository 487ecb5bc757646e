"""Somebody writes to the database without the seal key: the audit finds each kind, and a fire that reads it says no."""

import json
import sqlite3

import pytest

from executor.audit import check_ledger
from executor.cli import main
from executor.errors import LedgerTampered
from executor.halts import EVERYTHING, Halter, Scope
from executor.limits import Limits
from executor.operations import OperationsHere, in_doubt
from executor.reasons import Reason
from tests.support import Setup, key, uuid

TRIGGERS = ("entries_refuse_update", "entries_refuse_delete", "attempts_have_no_gap", "attempts_keep_the_cap")


@pytest.fixture
def setup(tmp_path):
    """Return a user with a past: two activations, four attempts of a window of four, a stop, halts, refusals."""
    made = Setup(tmp_path / "ledger.db", limits=Limits(executions_per_24h=4, active_agents=2))
    made.activate(1, usd=120)
    made.now_ms += 1_000
    made.activate(2)
    made.guard.stop(made.wallet, uuid(2))
    for number in range(4):
        assert made.guard.authorize(made.request(number)).outcome == "allowed"
    made.guard.authorize(made.request(5, sell="BONK"))
    yield made
    made.guard.close()


def damage(setup, *statements):
    """Change the file behind the guard's back, with every trigger gone, and open it again."""
    setup.guard.close()
    connection = sqlite3.connect(setup.path, isolation_level=None)
    for trigger in TRIGGERS:
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement, *values in statements:
        assert connection.execute(statement, values).rowcount != 0, statement
    connection.close()
    setup.guard = setup.open()


def changed(setup, table, where, change):
    """Return the statement that rewrites the JSON content of one row, as somebody without the key can."""
    connection = sqlite3.connect(setup.path)
    ((content,),) = connection.execute(f"SELECT content FROM {table} WHERE {where}").fetchall()
    connection.close()
    document = json.loads(content)
    change(document)
    spelled = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return (f"UPDATE {table} SET content = ? WHERE {where}", spelled)


MINE = "wallet <> '*'"


def widen_the_cap(document):
    document["body"]["bounds"]["permit"]["maxAmountPerExecutionUsd"] = 10**6


def raise_the_quote(document):
    document["body"]["evidence"]["quotes"][0]["pricePicoUsd"] = "1"


DAMAGE = {
    "a widened cap": lambda setup: [changed(setup, "entries", "seq = 2", widen_the_cap)],
    "a deleted activation": lambda _: [("DELETE FROM entries WHERE seq = 2",)],
    "another entry in an activation's place": lambda _: [
        (
            "UPDATE entries SET (content, hash, mac) = (SELECT content, hash, mac FROM entries WHERE seq = 4)"
            " WHERE seq = 2",
        )
    ],
    "a deleted attempt": lambda _: [("DELETE FROM entries WHERE attempt = 1",)],
    "another entry in an attempt's place": lambda _: [
        (
            "UPDATE entries SET (content, hash, mac) = (SELECT content, hash, mac FROM entries WHERE attempt = 2)"
            " WHERE attempt = 1",
        )
    ],
    "a gap in the attempts": lambda _: [("UPDATE entries SET attempt = 9 WHERE attempt = 1",)],
    "an attempt made older": lambda setup: [
        changed(setup, "entries", "attempt = 1", lambda document: document.update(atMs=1)),
        ("UPDATE entries SET at_ms = 1 WHERE attempt = 1",),
    ],
    "fewer attempts in the head": lambda setup: [
        changed(setup, "heads", MINE, lambda document: document.update(attempts=0))
    ],
    "another agent active in the head": lambda setup: [
        changed(setup, "heads", MINE, lambda document: document["active"].update({uuid(2): [4, 2**50, None]}))
    ],
    "a head set back": lambda _: [(f"UPDATE heads SET seq = seq - 1 WHERE {MINE}",)],
    "a limit raised": lambda setup: [
        changed(setup, "ledger", "1", lambda document: document["limits"].update(executionsPer24H=999))
    ],
    "a head of another wallet": lambda _: [
        (f"UPDATE heads SET (content, mac) = (SELECT content, mac FROM heads WHERE wallet = '*') WHERE {MINE}",)
    ],
}
"""What the very next fire of the agent reads."""


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_fire_that_reads_damage_is_refused_and_the_audit_finds_it(setup, kind):
    statements = DAMAGE[kind](setup)
    if kind == "a limit raised":
        with pytest.raises(Exception, match="doesn't fit its seal"):
            damage(setup, *statements)
        setup.guard = Setup(setup.path.with_name("other.db")).guard
        return
    damage(setup, *statements)
    assert setup.guard.authorize(setup.request(50)).reason is Reason.LEDGER_TAMPERED
    assert check_ledger(setup.guard.ledger).findings != ()


HIDDEN = {
    "a spent nonce freed": lambda _: [("UPDATE entries SET nonce = NULL WHERE seq = 2",)],
    "a used executionId freed": lambda _: [("UPDATE entries SET execution_id = NULL WHERE attempt = 2",)],
    "a changed quote": lambda setup: [changed(setup, "entries", "attempt = 2", raise_the_quote)],
    "a deleted refusal": lambda _: [("DELETE FROM entries WHERE refusal = 1",)],
    "a deleted last entry": lambda _: [(f"DELETE FROM entries WHERE seq = 9 AND {MINE}",)],
    "a stop undone in the index": lambda _: [("UPDATE entries SET agent_state = NULL WHERE kind = 'stopped'",)],
    "a session key given to another agent": lambda _: [
        ("UPDATE entries SET agent_id = ? WHERE kind = 'reserved' AND agent_id = ?", uuid(7), uuid(2))
    ],
}
"""What no fire of this agent reads."""


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_no_fire_reads_the_audit_finds(setup, kind):
    damage(setup, *HIDDEN[kind](setup))
    assert check_ledger(setup.guard.ledger).findings != ()


def test_a_changed_quote_is_refused_where_it_is_read(setup):
    damage(setup, changed(setup, "entries", "attempt = 2", raise_the_quote))
    assert setup.guard.authorize(setup.request(1)).reason is Reason.LEDGER_TAMPERED


LOOKS = {
    "an agent's reservation hidden": (
        "UPDATE entries SET agent_state = NULL WHERE kind = 'reserved'",
        lambda setup: setup.guard.agent(setup.wallet, uuid(1)),
    ),
    "an attempt filed as a stop": (
        "UPDATE entries SET agent_state = 'stopped' WHERE attempt = 1",
        lambda setup: setup.guard.agent(setup.wallet, uuid(1)),
    ),
    "a session key filed under another's": (
        f"UPDATE entries SET session_pubkey = '{key(9).wallet_address}' WHERE kind = 'reserved' AND seq = 1",
        lambda setup: setup.guard.reserve_session_key(setup.wallet, uuid(9), key(9).wallet_address),
    ),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_whoever_looks_at_damage_is_told(setup, kind):
    statement, look = LOOKS[kind]
    damage(setup, (statement,))
    with pytest.raises(LedgerTampered):
        look(setup)
    assert check_ledger(setup.guard.ledger).findings != ()


def test_a_signature_whose_authorization_was_deleted_fires_nothing_again(setup):
    setup.now_ms += 25 * 3_600_000
    setup.activate(1, usd=120)
    assert setup.sign(setup.guard.authorize(setup.request(50)).authorization) is None
    damage(setup, ("DELETE FROM entries WHERE attempt = 5",))
    assert setup.guard.authorize(setup.request(50)).reason is Reason.LEDGER_TAMPERED
    assert check_ledger(setup.guard.ledger).findings != ()


def test_an_agent_whose_stop_was_hidden_does_not_fire(setup):
    damage(setup, ("UPDATE entries SET agent_state = NULL WHERE kind = 'stopped'",))
    assert setup.guard.authorize(setup.request(50, agent=2)).reason is Reason.LEDGER_TAMPERED


def test_an_older_state_of_the_head_does_not_fire(setup):
    connection = sqlite3.connect(setup.path)
    older = connection.execute(f"SELECT seq, content, mac FROM heads WHERE {MINE}").fetchone()
    connection.close()
    setup.now_ms += 25 * 3_600_000
    setup.guard.authorize(setup.request(50))
    damage(setup, (f"UPDATE heads SET seq = ?, content = ?, mac = ? WHERE {MINE}", *older))
    assert setup.guard.authorize(setup.request(51)).reason is Reason.LEDGER_TAMPERED
    assert check_ledger(setup.guard.ledger).findings != ()


@pytest.mark.parametrize("mine", [True, False], ids=["the wallet's", "everybody's"])
def test_a_halt_that_somebody_lifted_in_the_database_still_holds(setup, mine):
    """They put the sealed head of before the halt back; its entries show that it is not the newest."""
    where = MINE if mine else "wallet = '*'"
    connection = sqlite3.connect(setup.path)
    older = connection.execute(f"SELECT seq, content, mac FROM heads WHERE {where}").fetchone()
    connection.close()
    setup.now_ms += 25 * 3_600_000
    setup.guard.halt(Scope(setup.wallet) if mine else EVERYTHING, Halter.USER, "stop")
    statement = (f"UPDATE heads SET seq = ?, content = ?, mac = ? WHERE {where}", *older)
    if mine:
        damage(setup, statement)
        assert setup.guard.authorize(setup.request(50)).reason is Reason.LEDGER_TAMPERED
        assert check_ledger(setup.guard.ledger).findings != ()
    else:
        no_longer_opens(setup, statement)


@pytest.mark.parametrize("where", [MINE, "wallet = '*'"], ids=["the wallet's head", "everybody's head"])
def test_an_epoch_that_somebody_wrote_into_a_head(setup, where):
    written = changed(setup, "heads", where, lambda document: document.update(restoredEpoch="00" * 8))
    if where != MINE:
        no_longer_opens(setup, written)
        return
    damage(setup, written)
    assert setup.guard.authorize(setup.request(50)).reason is Reason.LEDGER_TAMPERED
    assert check_ledger(setup.guard.ledger).findings != ()


def test_a_restore_that_somebody_undid_in_the_database(setup):
    connection = sqlite3.connect(setup.path)
    older = connection.execute("SELECT seq, content, mac FROM heads WHERE wallet = '*'").fetchone()
    connection.close()
    setup.guard.mark_restored()
    no_longer_opens(setup, ("UPDATE heads SET seq = ?, content = ?, mac = ? WHERE wallet = '*'", *older))


def test_without_everybodys_head_nothing_opens(setup):
    setup.guard.halt(EVERYTHING, Halter.USER, "stop")
    no_longer_opens(setup, ("DELETE FROM heads WHERE wallet = '*'",), ("DELETE FROM entries WHERE wallet = '*'",))


def no_longer_opens(setup, *statements):
    with pytest.raises(LedgerTampered):
        damage(setup, *statements)
    setup.guard = Setup(setup.path.with_name("other.db")).guard


def test_storage_itself_refuses_a_gap_and_an_attempt_beyond_the_cap(setup):
    connection = sqlite3.connect(setup.path, isolation_level=None)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(entries)")]

    def insert(**changes):
        values = dict(
            zip(columns, connection.execute("SELECT * FROM entries WHERE attempt = 4").fetchone(), strict=True)
        )
        values |= {"seq": 99, "execution_id": uuid(99), **changes}
        connection.execute(f"INSERT INTO entries VALUES ({', '.join('?' * len(values))})", list(values.values()))

    with pytest.raises(sqlite3.IntegrityError, match="the attempt before this one is missing"):
        insert(attempt=6, at_ms=setup.now_ms + 25 * 3_600_000)
    with pytest.raises(sqlite3.IntegrityError, match="use up the cap"):
        insert(attempt=5)
    connection.close()


@pytest.fixture
def others(setup):
    """Return another user, after the first one in their order, with a transaction that may land; damage the first's."""
    theirs = Setup.__new__(Setup)
    signer = next(signer for number in range(50, 99) if (signer := key(number)).wallet_address > setup.wallet)
    theirs.__dict__ = {**setup.__dict__, "signer": signer, "wallet": signer.wallet_address}
    theirs.activate(3)
    authorization = setup.guard.authorize(theirs.request(30, agent=3)).authorization
    assert theirs.sign(authorization, "theirs") is None
    where = f"wallet = '{setup.wallet}' AND kind = 'authorized'"
    damage(setup, ("UPDATE entries SET content = replace(content, 'USDC', 'USDT') WHERE " + where,))
    return theirs


def test_what_others_have_in_doubt_is_told_all_the_same(setup, others):
    """The wallet whose entry was changed comes first; what it hides is told at the end."""
    told = []
    with pytest.raises(LedgerTampered):
        told.extend((wallet, story.tx_signature) for wallet, story in setup.guard.in_doubt())
    assert told == [(others.wallet, "theirs")]


def test_a_halt_of_everything_is_no_fault_whatever_somebody_tampered_with(setup, others, tmp_path, capsys):
    """It holds, and says that its list isn't whole: nobody must think that it failed, and try something else."""
    assert OperationsHere(setup.guard).halt(EVERYTHING, "they are in") == (["theirs"], True)
    assert setup.guard.authorize(others.request(31, agent=3)).reason is Reason.HALTED
    setup.guard.close()
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    halt = ["halt", "everything", "--why", "again", "--db", str(setup.path), "--seal-key", str(tmp_path / "seal.key")]
    assert main(halt) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "may still land: theirs",
        "may still land: more of them, which this doesn't list",
    ]


TAKES_AUTHORITY = {
    "halt": lambda guard, wallet: guard.halt(Scope(wallet), Halter.USER, "a drill"),
    "stop": lambda guard, wallet: guard.stop(wallet, uuid(1)),
    "complete": lambda guard, wallet: guard.complete(wallet, uuid(1), "over"),
}


@pytest.mark.parametrize("how", TAKES_AUTHORITY)
def test_an_open_attempt_that_is_gone_keeps_no_authority_in_force(setup, how):
    """What may still land can't be told then, and that is all."""
    damage(setup, ("DELETE FROM entries WHERE attempt = 2",))
    assert TAKES_AUTHORITY[how](setup.guard, setup.wallet) == ()
    assert in_doubt(setup.guard, setup.wallet).more
    setup.reopen()
    with setup.guard.ledger.view(setup.wallet) as view:
        newest = view.entry(view.head.seq).entry
    assert newest.kind == {"halt": "halted", "stop": "stopped", "complete": "completed"}[how]
