"""The ledger: one transaction locks a user, reads what is true, and appends what was decided.

The walk of every change: lock the wallet's head → verify it → read the time → read and verify what the decision needs
→ append entries, each chained and sealed → move the head on → commit. Whatever fails on the way undoes all of it.

A commit waits for the disk, so changes that came meanwhile ride in the next one together. Each has its own outcome: if
one breaks the transaction, all of it is undone, and each is made again in a transaction of its own.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby, islice, zip_longest
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeAlias, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from executor.errors import ClockUntrusted, ExecutorError, LedgerError, LedgerTampered, UnknownWallet
from executor.ledger import statements as sql
from executor.ledger.clock import APART_MS_MAX, Clock, SystemClock
from executor.ledger.pause import pause
from executor.ledger.ratchet import Ratchet
from executor.ledger.schema import SCHEMA_VERSION
from executor.ledger.snapshot import Snapshot
from executor.ledger.sqlite import SqliteStore
from executor.ledger.turns import Turns, Waiting
from executor.ledger.url import is_mistyped, read_url
from executor.ledger.wallet import (
    EVERYBODY,
    TREASURY,
    Seals,
    WalletTransaction,
    WalletView,
    fits,
    for_everybody,
    insert_head,
)
from executor.limits import Limits
from executor.seal import Seal
from permits.canonical import canonicalize

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Engine

    from executor.entries import Head
    from executor.ledger.ahead import Ahead
    from executor.ledger.postgres import PostgresStore
    from executor.ledger.ratchet import Seen, StoredHead
    from executor.ledger.statements import Cursor, Row
    from executor.ledger.wallet import ForEverybody
    from executor.seal import SealKeys

__all__ = ["Ledger"]

LEDGER_TAG: Final = b"holdfire/ledger/v1"
ID_BYTES: Final = 8

DIVISION_BY_ZERO: Final = "22012"
"""How PostgreSQL says that a statement changed no row where it changes one."""

FORGOTTEN_AFTER_MS: Final = 600_000
"""Nothing that may be used once lives on a clock that stands so far behind."""
FORGOTTEN_AT_ONCE_MAX: Final = 100

T = TypeVar("T")
W = TypeVar("W", bound="_Change[Any] | _Spending")

if TYPE_CHECKING:
    Store: TypeAlias = SqliteStore | PostgresStore


class Ledger:
    """An open ledger. Use it as a context manager, or `close` it. Threads may share it."""

    def __init__(
        self, store: Store, seal_keys: SealKeys, clock: Clock | None, made: Made, pause_after: Callable[[int], None]
    ) -> None:
        self._store = store
        self._pause_after = pause_after
        self._seals = Seals(seal_keys, made.ledger_id)
        self._host_clock = clock is None
        self._clock: Clock = clock or SystemClock()
        self._turns: Turns[_Change[Any] | _Spending] = Turns(store.writers_max)
        self._told: tuple[Callable[[Collection[str]], None], ...] = ()
        self._process_id = os.getpid()
        self._closed = False
        self._ratchet = Ratchet()
        self.id: Final = made.ledger_id
        """In hex, for good: its chains and seals begin with it. No two ledgers share it, but copies of one do."""
        self.first_limits: Final = made.limits
        """Those that it was made with."""

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        seal_keys: SealKeys,
        limits: Limits | None = None,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        read_only: bool = False,
        pause_after: Callable[[int], None] = pause,
    ) -> Self:
        """Open the ledger at `url`; unless `read_only`, make it where there is none.

        Args:
            url: a URL of SQLAlchemy's, `sqlite:///…` or `postgresql+psycopg://…`; without `://`, an SQLite file's path.
            seal_keys: the keyring; a ledger opens only with a key that it was sealed with.
            limits: must be those that the ledger holds; None takes what it holds, or the defaults for a new one.
            clock: None is the clock of the database's host, held against this one's; another is believed as it is.
            random_bytes: where a new ledger's id comes from.
            read_only: read beside the process that holds the file; nothing can be changed.
            pause_after: waits before the next try, given how many have failed on the way to the database.

        Raises:
            LedgerError: it can't be used, another process holds it, it has another revision, or it holds other limits.
            LedgerTampered: its seal doesn't fit: another key, or somebody changed it.

        """
        store = open_store(url, read_only=read_only)
        try:
            with told(store):
                if read_only:
                    store.require_revision()
                else:
                    store.create()
                made = _read_or_make(store, seal_keys, limits or Limits(), random_bytes)
            ledger = cls(store, seal_keys, clock, made, pause_after)
            ledger.require_limits(limits)
        except BaseException:
            store.close()
            raise
        return ledger

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine on the ledger's database, for reading and for tools."""
        return self._store.engine

    @property
    def file(self) -> Path | None:
        """The SQLite file that it lies in, by the name that every process finds; None: in another database."""
        return Path(self._store.name) if isinstance(self._store, SqliteStore) else None

    @property
    def limits(self) -> Limits:
        """What every user is held to now: read anew each time. Raises as `view` does."""
        return self._for_everybody().limits

    @property
    def stream_epoch(self) -> str:
        """What the ids of its events begin with, in hex: its id until it is restored, then another each time.

        Read anew each time. Raises as `view` does.
        """
        return self._for_everybody().stream_epoch

    def require_limits(self, limits: Limits | None) -> None:
        """Raise LedgerError if everybody is held to others than `limits`, where any are given."""
        if limits not in (None, self.limits):
            raise LedgerError(f"`{self._store.name}` holds other limits than those given; they change only on purpose")

    def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on, in every process; the same again change nothing.

        A fire under way is decided wholly by the old ones or wholly by the new; once this returns, none by the old.

        Raises:
            LedgerError: as `change`.

        """
        limits = Limits.model_validate(limits)  # a copy may have been changed past its rules
        self.change(EVERYBODY, lambda everybody: everybody.change_limits(limits), urgent=True)

    def close(self) -> None:
        """Close the database and give up the lock. In a fork that is nothing: all of it is still its parent's."""
        if os.getpid() == self._process_id:
            self._closed = True
            self._store.close()

    def require_usable(self) -> None:
        """Raise LedgerError once this is closed, and in a fork, which has no threads of the process that opened it."""
        if self._closed:
            raise LedgerError(f"`{self._store.name}` was closed")
        if os.getpid() != self._process_id:
            raise LedgerError(
                f"`{self._store.name}` was opened by process {self._process_id}, of which this is a fork: "
                "open it in each process, after the fork"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def change(
        self,
        wallet: str,
        work: Callable[[WalletTransaction], T],
        *,
        create: bool = False,
        ahead: Ahead | None = None,
        treasury: bool = False,
        urgent: bool = False,
        any_clock: bool = False,
    ) -> T:
        """Have `work` change `wallet` under its lock; return what it returns once that is committed.

        `work` may be called again, after all that it did was undone: it must change nothing but the transaction.
        `ahead` is a hint at what it will read: a database that is far sends it all at once. With `treasury` the work
        gets that chain too (`transaction.treasury`), under its lock, at the same time.

        For what only takes authority away: `urgent` goes before all that waits, and with `any_clock` it is made even if
        nobody knows the time, at the one that the wallet's head has.

        Raises:
            UnknownWallet: the ledger has nothing of this wallet, unless `create`.
            LedgerTampered, ClockUntrusted: as named.
            LedgerError: the database failed; nothing was written, or, at a lost commit, all of it.

        """
        made = _Change(wallet, work, create=create, ahead=ahead, treasury=treasury, urgent=urgent, any_clock=any_clock)
        (change,) = self._make([made])
        return change.result()

    def change_many(
        self, changes: Iterable[tuple[str, Callable[[WalletTransaction], T], Ahead | None]]
    ) -> list[T | Exception]:
        """Make many changes, each as `change` would, together where they can be; what one raises is its outcome."""
        made = self._make([_Change(wallet, work, ahead=ahead) for wallet, work, ahead in changes])
        return [change.outcome if change.fault is None else change.fault for change in made]

    def _make(self, changes: list[W]) -> list[W]:
        """Queue `changes`, and commit what waits, until a transaction has taken them along."""
        self.require_usable()
        if self._store.read_only:
            raise LedgerError("the ledger was opened read-only")
        turns = self._turns
        try:
            turns.enter(changes)
            for change in changes:
                while taken := turns.take(change):
                    try:
                        self._commit(taken, self._store.attempts_max)
                    finally:
                        turns.end(taken)
        except BaseException:
            turns.give_up(changes)
            raise
        return changes

    @contextmanager
    def _reading(self) -> Iterator[Cursor]:
        self.require_usable()
        with told(self._store), self._store.reading() as cursor:
            yield cursor

    @contextmanager
    def view(self, wallet: str) -> Iterator[WalletView]:
        """Read `wallet` as it stands, without its lock. Raises as `change` does."""
        floors = self._floors(wallet, EVERYBODY)
        with self._reading() as cursor:
            yield self._view(floors, cursor, wallet)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read all of the ledger as it stands now, for as long as that takes. Raises LedgerError.

        The database keeps what others change meanwhile apart: long looks belong on a copy or a standby.
        """
        floors = self._ratchet.all()
        with self._reading() as cursor:
            yield Snapshot(self.id, self.first_limits, cursor, partial(self._view, floors, cursor))

    def differences(self) -> Sequence[str]:
        """Return what of the database isn't defined as this version defines it; a standby can't be asked."""
        self.require_usable()
        with told(self._store):
            return self._store.differences()

    def wallets(self) -> Sequence[str]:
        """Return every wallet that the ledger has something of, in order."""
        with self._reading() as cursor:
            return [wallet for (wallet,) in cursor.all(sql.SCAN_WALLETS) if wallet not in (EVERYBODY, TREASURY)]

    def wallets_in_doubt(self, after: str = "", count_max: int = 1_000) -> Sequence[str]:
        """Return up to `count_max` wallets beyond `after` that may have open attempts, in order."""
        with self._reading() as cursor:
            return [wallet for (wallet,) in cursor.all(sql.SCAN_OPEN, after=after, count_max=count_max)]

    def wallet_of_signature(self, tx_signature: str) -> str | None:
        """Return the wallet that has this transaction signature on file: a hint where to look, not to be trusted."""
        with self._reading() as cursor:
            row = cursor.one(sql.FIND_WALLET_OF_SIGNATURE, tx_signature=tx_signature)
        return None if row is None else str(row[0])

    def head_seqs(self, wallets: Collection[str]) -> dict[str, int]:
        """Return how far each of `wallets` has come, where that is a number: a hint to look, not to be trusted."""
        with self._reading() as cursor:
            rows = [row for some in _batches(wallets) for row in cursor.all(sql.READ_HEAD_SEQS, **some)]
        return {wallet: seq for wallet, seq in rows if isinstance(seq, int)}

    @contextmanager
    def hinting(self, told: Callable[[Collection[str]], None]) -> Iterator[None]:
        """Have `told` called with the wallets of each commit: of this process, and on PostgreSQL of others too.

        In whatever thread; it must return at once, and raise nothing. A hint may be lost, and come for nothing.
        """
        self._told = (*self._told, told)
        try:
            with self._store.hinting(told):
                yield
        finally:
            self._told = tuple(each for each in self._told if each is not told)

    def spend(self, wallet: str, token_hash: str, *, expires_at_ms: int) -> bool:
        """Use up what `token_hash` names, for the wallet; tell whether this call did, and none before, on any replica.

        It is kept until a while after `expires_at_ms`: the caller takes nothing that is over by a clock like ours.

        Raises:
            LedgerError: as `change`; it may be used up all the same.

        """
        (spending,) = self._make([_Spending(wallet, token_hash, expires_at_ms)])
        return spending.result()

    def _view(self, floors: Mapping[str, Seen], cursor: Cursor, wallet: str) -> WalletView:
        stored = self._head(cursor, sql.READ_HEAD, wallet)
        if stored is None:
            raise UnknownWallet(f"the ledger has nothing of wallet `{wallet}`")
        head = stored.head
        return WalletView(cursor, self._seals, stored, floors, lambda: self._trusted_time(cursor, head))

    def _for_everybody(self) -> ForEverybody:
        floors = self._floors(EVERYBODY)
        with self._reading() as cursor:
            return for_everybody(cursor, self._seals, floors)

    def _floors(self, *wallets: str) -> Mapping[str, Seen]:
        """Return what was seen of `wallets`. INVARIANT: before a look begins, which sees at least that much."""
        return {wallet: seen for wallet in wallets if (seen := self._ratchet.get(wallet)) is not None}

    def _commit(self, changes: Sequence[_Change[Any] | _Spending], attempts_max: int) -> None:
        """Make `changes` in one transaction; if that fails, each in one of its own."""
        try:
            self._commit_together(changes, attempts_max)
        except Exception as fault:  # noqa: BLE001 - told to whoever asked for the change
            if len(changes) > 1:
                for change in changes:
                    change.fault = _interrupted()  # what the first try gave is undone, and may be nobody's answer
                for change in changes:
                    # Whoever waited long enough for a server asks it only once more for each.
                    self._commit([change], 1 if self._is_passing(fault) else attempts_max)
                return
            changes[0].fault = fault.refused if isinstance(fault, _HalfDone) else _told_of(self._store, fault)
        except BaseException:
            for change in changes:
                change.fault = _interrupted()
            raise

    def _commit_together(self, changes: Sequence[_Change[Any] | _Spending], attempts_max: int) -> None:
        for attempt in range(1, attempts_max + 1):
            try:
                with self._store.writing() as cursor:
                    self._spend_all(cursor, [each for each in changes if isinstance(each, _Spending)])
                    seen = self._make_all(cursor, [each for each in changes if isinstance(each, _Change)])
            except _driver(self._store).Error as error:
                if not self._is_passing(error):
                    raise
                for change in changes:
                    change.again = True
                if attempt == attempts_max:
                    raise
                self._pause_after(attempt)
            else:
                for stored in seen:
                    self._ratchet.rise(stored)
                self._hint({change.wallet for change in changes})
                return

    def _hint(self, wallets: Collection[str]) -> None:
        """Give a hint of a commit. INVARIANT: what is committed is never told as failed, whatever hints do."""
        for hint in (self._store.leave_hint, *self._told):
            with suppress(Exception):
                hint(wallets)

    def _is_passing(self, fault: Exception) -> bool:
        return isinstance(fault, _driver(self._store).Error) and self._store.is_passing(fault)

    def _spend_all(self, cursor: Cursor, spendings: Sequence[_Spending]) -> None:
        """Spend each, in one order, so that no two transactions wait for each other; forget some that are over."""
        for each in sorted(spendings, key=attrgetter("wallet", "token_hash")):
            each.fault = None
            row = {"wallet": each.wallet, "token_hash": each.token_hash, "expires_at_ms": each.expires_at_ms}
            each.outcome = cursor.one(sql.SPEND, **row) is not None
        if spendings:
            before_ms = self._clock() - FORGOTTEN_AFTER_MS
            cursor.send(sql.FORGET_SPENT, before_ms=before_ms, count_max=FORGOTTEN_AT_ONCE_MAX)

    def _make_all(self, cursor: Cursor, changes: Sequence[_Change[Any]]) -> Sequence[StoredHead]:
        """Make each change, wallet by wallet in one order, so that no two transactions wait for each other.

        Returns the heads that were read or written.
        """
        seen: list[StoredHead] = []
        if any(change.wallet == EVERYBODY for change in changes):
            self._store.own_halts(cursor)
        elif not all(change.ahead for change in changes):  # who reads ahead shares them
            self._store.share_halts(cursor)
        # INVARIANT: everybody's lock, then the treasury's, then the wallets' in their order: nobody waits in a circle.
        treasury = self._lock(cursor, TREASURY, create=True) if any(change.treasury for change in changes) else None
        by_wallet = attrgetter("wallet")
        for _wallet, its_changes in groupby(sorted(changes, key=by_wallet), by_wallet):
            transaction: WalletTransaction | None = None
            for change in its_changes:
                change.fault = None
                try:
                    if change.ahead:
                        seen_of_it = self._ratchet.get(change.wallet)
                        self._store.read_ahead(cursor, change.wallet, change.ahead, seen_of_it.seq if seen_of_it else 0)
                    transaction = transaction or self._lock(cursor, change.wallet, create=change.create)
                    if treasury is not None and change.treasury:
                        transaction.join(treasury)
                    change.make(transaction)
                except ExecutorError as fault:
                    change.fault = fault
            if transaction is not None:
                transaction.write_head()  # now: EVERYBODY comes first, and all others read its halts
                seen.extend(transaction.seen())
        if treasury is not None:
            treasury.write_head()
            seen.extend(treasury.seen())
        return seen

    def _lock(self, cursor: Cursor, wallet: str, *, create: bool) -> WalletTransaction:
        stored = self._head(cursor, sql.LOCK_HEAD, wallet)
        if stored is None:
            if not create:
                raise UnknownWallet(f"the ledger has nothing of wallet `{wallet}`")
            made = insert_head(cursor, self._seals, wallet)
            stored = self._head(cursor, sql.LOCK_HEAD, wallet) or made
        try:
            now_ms, doubt = self._trusted_time(cursor, stored.head), None
        except ClockUntrusted as untrusted:
            now_ms, doubt = stored.head.at_ms, untrusted
        return WalletTransaction(cursor, self._seals, stored, self._ratchet, now_ms, doubt)

    def _head(self, cursor: Cursor, statement: sql.Statement, wallet: str) -> StoredHead | None:
        row = cursor.one(statement, wallet=wallet)
        if row is None:
            return None
        stored = self._seals.head(row)
        if (stored.head.wallet, stored.head.ledger_id) != (wallet, self.id):
            raise LedgerTampered(f"wallet `{wallet}` has the head of another")
        return stored

    def _trusted_time(self, cursor: Cursor, head: Head) -> int:
        """Return the time, read after the lock, which for a wallet never goes back."""
        now_ms = self._clock()
        if self._host_clock:
            host_ms = self._store.now_ms(cursor, now_ms)
            if abs(host_ms - now_ms) > APART_MS_MAX:
                raise ClockUntrusted(f"the clock says {now_ms}, but the database's host says {host_ms}")
            now_ms = host_ms
        if now_ms + APART_MS_MAX < head.at_ms:
            raise ClockUntrusted(f"the clock says {now_ms}, but the ledger has seen {head.at_ms}")
        return max(now_ms, head.at_ms)


def _interrupted() -> LedgerError:
    return LedgerError("the change was interrupted")


def _batches(wallets: Collection[str]) -> Iterator[dict[str, str]]:
    """Yield the parameters of READ_HEAD_SEQS, as often as it takes."""
    names, left = [f"wallet_{number}" for number in range(sql.HEADS_AT_ONCE)], iter(wallets)
    while some := tuple(islice(left, sql.HEADS_AT_ONCE)):
        yield dict(zip_longest(names, some, fillvalue=some[0]))


class _Change(Waiting, Generic[T]):
    """A change that waits for its transaction, and then its outcome."""

    def __init__(
        self,
        wallet: str,
        work: Callable[[WalletTransaction], T],
        *,
        create: bool = False,
        ahead: Ahead | None = None,
        treasury: bool = False,
        urgent: bool = False,
        any_clock: bool = False,
    ) -> None:
        super().__init__(urgent=urgent)
        self.wallet = wallet
        self._work = work
        self.create = create
        self.ahead = ahead
        self.treasury = treasury
        self.any_clock = any_clock
        self.again = False
        self.fault: Exception | None = None
        self.outcome: T

    def make(self, transaction: WalletTransaction) -> None:
        """Do the work. What it refuses before it changed anything harms nobody else; anything else undoes them all."""
        if not self.any_clock:
            transaction.require_time()
        before, transaction.again = transaction.head, self.again
        try:
            self.outcome = self._work(transaction)
        except ExecutorError as refused:
            if transaction.head is not before:
                raise _HalfDone(refused) from None
            raise

    def result(self) -> T:
        """Return the outcome, or raise what kept it from being one."""
        if self.fault is not None:
            raise self.fault
        return self.outcome


class _Spending(Waiting):
    """What is used up with the changes that commit next: it belongs to no chain, and locks no wallet."""

    def __init__(self, wallet: str, token_hash: str, expires_at_ms: int) -> None:
        super().__init__()
        self.wallet = wallet
        self.token_hash = token_hash
        self.expires_at_ms = expires_at_ms
        self.again = False
        self.fault: Exception | None = None
        self.outcome = False

    def result(self) -> bool:
        """Tell whether this used it up, or raise what kept that from being known."""
        if self.fault is not None:
            raise self.fault
        return self.outcome


class _HalfDone(Exception):
    """A change raised after it had written: nothing of its transaction may be kept."""

    def __init__(self, refused: ExecutorError) -> None:
        self.refused = refused


def open_store(url: str | Path, *, read_only: bool) -> Store:
    """Open the database at `url` with the module for its dialect."""
    if isinstance(url, Path):
        return SqliteStore(url, read_only=read_only)
    if "://" not in url:
        return SqliteStore(_file(url), read_only=read_only)
    parsed = read_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            if parsed.query:
                raise LedgerError(f"`{url}`: a ledger's URL is `sqlite:///PATH`, without options")
            return SqliteStore(_file(parsed.database or ""), read_only=read_only)
        case "postgresql":
            from executor.ledger.postgres import PostgresStore  # noqa: PLC0415 - an extra

            return PostgresStore(parsed, read_only=read_only)
    raise LedgerError(f"`{parsed.drivername}` is not a database for a ledger: sqlite and postgresql are")


def _file(path: str) -> Path:
    """Return the path of an SQLite file, spelled as text: not one of SQLite's names that are none, nor half a URL."""
    if path in ("", ":memory:") or path.startswith("file:"):
        raise LedgerError(f"`{path}` names no file: a ledger is kept in one, and never in memory")
    if is_mistyped(path):
        raise LedgerError("the ledger's URL is none: after its scheme comes `://`")
    return Path(path)


def _driver(store: Store) -> Any:  # noqa: ANN401 - a module with the names of PEP 249
    return store.engine.dialect.loaded_dbapi


@contextmanager
def told(store: Store) -> Iterator[None]:
    """Tell the driver's errors as ours."""
    try:
        yield
    except (_driver(store).Error, SQLAlchemyError, UnicodeEncodeError) as error:
        raise _told_of(store, error) from None


def _told_of(store: Store, error: Exception) -> Exception:
    """Return our error for the driver's; any other as it is."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, UnicodeEncodeError):
        return LedgerError("a text with half of a surrogate pair can't be written or looked for")
    if getattr(cause, "sqlstate", None) == DIVISION_BY_ZERO:
        return LedgerTampered(sql.UNCHANGED)
    if isinstance(cause, _driver(store).IntegrityError):
        # Unique keys are looked up under the lock first: a clash means that a row hid from that, or a bug of ours.
        return LedgerTampered(f"the database refuses what its rows allow: {' '.join(str(cause).split())}")
    if isinstance(cause, (_driver(store).Error, SQLAlchemyError)):
        return LedgerError(f"`{store.name}` failed: {' '.join(str(cause).split())}")
    return error


class Made(NamedTuple):
    """What a ledger is made with, and keeps for ever."""

    ledger_id: str
    limits: Limits


def _read_or_make(store: Store, keys: SealKeys, limits: Limits, random_bytes: Callable[[int], bytes]) -> Made:
    """Return what the ledger's sealed row says; if there is none, write it, and the head for everybody."""
    if store.read_only:
        with store.reading() as cursor:
            row = cursor.one(sql.READ_LEDGER)
            if row is None:
                raise LedgerError(f"`{store.name}` holds no ledger")
            return _read(row, keys)
    with store.writing() as cursor:
        store.own_halts(cursor)  # of two processes that begin at once, one makes it
        row = cursor.one(sql.READ_LEDGER)
        return _make(cursor, keys, Made(random_bytes(ID_BYTES).hex(), limits)) if row is None else _read(row, keys)


def _make(cursor: Cursor, keys: SealKeys, made: Made) -> Made:
    content = canonicalize({"epoch": made.ledger_id, "schema": SCHEMA_VERSION, "limits": made.limits.to_json_object()})
    seal = keys.seal(LEDGER_TAG, content)
    cap = made.limits.executions_per_24h
    cursor.send(sql.INSERT_LEDGER, id=1, executions_per_24h=cap, content=content, key_id=seal.key_id, mac=seal.mac)
    insert_head(cursor, Seals(keys, made.ledger_id), EVERYBODY, made.limits)
    return made


def _read(row: Row, keys: SealKeys) -> Made:
    content, key_id, mac = row
    if not fits(keys, Seal(key_id, mac), LEDGER_TAG, content):
        raise LedgerTampered("the ledger's row doesn't fit its seal: it was changed, or the key is another")
    held = json.loads(content)
    if held["schema"] != SCHEMA_VERSION:
        raise LedgerError(f"the ledger has schema {held['schema']}, but this version reads {SCHEMA_VERSION}")
    return Made(held["epoch"], Limits.from_json_object(held["limits"]))
