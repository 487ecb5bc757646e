"""Somebody changes the definitions by which storage refuses: the ledger isn't opened, and what differs is named."""

import re

import pytest
from sqlalchemy import create_engine, make_url

from executor.audit import check_ledger
from executor.errors import LedgerTampered
from executor.ledger import Ledger

SQLITE = {
    "trigger swallow on heads": "CREATE TRIGGER swallow BEFORE UPDATE ON heads BEGIN SELECT RAISE(IGNORE); END",
    "trigger attempts_keep_the_cap on entries": (
        "DROP TRIGGER attempts_keep_the_cap;"
        "CREATE TRIGGER attempts_keep_the_cap BEFORE INSERT ON entries BEGIN SELECT 1; END"
    ),
    "index nonce_spent_once on entries": "DROP INDEX nonce_spent_once",
    "index attempt_numbered_once on entries": (
        "DROP INDEX attempt_numbered_once;"
        "CREATE INDEX attempt_numbered_once ON entries (wallet, attempt) WHERE attempt IS NOT NULL"
    ),
    "table heads on heads": "ALTER TABLE heads ADD COLUMN more TEXT",
}
POSTGRESQL = {
    "trigger swallow on heads": (
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE UPDATE ON heads FOR EACH ROW EXECUTE FUNCTION swallow()"
    ),
    "index nonce_spent_once on entries": "DROP INDEX nonce_spent_once",
    "index attempt_numbered_once on entries": (
        "DROP INDEX attempt_numbered_once;"
        "CREATE INDEX attempt_numbered_once ON entries (wallet, attempt) WHERE attempt IS NOT NULL"
    ),
    "constraint entries_pkey on entries": "ALTER TABLE entries DROP CONSTRAINT entries_pkey",
    "constraint ledger_id_check on ledger": (
        "ALTER TABLE ledger DROP CONSTRAINT ledger_id_check;"
        "ALTER TABLE ledger ADD CONSTRAINT ledger_id_check CHECK (id > 0)"
    ),
    "column at_ms of entries": "ALTER TABLE entries ALTER COLUMN at_ms SET DEFAULT 0",
    "column more of heads": "ALTER TABLE heads ADD COLUMN more text",
    "rule nothing on session_secrets": "CREATE RULE nothing AS ON DELETE TO session_secrets DO INSTEAD NOTHING",
    "policy hides on entries": "CREATE POLICY hides ON entries USING (false)",
    "table entries": "ALTER TABLE entries FORCE ROW LEVEL SECURITY",
    "table heads": "CREATE TABLE more () INHERITS (heads)",
    "function lock_and_read(text)": "CREATE FUNCTION lock_and_read(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
}


def change(setup, statements):
    url = setup.path if isinstance(setup.path, str) else f"sqlite:///{setup.path}"
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in re.split(r";(?!\s*END)", statements):
            connection.exec_driver_sql(statement)
    engine.dispose()


def refused_by_name(setup, what, statements):
    setup.activate()
    setup.guard.close()
    change(setup, statements)
    with pytest.raises(LedgerTampered, match=f"isn't defined as this version defines it: .*{re.escape(what)}"):
        setup.open()


@pytest.mark.parametrize("what", SQLITE)
def test_a_definition_of_sqlite_that_was_changed_is_named(sqlite_setup, what):
    refused_by_name(sqlite_setup, what, SQLITE[what])


@pytest.mark.parametrize("what", POSTGRESQL)
def test_a_definition_of_postgresql_that_was_changed_is_named(postgres_setup, what):
    refused_by_name(postgres_setup, what, POSTGRESQL[what])


def test_what_is_beside_the_ledger_is_nobodys_business(setup):
    setup.activate()
    setup.guard.close()
    change(setup, "CREATE TABLE notes (number integer PRIMARY KEY); CREATE VIEW halted AS SELECT wallet FROM heads")
    setup.guard = setup.open()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    assert check_ledger(setup.guard.ledger).findings == ()


def test_a_trigger_that_is_missing_or_disabled_is_made_again(postgres_setup):
    setup = postgres_setup
    setup.guard.close()
    change(
        setup,
        "ALTER TABLE entries DISABLE TRIGGER attempts_keep_the_cap; DROP TRIGGER entries_refuse_change ON entries",
    )
    setup.guard = setup.open()
    setup.activate()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"


def test_the_audit_names_what_was_changed_since_it_was_opened(setup):
    setup.activate()
    with Ledger.open(setup.path, seal_keys=setup.seal_keys, read_only=True) as ledger:
        assert check_ledger(ledger).findings == ()
        change(setup, "DROP INDEX nonce_spent_once")
        assert check_ledger(ledger).findings == (
            "the database isn't defined as this version defines it: index nonce_spent_once on entries",
        )


def test_no_function_of_the_schemas_own_speaks_for_the_catalog(postgres_setup):
    """A better fit of types comes before PostgreSQL's own, wherever the schema is searched."""
    setup = postgres_setup
    setup.activate()
    setup.guard.close()
    change(setup, POSTGRESQL["trigger swallow on heads"])
    engine = create_engine(setup.path)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            'CREATE FUNCTION concat_ws(text, text, "char") RETURNS text LANGUAGE sql AS $$ SELECT NULL::text $$'
        )
    engine.dispose()
    with pytest.raises(LedgerTampered, match="trigger swallow on heads"):
        setup.open()


@pytest.mark.parametrize("schema", ["new", "w", 'an "odd" one'])
def test_a_schema_may_be_called_anything(postgres_setup, schema):
    setup = postgres_setup
    setup.guard.close()
    quoted = schema.replace('"', '""')
    change(setup, f'CREATE SCHEMA "{quoted}"')
    url = make_url(setup.path)
    change(setup, f'ALTER DATABASE "{url.database}" SET search_path = "{quoted}"')
    try:
        setup.guard = setup.open()
        setup.activate()
        assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
        setup.reopen()
        assert check_ledger(setup.guard.ledger).findings == ()
    finally:
        setup.guard.close()
        change(setup, f'ALTER DATABASE "{url.database}" RESET ALL')
        change(setup, f'DROP SCHEMA "{quoted}" CASCADE')
