"""`executor db upgrade`: bring a database to this version's revision, by Alembic, in one transaction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

from executor.errors import LedgerError
from executor.ledger.store import open_store, told

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["upgrade"]

MIGRATIONS: Final = Path(__file__).with_name("migrations")


def upgrade(url: str | Path, *, to: str = "head") -> tuple[str | None, str | None]:
    """Upgrade the database at `url` to a revision, else the newest, making the tables where there are none.

    No process may be using it.

    Returns:
        The revision that it had, None if none, and the one that it has now.

    Raises:
        LedgerError: it can't be used or is in use, has a revision that this version doesn't know, or has tables in the
            way. Nothing was changed.

    """
    store = open_store(url, read_only=False)
    try:
        with told(store), store.altering() as connection:
            before = _revision(connection)
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, to)
            store.program(connection)
            return before, _revision(connection)
    except CommandError as error:
        raise LedgerError(f"`{store.name}` can't be upgraded: {error}") from None
    finally:
        store.close()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
