"""The ledger's tables.

Entries are only ever appended: triggers refuse any change, so that a bug can't do what only somebody who drops the
triggers could, and what the seals would show. Another trigger refuses an attempt beyond the rolling cap, whoever
inserts it. Heads move on with their entries.
Columns beside `content` are an index of what `content` says.

Whoever changes tables, indexes or triggers here adds a revision in `migrations/versions` that does the same.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
)

__all__ = ["SCHEMA_VERSION", "alembic_version", "entries", "heads", "ledger", "metadata", "session_secrets", "spent"]

SCHEMA_VERSION: Final = 1
"""Of what sealed content says; which tables there are, `executor.ledger.revision` says."""

metadata = MetaData()

ledger = Table(
    "ledger",
    metadata,
    Column("id", SmallInteger, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("executions_per_24h", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
"""One row: the ledger's id, schema version, and the limits that it was made with. What holds now, the head for
everybody says; `executions_per_24h` follows that, for the trigger that keeps the cap."""

heads = Table(
    "heads",
    metadata,
    Column("wallet", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("open_attempts", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
"""One row a wallet: the row to lock, and the top of its chain."""

entries = Table(
    "entries",
    metadata,
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
    Column("funding", BigInteger),
)
"""Every fact, in each wallet's order."""


def _index(name: str, *columns: Column[object], unique: bool = False) -> None:
    """Index the entries that have the last of `columns`: most have few of them."""
    some = columns[-1].is_not(None)
    Index(name, entries.c.wallet, *columns, unique=unique, sqlite_where=some, postgresql_where=some)


_index("one_entry_per_step", entries.c.execution_id, entries.c.step, unique=True)
_index("attempt_numbered_once", entries.c.attempt, unique=True)
_index("refusal_numbered_once", entries.c.refusal, unique=True)
_index("funding_numbered_once", entries.c.funding, unique=True)
_index("nonce_spent_once", entries.c.nonce, unique=True)
_index("session_key_reserved_once", entries.c.session_pubkey, unique=True)
_index("transaction_recorded_once", entries.c.tx_signature, unique=True)
_index("agent_history", entries.c.agent_id, entries.c.seq, entries.c.agent_state)
_index("intent_history", entries.c.agent_id, entries.c.intent_key)
_some_signed = entries.c.tx_signature.is_not(None)
Index("wallets_of_transactions", entries.c.tx_signature, sqlite_where=_some_signed, postgresql_where=_some_signed)
_first = entries.c.step == 0
Index(
    "agent_decisions",
    entries.c.wallet,
    entries.c.agent_id,
    entries.c.seq,
    sqlite_where=_first,
    postgresql_where=_first,
)
_some_open = heads.c.open_attempts > 0
Index("wallets_with_open_attempts", heads.c.wallet, sqlite_where=_some_open, postgresql_where=_some_open)

session_secrets = Table(
    "session_secrets",
    metadata,
    Column("wallet", Text, primary_key=True),
    Column("agent_id", Text, primary_key=True),
    Column("box", LargeBinary, nullable=False),
)
"""Session keys, encrypted under the vault's master key."""

spent = Table(
    "spent",
    metadata,
    Column("wallet", Text, primary_key=True),
    Column("token_hash", Text, primary_key=True),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index("spent_by_expiry", "expires_at_ms"),
)
"""What may be used once, and was: stream tickets and sign-in challenges, by their SHA-256, until they are over anyway.

It isn't sealed. Who can write here and takes a row away can replay what they have seen on its way, within its minutes:
a ticket reads one wallet's events, a challenge with its signature gives a token of the wallet that signed it. No permit
and no cap rests on it."""

alembic_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""One row, as Alembic keeps it: the revision of all of this."""
