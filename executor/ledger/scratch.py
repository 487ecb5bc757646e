"""A place for a ledger that is thrown away: for replays and rehearsals."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from executor.errors import LedgerError
from executor.ledger.url import postgres, read_url

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scratch"]


@contextmanager
def scratch(url: str | None = None) -> Iterator[str | Path]:
    """Lend a place with nothing in it, for `Ledger.open`: a file, or a schema of its own in the PostgreSQL at `url`.

    It goes with the block; nothing else in that database is touched.

    Raises:
        LedgerError: `url` isn't PostgreSQL's, can't be reached, or its user may make no schemas there.

    """
    if url is None:
        with TemporaryDirectory(prefix="holdfire-") as folder:
            yield Path(folder) / "ledger.db"
        return
    parsed = read_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise LedgerError(
            f"`{parsed.drivername}` lends no place for a while: postgresql does, and without a URL a file"
        )
    name = f"scratch_{secrets.token_hex(8)}"
    shown, connect_args = postgres(parsed)
    engine = create_engine(shown, connect_args={"client_encoding": "utf8", **connect_args})
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        within = parsed.update_query_dict({"options": f"-csearch_path={name}"})
        try:
            yield within.render_as_string(hide_password=False)
        finally:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    except SQLAlchemyError as error:
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        raise LedgerError(f"no schema could be lent: {cause}") from None
    finally:
        engine.dispose()
