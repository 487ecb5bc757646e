"""Fundings are found by their number, and the wallet that a transaction belongs to by its signature."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, text

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column and the indexes."""
    op.add_column("entries", Column("funding", BigInteger))
    some = text("funding IS NOT NULL")
    op.create_index(
        "funding_numbered_once", "entries", ["wallet", "funding"], unique=True, sqlite_where=some, postgresql_where=some
    )
    some = text("tx_signature IS NOT NULL")
    op.create_index("wallets_of_transactions", "entries", ["tx_signature"], sqlite_where=some, postgresql_where=some)
