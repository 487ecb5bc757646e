"""What a session with PostgreSQL is held to: its settings, its commits, and that it is one."""

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import psycopg
import pytest
from sqlalchemy import make_url

from executor.audit import check_ledger
from executor.errors import LedgerError
from executor.guard import Guard
from executor.halts import EVERYTHING, Halter, Scope
from executor.ledger import session
from tests import postgres
from tests.support import Setup, until

HOSTILE = {
    "client_min_messages": "error",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "1s",
    "lock_timeout": "1ms",
    "row_security": "on",
    "search_path": "public, pg_catalog",
    "statement_timeout": "1s",
    "synchronous_commit": "off",
}


def administer(url, *statements):
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def hostile_setup(postgres_setup):
    """Yield a user whose database has every default wrong, and functions before those of PostgreSQL."""
    name = make_url(postgres_setup.path).database
    administer(
        postgres_setup.path,
        *(f"ALTER DATABASE \"{name}\" SET {setting} = {value if ',' in value else repr(value)}"
          for setting, value in HOSTILE.items()),
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''epoch''::timestamptz'",
        "CREATE FUNCTION public.pg_advisory_xact_lock_shared(bigint) RETURNS void LANGUAGE sql AS 'SELECT'",
    )  # fmt: skip
    postgres_setup.reopen()
    yield postgres_setup
    administer(postgres_setup.path, f'ALTER DATABASE "{name}" RESET ALL')


def test_no_default_counts_for_what_exactness_rests_on(hostile_setup):
    assert HOSTILE.keys() == session.SET.keys() - {"client_encoding"} | {"search_path"}
    with hostile_setup.guard.ledger._store.writing() as cursor:
        for name, wanted in {**session.SET, "search_path": "public, pg_temp"}.items():
            cursor._cursor.execute("SELECT current_setting(%s)", (name,))
            assert cursor._cursor.fetchone() == (wanted,)
    hostile_setup.activate()
    assert hostile_setup.guard.authorize(hostile_setup.request(1)).outcome == "allowed"
    hostile_setup.guard.close()
    with open_by_host(hostile_setup) as guard:  # by another's function it would be 1970
        assert guard.headroom(hostile_setup.wallet).at_ms > hostile_setup.now_ms
    hostile_setup.guard = hostile_setup.open()


def open_by_host(setup):
    """Open the ledger by the clock of the database's host."""
    return Guard.open(setup.path, seal_keys=setup.seal_keys, prices=setup.prices, assets=setup.guard._assets)


def test_a_temporary_table_stands_before_nothing(postgres_setup):
    postgres_setup.activate()
    store = postgres_setup.guard.ledger._store
    with store.writing() as cursor:
        cursor._cursor.execute("CREATE TEMPORARY TABLE heads (wallet text)", ())
    assert postgres_setup.guard.authorize(postgres_setup.request(1)).outcome == "allowed"


class Server:
    """A server of its own, whose settings a test may change."""

    def __init__(self, cluster):
        self._port = postgres.free_port()
        self._running = postgres.running(cluster, self._port)
        self.process = self._running.__enter__()
        assert postgres.answers(self.process, postgres.dsn_at(self._port), cluster.data)
        self.url = postgres.dsn_at(self._port).replace("postgresql:", "postgresql+psycopg:")

    def set(self, **settings):
        """Write settings into the server's files, and have it read them."""
        for name, value in settings.items():
            administer(self.url, f"ALTER SYSTEM SET {name} = '{value}'")
        administer(self.url, "SELECT pg_reload_conf()")

    def waiting_for_standby(self):
        with psycopg.connect(self.url.replace("+psycopg", ""), autocommit=True) as connection:
            rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall()
        return [pid for (pid,) in rows]

    def end(self):
        self._running.__exit__(None, None, None)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delitem(postgres.SETTINGS, "full_page_writes")  # what the command line sets, no file can
    with postgres.cluster() as cluster:
        running = Server(cluster)
        yield running
        running.end()


def test_a_setting_that_a_reload_takes_away_is_noticed_before_the_next_fire(server):
    setup = Setup(server.url)
    setup.activate()
    setup.guard.close()
    with open_by_host(setup) as guard:
        name = setup.wallet
        guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
        guard.lift(EVERYTHING, Halter.OPERATOR)
        server.set(full_page_writes="off")
        until(lambda: fails(guard, name))
        with pytest.raises(LedgerError, match="full_page_writes = off, but on is needed"):
            guard.authorize(setup.request(1))
        server.set(full_page_writes="on", synchronous_commit="off")
        until(lambda: not fails(guard, name))


def fails(guard, wallet):
    """Tell whether a change fails now: each of the server's processes reads its files when it comes to it."""
    try:
        guard.set_fundable(wallet, fundable=False)
    except LedgerError:
        return True
    return False


def test_a_commit_that_may_be_on_the_primary_alone_is_not_acknowledged(server):
    """A synchronous standby is away, and an operator cancels those that wait for it: the answer has a warning."""
    setup = Setup(server.url)
    setup.activate()
    server.set(synchronous_standby_names="away")
    outcomes = []

    def fire(number):
        try:
            outcomes.append(setup.guard.authorize(setup.request(number)))
        except LedgerError as error:
            outcomes.append(error)

    def cancel_until(count):
        def cancelled():
            for pid in server.waiting_for_standby():
                administer(server.url, f"SELECT pg_cancel_backend({pid})")
            return len(outcomes) == count

        until(cancelled)

    first = Thread(target=fire, args=(1,))
    first.start()
    cancel_until(1)
    assert isinstance(outcomes[0], LedgerError)
    assert "canceling wait for synchronous replication" in str(outcomes[0])
    second = Thread(target=fire, args=(2,))
    second.start()
    until(server.waiting_for_standby)
    (waiting,) = server.waiting_for_standby()
    administer(server.url, f"SELECT pg_cancel_backend({waiting})")
    until(lambda: server.waiting_for_standby() not in ([], [waiting]))  # looked up again, it waits again
    server.set(synchronous_standby_names="")
    for thread in (first, second):
        thread.join(60)
    assert outcomes[1].authorization.attempt == 2
    setup.guard.check(outcomes[1].authorization)
    again = setup.guard.authorize(setup.request(1))
    assert (again.outcome, again.authorization) == ("allowed", None)
    assert check_ledger(setup.guard.ledger).findings == ()
    setup.guard.close()


@pytest.fixture
def pooler(server, tmp_path, request):
    """Yield the URL of the server behind a pooler in the mode of `request.param`."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        why = "pgbouncer isn't installed (Debian: apt-get install pgbouncer)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    at = make_url(server.url)
    port = postgres.free_port()
    users = tmp_path / "users.txt"
    users.write_text('"postgres" ""\n')
    config = tmp_path / "pgbouncer.ini"
    config.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={at.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {users}\npool_mode = {request.param}\n"
        "unix_socket_dir =\nmax_client_conn = 100\ndefault_pool_size = 20\n"
    )
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):  # noqa: S108 - pytest's own folders
            folder.chmod(0o755)
    identity = postgres.unprivileged() if os.geteuid() == 0 else {}
    with subprocess.Popen([program, str(config)], stderr=subprocess.PIPE, **identity) as process:
        url = at.set(port=port).render_as_string(hide_password=False)
        try:
            until(lambda: process.poll() is not None or answers(url))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def answers(url):
    try:
        administer(url, "SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_a_pooler_that_shares_server_processes_is_refused_by_name(server, pooler):
    Setup(server.url).guard.close()
    with pytest.raises(LedgerError, match="pooler that gives each transaction another of its connections"):
        Setup(pooler)


@pytest.mark.parametrize("pooler", ["session"], indirect=True)
def test_a_pooler_that_keeps_sessions_works(server, pooler):
    Setup(server.url).guard.close()
    setup = Setup(pooler)
    setup.activate()
    with ThreadPoolExecutor(8) as threads:
        fired = list(threads.map(setup.guard.authorize, [setup.request(number) for number in range(40)]))
    assert [each.outcome for each in fired] == ["allowed"] * 40
    setup.guard.halt(Scope(setup.wallet), Halter.USER, "enough")
    assert check_ledger(setup.guard.ledger).findings == ()
    setup.guard.close()


def test_a_session_that_is_another_servers_process_now_changes_nothing(postgres_setup):
    """A pooler that was not recognized is, at the first transaction that another process gets."""
    setup = postgres_setup
    setup.activate()
    setup.guard.close()
    with open_by_host(setup) as guard:
        store = guard.ledger._store
        with store.writing() as cursor:
            cursor.session.process += 1
        with pytest.raises(LedgerError, match="pooler"):
            guard.authorize(setup.request(1))
        assert guard.headroom(setup.wallet).executions.used == 0
