"""SQLite: one process, one file.

Two processes on one file would each be right about half of the caps, so a lock file keeps a second one out and tells
it who is in; it may still read. Every pragma is read back: SQLite ignores one that it doesn't know or can't honor.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import DatabaseError

from executor.errors import LedgerError
from executor.ledger.schema import entries, metadata

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

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
    """An open SQLite file: an engine for the one writer, and one for readers."""

    reader: Engine
    writer: Engine | None = None
    """None: read-only."""
    _lock: int | None = None

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open `path`; unless `read_only`, hold it alone, and create it where there is none.

        Raises:
            LedgerError: the file or its folder can't be used, another process holds it, or it isn't a database.

        """
        path = path.resolve()
        try:
            if read_only:
                read = {"mode": "ro", "uri": "true"}
                self.reader = _engine(f"file:{quote(str(path))}", READ_ONLY, begin="BEGIN", pool_size=1, query=read)
                self.reader.connect().close()
                return
            self._lock = _lock(path)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.reader = _engine(str(path), SAFE, begin="BEGIN", pool_size=READERS_MAX)
            self.writer = _engine(str(path), SAFE, begin="BEGIN IMMEDIATE", pool_size=1)
            with self.writer.begin() as connection:
                metadata.create_all(connection)
                _make_append_only(connection)
        except (sqlite3.DatabaseError, DatabaseError) as error:
            self.close()
            raise LedgerError(f"`{path}` can't be used as a ledger: {getattr(error, 'orig', error)}") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection and let other processes in."""
        for engine in (self.writer, getattr(self, "reader", None)):
            if engine is not None:
                engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    """Take the lock file beside `path`, for as long as the returned descriptor stays open."""
    lock_path = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"`{lock_path}` can't be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise LedgerError(f"`{path}` is in use by process {holder}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return descriptor


def _engine(
    database: str, pragmas: dict[str, str | int], *, begin: str, pool_size: int, query: dict[str, str] | None = None
) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=database, query=query or {}),
        pool_size=pool_size,
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

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _make_append_only(connection: Connection) -> None:
    for change in ("UPDATE", "DELETE"):
        connection.exec_driver_sql(
            f"CREATE TRIGGER IF NOT EXISTS entries_refuse_{change.lower()} BEFORE {change} ON {entries.name} "
            f"BEGIN SELECT RAISE(ABORT, 'entries are only ever appended'); END"
        )
