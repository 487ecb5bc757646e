"""A ledger's URL, as SQLAlchemy spells it. It may hold a password; no text that is raised or shown does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from executor.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = ["has_password", "is_mistyped", "name_of", "postgres", "read_url"]

IN_QUERY: Final = ("password", "sslpassword")
"""Options of libpq's that are secret: SQLAlchemy shows them, unlike the password before the host."""


def read_url(text: str) -> URL:
    """Return what `text` names. Raises LedgerError, which doesn't repeat it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the second for a port that is no number
        raise LedgerError("the ledger's URL is none") from None
    if "@" in (url.host or ""):
        raise LedgerError("the ledger's URL is none: an `@` in its password must be written `%40`")
    return url


def is_mistyped(path: str) -> bool:
    """Tell whether what is taken for a path was to be a URL: it may hold a password, and isn't repeated."""
    return _begins_a_url(path) is not None


_begins_a_url: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*:/").match


def has_password(url: URL) -> bool:
    """Tell whether `url` holds a secret."""
    return url.password is not None or any(name in url.query for name in IN_QUERY)


def name_of(url: URL) -> str:
    """Return what to call the database in a message."""
    return url.difference_update_query(IN_QUERY).render_as_string(hide_password=True)


def postgres(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return the URL for SQLAlchemy's engine, which shows it, and the secrets that go to the driver beside it."""
    secrets = {name: url.query[name] for name in IN_QUERY if name in url.query}
    return url.set(drivername="postgresql+psycopg").difference_update_query(IN_QUERY), secrets
