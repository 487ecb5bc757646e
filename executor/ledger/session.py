"""A session with PostgreSQL: everything that exactness rests on is set in it, read back, and held to be true.

Defaults come from the server's files, the database, the role and the URL, and whoever may change one of them would
change what a commit or a lock means. So each session sets its own, which no reload of the server's files undoes; what
a session can't set has to be right, at its beginning and again after each reload.

A pooler that gives each transaction another server process undoes all of that, so it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import OperationalError

from executor.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection
    from psycopg.errors import Diagnostic

__all__ = ["NEEDED", "SET", "Session", "begin", "is_direct", "require", "shown", "take_turns"]

SET: Final = {
    "client_encoding": "UTF8",  # in a database of SQL_ASCII the driver would else give every text as bytes
    "client_min_messages": "warning",  # a commit that its standby may not have says so by a warning
    "idle_in_transaction_session_timeout": "10s",  # a process that vanished holds a user's lock no longer
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "row_security": "off",  # a policy that hides a row is an error, not an absence
    "statement_timeout": "0",
    "synchronous_commit": "on",  # a commit that was answered survives a crash, and the loss of the primary
}
NEEDED: Final = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "in_hot_standby": ("off",),  # a primary
    "session_replication_role": ("origin",),  # else no trigger fires
    "transaction_read_only": ("off",),
}
TRANSACTION_TIMEOUT_SINCE: Final = 170_000
"""The server's version that has one more time-out."""

TURNS: Final = 3
"""A pooler hands on the connection that it got back last, or the one that waited longest."""


@dataclass(slots=True)
class Session:
    """What is known of one connection's session, as long as that lives."""

    process: int
    """The server's process that it was set in."""
    settings_loaded_us: int
    """When that process last read the server's files, Unix µs."""
    warnings: list[str] = field(default_factory=list)
    """What the server warned of since somebody emptied this."""
    prepared: dict[object, bytes] = field(default_factory=dict)
    """What each statement is prepared as."""

    def require_no_warning(self) -> None:
        """Raise psycopg's OperationalError if the commit that was just answered came with a warning.

        Then it may be on this server alone, whatever the answer: it counts as one whose answer was lost.
        """
        if self.warnings:
            raise OperationalError(f"the commit was answered by a warning: {'; '.join(self.warnings)}")


def begin(connection: Connection[Any]) -> Session:
    """Set a new connection's session, and return it.

    Raises:
        LedgerError: a setting that was set is another, or there is no schema to keep tables in.

    """
    ((schema, process, loaded_us),) = connection.execute(
        "SELECT quote_ident(current_schema()), pg_backend_pid(), extract(epoch FROM pg_conf_load_time()) * 1000000"
    )
    if schema is None:
        raise LedgerError("PostgreSQL has no schema of that search_path, or none that this user may use")
    # pg_catalog comes first unless it is named; temporary tables would, unless they are.
    wanted = {**SET, "search_path": f"{schema}, pg_temp"}
    if connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
        wanted["transaction_timeout"] = "0"
    if shown(connection, "synchronous_commit") == "remote_apply":
        del wanted["synchronous_commit"]  # that is "on", and more
    for name, value in wanted.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))
    connection.commit()
    for name, value in wanted.items():
        require(name, (value,), shown(connection, name))
    connection.rollback()
    session = Session(process, int(loaded_us))
    connection.add_notice_handler(partial(_hear, session))
    return session


def shown(connection: Connection[Any], name: str) -> object:
    """Return a setting as the session has it."""
    ((value,),) = connection.execute("SELECT current_setting(%s)", (name,))
    return value


def require(name: str, allowed: Sequence[str], found: object) -> None:
    """Raise LedgerError, naming the setting, unless what was found is allowed."""
    if found not in allowed:
        raise LedgerError(f"PostgreSQL has {name} = {found}, but {' or '.join(allowed)} is needed")


def is_direct(connection: Connection[Any]) -> bool:
    """Tell whether the server itself answers: poolers make up the number of the process that a client is told."""
    direct = _process(connection) == connection.info.backend_pid
    connection.rollback()
    return direct


def take_turns(one: Connection[Any], other: Connection[Any]) -> bool:
    """Tell whether two connections were seen in each other's server process, or one of them in two."""
    for _try in range(TURNS):
        before = _process(one)
        one.rollback()
        others, after = _process(other), _process(one)  # both transactions are open
        one.rollback()
        other.rollback()
        if others == before or after != before:
            return True
    return False


def _hear(session: Session, notice: Diagnostic) -> None:
    if notice.severity_nonlocalized == "WARNING":
        session.warnings.append(notice.message_primary or "")


def _process(connection: Connection[Any]) -> int:
    ((process,),) = connection.execute("SELECT pg_backend_pid()")
    return int(process)
