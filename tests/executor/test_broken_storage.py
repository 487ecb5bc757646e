"""The database fails in the middle of a fire: locked, full, read-only, gone, or stopped and started again.

Each time the fire is refused by an error of ours that names the database; nothing is authorized, nothing that was
committed is lost, and once the database is back, the same request is authorized once.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from executor.assets import KnownAssets
from executor.audit import check_ledger
from executor.errors import LedgerError, LedgerTampered
from executor.guard import Guard
from executor.ledger import Ledger, sqlite
from executor.ledger.pause import pause, pause_ms
from executor.ledger.statements import Cursor
from executor.reasons import Reason
from executor.seal import SealKeys
from tests import postgres
from tests.support import BONK, JTO, USDC, Setup, key, until, uuid


def counted(setup):
    """Return how many attempts were counted, in a ledger where the audit finds nothing."""
    assert check_ledger(setup.guard.ledger).findings == ()
    return setup.guard.headroom(setup.wallet).executions.used


def refused(setup, execution, told):
    """Fire, which must fail as `told`, and leave the ledger's name in the text."""
    with pytest.raises(LedgerError, match=told) as error:
        setup.guard.authorize(setup.request(execution))
    assert "\n" not in str(error.value)


# SQLite


def test_a_file_that_another_process_locks_authorizes_nothing(sqlite_setup, monkeypatch):
    setup = sqlite_setup
    setup.activate()
    monkeypatch.setitem(sqlite.SAFE, "busy_timeout", 10)
    setup.reopen()
    other = sqlite3.connect(setup.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    refused(setup, 1, f"`{setup.path}` failed: database is locked")
    with pytest.raises(LedgerError, match="locked"):
        setup.activate(2)
    other.close()
    assert setup.guard.authorize(setup.request(1)).authorization.attempt == 1
    setup.reopen()
    assert counted(setup) == 1


def test_a_full_disk_authorizes_nothing_and_loses_nothing(sqlite_setup, monkeypatch):
    setup = sqlite_setup
    setup.activate()
    setup.guard.close()
    with contextlib.closing(sqlite3.connect(setup.path)) as connection:
        ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    monkeypatch.setitem(sqlite.SAFE, "max_page_count", pages + 3)
    setup.guard = setup.open()
    with contextlib.suppress(LedgerError):
        for allowed in range(100):
            setup.guard.authorize(setup.request(allowed))
    assert 0 < allowed < 99
    refused(setup, allowed, f"`{setup.path}` failed: database or disk is full")
    setup.reopen()
    assert counted(setup) == allowed
    refused(setup, allowed, "full")
    monkeypatch.delitem(sqlite.SAFE, "max_page_count")
    setup.guard.ledger.engine.dispose()
    assert setup.guard.authorize(setup.request(allowed)).authorization.attempt == allowed + 1
    setup.reopen()
    assert counted(setup) == allowed + 1


@pytest.fixture
def unprivileged_setup():
    """Yield a user whose files have modes that count: root may write to all, and becomes nobody for a while."""
    with tempfile.TemporaryDirectory() as folder:
        nobody, root = 65534, os.geteuid() == 0
        if root:
            os.chown(folder, nobody, nobody)
            os.seteuid(nobody)
        try:
            made = Setup(Path(folder) / "ledger.db")
            made.activate()
            yield made
            made.guard.close()
        finally:
            if root:
                os.seteuid(0)


def test_a_file_that_may_only_be_read_is_not_opened_and_can_be_read(unprivileged_setup):
    setup = unprivileged_setup
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    setup.guard.close()
    setup.path.chmod(0o400)
    with pytest.raises(LedgerError, match="can't be written: Permission denied"):
        setup.open()
    with Ledger.open(setup.path, seal_keys=setup.seal_keys, read_only=True) as ledger:
        assert check_ledger(ledger).findings == ()
    for each in setup.path.parent.iterdir():  # SQLite gave the files beside it the same mode
        each.chmod(0o600)
    setup.guard = setup.open()
    assert counted(setup) == 1


def test_a_folder_that_may_only_be_read_holds_no_ledger_that_fires(unprivileged_setup):
    setup = unprivileged_setup
    setup.guard.close()
    setup.path.parent.chmod(0o500)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        setup.open()
    setup.path.parent.chmod(0o700)
    setup.guard = setup.open()
    assert counted(setup) == 0


def test_a_file_that_was_deleted_authorizes_nothing_and_is_not_made_again(sqlite_setup):
    setup = sqlite_setup
    setup.activate()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    copy = setup.path.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(setup.path)) as source, contextlib.closing(sqlite3.connect(copy)) as into:
        source.backup(into)
    setup.path.unlink()
    refused(setup, 2, f"`{setup.path}` is gone")
    setup.guard.ledger.engine.dispose()
    with pytest.raises(LedgerError, match="unable to open database file"):
        setup.guard.headroom(setup.wallet)
    assert not setup.path.exists()
    shutil.copy(copy, setup.path)
    refused(setup, 2, "was replaced by another file")
    setup.guard.close()
    for leftover in ("-wal", "-shm"):
        setup.path.with_name(setup.path.name + leftover).unlink(missing_ok=True)
    setup.guard = setup.open()
    assert setup.guard.authorize(setup.request(2)).authorization.attempt == 2
    assert counted(setup) == 2


# PostgreSQL


class InterruptingClock:
    """A clock that is read in the middle of a fire, under the lock, where something happens: the first `left` times."""

    def __init__(self, setup, happens):
        self._setup = setup
        self._happens = happens
        self.left = 0

    def __call__(self):
        if self.left:
            self.left -= 1
            self._happens()
        return self._setup.now_ms


def interrupt(setup, happens, *, times=1, pause_after=lambda _tries: None):
    """Open the ledger anew, so that something happens in the middle of its next fires."""
    setup.guard.close()
    clock = InterruptingClock(setup, happens)
    ledger = Ledger.open(
        setup.path,
        seal_keys=setup.seal_keys,
        clock=clock,
        random_bytes=setup.random.randbytes,
        pause_after=pause_after,
    )
    setup.guard = Guard(
        ledger, prices=setup.prices, assets=KnownAssets([USDC, JTO, BONK]), random_bytes=setup.random.randbytes
    )
    setup.guard.explain(setup.request(99))  # from here on the guard knows which quotes a fire needs
    clock.left = times


def end_all_others(url):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_fire_whose_backend_ends_is_made_once(postgres_setup):
    setup, pauses = postgres_setup, []
    setup.activate()
    interrupt(setup, lambda: end_all_others(setup.path), pause_after=pauses.append)
    authorization = setup.guard.authorize(setup.request(1)).authorization
    assert (authorization.attempt, pauses) == (1, [1])
    setup.guard.check(authorization)
    setup.reopen()
    assert counted(setup) == 1


def test_a_fire_whose_backend_ends_each_time_authorizes_nothing_after_a_bounded_number_of_tries(postgres_setup):
    setup, pauses = postgres_setup, []
    setup.activate()
    interrupt(setup, lambda: end_all_others(setup.path), times=8, pause_after=pauses.append)
    refused(setup, 1, "failed: ")
    assert pauses == [1, 2, 3, 4, 5, 6, 7]
    assert counted(setup) == 0
    assert setup.guard.authorize(setup.request(1)).authorization.attempt == 1
    setup.reopen()
    assert counted(setup) == 1


def test_many_that_wait_for_a_server_wait_together_and_not_one_after_the_other(postgres_setup):
    setup, pauses = postgres_setup, []
    setup.activate()
    interrupt(setup, lambda: end_all_others(setup.path), times=8 + 3, pause_after=pauses.append)
    asked = [(setup.wallet, setup.authorizing(number), None) for number in range(3)]
    outcomes = setup.guard.ledger.change_many(asked)
    assert [type(each) for each in outcomes] == [LedgerError] * 3
    assert pauses == [1, 2, 3, 4, 5, 6, 7]
    assert counted(setup) == 0


def test_pauses_grow_and_differ_by_chance():
    assert [pause_ms(tries, 0) for tries in range(1, 8)] == [10, 20, 40, 80, 160, 320, 640]
    assert all(5 <= pause_ms(1, chance) <= 10 for chance in range(256))
    assert len({pause_ms(1, chance) for chance in range(256)}) == 256
    pause(1)


def test_what_the_driver_can_not_send_is_not_tried_again(postgres_setup):
    pauses = []
    interrupt(postgres_setup, None, times=0, pause_after=pauses.append)
    with pytest.raises(LedgerError, match="NUL"):
        postgres_setup.guard.stop("\0", uuid(1))
    assert pauses == []


class Server:
    """A server of its own that a test may end and start again."""

    def __init__(self, cluster):
        self._cluster, self._port = cluster, postgres.free_port()
        self._running = ExitStack()
        self.url = postgres.dsn_at(self._port).replace("postgresql:", "postgresql+psycopg:")
        self.start()

    def start(self):
        self._process = self._running.enter_context(postgres.running(self._cluster, self._port))
        assert postgres.answers(self._process, postgres.dsn_at(self._port), self._cluster.data)

    def end(self, how=signal.SIGINT):
        self._process.send_signal(how)
        self._process.wait(postgres.STOP_S)
        self._running.close()

    def execute(self, statement):
        """Run `statement`, and return the rows of its answer, if there are any."""
        with psycopg.connect(postgres.dsn_at(self._port), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def server():
    with postgres.cluster() as made:
        running = Server(made)
        yield running
        running.end()


@pytest.fixture
def server_setup(server):
    server.execute("DROP SCHEMA public CASCADE")
    server.execute("CREATE SCHEMA public")
    made = Setup(server.url)
    made.activate()
    yield made
    made.guard.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_starts_again_within_the_pauses_is_waited_for(server, server_setup, how):
    setup = server_setup
    first = setup.guard.authorize(setup.request(1)).authorization
    tried = []

    def pause_after(tries):
        tried.append(tries)
        if tries == 3:
            server.start()

    interrupt(setup, lambda: server.end(how), pause_after=pause_after)
    store = setup.guard.ledger._store
    with ExitStack() as warm:  # as after a busy hour: more connections than there are tries
        for _ in range(12):
            warm.enter_context(store.reading())
    second = setup.guard.authorize(setup.request(2)).authorization
    assert (second.attempt, tried) == (2, [1, 2, 3])
    assert setup.guard.authorize(setup.request(2)).authorization is None
    setup.guard.check(first)
    setup.guard.check(second)
    assert counted(setup) == 2
    setup.reopen()
    assert counted(setup) == 2


def test_a_server_that_stays_away_is_told_and_leaves_nobody_without_an_answer(server, server_setup):
    setup = server_setup
    interrupt(setup, server.end)
    store = setup.guard.ledger._store
    with ExitStack() as warm:
        for _ in range(12):
            warm.enter_context(store.reading())
    refused(setup, 1, "failed: ")
    with pytest.raises(LedgerError, match="failed: "):
        setup.guard.explain(setup.request(1))
    server.start()
    assert counted(setup) == 0
    assert setup.guard.authorize(setup.request(1)).authorization.attempt == 1
    with ExitStack() as warm:
        for _ in range(12):
            warm.enter_context(store.reading())
    server.end()
    server.start()
    assert setup.guard.headroom(setup.wallet).executions.used == 1
    assert counted(setup) == 1


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_committed_is_refused(server, monkeypatch, setting):
    server.end()
    with monkeypatch.context() as unsafe:
        unsafe.setitem(postgres.SETTINGS, setting, "off")
        server.start()
    with pytest.raises(LedgerError, match=f"{setting} = off, but on is needed"):
        Setup(server.url)
    server.end()
    server.start()


def test_a_server_that_turns_read_only_authorizes_nothing(server, server_setup):
    setup = server_setup
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    until(lambda: server.execute("SHOW default_transaction_read_only") == [("on",)])
    try:
        refused(setup, 1, "failed: cannot execute .* in a read-only transaction|is needed")
        setup.guard.ledger.engine.dispose()
        refused(setup, 1, "transaction_read_only = on, but off is needed")
    finally:
        server.execute("ALTER SYSTEM RESET default_transaction_read_only")
        server.execute("SELECT pg_reload_conf()")
        until(lambda: server.execute("SHOW default_transaction_read_only") == [("off",)])
    setup.guard.ledger.engine.dispose()
    assert setup.guard.authorize(setup.request(1)).authorization.attempt == 1
    setup.reopen()
    assert counted(setup) == 1


# Both


def test_a_row_that_storage_itself_refuses_is_tampering_told_in_one_line(setup):
    """Somebody took the attempt before away from where storage looks: here, by never having written it."""
    setup.activate()

    def skip_one(transaction):
        head = transaction.head
        transaction.head = head._replace(attempts=head.attempts + 1)

    authorizing = setup.authorizing(1)

    def work(transaction):
        skip_one(transaction)
        return authorizing(transaction)

    with pytest.raises(LedgerTampered, match="the attempt before this one is missing") as told:
        setup.guard.ledger.change(setup.wallet, work)
    assert "\n" not in str(told.value)
    setup.reopen()
    assert counted(setup) == 0


@pytest.mark.parametrize("keys", [SealKeys.single(b"x" * 32), SealKeys({"2": b"s" * 32}, "2")], ids=["wrong", "none"])
def test_without_its_seal_key_a_ledger_is_not_opened(setup, keys):
    setup.activate()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    setup.guard.close()
    for read_only in (False, True):
        with pytest.raises(LedgerTampered, match="the key is another"):
            Ledger.open(setup.path, seal_keys=keys, read_only=read_only)
    setup.guard = setup.open()
    assert counted(setup) == 1


def test_an_entry_under_a_key_that_is_gone_fires_nothing(setup):
    """The head is sealed anew under the second key, but the activation only under the first."""
    setup.activate()
    setup.seal_keys = SealKeys({"1": b"s" * 32, "2": b"t" * 32}, "2")
    setup.reopen()
    setup.activate(2)
    del setup.seal_keys._begun["1"]
    setup.guard.ledger._seals._read.clear()
    assert setup.guard.authorize(setup.request(1)).reason is Reason.LEDGER_TAMPERED
    setup.seal_keys = SealKeys({"1": b"s" * 32, "2": b"t" * 32}, "2")
    setup.reopen()
    assert counted(setup) == 0


def test_a_statement_that_fails_in_any_place_leaves_nothing(setup, monkeypatch):
    """Each statement of a fire fails once, as the driver says it: before, between and after the writes."""
    setup.activate()
    driver, execute = setup.guard.ledger.engine.dialect.loaded_dbapi, Cursor._execute
    place, ran = 0, []

    def fail(cursor, statement, values):
        ran.append(statement)
        if len(ran) == place:
            raise driver.DataError("broken")
        execute(cursor, statement, values)

    monkeypatch.setattr(Cursor, "_execute", fail)
    for place in range(1, 100):  # noqa: B007 - `fail` sees it
        ran.clear()
        try:
            authorized = setup.guard.authorize(setup.request(1))
        except LedgerError as error:
            assert "broken" in str(error)
        else:
            break
    else:
        pytest.fail("no fire came through")
    assert place > 3
    assert authorized.authorization.attempt == 1
    monkeypatch.undo()
    setup.reopen()
    assert counted(setup) == 1


def test_a_wallet_that_is_known_fires_no_agent_of_another(setup):
    setup.activate(1)
    theirs = Setup.__new__(Setup)
    theirs.__dict__ = {**setup.__dict__, "signer": key(77), "wallet": key(77).wallet_address}
    theirs.activate(2, session=9)
    before = [len(setup.guard.entries(wallet)) for wallet in (setup.wallet, theirs.wallet)]
    assert setup.guard.authorize(theirs.request(1, agent=1)).reason is Reason.AGENT_UNKNOWN
    assert setup.guard.authorize(setup.request(1, agent=2)).reason is Reason.AGENT_UNKNOWN
    assert [len(setup.guard.entries(wallet)) for wallet in (setup.wallet, theirs.wallet)] == before
