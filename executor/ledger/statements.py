"""Every statement that the ledger runs, written in SQLAlchemy Core, compiled once, run by the driver's own cursor.

What a statement returns is not yet trusted: see `executor.ledger.wallet`.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import (
    BigInteger,
    bindparam,
    cast,
    delete,
    extract,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects.postgresql import insert as insert_or

from executor.errors import LedgerTampered
from executor.ledger.schema import entries, heads, ledger, session_secrets, spent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Dialect
    from sqlalchemy.sql.base import Executable

__all__ = ["Cursor", "DriverCursor", "Statement"]

Row = tuple[Any, ...]


class Statement:
    """A statement with named parameters."""

    def __init__(self, core: Executable, *, changes_one: bool = False) -> None:
        """Make a statement of `core`, which `changes_one` row, no less, or changes what it may."""
        self._core = core
        self.changes_one: Final = changes_one
        self._compiled: dict[str, Compiled] = {}

    def compiled(self, dialect: Dialect) -> Compiled:
        """Return it as `dialect` spells it."""
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            core = self._core.compile(dialect=dialect)  # type: ignore[attr-defined]
            constants = {name: value for name, value in core.params.items() if value is not None}
            names = core.positiontup or []
            text = str(core)
            if self.changes_one and dialect.name == "postgresql":
                # Nobody waits for its answer before the commit: it must fail by itself.
                text = f"WITH changed AS ({text} RETURNING 1) SELECT 1 / count(*) FROM changed"  # noqa: S608 - our own
            compiled = self._compiled[dialect.name] = Compiled(text, names, constants, _in_places(names))
        return compiled


class Compiled(NamedTuple):
    """A statement in one dialect."""

    text: str
    names: list[str]
    """The parameters in their places."""
    constants: dict[str, object]
    """The values of those that the statement itself gives."""
    in_places: Callable[[dict[str, Any]], Sequence[Any]]
    """Puts values by name into their places."""


def _in_places(names: list[str]) -> Callable[[dict[str, Any]], Sequence[Any]]:
    if len(names) > 1:
        return itemgetter(*names)  # a third of a comprehension's time
    return lambda values: [values[name] for name in names]


class DriverCursor(Protocol):
    """What is asked of a cursor of PEP 249."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed, where that is known at once."""

    def execute(self, text: str, values: Sequence[Any], /) -> object:
        """Run a statement."""

    def fetchone(self) -> Any:  # noqa: ANN401 - a row's types are the statement's
        """Return the next row of the last statement; None if there is none."""

    def fetchall(self) -> Sequence[Any]:
        """Return the rows of the last statement that are left."""


class Cursor:
    """The driver's cursor within one transaction."""

    __slots__ = ("_cursor", "_dialect")

    def __init__(self, cursor: DriverCursor, dialect: Dialect) -> None:
        self._cursor = cursor
        self._dialect = dialect

    def send(self, statement: Statement, /, **values: object) -> None:
        """Run a statement whose answer nobody waits for; if it fails, the transaction does.

        Raises LedgerTampered, at once or by the commit, if it changed no row where it changes one.
        """
        self._execute(statement, values)
        if statement.changes_one and self._dialect.name == "sqlite" and self._cursor.rowcount != 1:
            raise LedgerTampered(UNCHANGED)

    def one(self, statement: Statement, /, **values: object) -> Row | None:
        """Return the first row; None if there is none."""
        self._execute(statement, values)
        row: Row | None = self._cursor.fetchone()
        return row

    def all(self, statement: Statement, /, **values: object) -> list[Row]:
        """Return every row."""
        self._execute(statement, values)
        return list(self._cursor.fetchall())

    def _execute(self, statement: Statement, values: dict[str, Any]) -> None:
        text, _names, constants, in_places = statement.compiled(self._dialect)
        if constants:
            values |= constants
        self._cursor.execute(text, in_places(values))


UNCHANGED: Final = "the database took a row and didn't keep it: somebody's trigger or rule stands in between"


def _insert(table: SqlTable) -> Statement:
    values: dict[str, Any] = {column.name: bindparam(column.name) for column in table.c}
    return Statement(insert(table).values(values), changes_one=True)


def _insert_if_absent(table: SqlTable) -> Statement:
    """Insert a row, unless another process made it a moment before."""
    inserted = insert_or(table).values({column.name: bindparam(column.name) for column in table.c})
    return Statement(inserted.on_conflict_do_nothing())


COUNT_MAX: Final = bindparam("count_max", type_=BigInteger)

SEALED = (entries.c.content, entries.c.hash, entries.c.key_id, entries.c.mac)
"""What each statement that reads entries returns."""

_of_wallet = select(*SEALED).where(entries.c.wallet == bindparam("wallet"))

READ_LEDGER: Final = Statement(select(ledger.c.content, ledger.c.key_id, ledger.c.mac))
INSERT_LEDGER: Final = _insert(ledger)
READ_STORED_CAP: Final = Statement(select(ledger.c.executions_per_24h))
CHANGE_STORED_CAP: Final = Statement(
    update(ledger).values(executions_per_24h=bindparam("executions_per_24h")), changes_one=True
)

HEAD = (heads.c.content, heads.c.key_id, heads.c.mac, heads.c.seq)

READ_HEAD: Final = Statement(select(*HEAD).where(heads.c.wallet == bindparam("wallet")))
READ_EVERYBODY: Final = Statement(
    select(
        *HEAD, select(func.max(entries.c.seq)).where(entries.c.wallet == bindparam("everybody")).scalar_subquery()
    ).where(heads.c.wallet == bindparam("everybody"))
)
"""The head for everybody, and how far its entries really go."""
LOCK_HEAD: Final = Statement(select(*HEAD).where(heads.c.wallet == bindparam("wallet")).with_for_update())
"""On SQLite, whose writers are alone anyway, the same as READ_HEAD."""
INSERT_HEAD: Final = _insert_if_absent(heads)
ADVANCE_HEAD: Final = Statement(
    update(heads)
    .where(heads.c.wallet == bindparam("of_wallet"), heads.c.mac == bindparam("before"))
    .values({name: bindparam(name) for name in ("seq", "open_attempts", "content", "key_id", "mac")}),
    changes_one=True,
)
"""Only from the head that was read."""

INSERT_ENTRY: Final = _insert(entries)
FIND_SEQ: Final = Statement(_of_wallet.where(entries.c.seq == bindparam("seq")))
FIND_ATTEMPT: Final = Statement(_of_wallet.where(entries.c.attempt == bindparam("attempt")))
FIND_FUNDING: Final = Statement(_of_wallet.where(entries.c.funding == bindparam("funding")))
FIND_REFUSAL: Final = Statement(_of_wallet.where(entries.c.refusal == bindparam("refusal")))
FIND_NONCE: Final = Statement(_of_wallet.where(entries.c.nonce == bindparam("nonce")))
FIND_SIGNATURE: Final = Statement(_of_wallet.where(entries.c.tx_signature == bindparam("tx_signature")))
FIND_WALLET_OF_SIGNATURE: Final = Statement(
    select(entries.c.wallet).where(entries.c.tx_signature == bindparam("tx_signature")).limit(1)
)
FIND_SESSION_KEY: Final = Statement(_of_wallet.where(entries.c.session_pubkey == bindparam("session_pubkey")))
FIND_EXECUTION: Final = Statement(
    _of_wallet.where(entries.c.execution_id == bindparam("execution_id"), entries.c.step.is_not(None)).order_by(
        entries.c.step
    )
)
FIND_INTENT: Final = Statement(
    _of_wallet.where(
        entries.c.agent_id == bindparam("agent_id"), entries.c.intent_key == bindparam("intent_key")
    ).order_by(entries.c.seq.desc())
)
FIND_LAST_MOVE: Final = Statement(
    _of_wallet.where(entries.c.agent_id == bindparam("agent_id"), entries.c.agent_state.is_not(None))
    .order_by(entries.c.seq.desc())
    .limit(1)
)
FIND_LAST_MOVE_TO: Final = Statement(
    _of_wallet.where(entries.c.agent_id == bindparam("agent_id"), entries.c.agent_state == bindparam("agent_state"))
    .order_by(entries.c.seq.desc())
    .limit(1)
)
FIND_LAST_FIRE: Final = Statement(
    _of_wallet.where(
        entries.c.agent_id == bindparam("agent_id"),
        entries.c.step == literal_column("0"),
        entries.c.attempt.is_not(None),
    )
    .order_by(entries.c.seq.desc())
    .limit(1)
)
SCAN_ENTRIES: Final = Statement(
    _of_wallet.where(entries.c.seq > bindparam("after")).order_by(entries.c.seq).limit(COUNT_MAX)
)
INDEX_COLUMNS: Final = tuple(
    column for column in entries.c if column.name not in {"wallet", "seq", "content", "hash", "key_id", "mac"}
)
SCAN_INDEX: Final = Statement(
    select(*INDEX_COLUMNS)
    .where(entries.c.wallet == bindparam("wallet"), entries.c.seq > bindparam("after"))
    .order_by(entries.c.seq)
    .limit(COUNT_MAX)
)
SCAN_RESERVATIONS: Final = Statement(_of_wallet.where(entries.c.session_pubkey.is_not(None)).order_by(entries.c.seq))
SCAN_DECIDED: Final = Statement(
    _of_wallet.where(
        entries.c.agent_id == bindparam("agent_id"),
        entries.c.step == 0,
        entries.c.funding.is_(None),
        entries.c.seq < bindparam("before"),
    )
    .order_by(entries.c.seq.desc())
    .limit(COUNT_MAX)
)
SCAN_WALLETS: Final = Statement(select(heads.c.wallet).union(select(entries.c.wallet)).order_by("wallet"))
_next = union_all(
    *(
        select(func.min(table.c.wallet).label("wallet")).where(table.c.wallet > bindparam("after"))
        for table in (heads, entries)
    )
).subquery()
NEXT_WALLET: Final = Statement(select(func.min(_next.c.wallet)))
"""The next in the order of the keys, found without reading any other."""
SCAN_OPEN: Final = Statement(
    select(heads.c.wallet)
    .where(heads.c.open_attempts > 0, heads.c.wallet > bindparam("after"))
    .order_by(heads.c.wallet)
    .limit(COUNT_MAX)
)
HEADS_AT_ONCE: Final = 250
READ_HEAD_SEQS: Final = Statement(
    select(heads.c.wallet, heads.c.seq).where(
        heads.c.wallet.in_([bindparam(f"wallet_{number}") for number in range(HEADS_AT_ONCE)])
    )
)
"""Of as many wallets: where fewer are asked for, some are named again."""
READ_HEAD_INDEX: Final = Statement(
    select(heads.c.seq, heads.c.open_attempts).where(heads.c.wallet == bindparam("wallet"))
)
READ_TIME: Final = Statement(
    select(
        extract("epoch", func.clock_timestamp()) * 1000,
        func.pg_backend_pid(),
        cast(extract("epoch", func.pg_conf_load_time()) * 1_000_000, BigInteger),
    )
)
"""PostgreSQL's own clock, as it stands when this statement runs; by which process, which read the settings when."""
READ_SETTING: Final = Statement(select(func.current_setting(bindparam("name"))))

INSERT_SECRET: Final = _insert(session_secrets)
_secret = (session_secrets.c.wallet == bindparam("of_wallet"), session_secrets.c.agent_id == bindparam("of_agent"))
READ_SECRET: Final = Statement(select(session_secrets.c.box).where(*_secret))
CHANGE_SECRET: Final = Statement(update(session_secrets).where(*_secret).values(box=bindparam("box")), changes_one=True)
DELETE_SECRET: Final = Statement(delete(session_secrets).where(*_secret), changes_one=True)
SCAN_SECRETS: Final = Statement(
    select(session_secrets.c.agent_id)
    .where(session_secrets.c.wallet == bindparam("of_wallet"))
    .order_by(session_secrets.c.agent_id)
)

SPEND: Final = Statement(
    insert_or(spent)
    .values({column.name: bindparam(column.name) for column in spent.c})
    .on_conflict_do_nothing()
    .returning(spent.c.token_hash)
)
"""Answers nothing if it was spent before: of two replicas that insert at once, one waits for the other."""
_over = (
    select(spent.c.wallet, spent.c.token_hash)
    .where(spent.c.expires_at_ms < bindparam("before_ms"))
    .order_by(spent.c.expires_at_ms)
    .limit(COUNT_MAX)
    .with_for_update(skip_locked=True)
)
FORGET_SPENT: Final = Statement(delete(spent).where(tuple_(spent.c.wallet, spent.c.token_hash).in_(_over)))
