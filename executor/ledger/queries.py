"""Every statement that the ledger runs. What one returns is not yet trusted: see `executor.ledger.store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from executor.ledger.schema import entries, heads, ledger, session_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection, Row

    from executor.seal import Seal

    SealedRow = Row[Any, Any, Any]
    """content, key_id, mac"""
    EntryRow = Row[Any, Any, Any, Any]
    """content, hash, key_id, mac"""

__all__ = [
    "advance_head",
    "find_entry",
    "find_execution",
    "find_last_move",
    "insert_entry",
    "insert_head",
    "insert_ledger",
    "insert_secret",
    "read_head",
    "read_ledger",
    "read_secret",
    "scan_entries",
    "scan_head_seqs",
    "scan_index",
    "scan_wallets",
]

SEALED_ENTRY = (entries.c.content, entries.c.hash, entries.c.key_id, entries.c.mac)


def read_ledger(connection: Connection) -> SealedRow | None:
    """Return the content, key id and MAC of the ledger's own row."""
    return connection.execute(select(ledger.c.content, ledger.c.key_id, ledger.c.mac)).one_or_none()


def insert_ledger(connection: Connection, content: bytes, seal: Seal) -> None:
    """Write the ledger's own row, once."""
    connection.execute(insert(ledger).values(only=1, content=content, **seal._asdict()))


def read_head(connection: Connection, wallet: str) -> SealedRow | None:
    """Return the content, key id and MAC of a wallet's head."""
    return connection.execute(
        select(heads.c.content, heads.c.key_id, heads.c.mac).where(heads.c.wallet == wallet)
    ).one_or_none()


def insert_head(connection: Connection, wallet: str, content: bytes, seal: Seal) -> None:
    """Write the head of a wallet that has none."""
    connection.execute(insert(heads).values(wallet=wallet, seq=0, content=content, **seal._asdict()))


def advance_head(connection: Connection, wallet: str, *, seq: int, to: int, content: bytes, seal: Seal) -> bool:
    """Move a wallet's head from `seq` to `to`; tell whether it stood there."""
    moved = connection.execute(
        update(heads)
        .where(heads.c.wallet == wallet, heads.c.seq == seq)
        .values(seq=to, content=content, **seal._asdict())
    )
    return moved.rowcount == 1


def insert_entry(connection: Connection, **columns: object) -> None:
    """Append an entry."""
    connection.execute(insert(entries).values(**columns))


def find_entry(connection: Connection, wallet: str, **unique_key: object) -> EntryRow | None:
    """Return the wallet's entry with these columns, which make a unique key; None if there is none."""
    wanted = (entries.c[name] == value for name, value in unique_key.items())
    return connection.execute(select(*SEALED_ENTRY).where(entries.c.wallet == wallet, *wanted)).one_or_none()


def find_execution(connection: Connection, wallet: str, execution_id: str) -> Sequence[EntryRow]:
    """Return the entries of an execution, step by step."""
    return connection.execute(
        select(*SEALED_ENTRY)
        .where(entries.c.wallet == wallet, entries.c.execution_id == execution_id)
        .order_by(entries.c.step)
    ).all()


def find_last_move(connection: Connection, wallet: str, agent_id: str, states: Collection[str]) -> EntryRow | None:
    """Return the newest entry that moved the agent into one of `states`; None if there is none."""
    return connection.execute(
        select(*SEALED_ENTRY)
        .where(entries.c.wallet == wallet, entries.c.agent_id == agent_id, entries.c.agent_state.in_(states))
        .order_by(entries.c.seq.desc())
        .limit(1)
    ).one_or_none()


def scan_entries(connection: Connection, wallet: str, after: int, count_max: int) -> Sequence[EntryRow]:
    """Return up to `count_max` of the wallet's entries with sequence numbers above `after`, in order."""
    return connection.execute(
        select(*SEALED_ENTRY)
        .where(entries.c.wallet == wallet, entries.c.seq > after)
        .order_by(entries.c.seq)
        .limit(count_max)
    ).all()


def scan_index(connection: Connection, wallet: str, after: int, count_max: int) -> Sequence[Row[Any]]:
    """Return the index columns of the entries that `scan_entries` returns."""
    unindexed = {"wallet", "seq", "content", "hash", "key_id", "mac"}
    columns = [column for column in entries.c if column.name not in unindexed]
    return connection.execute(
        select(*columns)
        .where(entries.c.wallet == wallet, entries.c.seq > after)
        .order_by(entries.c.seq)
        .limit(count_max)
    ).all()


def scan_head_seqs(connection: Connection, wallets: Collection[str]) -> dict[str, object]:
    """Return where the heads of `wallets` stand; wallets without one are left out."""
    rows = connection.execute(select(heads.c.wallet, heads.c.seq).where(heads.c.wallet.in_(wallets)))
    return {row.wallet: row.seq for row in rows}


def scan_wallets(connection: Connection) -> Sequence[str]:
    """Return every wallet that has a head or an entry."""
    return connection.scalars(select(heads.c.wallet).union(select(entries.c.wallet)).order_by("wallet")).all()


def insert_secret(connection: Connection, **columns: object) -> None:
    """Keep an encrypted session key."""
    connection.execute(insert(session_secrets).values(**columns))


def read_secret(connection: Connection, wallet: str, agent_id: str) -> bytes | None:
    """Return an agent's encrypted session key."""
    return connection.scalars(
        select(session_secrets.c.box).where(session_secrets.c.wallet == wallet, session_secrets.c.agent_id == agent_id)
    ).one_or_none()
