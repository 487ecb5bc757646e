"""SQLite: one process, one file.

Two processes on one file would each be right about half of the caps, so a second one is kept out and told who is in; it
may still read. Every pragma is read back: SQLite ignores one that it doesn't know or can't honor.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sqlalchemy import URL, create_engine, event

from executor.errors import LedgerError
from executor.ledger.definitions import differences, require_as_made
from executor.ledger.held_file import HeldFile, require_one_path
from executor.ledger.revision import create_or_require, require
from executor.ledger.statements import Cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine, PoolProxiedConnection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from executor.ledger.ahead import Ahead

__all__ = ["SqliteStore"]

READERS_MAX: Final = 8
BUSY_MS: Final = 5_000
"""In WAL readers and the writer don't wait for each other; this covers the moments when a checkpoint makes them."""

SAFE: Final[dict[str, str | int]] = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit that was answered survives a power cut
    "foreign_keys": 1,
    "recursive_triggers": 1,  # else REPLACE deletes rows without asking the triggers
    "busy_timeout": BUSY_MS,
}
READ_ONLY: Final[dict[str, str | int]] = {"query_only": 1, "busy_timeout": BUSY_MS}


class SqliteStore:
    """An open SQLite file: one connection that writes, and a pool of those that read."""

    writers_max: Final = 1
    attempts_max: Final = 1
    """What fails once on a local file fails again."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open `path`; unless `read_only`, hold it alone, and create it where there is none.

        Raises:
            LedgerError: the file or its folder can't be used, another process holds it, it has another path too, or
                it isn't a database.

        """
        path = path.resolve()
        self.name: Final = str(path)
        self.read_only: Final = read_only
        self._held: HeldFile | None = None
        self._writer: PoolProxiedConnection | None = None
        self._anchor: PoolProxiedConnection | None = None
        if read_only:
            require_one_path(path)
            read = {"mode": "ro", "uri": "true"}
            self.engine = _engine(f"file:{quote(str(path))}", READ_ONLY, query=read)
            return
        self._held = HeldFile(path)
        # rw: a file that is gone is not made again, empty
        self.engine = _engine(f"file:{quote(str(path))}", SAFE, query={"mode": "rw", "uri": "true"})

    def close(self) -> None:
        """Close every connection and let other processes in."""
        for connection in (self._writer, self._anchor):
            if connection is not None:
                connection.close()
        self._writer = self._anchor = None
        self.engine.dispose()
        if self._held is not None:
            self._held.let_go()

    def create(self) -> None:
        """Make the tables where there are none, else require their revision; make the triggers that are missing."""
        with self.altering() as connection:
            create_or_require(connection, self.name)
            self.program(connection)
            require_as_made(connection, self.name, program)
        if self._held is not None:
            # While a connection has it open, the log of what was committed last is one file, and is never made anew.
            self._anchor = self.engine.raw_connection()
            self._anchor.cursor().execute("SELECT count(*) FROM ledger")
            self._held.watch(Path(f"{self.name}-wal"))

    def program(self, connection: Connection) -> None:
        """Make the triggers that are missing."""
        program(connection)

    def differences(self) -> list[str]:
        """Return what isn't defined as this version defines it."""
        with self.engine.connect() as connection:
            return differences(connection, program)

    def require_revision(self) -> None:
        """Raise LedgerError unless this is a ledger of this version's revision."""
        with self.engine.connect() as connection:
            require(connection, self.name)

    @contextmanager
    def altering(self) -> Iterator[Connection]:
        """Lend SQLAlchemy's connection in a transaction, to make or change tables; commit it at the end."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Cursor]:
        """Lend a cursor in a transaction that nobody else's write can be inside of; commit it at the end."""
        if self._held is not None:
            self._held.require_in_place()
        if self._writer is None:
            self._writer = self.engine.raw_connection()
        cursor = self._writer.cursor()
        try:
            cursor.execute("BEGIN IMMEDIATE")
            yield Cursor(cursor, self.engine.dialect)
            cursor.execute("COMMIT")
        except BaseException:
            self._writer.invalidate()
            self._writer = None
            raise

    @contextmanager
    def reading(self) -> Iterator[Cursor]:
        """Lend a cursor in a transaction that sees one state of the database."""
        connection = self.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            yield Cursor(cursor, self.engine.dialect)
            cursor.execute("COMMIT")
        finally:
            connection.close()  # rolls back what wasn't committed

    def leave_hint(self, _wallets: Collection[str]) -> None:
        """Let other processes know of a change: there is none that changes anything, and readers look by themselves."""

    def hinting(self, _told: Callable[[Collection[str]], None]) -> AbstractContextManager[None]:
        """Hear what other processes changed: nothing."""
        return nullcontext()

    def now_ms(self, _cursor: Cursor, process_ms: int) -> int:
        """Return the time of the database's host, which is this one."""
        return process_ms

    def is_passing(self, _error: Exception) -> bool:
        """Tell whether the same again may work: never, on a file that nobody else writes to."""
        return False

    def share_halts(self, _cursor: Cursor) -> None:
        """Keep halts of everything from coming in between: nothing can, since writers are alone."""

    own_halts = share_halts

    def read_ahead(self, _cursor: Cursor, _wallet: str, _ahead: Ahead, _seen_seq: int) -> None:
        """Have answers at hand: not worth it, where nothing travels."""


def _engine(database: str, pragmas: dict[str, str | int], *, query: dict[str, str] | None = None) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=database, query=query or {}),
        pool_size=READERS_MAX + 2,
        max_overflow=0,
        # None: the driver begins nothing by itself. Its own "IMMEDIATE" begins only before a write, after the reads.
        connect_args={"isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for name, wanted in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {wanted}")
            cursor.execute(f"PRAGMA {name}")
            found = cursor.fetchall()
            if found != [(wanted,)]:
                raise LedgerError(f"SQLite answers {found} to PRAGMA {name}, but {wanted} is needed")
        cursor.close()

    return engine


def program(connection: Connection) -> None:
    """Make the triggers that are missing."""
    for name, timing, body in TRIGGERS:
        connection.exec_driver_sql(f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {timing} BEGIN {body}; END")


TRIGGERS: Final = (
    ("entries_refuse_update", "UPDATE ON entries", "SELECT RAISE(ABORT, 'entries are only ever appended')"),
    ("entries_refuse_delete", "DELETE ON entries", "SELECT RAISE(ABORT, 'entries are only ever appended')"),
    (
        "attempts_have_no_gap",
        "INSERT ON entries WHEN NEW.attempt > 1",
        """
        SELECT RAISE(ABORT, 'the attempt before this one is missing')
        WHERE NOT EXISTS (SELECT 1 FROM entries WHERE wallet = NEW.wallet AND attempt = NEW.attempt - 1)
        """,
    ),
    (
        "attempts_keep_the_cap",
        "INSERT ON entries WHEN NEW.attempt IS NOT NULL",
        """
        SELECT RAISE(ABORT, 'the attempts of 24 hours use up the cap')
        WHERE EXISTS (
            SELECT 1 FROM entries
            WHERE wallet = NEW.wallet AND attempt = NEW.attempt - (SELECT executions_per_24h FROM ledger)
            AND at_ms > NEW.at_ms - 86400000
        )
        """,
    ),
)
"""Name, occasion and body: storage's own word against what only a bug or a stranger would write."""
