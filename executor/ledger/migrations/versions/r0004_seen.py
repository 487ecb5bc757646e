"""Reading ahead also reads the entry that a process has seen last: a function with one parameter more."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Take the function without it away; opening the ledger makes the other."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION IF EXISTS lock_and_read(bigint, text, text, text, text)")
