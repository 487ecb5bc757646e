"""The ledger's tables.

Entries are only ever appended: triggers refuse any change, so that a bug can't do what only somebody who drops the
triggers could, and what the seals would show. Heads move on with them.
Columns beside `content` are an index of what `content` says.
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
    SmallInteger,
    Table,
    Text,
)

__all__ = ["SCHEMA_VERSION", "entries", "heads", "ledger", "metadata", "session_secrets"]

SCHEMA_VERSION: Final = 1

metadata = MetaData()

ledger = Table(
    "ledger",
    metadata,
    Column("only", SmallInteger, CheckConstraint("only = 1"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
"""One row: epoch, schema version, limits."""

heads = Table(
    "heads",
    metadata,
    Column("wallet", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
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
    Column("kind", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("agent_state", Text),
    Column("execution_id", Text),
    Column("step", Integer),
    Column("attempt", BigInteger),
    Column("nonce", Text),
    Column("session_pubkey", Text),
    Column("tx_signature", Text),
    Column("content", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("mac", LargeBinary, nullable=False),
)
"""Every fact, in each wallet's order."""

Index("one_entry_per_step", entries.c.wallet, entries.c.execution_id, entries.c.step, unique=True)
Index("attempt_numbered_once", entries.c.wallet, entries.c.attempt, unique=True)
Index("nonce_spent_once", entries.c.wallet, entries.c.nonce, unique=True)
Index("session_key_reserved_once", entries.c.wallet, entries.c.session_pubkey, unique=True)
Index("transaction_recorded_once", entries.c.wallet, entries.c.tx_signature, unique=True)
Index("agent_history", entries.c.wallet, entries.c.agent_id, entries.c.agent_state, entries.c.seq)

session_secrets = Table(
    "session_secrets",
    metadata,
    Column("wallet", Text, primary_key=True),
    Column("agent_id", Text, primary_key=True),
    Column("box", LargeBinary, nullable=False),
)
"""Session keys, encrypted under the vault's master key."""
