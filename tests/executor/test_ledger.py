"""The ledger as a file: what storage itself refuses, and what seals make visible."""

import os
import pickle
import sqlite3
import subprocess
import sys

import pytest
from sqlalchemy.exc import DBAPIError

from executor.audit import check_ledger
from executor.decide import Refused
from executor.entries import Kind
from executor.errors import IllegalTransition, LedgerError, LedgerTampered
from executor.halts import EVERYTHING, Halter
from executor.ledger import Ledger, sqlite
from executor.ledger.store import LEDGER_TAG
from executor.ledger.upgrade import upgrade
from executor.lifecycle import AgentState
from executor.limits import Limits
from executor.reasons import Reason
from executor.seal import SealKeys
from permits.canonical import canonicalize
from tests.support import Setup, key, uuid


@pytest.fixture
def setup(sqlite_setup):
    """On SQLite alone: these tests reach into the file."""
    return sqlite_setup


def edit(setup, *statements):
    """Change the file as somebody would who has the database but not the key, and open it again."""
    setup.guard.close()
    with sqlite3.connect(setup.path) as connection:
        for trigger in ("entries_refuse_update", "entries_refuse_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement, *values in statements:
            connection.commit()
            assert connection.execute(statement, values).rowcount != 0
    connection.close()
    setup.guard = setup.open()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET content = x'00'",
        "DELETE FROM entries",
        "REPLACE INTO entries SELECT * FROM entries",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 1",
    ],
)
def test_entries_are_only_appended(setup, statement):
    setup.activate()
    before = setup.guard.entries(setup.wallet)
    with pytest.raises(DBAPIError, match="only ever appended"), setup.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert setup.guard.entries(setup.wallet) == before


def test_a_failed_change_leaves_nothing_behind(setup):
    setup.activate()
    before = setup.guard.entries(setup.wallet)

    def fail_after_writing(transaction):
        transaction.append(Kind.RESERVED, uuid(5), {"sessionPubkey": "x"}, agent_state=AgentState.RESERVED)
        raise IllegalTransition("a fault after the write")

    with pytest.raises(IllegalTransition):
        setup.guard.ledger.change(setup.wallet, fail_after_writing)
    assert setup.guard.entries(setup.wallet) == before
    setup.reopen()
    assert setup.guard.entries(setup.wallet) == before


def test_a_second_process_is_told_who_holds_the_file_but_may_read(setup):
    setup.activate()
    script = (
        "import sys; from pathlib import Path; from executor.ledger import Ledger; from executor.seal import SealKeys\n"
        "from executor.audit import check_ledger\n"
        "keys = SealKeys.single(b's' * 32)\n"
        "with Ledger.open(Path(sys.argv[1]), seal_keys=keys, read_only=True) as ledger:\n"
        "    print(check_ledger(ledger).entries)\n"
        "Ledger.open(Path(sys.argv[1]), seal_keys=keys)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(setup.path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "2\n"
    assert f"is in use by process {os.getpid()}" in done.stderr


def test_a_read_only_ledger_can_not_be_written(setup):
    setup.activate()
    with Ledger.open(setup.path, seal_keys=setup.seal_keys, read_only=True) as ledger:
        with pytest.raises(LedgerError, match="read-only"):
            ledger.change(setup.wallet, lambda _wallet: None)
        assert ledger.wallets() == [setup.wallet]


def test_the_seal_key_is_needed_to_open(setup):
    setup.activate()
    setup.guard.close()
    with pytest.raises(LedgerTampered, match="key is another"):
        Ledger.open(setup.path, seal_keys=SealKeys.single(b"x" * 32))
    setup.guard = setup.open()


def test_a_new_seal_key_reads_what_the_old_one_sealed(setup):
    setup.activate()
    setup.seal_keys = SealKeys({"1": b"s" * 32, "2": b"t" * 32}, "2")
    setup.reopen()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    assert check_ledger(setup.guard.ledger).findings == ()
    setup.seal_keys = SealKeys({"2": b"t" * 32}, "2")
    setup.guard.close()
    with pytest.raises(LedgerTampered):
        setup.open()
    setup.seal_keys = SealKeys.single(b"s" * 32)
    setup.guard = setup.open()


def test_limits_change_only_on_purpose(setup):
    setup.guard.close()
    with pytest.raises(LedgerError, match="other limits"):
        Ledger.open(setup.path, seal_keys=setup.seal_keys, limits=Limits(active_agents=21))
    setup.guard = setup.open()
    assert setup.guard.ledger.limits == Limits()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0" * 64]
)
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger.open(path, seal_keys=SealKeys.single(bytes(32)))
    assert path.read_bytes() == content


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    with pytest.raises(LedgerError, match="nowhere"):
        Ledger.open(tmp_path / "nowhere" / "ledger.db", seal_keys=SealKeys.single(bytes(32)))


def test_every_pragma_that_safety_rests_on_is_in_force(setup):
    with setup.guard.ledger.engine.begin() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}


def test_a_pragma_that_sqlite_does_not_honor_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(sqlite.SAFE, "synchronous", 99)
    with pytest.raises(LedgerError, match="synchronous"):
        Ledger.open(tmp_path / "ledger.db", seal_keys=SealKeys.single(bytes(32)))


def test_a_transaction_holds_the_file_before_it_reads(setup):
    """The driver's own immediate mode would begin at the first write, after the decision was made."""
    setup.activate()
    other = sqlite3.connect(setup.path, timeout=0, isolation_level=None, check_same_thread=False)

    def work(_transaction):
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    setup.guard.ledger.change(setup.wallet, work)
    other.close()


def test_a_schema_of_another_version_is_not_read(setup):
    content = canonicalize({"epoch": "00" * 8, "schema": 2, "limits": {}})
    seal = setup.seal_keys.seal(LEDGER_TAG, content)
    setup.guard.close()
    with sqlite3.connect(setup.path) as connection:
        connection.execute("UPDATE ledger SET content = ?, key_id = ?, mac = ?", [content, *seal])
    connection.close()
    with pytest.raises(LedgerError, match="schema 2"):
        setup.open()
    setup.guard = Setup(setup.path.with_name("other.db")).guard


def test_another_ledgers_activation_under_the_same_key_fires_nothing(tmp_path):
    staging, live = Setup(tmp_path / "staging.db"), Setup(tmp_path / "live.db")
    live.random.seed(8)
    live.guard.close()
    live.path.unlink()
    live.guard = live.open()
    staging.activate(usd=10**6)
    live.activate(usd=1)
    staging.guard.close()
    edit(
        live,
        ("DELETE FROM entries WHERE seq = 2",),
        ("ATTACH ? AS staging", str(staging.path)),
        ("INSERT INTO main.entries SELECT * FROM staging.entries WHERE seq = 2",),
    )
    assert live.guard.authorize(live.request(1)) == Refused(reason=Reason.LEDGER_TAMPERED)
    live.guard.close()


def test_a_deleted_attempt_that_the_window_needs_fires_nothing(tmp_path):
    setup = Setup(tmp_path / "ledger.db", limits=Limits(executions_per_24h=1))
    setup.activate()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    edit(setup, ("DELETE FROM entries WHERE attempt = 1",))
    assert setup.guard.authorize(setup.request(2)) == Refused(reason=Reason.LEDGER_TAMPERED)
    setup.guard.close()


def test_a_head_that_is_no_number_stops_nobody_who_watches(setup):
    setup.activate()
    assert setup.guard.ledger.head_seqs([setup.wallet]) == {setup.wallet: 2}
    edit(setup, ("UPDATE heads SET seq = 'abc' WHERE wallet <> '*'",))
    assert setup.guard.ledger.head_seqs([setup.wallet]) == {}


def test_a_ledger_without_its_head_for_everybody_does_not_open(setup):
    setup.guard.halt(EVERYTHING, Halter.OPERATOR, "maintenance")
    for table in ("heads", "entries"):
        with pytest.raises(LedgerTampered, match="for everybody is gone"):
            edit(setup, (f"DELETE FROM {table} WHERE wallet = '*'",))
    setup.guard = Setup(setup.path.with_name("other.db")).guard


def test_another_wallets_head_is_no_head(setup):
    setup.activate()
    other = key(9).wallet_address
    edit(
        setup,
        ("INSERT INTO heads SELECT ?, seq, open_attempts, content, key_id, mac FROM heads WHERE wallet <> '*'", other),
    )
    assert setup.guard.authorize(setup.request(wallet=other)) == Refused(reason=Reason.LEDGER_TAMPERED)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM entries WHERE seq = 2", "entries are gone above 0"),
        ("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)", "entries are gone above 0"),
        ("UPDATE entries SET mac = x'00' WHERE seq = 3", "doesn't fit its seal"),
        ("UPDATE entries SET key_id = '9' WHERE seq = 3", "doesn't fit its seal"),
        ("UPDATE entries SET mac = 'text' WHERE seq = 3", "doesn't fit its seal"),
        ("UPDATE entries SET execution_id = NULL WHERE seq = 3", "filed under what it doesn't say"),
        ("UPDATE entries SET step = 9 WHERE seq = 3", "filed under what it doesn't say"),
        ("UPDATE entries SET nonce = NULL WHERE seq = 2", "filed under what it doesn't say"),
        ("UPDATE entries SET session_pubkey = 'x' WHERE seq = 1", "filed under what it doesn't say"),
        ("DELETE FROM heads WHERE wallet <> '*'", "has nothing of wallet"),
    ],
)
def test_the_audit_finds_it(setup, statement, finding):
    setup.activate()
    for execution in (1, 2):
        setup.guard.authorize(setup.request(execution))
    assert check_ledger(setup.guard.ledger).findings == ()
    edit(setup, (statement,))
    (found,) = check_ledger(setup.guard.ledger).findings
    assert finding in found


def test_the_file_is_its_owners_alone(setup):
    assert setup.path.stat().st_mode & 0o777 == 0o600


def test_one_file_by_two_names_is_one_ledger(setup, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(setup.path)
    with pytest.raises(LedgerError, match="in use"):
        Ledger.open(link, seal_keys=setup.seal_keys)


def test_text_without_a_scheme_is_a_path(tmp_path, monkeypatch):
    """As a caller writes it: relative, in a folder, with whatever a URL would take apart; a URL names the same file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    keys = SealKeys.single(b"s" * 32)
    for text in ("a/b.db", "c:d@e?f#g.db", str(tmp_path / "whole.db")):
        with Ledger.open(text, seal_keys=keys) as made:
            assert (tmp_path / text).is_file()
        for same in (tmp_path / text, text):
            with Ledger.open(same, seal_keys=keys, read_only=True) as found:
                assert found.id == made.id
        assert upgrade(text)[0] == upgrade(text)[1]
    with Ledger.open("sqlite:///a/b.db", seal_keys=keys), pytest.raises(LedgerError, match="in use"):
        Ledger.open("a/b.db", seal_keys=keys)
    with pytest.raises(LedgerError, match=r"`.*nowhere/b\.db"):
        Ledger.open("nowhere/b.db", seal_keys=keys)
    with pytest.raises(LedgerError):
        Ledger.open("", seal_keys=keys)


def test_a_name_with_a_question_mark_is_a_name(tmp_path):
    path = tmp_path / "a?mode=memory#b.db"
    with Ledger.open(path, seal_keys=SealKeys.single(bytes(32))) as ledger:
        made = ledger.id
    with Ledger.open(path, seal_keys=SealKeys.single(bytes(32)), read_only=True) as ledger:
        assert ledger.id == made
    assert path.exists()


def test_seal_keys_stay_where_they_are():
    keys = SealKeys.single(b"s" * 32)
    assert "s" * 8 not in repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    with pytest.raises(ValueError, match="32 bytes"):
        SealKeys.single(b"short")
    with pytest.raises(ValueError, match="no seal key"):
        SealKeys({"1": bytes(32)}, "2")
