"""Where the ledger lies: URLs, clocks, lost connections, and commits whose answer never came."""

import re
import time
from collections import Counter
from contextlib import contextmanager
from threading import Thread

import psycopg
import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError

from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.decide import Allowed
from executor.entries import Kind
from executor.errors import ClockUntrusted, IllegalTransition, LedgerError, LedgerTampered
from executor.fill import Landing
from executor.guard import fires
from executor.halts import EVERYTHING, Halter
from executor.ledger import EVERYBODY, Ahead, Ledger, clock, postgres, wallet
from executor.ledger import statements as sql
from executor.ledger.ahead import LOCK_AND_READ
from executor.ledger.clock import SystemClock
from executor.ledger.scratch import scratch
from executor.ledger.statements import Cursor
from executor.ledger.store import _Change
from executor.limits import Limits
from executor.reasons import Reason
from executor.seal import SealKeys
from tests.postgres import sqlalchemy_url
from tests.support import Setup, key, until, uuid

KEYS = SealKeys.single(b"s" * 32)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://x/y", "`mysql` is not a database for a ledger"),
        ("postgresql:/db", "the ledger's URL is none"),
        ("sqlite://", "`` names no file: a ledger is kept in one, and never in memory"),
        ("sqlite:///:memory:", "`:memory:` names no file"),
        (":memory:", "`:memory:` names no file"),
        ("file:x.db?mode=memory", "names no file"),
        ("sqlite:///file:x.db", "names no file"),
        ("sqlite:///x.db?mode=memory", "without options"),
        ("sqlite:////nowhere/at/all/ledger.db", "nowhere"),
        ("postgresql://nobody@127.0.0.1:1/none", "failed: connection"),
    ],
)
def test_a_url_that_leads_nowhere_is_named(url, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LedgerError, match=re.escape(told)):
        Ledger.open(url, seal_keys=KEYS)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_not_told():
    with pytest.raises(LedgerError) as error:
        Ledger.open("postgresql://nobody:hunter2@127.0.0.1:1/none", seal_keys=KEYS)
    assert "hunter2" not in str(error.value)


def test_an_sqlite_url_is_a_path(tmp_path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", seal_keys=KEYS) as ledger:
        assert ledger.limits == Limits()
        assert ledger.wallets() == []


@pytest.mark.parametrize("setting", ["session_replication_role = replica", "default_transaction_read_only = on"])
def test_a_server_that_does_not_keep_what_it_commits_is_refused(postgres_ledger, setting):
    engine = create_engine(postgres_ledger)
    name = engine.url.database
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET {setting}')
        try:
            with pytest.raises(LedgerError, match="is needed"):
                Ledger.open(postgres_ledger, seal_keys=KEYS)
        finally:
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" RESET ALL')
    engine.dispose()


@pytest.fixture
def with_default(postgres_setup):
    """Yield a function that gives the database a default for a setting, and opens the ledger anew."""
    name = make_url(postgres_setup.path).database

    def administer(statement):
        with psycopg.connect(postgres_setup.path.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" {statement}')

    def set_default(setting, value):
        administer(f"SET {setting} = '{value}'")
        postgres_setup.reopen()

    yield set_default
    administer("RESET ALL")


def waiting_for_locks(postgres_setup):
    with psycopg.connect(postgres_setup.path.replace("+psycopg", ""), autocommit=True) as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(count).fetchone()[0]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_no_default_of_the_database_lets_a_fire_past_a_halt(postgres_setup, with_default, isolation):
    """A fire that waits while everything is halted is decided by what holds once it has the lock."""
    setup = postgres_setup
    setup.activate()
    with_default("default_transaction_isolation", isolation)
    fire = Thread(target=lambda: outcomes.append(setup.guard.authorize(setup.request(1))))
    outcomes = []
    halt = Thread(target=lambda: setup.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill"))
    with psycopg.connect(setup.path.replace("+psycopg", "")) as held:
        held.execute("SELECT 1 FROM heads WHERE wallet = %s FOR UPDATE", (EVERYBODY,))
        halt.start()
        until(lambda: waiting_for_locks(setup) == 1)  # it has locked everything, and waits for everybody's head
        fire.start()
        until(lambda: waiting_for_locks(setup) == 2)
    halt.join(60)
    fire.join(60)
    (outcome,) = outcomes
    assert outcome.reason is Reason.HALTED


def test_every_read_is_made_again_where_the_server_ended_its_connection(postgres_setup):
    setup = postgres_setup
    setup.activate()
    threads = [Thread(target=setup.guard.authorize, args=(setup.request(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert setup.guard.ledger.engine.pool.checkedin() > 1
    with psycopg.connect(setup.path.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert [setup.guard.headroom(setup.wallet).executions.used for _read in range(12)] == [8] * 12


def test_a_database_without_an_encoding_holds_a_ledger(postgres_server):
    name = "of_sql_ascii"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        try:
            setup = Setup(sqlalchemy_url(postgres_server, name))
            setup.activate()
            assert setup.guard.authorize(setup.request(1)).authorization.attempt == 1
            setup.guard.halt(EVERYTHING, Halter.OPERATOR, "ein Probelauf für später")
            assert check_ledger(setup.guard.ledger).findings == ()
            with scratch(setup.path) as url, Ledger.open(url, seal_keys=KEYS) as ledger:
                assert ledger.limits == Limits()
            setup.guard.close()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_two_processes_may_open_one_postgresql_ledger_and_share_every_cap(postgres_setup):
    other = postgres_setup.open()
    postgres_setup.activate()
    assert postgres_setup.guard.authorize(postgres_setup.request(1)).outcome == "allowed"
    again = other.authorize(postgres_setup.request(1))
    assert (again.outcome, again.authorization) == ("allowed", None)
    assert other.authorize(postgres_setup.request(2)).authorization.attempt == 2
    other.close()


def test_a_read_only_ledger_on_postgresql_reads(postgres_setup):
    postgres_setup.activate()
    with Ledger.open(postgres_setup.path, seal_keys=KEYS, read_only=True) as ledger:
        assert check_ledger(ledger).findings == ()
        with pytest.raises(LedgerError, match="read-only"):
            ledger.change(postgres_setup.wallet, lambda _wallet: None)


def test_the_time_is_the_database_hosts(setup):
    """Without a clock of the caller's: PostgreSQL's is read after the lock, and agrees with this host's."""
    setup.activate()
    setup.guard.close()
    with Ledger.open(setup.path, seal_keys=KEYS) as ledger:
        before = time.time_ns() // 1_000_000
        now_ms = ledger.change(setup.wallet, lambda wallet: wallet.now_ms)
    assert before - 1_000 <= now_ms <= time.time_ns() // 1_000_000 + 1_000


def test_a_clock_that_was_set_while_we_run_is_not_believed(monkeypatch):
    believed = SystemClock()
    assert abs(believed() - time.time_ns() // 1_000_000) < 1_000
    real = clock._wall_ms
    for moved_ms in (3_000, -3_000):
        monkeypatch.setattr(clock, "_wall_ms", lambda moved_ms=moved_ms: real() + moved_ms)
        with pytest.raises(ClockUntrusted, match="was moved by"):
            believed()
    monkeypatch.setattr(clock, "_wall_ms", lambda: real() + 1_000)
    assert believed()


def test_a_database_whose_clock_differs_is_not_believed(postgres_ledger, monkeypatch):
    made = Setup(postgres_ledger)
    made.activate()
    made.guard.close()
    with Ledger.open(postgres_ledger, seal_keys=KEYS) as ledger:
        monkeypatch.setattr(postgres.PostgresStore, "now_ms", lambda _self, _cursor, process_ms: process_ms + 5_000)
        with pytest.raises(ClockUntrusted, match="the database's host says"):
            ledger.change(made.wallet, lambda wallet: wallet.now_ms)


@pytest.mark.parametrize("statement", ["UPDATE entries SET kind = kind", "DELETE FROM entries", "TRUNCATE entries"])
def test_entries_on_postgresql_are_only_appended(postgres_setup, statement):
    setup = postgres_setup
    setup.activate()
    before = setup.guard.entries(setup.wallet)
    with pytest.raises(DBAPIError, match="only ever appended"), setup.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert setup.guard.entries(setup.wallet) == before


def attempt_past_the_guard(setup, number):
    """Append an attempt that the guard never decided on: only storage's own triggers stand in its way."""

    def work(transaction):
        transaction.append(
            Kind.AUTHORIZED, None, {"evidence": {"request": {}}}, attempt=number, execution_id=str(number)
        )

    setup.guard.ledger.change(setup.wallet, work)


def test_storage_itself_keeps_the_cap_to_the_millisecond(setup):
    """A day without the skew: storage's word is the last one, not the guard's, and must never be the stricter one."""
    setup.activate()
    setup.guard.change_limits(Limits(executions_per_24h=2))
    attempt_past_the_guard(setup, 1)
    attempt_past_the_guard(setup, 2)
    setup.now_ms += 86_400_000 - 1
    with pytest.raises(LedgerTampered, match="use up the cap"):
        attempt_past_the_guard(setup, 3)
    setup.now_ms += 1
    attempt_past_the_guard(setup, 3)


@pytest.mark.parametrize("first", [1, 2])
def test_storage_itself_keeps_attempts_without_a_gap(setup, first):
    setup.activate()
    for number in range(1, first):
        attempt_past_the_guard(setup, number)
    with pytest.raises(LedgerTampered, match="the attempt before this one is missing"):
        attempt_past_the_guard(setup, first + 1)
    attempt_past_the_guard(setup, first)


def test_a_connection_that_is_lost_on_the_way_is_made_again(postgres_setup):
    postgres_setup.activate()
    tries = []

    def work(wallet):
        tries.append(wallet.again)
        if len(tries) == 1:
            admin = create_engine(postgres_setup.path)
            with admin.begin() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            admin.dispose()
        return wallet.agent_move(uuid(1)).entry.seq

    assert postgres_setup.guard.ledger.change(postgres_setup.wallet, work) == 2
    assert tries == [False, True]


def test_a_server_that_stays_away_is_told(postgres_setup, monkeypatch):
    postgres_setup.activate()
    monkeypatch.setattr(postgres_setup.guard.ledger, "_pause_after", lambda _tries: None)

    def gone(_wallet):
        raise psycopg.OperationalError("the server is gone")

    with pytest.raises(LedgerError, match="the server is gone"):
        postgres_setup.guard.ledger.change(postgres_setup.wallet, gone)


@pytest.fixture
def lost_answer(postgres_setup, monkeypatch):
    """Return a function after which the next commit happens, but its answer is lost."""
    writing = postgres.PostgresStore.writing
    lost = []

    @contextmanager
    def lossy(store):
        with writing(store) as cursor:
            yield cursor
        if lost:
            lost.pop()
            raise psycopg.OperationalError("the connection was lost after the commit")

    monkeypatch.setattr(postgres.PostgresStore, "writing", lossy)
    yield lambda: lost.append(True)
    assert lost == []
    assert check_ledger(postgres_setup.guard.ledger).findings == ()


def test_an_authorization_whose_commit_was_not_answered_is_still_the_askers(postgres_setup, lost_answer):
    setup = postgres_setup
    setup.activate()
    lost_answer()
    authorized = setup.guard.authorize(setup.request(1))
    assert authorized.authorization.attempt == 1
    setup.guard.check(authorized.authorization)
    assert setup.guard.headroom(setup.wallet).executions.used == 1


def test_an_activation_whose_commit_was_not_answered_is_in_force(postgres_setup, lost_answer):
    setup = postgres_setup
    setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
    lost_answer()
    assert isinstance(setup.guard.activate(setup.permit()), Bounds)
    lost_answer()
    setup.guard.reserve_session_key(setup.wallet, uuid(2), key(2).wallet_address)
    assert len(setup.guard.agents(setup.wallet)) == 2


def test_each_later_step_whose_commit_was_not_answered_is_taken_once(postgres_setup, lost_answer):
    setup = postgres_setup
    setup.activate()
    authorized = [setup.guard.authorize(setup.request(number)).authorization for number in range(4)]
    for number in range(3):
        lost_answer()
        assert setup.sign(authorized[number], f"signature {number}") is None
    lost_answer()
    setup.guard.mark_failed(setup.wallet, authorized[0].execution_id, "no")
    lost_answer()
    setup.guard.mark_dead(setup.wallet, authorized[1].execution_id)
    lost_answer()
    landing = Landing(slot=7, sold=100 * 10**6, received=40 * 10**9, fee_lamports=5_000)
    assert setup.guard.mark_landed(setup.wallet, authorized[2].execution_id, landing).filled_amount
    lost_answer()
    setup.guard.void(setup.wallet, authorized[3].execution_id, Reason.RAIL_UNAVAILABLE, "")
    lost_answer()
    assert setup.guard.stop(setup.wallet, uuid(1)) == []
    states = [each.state for each in setup.guard.executions(setup.wallet, uuid(1))]
    assert states == ["voided", "landed", "dead", "failed"]
    with pytest.raises(IllegalTransition):
        setup.guard.mark_dead(setup.wallet, authorized[1].execution_id)


def test_an_event_whose_commit_was_not_answered_is_told_once(postgres_setup, lost_answer):
    setup = postgres_setup
    setup.activate()
    lost_answer()
    setup.guard.arm_trigger(setup.wallet, uuid(1), "SOL < 100")
    assert [event.name for _, event in setup.guard.events(setup.wallet)] == ["trigger_armed"]


def test_a_restore_whose_commit_was_not_answered_is_told_once(postgres_setup, lost_answer):
    lost_answer()
    epoch = postgres_setup.guard.mark_restored()
    assert postgres_setup.guard.ledger.stream_epoch == epoch
    kinds = [each.entry.kind for each in postgres_setup.guard.entries(EVERYBODY)]
    assert kinds == [Kind.RESTORED, Kind.HALTED]


def test_changes_that_are_made_alone_after_lost_answers_know_it(postgres_setup, lost_answer, monkeypatch):
    """Every try together is answered by silence; alone, each finds what was committed and takes it for done."""
    setup = postgres_setup
    setup.activate()
    monkeypatch.setattr(setup.guard.ledger, "_pause_after", lambda _tries: None)
    authorized = [setup.guard.authorize(setup.request(number)).authorization for number in range(2)]

    def signing(number):
        signed = {"txSignature": str(number), "transaction": "00", "lastValidBlockHeight": 1}
        return lambda wallet: fires.record_signature(wallet, authorized[number], lambda: signed, setup.fetched(), None)

    for _ in range(setup.guard.ledger._store.attempts_max):
        lost_answer()
    outcomes = setup.guard.ledger.change_many([(setup.wallet, signing(each), None) for each in (0, 1)])
    assert outcomes == [None, None]


def test_after_an_interrupt_nothing_that_was_undone_is_an_answer(sqlite_setup):
    sqlite_setup.activate()
    ledger, calls = sqlite_setup.guard.ledger, []

    def broken_then_interrupted(_wallet):
        calls.append(1)
        raise OSError if len(calls) == 1 else KeyboardInterrupt

    def append(wallet):
        return wallet.append(Kind.NEXT_RUN_SET, uuid(1), {})

    works = [append, lambda wallet: wallet.head.seq, broken_then_interrupted, append]
    changes = [_Change(sqlite_setup.wallet, work, create=False, ahead=None) for work in works]
    with pytest.raises(KeyboardInterrupt):
        ledger._commit(changes, 1)
    assert (changes[0].result().entry.seq, changes[1].result()) == (3, 3)
    assert len(sqlite_setup.guard.entries(sqlite_setup.wallet)) == 3
    for change in changes[2:]:
        with pytest.raises(LedgerError, match="interrupted"):
            change.result()


def test_an_interrupt_is_raised_and_nobody_waits_for_ever(setup):
    setup.activate()

    def interrupted(_wallet):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup.guard.ledger.change(setup.wallet, interrupted)
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"


def test_what_is_read_ahead_is_what_each_statement_answers(postgres_setup):
    """At every stage of a user's life: nothing there, an agent, a first attempt, a full window, signed on."""
    setup = postgres_setup
    setup.limits = Limits(executions_per_24h=3)
    setup.guard.change_limits(setup.limits)
    store, asked = setup.guard.ledger._store, Counter()

    def compare(execution, *, agent=1, seen_seq=0):
        ahead = Ahead(uuid(agent), setup.request(execution).execution_id)
        with store.writing() as cursor:
            cursor.read_ahead(setup.wallet, ahead, seen_seq)
            answers = dict(cursor._answers)
            for (statement, *values), rows in answers.items():
                names = statement.compiled(store.engine.dialect).names
                if statement is not sql.READ_TIME:
                    assert rows == Cursor.all(cursor, statement, **dict(zip(names, values, strict=False)))
                asked[statement] += len(rows)
        return {statement for statement, *_ in answers}

    always = {sql.FIND_EXECUTION, sql.READ_TIME, sql.READ_EVERYBODY}
    assert compare(1) == always
    setup.activate()
    assert compare(1) == always | {sql.LOCK_HEAD, sql.FIND_SEQ}
    assert compare(1, agent=2) == always | {sql.LOCK_HEAD}
    for number in (1, 2, 3):
        authorized = setup.guard.authorize(setup.request(number)).authorization
    assert compare(4) == always | {sql.LOCK_HEAD, sql.FIND_SEQ, sql.FIND_ATTEMPT}
    found = asked[sql.FIND_SEQ]
    compare(4, seen_seq=3)
    compare(4, seen_seq=5)  # the newest
    assert asked[sql.FIND_SEQ] == found + 2 + 1
    assert setup.sign(authorized) is None
    compare(3)
    assert asked[sql.FIND_EXECUTION] == 2
    assert asked[sql.FIND_ATTEMPT] == 2 + 2


def test_what_was_forgotten_is_checked_again(setup, monkeypatch):
    monkeypatch.setattr(wallet, "REMEMBERED", 2)
    for agent in (1, 2, 3):
        setup.activate(agent)
    for agent in (1, 2, 3, 1):
        assert setup.guard.authorize(setup.request(setup.random.randrange(9_999), agent=agent)).outcome == "allowed"
    assert len(setup.guard.ledger._seals._read) == 2
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_fire_on_postgresql_asks_once_and_writes(postgres_setup, monkeypatch):
    postgres_setup.activate()
    ran, execute = [], Cursor._execute

    def record(cursor, statement, values):
        ran.append(statement)
        execute(cursor, statement, values)

    monkeypatch.setattr(Cursor, "_execute", record)
    assert isinstance(postgres_setup.guard.authorize(postgres_setup.request()), Allowed)
    assert ran == [LOCK_AND_READ, sql.INSERT_ENTRY, sql.ADVANCE_HEAD]
