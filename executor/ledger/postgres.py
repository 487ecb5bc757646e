"""PostgreSQL: many processes, one database. The caps are exact across all of them.

A user's row is made sure of in one statement, locked in the next (`SELECT ... FOR UPDATE` and nothing else), and all
that the decision needs is read in later ones: at READ COMMITTED each of these sees what the holder of the lock before
has committed. A halt of everything takes an advisory lock that every change shares, so that none is under way when it
commits.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam, create_engine, event, func, select

from executor.errors import LedgerError
from executor.ledger import session
from executor.ledger import statements as sql
from executor.ledger.ahead import HALTS_LOCK, LOCK_AND_READ_FUNCTION, AnsweredCursor
from executor.ledger.definitions import differences, require_as_made
from executor.ledger.hints import Hints
from executor.ledger.pipeline import Pipeline
from executor.ledger.revision import create_or_require, require
from executor.ledger.statements import Cursor, Statement
from executor.ledger.url import name_of, postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Connection, PoolProxiedConnection
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from executor.ledger.ahead import Ahead

__all__ = ["PostgresStore"]

CONNECTIONS_MAX: Final = 16

CREATE_LOCK: Final = HALTS_LOCK + 1

SHARE_LOCK: Final = Statement(select(func.pg_advisory_xact_lock_shared(bindparam("key", type_=BigInteger))))
OWN_LOCK: Final = Statement(select(func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger))))

BEGIN_READING: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    "SET LOCAL idle_in_transaction_session_timeout = 0"  # it locks nobody out, and an audit takes its time
)

POOLER: Final = (
    "`{}` is reached by a pooler that gives each transaction another of its connections (PgBouncer's "
    "pool_mode=transaction): a ledger needs its own, so connect to the server itself, or pool sessions"
)

PASSING: Final = frozenset({"25P03", "40001", "40P01", "57P01", "57P02", "57P03", "57P05"})
"""Serialization failure, deadlock, a server that shuts down or starts, and one that ended a connection that idled, in
a transaction or outside (appendix A of the manual)."""


class PostgresStore:
    """A pool of connections to one PostgreSQL database."""

    writers_max: Final = CONNECTIONS_MAX // 2
    attempts_max: Final = 8
    """With the pauses between them, more than a second at most: a server that starts again is back by then."""

    def __init__(self, url: URL, *, read_only: bool = False) -> None:
        """Connect to `url`.

        Raises:
            LedgerError: it isn't a primary that keeps what it has committed.

        """
        self.name: Final = name_of(url)
        self.read_only: Final = read_only
        shown, secrets = postgres(url)
        self.engine = create_engine(
            shown,
            paramstyle="format",
            isolation_level="READ COMMITTED",
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_pre_ping=False,
            # What the driver prepares by itself it takes away at each rollback, and what a pipeline prepared too.
            connect_args={"prepare_threshold": None, "client_encoding": session.SET["client_encoding"], **secrets},
        )
        self._dbapi: Final = self.engine.dialect.loaded_dbapi
        event.listen(self.engine, "connect", self._begin_session)
        self._hints = Hints(self.engine)

    def close(self) -> None:
        """Close every connection."""
        self._hints.close()
        self.engine.dispose()

    def create(self) -> None:
        """Make the tables where there are none, else require their revision; make all else as it must be."""
        self._refuse_pooler()
        with self.altering() as connection:
            create_or_require(connection, self.name)
            self.program(connection)
            require_as_made(connection, self.name, program)

    def program(self, connection: Connection) -> None:
        """Make the triggers and the function as they must be."""
        program(connection)

    def differences(self) -> list[str]:
        """Return what isn't defined as this version defines it; of a standby, where nothing can be made, nothing."""
        with self.engine.connect() as connection, connection.begin() as undone:
            if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar():
                return []
            found = differences(connection, program)
            undone.rollback()
        return found

    def require_revision(self) -> None:
        """Raise LedgerError unless this is a ledger of this version's revision."""
        with self.engine.connect() as connection:
            require(connection, self.name)

    @contextmanager
    def altering(self) -> Iterator[Connection]:
        """Lend SQLAlchemy's connection in a transaction, to make or change tables; commit it at the end.

        Of two processes that begin at once, one waits.
        """
        with self.engine.connect() as connection:
            info = connection.connection.info
            with connection.begin():
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({CREATE_LOCK})")
                info["session"].warnings.clear()
                yield connection
            info["session"].require_no_warning()

    @contextmanager
    def writing(self) -> Iterator[AnsweredCursor]:
        """Lend a cursor in a transaction; commit it at the end."""
        connection = self.engine.raw_connection()
        driver: Any = connection.driver_connection
        try:
            # What needs no answer travels with what follows: a fire waits for its reads and its commit alone.
            pipeline = Pipeline(driver, connection.info["session"])
            yield AnsweredCursor(pipeline, self.engine.dialect, connection.info["session"])
            pipeline.commit()
        except BaseException as error:
            connection.invalidate()
            self._reconnect_after(error)
            raise
        connection.close()

    @contextmanager
    def reading(self) -> Iterator[Cursor]:
        """Lend a cursor in a transaction that sees one state of the database."""
        connection = self._begin_reading()
        try:
            yield Cursor(connection.cursor(), self.engine.dialect)
        except BaseException as error:
            self._reconnect_after(error)
            raise
        finally:
            connection.close()

    def _begin_reading(self, *, again: bool = True) -> PoolProxiedConnection:
        """Return a connection in a transaction to read in; one that the server ended while it idled is made anew."""
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute(BEGIN_READING)
        except BaseException as error:
            connection.invalidate()
            if not (self._reconnect_after(error) and again):
                raise
            return self._begin_reading(again=False)
        return connection

    def _reconnect_after(self, error: BaseException) -> bool:
        """Make all connections anew once one is lost, and tell whether one was: the others went along with it."""
        lost = isinstance(error, self._dbapi.OperationalError) and self.is_passing(error)
        if lost:
            self.engine.dispose()
        return lost

    def _begin_session(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        """Make a new connection one that a ledger can use."""
        driver: Any = connection
        entry.info["session"] = session.begin(driver)
        if not self.read_only:
            self._require_settings(partial(session.shown, driver))
            driver.rollback()

    def _require_settings(self, shown: Callable[[str], object]) -> None:
        for name, allowed in session.NEEDED.items():
            session.require(name, allowed, shown(name))

    def _refuse_pooler(self) -> None:
        with closing(self.engine.raw_connection()) as one:
            driver: Any = one.driver_connection
            if session.is_direct(driver):
                return
            with closing(self.engine.raw_connection()) as other:
                if session.take_turns(driver, other.driver_connection):  # type: ignore[arg-type]
                    raise LedgerError(POOLER.format(self.name))

    def leave_hint(self, wallets: Collection[str]) -> None:
        """Let other processes know, soon, that `wallets` were changed."""
        self._hints.leave(wallets)

    def hinting(self, told: Callable[[Collection[str]], None]) -> AbstractContextManager[None]:
        """Call `told` with what other processes changed. A standby can't listen."""
        return nullcontext() if self.read_only else self._hints.listening(told)

    def now_ms(self, cursor: Cursor, _process_ms: int) -> int:
        """Return the time of the database's host, as it is now and not when the transaction began.

        With it comes whether the session is still as it was set.
        """
        row = cursor.one(sql.READ_TIME)
        if row is None:
            raise LedgerError("the database told no time")
        now_ms, process, loaded_us = row
        if isinstance(cursor, AnsweredCursor):
            if process != cursor.session.process:
                raise LedgerError(POOLER.format(self.name))
            if loaded_us != cursor.session.settings_loaded_us:
                self._require_settings(lambda name: (cursor.one(sql.READ_SETTING, name=name) or (None,))[0])
                cursor.session.settings_loaded_us = loaded_us
        return int(now_ms)

    def is_passing(self, error: Exception) -> bool:
        """Tell whether the same again may work: a lost connection (no SQLSTATE, or class 08), or one of PASSING."""
        state = getattr(error, "sqlstate", None)
        if state is None:
            return isinstance(error, self._dbapi.OperationalError)  # else the driver itself won't send it
        return state.startswith("08") or state in PASSING

    def share_halts(self, cursor: Cursor) -> None:
        """Keep halts of everything from coming in between."""
        cursor.send(SHARE_LOCK, key=HALTS_LOCK)

    def read_ahead(self, cursor: Cursor, wallet: str, ahead: Ahead, seen_seq: int) -> None:
        """Lock `wallet` and share halts, as their statements do, and have the answers for a fire at hand.

        They include the entry at `seen_seq`, the newest that this process has seen, if there are newer ones.
        """
        if isinstance(cursor, AnsweredCursor):
            cursor.read_ahead(wallet, ahead, seen_seq)

    def own_halts(self, cursor: Cursor) -> None:
        """Wait for every change under way, and let none begin."""
        cursor.send(OWN_LOCK, key=HALTS_LOCK)


def program(connection: Connection) -> None:
    """Make the triggers and the function, in whatever schema comes first."""
    for statement in (*TRIGGERS, LOCK_AND_READ_FUNCTION):
        connection.exec_driver_sql(statement)


TRIGGERS: Final = (
    """
    CREATE OR REPLACE FUNCTION entries_are_only_appended() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE integrity_constraint_violation USING MESSAGE = 'entries are only ever appended';
    END $$
    """,
    """
    CREATE OR REPLACE TRIGGER entries_refuse_change BEFORE UPDATE OR DELETE ON entries
    FOR EACH ROW EXECUTE FUNCTION entries_are_only_appended()
    """,
    """
    CREATE OR REPLACE TRIGGER entries_refuse_truncate BEFORE TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION entries_are_only_appended()
    """,
    """
    CREATE OR REPLACE FUNCTION attempts_keep_the_cap() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.attempt > 1 AND NOT EXISTS (
            SELECT 1 FROM entries WHERE wallet = NEW.wallet AND attempt = NEW.attempt - 1
        ) THEN
            RAISE integrity_constraint_violation USING MESSAGE = 'the attempt before this one is missing';
        END IF;
        IF EXISTS (
            SELECT 1 FROM entries
            WHERE wallet = NEW.wallet AND attempt = NEW.attempt - (SELECT executions_per_24h FROM ledger)
            AND at_ms > NEW.at_ms - 86400000
        ) THEN
            RAISE integrity_constraint_violation USING MESSAGE = 'the attempts of 24 hours use up the cap';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE OR REPLACE TRIGGER attempts_keep_the_cap BEFORE INSERT ON entries
    FOR EACH ROW WHEN (NEW.attempt IS NOT NULL) EXECUTE FUNCTION attempts_keep_the_cap()
    """,
)
"""Storage's own word against what only a bug or a stranger would write."""
