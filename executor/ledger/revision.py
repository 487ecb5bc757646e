"""The revision: which tables, indexes and triggers a database has.

A ledger records it when it is made, in Alembic's table, without needing Alembic; `executor.ledger.upgrade` moves it on.
A ledger of another revision isn't opened: code that expects other tables would find out in the middle of a fire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, inspect, select

from executor.errors import LedgerError
from executor.ledger.schema import alembic_version, metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["REVISION", "create_or_require", "recorded", "require"]

REVISION: Final = "0004"
"""The newest in `executor/ledger/migrations`: what `executor.ledger.schema` and the triggers say."""


def create_or_require(connection: Connection, name: str) -> None:
    """Make the tables where there are none, of this revision; else do as `require`. The caller makes it one step."""
    if recorded(connection, name) is None:
        metadata.create_all(connection, checkfirst=False)
        connection.execute(insert(alembic_version).values(version_num=REVISION))
    else:
        require(connection, name)


def require(connection: Connection, name: str) -> None:
    """Raise LedgerError, naming the database by `name`, unless it has all tables, of this revision."""
    found = recorded(connection, name)
    if found is None:
        raise LedgerError(f"`{name}` holds no ledger")
    if found != REVISION:
        raise LedgerError(
            f"`{name}` has revision {found}, but this version needs {REVISION}: "
            "run `executor db upgrade` of the newer version, and use that"
        )


def recorded(connection: Connection, name: str) -> str | None:
    """Return the revision that the database records; None if it has none of the ledger's tables.

    Raises:
        LedgerError: it has only some of them, or records none, or several.

    """
    tables = metadata.tables.keys() & set(inspect(connection).get_table_names())
    if not tables:
        return None
    named = alembic_version.name in tables
    found = list(connection.execute(select(alembic_version.c.version_num)).scalars()) if named else []
    if len(found) != 1 or (found == [REVISION] and tables != metadata.tables.keys()):
        raise LedgerError(f"`{name}` was made or upgraded only halfway: run `executor db upgrade`, or restore a backup")
    return str(found[0])
