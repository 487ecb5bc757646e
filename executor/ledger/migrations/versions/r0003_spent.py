"""What may be used once, and was, is kept until it is over."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table and its index."""
    op.create_table(
        "spent",
        Column("wallet", Text, primary_key=True),
        Column("token_hash", Text, primary_key=True),
        Column("expires_at_ms", BigInteger, nullable=False),
    )
    op.create_index("spent_by_expiry", "spent", ["expires_at_ms"])
