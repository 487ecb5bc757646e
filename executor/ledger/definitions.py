"""That the database is defined as this version defines it: tables, columns, indexes, constraints, triggers, functions.

What storage is to refuse by itself, it refuses by these; and whoever writes to the database without the seal key would
begin with a trigger more, or an index less. So when a ledger is opened its definitions are held against those that this
version makes in an empty place, word by word.
"""

from __future__ import annotations

import re
import secrets
from functools import cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, text

from executor.errors import LedgerTampered
from executor.ledger.schema import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

__all__ = ["differences", "require_as_made"]

NAMED_MAX: Final = 5

TABLES: Final = sorted(metadata.tables)
_made_by_postgresql: Final[dict[int, Mapping[str, str]]] = {}
"""By the server's version: its words may differ. The same for every database."""


def require_as_made(connection: Connection, name: str, program: Callable[[Connection], None]) -> None:
    """Raise LedgerTampered, naming what differs, unless all is defined as `metadata` and `program` define it."""
    if found := differences(connection, program):
        raise LedgerTampered(f"`{name}` isn't defined as this version defines it: {'; '.join(found[:NAMED_MAX])}")


def differences(connection: Connection, program: Callable[[Connection], None]) -> list[str]:
    """Return what is defined otherwise, or is there or isn't, than `metadata` and `program` define it.

    The connection is in a transaction that may write; what PostgreSQL makes for comparison is undone.
    """
    if connection.dialect.name == "sqlite":
        found, made = _of_sqlite(connection), _made_by_sqlite(program)
    else:
        schema = connection.scalar(text("SELECT current_schema()"))
        version = connection.scalar(text("SELECT current_setting('server_version_num')::int"))
        if version not in _made_by_postgresql:
            _made_by_postgresql[version] = _make_in_postgresql(connection, program)
        found = _of_postgresql(connection, schema)
        made = {what: _unqualified(words, schema) for what, words in _made_by_postgresql[version].items()}
    return [what for what in sorted(found.keys() | made.keys()) if found.get(what) != made.get(what)]


def _of_sqlite(connection: Connection) -> Mapping[str, str]:
    """Return what SQLite says of our tables and of all that hangs on them, by what it is."""
    rows = connection.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master")).all()
    return {
        f"{kind} {name} on {table}": _plain(sql or "")
        for kind, name, table, sql in rows
        if table in TABLES or name in TABLES
    }


@cache
def _made_by_sqlite(program: Callable[[Connection], None]) -> Mapping[str, str]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        program(connection)
        made = _of_sqlite(connection)
    engine.dispose()
    return made


def _plain(sql: str) -> str:
    """Return a definition with one kind of space, and without what is said of when it may be made."""
    return " ".join(sql.split()).replace("IF NOT EXISTS ", "").replace(" ;", ";")


def _make_in_postgresql(connection: Connection, program: Callable[[Connection], None]) -> Mapping[str, str]:
    empty = f"holdfire_as_made_{secrets.token_hex(8)}"
    with connection.begin_nested() as undone:
        connection.exec_driver_sql(f"CREATE SCHEMA {empty}")
        connection.exec_driver_sql(f"SET LOCAL search_path = {empty}, pg_temp")
        metadata.create_all(connection, checkfirst=False)
        program(connection)
        made = _of_postgresql(connection, empty)
        undone.rollback()
    return made


def _of_postgresql(connection: Connection, schema: str) -> Mapping[str, str]:
    """Return what PostgreSQL says of our tables and of all that hangs on them, by what it is.

    Nothing of the schema's own is asked for that: a function or operator there could say what it likes. The transaction
    finds nothing else from then on, either.
    """
    connection.exec_driver_sql("SET LOCAL search_path = pg_catalog, pg_temp")
    asked = {"schema": schema, "tables": TABLES, "functions": FUNCTIONS}
    rows = connection.execute(text(CATALOG), asked).all()
    return {what: _unqualified(definition, schema) for what, definition in rows}


def _unqualified(definition: str, schema: str) -> str:
    """Return a definition without the schema's name, quoted or not, wherever it stands before a dot."""
    names = f'(?:{re.escape(schema)}|"{re.escape(schema.replace(chr(34), chr(34) * 2))}")'
    return re.sub(rf'(?<![\w"]){names}\.', "", definition)


FUNCTIONS: Final = ["attempts_keep_the_cap", "entries_are_only_appended", "lock_and_read"]

CATALOG: Final = """
WITH ours AS (
    SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND c.relname = ANY (:tables)
)
SELECT 'table ' || relname, concat_ws(' ', relkind, relpersistence, relrowsecurity, relforcerowsecurity,
    (SELECT count(*) FROM pg_inherits WHERE inhparent = ours.oid OR inhrelid = ours.oid), reloptions) FROM ours
UNION ALL
SELECT 'column ' || attname || ' of ' || relname, concat_ws(' ', attnum, format_type(atttypid, atttypmod), attnotnull,
    attidentity, attgenerated, attcollation, attisdropped, pg_get_expr(adbin, adrelid))
    FROM ours JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT 'index ' || i.relname || ' on ' || ours.relname,
    concat_ws(' ', pg_get_indexdef(indexrelid), indisunique, indisvalid, indisready, indislive)
    FROM ours JOIN pg_index ON indrelid = ours.oid JOIN pg_class i ON i.oid = indexrelid
UNION ALL
SELECT 'constraint ' || conname || ' on ' || relname, concat_ws(' ', pg_get_constraintdef(c.oid), convalidated,
    condeferrable) FROM ours JOIN pg_constraint c ON conrelid = ours.oid
UNION ALL
SELECT 'trigger ' || tgname || ' on ' || relname, concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled)
    FROM ours JOIN pg_trigger t ON tgrelid = ours.oid WHERE NOT tgisinternal
UNION ALL
SELECT 'rule ' || rulename || ' on ' || relname, pg_get_ruledef(r.oid)
    FROM ours JOIN pg_rewrite r ON ev_class = ours.oid
UNION ALL
SELECT 'policy ' || polname || ' on ' || relname, concat_ws(' ', polcmd, polpermissive)
    FROM ours JOIN pg_policy ON polrelid = ours.oid
UNION ALL
SELECT 'function ' || proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', pg_get_functiondef(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = :schema AND proname = ANY (:functions)
"""
