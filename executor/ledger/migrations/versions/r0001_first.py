"""The ledger as it was first published: a copy, which stays as it is when `executor.ledger.schema` moves on."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, SmallInteger, Text, text

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, their indexes and their triggers."""
    op.create_table(
        "ledger",
        Column("id", SmallInteger, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        Column("executions_per_24h", BigInteger, nullable=False),
        *_sealed(),
    )
    op.create_table(
        "heads",
        Column("wallet", Text, primary_key=True),
        Column("seq", BigInteger, nullable=False),
        Column("open_attempts", BigInteger, nullable=False),
        *_sealed(),
    )
    op.create_table(
        "entries",
        Column("wallet", Text, primary_key=True),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("kind", Text, nullable=False),
        Column("agent_id", Text),
        Column("agent_state", Text),
        Column("execution_id", Text),
        Column("step", Integer),
        Column("attempt", BigInteger),
        Column("refusal", BigInteger),
        Column("intent_key", Text),
        Column("nonce", Text),
        Column("session_pubkey", Text),
        Column("tx_signature", Text),
        Column("content", LargeBinary, nullable=False),
        Column("hash", LargeBinary, nullable=False),
        Column("key_id", Text, nullable=False),
        Column("mac", LargeBinary, nullable=False),
    )
    op.create_table(
        "session_secrets",
        Column("wallet", Text, primary_key=True),
        Column("agent_id", Text, primary_key=True),
        Column("box", LargeBinary, nullable=False),
    )
    for name, columns, where in UNIQUE:
        _index(name, "entries", columns, where, unique=True)
    for name, table, columns, where in INDEXES:
        _index(name, table, columns, where)
    for statement in TRIGGERS[op.get_context().dialect.name]:
        op.execute(statement)


def _sealed() -> tuple[Column[bytes], Column[str], Column[bytes]]:
    return (
        Column("content", LargeBinary, nullable=False),
        Column("key_id", Text, nullable=False),
        Column("mac", LargeBinary, nullable=False),
    )


def _index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    some = text(where)
    op.create_index(name, table, ["wallet", *columns], unique=unique, sqlite_where=some, postgresql_where=some)


UNIQUE: Final = (
    ("one_entry_per_step", ["execution_id", "step"], "step IS NOT NULL"),
    ("attempt_numbered_once", ["attempt"], "attempt IS NOT NULL"),
    ("refusal_numbered_once", ["refusal"], "refusal IS NOT NULL"),
    ("nonce_spent_once", ["nonce"], "nonce IS NOT NULL"),
    ("session_key_reserved_once", ["session_pubkey"], "session_pubkey IS NOT NULL"),
    ("transaction_recorded_once", ["tx_signature"], "tx_signature IS NOT NULL"),
)

INDEXES: Final[tuple[tuple[str, str, list[str], str], ...]] = (
    ("agent_history", "entries", ["agent_id", "seq", "agent_state"], "agent_state IS NOT NULL"),
    ("intent_history", "entries", ["agent_id", "intent_key"], "intent_key IS NOT NULL"),
    ("agent_decisions", "entries", ["agent_id", "seq"], "step = 0"),
    ("wallets_with_open_attempts", "heads", [], "open_attempts > 0"),
)

TRIGGERS: Final = {
    "sqlite": (
        """
        CREATE TRIGGER entries_refuse_update BEFORE UPDATE ON entries BEGIN
            SELECT RAISE(ABORT, 'entries are only ever appended');
        END
        """,
        """
        CREATE TRIGGER entries_refuse_delete BEFORE DELETE ON entries BEGIN
            SELECT RAISE(ABORT, 'entries are only ever appended');
        END
        """,
        """
        CREATE TRIGGER attempts_have_no_gap BEFORE INSERT ON entries WHEN NEW.attempt > 1 BEGIN
            SELECT RAISE(ABORT, 'the attempt before this one is missing')
            WHERE NOT EXISTS (SELECT 1 FROM entries WHERE wallet = NEW.wallet AND attempt = NEW.attempt - 1);
        END
        """,
        """
        CREATE TRIGGER attempts_keep_the_cap BEFORE INSERT ON entries WHEN NEW.attempt IS NOT NULL BEGIN
            SELECT RAISE(ABORT, 'the attempts of 24 hours use up the cap')
            WHERE EXISTS (
                SELECT 1 FROM entries
                WHERE wallet = NEW.wallet AND attempt = NEW.attempt - (SELECT executions_per_24h FROM ledger)
                AND at_ms > NEW.at_ms - 86400000
            );
        END
        """,
    ),
    "postgresql": (
        """
        CREATE FUNCTION entries_are_only_appended() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE integrity_constraint_violation USING MESSAGE = 'entries are only ever appended';
        END $$
        """,
        """
        CREATE TRIGGER entries_refuse_change BEFORE UPDATE OR DELETE ON entries
        FOR EACH ROW EXECUTE FUNCTION entries_are_only_appended()
        """,
        """
        CREATE TRIGGER entries_refuse_truncate BEFORE TRUNCATE ON entries
        FOR EACH STATEMENT EXECUTE FUNCTION entries_are_only_appended()
        """,
        """
        CREATE FUNCTION attempts_keep_the_cap() RETURNS trigger LANGUAGE plpgsql AS $$
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
        CREATE TRIGGER attempts_keep_the_cap BEFORE INSERT ON entries
        FOR EACH ROW WHEN (NEW.attempt IS NOT NULL) EXECUTE FUNCTION attempts_keep_the_cap()
        """,
    ),
}
