"""The ledger: one transaction locks a user, reads what is true, and appends what was decided.

The walk of every change: lock the wallet's head → verify it → read the time → read and verify what the decision needs
→ append entries, each chained and sealed → move the head on → commit. Whatever fails on the way undoes all of it.

Nothing read from the database is trusted before its seal fits and it says what was asked for.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError

from executor.caps import is_expired
from executor.entries import Entry, Head, Kind, chain_start, index_of, next_hash
from executor.errors import ClockUntrusted, LedgerError, LedgerTampered, UnknownWallet
from executor.ledger import queries
from executor.ledger.schema import SCHEMA_VERSION
from executor.ledger.sqlite import SqliteStore
from executor.lifecycle import ATTEMPT_STEP, AgentState, AttemptState
from executor.limits import Limits
from executor.seal import Seal, SealKeys
from permits.canonical import canonicalize

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from executor.entries import ActiveAgent
    from executor.ledger.queries import EntryRow, SealedRow

__all__ = ["Clock", "Ledger", "SealedEntry", "WalletTransaction", "WalletView", "system_clock_ms"]

LEDGER_TAG: Final = b"holdfire/ledger/v1"
HEAD_TAG: Final = b"holdfire/head/v1"
ENTRY_TAG: Final = b"holdfire/entry/v1"

CLOCK_BACK_MS_MAX: Final = 2_000
"""A clock that is set right may step back this far; further, and nobody knows what time it is."""

EPOCH_BYTES: Final = 8

Clock = Callable[[], int]
"""Returns Unix time in ms."""


def system_clock_ms() -> int:
    """Return this host's Unix time in ms."""
    return time.time_ns() // 1_000_000


class SealedEntry(NamedTuple):
    """An entry as the ledger holds it, its seal checked."""

    entry: Entry
    content: bytes
    """Its canonical bytes, as they were hashed and sealed."""
    hash: str
    """Hex of its place in the wallet's chain."""


class Ledger:
    """An open ledger. Use it as a context manager, or `close` it."""

    def __init__(self, store: SqliteStore, seal_keys: SealKeys, clock: Clock, epoch: str, limits: Limits) -> None:
        self._store = store
        self._keys = seal_keys
        self._clock = clock
        self.epoch: Final = epoch
        """The ledger's id, in hex: no two ledgers share it, nor does a restored copy keep it."""
        self.limits: Final = limits

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        seal_keys: SealKeys,
        limits: Limits | None = None,
        clock: Clock = system_clock_ms,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        read_only: bool = False,
    ) -> Self:
        """Open the SQLite file `path`; unless `read_only`, make it where there is none.

        Args:
            path: the file; beside it SQLite keeps its log and this library its lock.
            seal_keys: the keyring; a ledger opens only with a key that it was sealed with.
            limits: must be those that the ledger holds; None takes what it holds, or the defaults for a new one.
            clock: the time, in this process and on the database's host alike.
            random_bytes: where a new ledger's id comes from.
            read_only: read beside the process that holds the file; nothing can be changed.

        Raises:
            LedgerError: the file can't be used, another process holds it, or it holds other limits.
            LedgerTampered: its seal doesn't fit: another key, or somebody changed it.

        """
        store = SqliteStore(path, read_only=read_only)
        try:
            epoch, held = _read_or_make(store, seal_keys, limits or Limits(), random_bytes)
        except DatabaseError as error:
            store.close()
            raise LedgerError(f"`{path}` can't be used as a ledger: {error.orig}") from None
        except BaseException:
            store.close()
            raise
        if limits not in (None, held):
            store.close()
            raise LedgerError(f"`{path}` holds other limits than those given; they are changed only on purpose")
        return cls(store, seal_keys, clock, epoch, held)

    def close(self) -> None:
        """Close the database and give up the lock."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @contextmanager
    def transaction(self, wallet: str, *, create: bool = False) -> Iterator[WalletTransaction]:
        """Hold `wallet`'s lock for one change; commit at the end, or undo everything if an exception leaves.

        Raises:
            UnknownWallet: the ledger has nothing of this wallet, unless `create`.
            LedgerTampered, ClockUntrusted: as named.
            LedgerError: the database failed; nothing was written, or, at a lost commit, all of it.

        """
        with self._connection(self._store.writer) as connection:
            head = self._head(connection, wallet)
            if head is None:
                if not create:
                    raise UnknownWallet(f"the ledger has nothing of wallet `{wallet}`")
                head = self._make_head(connection, wallet)
            transaction = WalletTransaction(connection, self._keys, head, self._trusted_time(head))
            yield transaction
            transaction.write_head()

    @contextmanager
    def view(self, wallet: str) -> Iterator[WalletView]:
        """Read `wallet` as it stands, without its lock. Raises as `transaction` does."""
        with self._connection(self._store.reader) as connection:
            head = self._head(connection, wallet)
            if head is None:
                raise UnknownWallet(f"the ledger has nothing of wallet `{wallet}`")
            yield WalletView(connection, self._keys, head)

    @contextmanager
    def connection(self, *, writing: bool) -> Iterator[Connection]:
        """Lend a connection to tables beside the chain: the vault's."""
        with self._connection(self._store.writer if writing else self._store.reader) as connection:
            yield connection

    def wallets(self) -> Sequence[str]:
        """Return every wallet that the ledger has something of."""
        with self._connection(self._store.reader) as connection:
            return queries.scan_wallets(connection)

    def head_seqs(self, wallets: Collection[str]) -> dict[str, int]:
        """Return how far each of `wallets` has come, where that is a number: a hint to look, not to be trusted."""
        with self._connection(self._store.reader) as connection:
            seqs = queries.scan_head_seqs(connection, wallets)
        return {wallet: seq for wallet, seq in seqs.items() if isinstance(seq, int)}

    @contextmanager
    def _connection(self, engine: Engine | None) -> Iterator[Connection]:
        if engine is None:
            raise LedgerError("the ledger was opened read-only")
        try:
            with engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            # Unique keys are looked up under the lock first: a clash means that a row hid from that, or a bug of ours.
            raise LedgerTampered(f"the database refuses what its rows allow: {error.orig}") from None
        except SQLAlchemyError as error:
            raise LedgerError(f"the database failed: {getattr(error, 'orig', None) or error}") from None

    def _head(self, connection: Connection, wallet: str) -> Head | None:
        row = queries.read_head(connection, wallet)
        if row is None:
            return None
        head = Head.from_json_object(json.loads(_unsealed(self._keys, HEAD_TAG, row)))
        if (head.wallet, head.epoch) != (wallet, self.epoch):
            raise LedgerTampered(f"wallet `{wallet}` has the head of another")
        return head

    def _make_head(self, connection: Connection, wallet: str) -> Head:
        head = Head(epoch=self.epoch, wallet=wallet, hash=chain_start(self.epoch, wallet))
        content = head.canonical_bytes()
        queries.insert_head(connection, wallet, content, self._keys.seal(HEAD_TAG, content))
        return head

    def _trusted_time(self, head: Head) -> int:
        """Return the time, which for a wallet never goes back."""
        now_ms = self._clock()
        if now_ms + CLOCK_BACK_MS_MAX < head.at_ms:
            raise ClockUntrusted(f"the clock says {now_ms}, but the ledger has seen {head.at_ms}")
        return max(now_ms, head.at_ms)


class WalletView:
    """One wallet's entries, each verified as it is read."""

    def __init__(self, connection: Connection, keys: SealKeys, head: Head) -> None:
        self._connection = connection
        self._keys = keys
        self._epoch = bytes.fromhex(head.epoch)
        self.head = head

    def entry(self, seq: int) -> SealedEntry:
        """Return the entry at `seq`. Raises LedgerTampered unless it is there, as its head says it must be."""
        return self._present(queries.find_entry(self._connection, self.head.wallet, seq=seq), seq=seq)

    def attempt(self, number: int) -> SealedEntry:
        """Return the attempt of this number. Raises LedgerTampered unless it is there: numbers have no gaps."""
        return self._present(queries.find_entry(self._connection, self.head.wallet, attempt=number), attempt=number)

    def execution(self, execution_id: str) -> list[SealedEntry]:
        """Return the steps of an execution in their order; none if its id was never used."""
        rows = queries.find_execution(self._connection, self.head.wallet, execution_id)
        steps = [self._trusted(row, execution_id=execution_id) for row in rows]
        if [ATTEMPT_STEP[AttemptState(step.entry.kind)] for step in steps] != list(range(len(steps))):
            raise LedgerTampered(f"the steps of execution `{execution_id}` are out of order, or one is gone")
        return steps

    def agent_move(self, agent_id: str, *states: AgentState) -> SealedEntry | None:
        """Return the newest entry that moved the agent, into one of `states` if any are given; None if none did."""
        row = queries.find_last_move(self._connection, self.head.wallet, agent_id, states or tuple(AgentState))
        if row is None:
            return None
        moved = self._trusted(row, agent_id=agent_id)
        if moved.entry.agent_state not in (states or tuple(AgentState)):
            raise LedgerTampered(f"entry {moved.entry.seq} of wallet `{self.head.wallet}` stands where another belongs")
        return moved

    def reservation(self, session_pubkey: str) -> SealedEntry | None:
        """Return the entry that reserved the session key; None if this wallet never did."""
        row = queries.find_entry(self._connection, self.head.wallet, session_pubkey=session_pubkey)
        if row is None:
            return None
        reserved = self._trusted(row, kind=Kind.RESERVED)
        if reserved.entry.body["sessionPubkey"] != session_pubkey:
            raise LedgerTampered(f"session key `{session_pubkey}` was reserved by an entry that says otherwise")
        return reserved

    def is_nonce_spent(self, nonce: str) -> bool:
        """Tell whether the wallet used `nonce` before."""
        return queries.find_entry(self._connection, self.head.wallet, nonce=nonce) is not None

    def after(self, seq: int, count_max: int) -> list[SealedEntry]:
        """Return up to `count_max` entries above `seq`, in order, without a gap."""
        rows = queries.scan_entries(self._connection, self.head.wallet, seq, count_max)
        if len(rows) != max(0, min(count_max, self.head.seq - seq)):
            raise LedgerTampered(f"of wallet `{self.head.wallet}` entries are gone above {seq}")
        return [self._trusted(row, seq=seq + place) for place, row in enumerate(rows, 1)]

    def index_after(self, seq: int, count_max: int) -> list[dict[str, object]]:
        """Return the index columns of the entries that `after` returns, as storage has them: for the audit."""
        rows = queries.scan_index(self._connection, self.head.wallet, seq, count_max)
        return [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name

    def _present(self, row: EntryRow | None, **expected: object) -> SealedEntry:
        if row is None:
            raise LedgerTampered(f"of wallet `{self.head.wallet}` an entry is gone: {expected}")
        return self._trusted(row, **expected)

    def _trusted(self, row: EntryRow, **expected: object) -> SealedEntry:
        """Return the entry in `row` if its seal fits and it is what was asked for: columns are only an index."""
        content, chain_hash, key_id, mac = row
        if not _fits(self._keys, Seal(key_id, mac), ENTRY_TAG, self._epoch, chain_hash, content):
            raise LedgerTampered(f"an entry of wallet `{self.head.wallet}` doesn't fit its seal")
        entry = Entry.from_json_object(json.loads(content))
        for name, value in {"wallet": self.head.wallet, **expected}.items():
            if getattr(entry, name) != value:
                raise LedgerTampered(f"an entry of wallet `{self.head.wallet}` stands where another belongs")
        return SealedEntry(entry, content, chain_hash.hex())


class WalletTransaction(WalletView):
    """One change to one wallet, under its lock."""

    def __init__(self, connection: Connection, keys: SealKeys, head: Head, now_ms: int) -> None:
        super().__init__(connection, keys, head)
        self.now_ms: Final = now_ms
        """The one time of this change, Unix ms, read after the lock."""
        self._start_seq: Final = head.seq

    def append(
        self,
        kind: Kind,
        agent_id: str,
        body: dict[str, Any],
        *,
        agent_state: AgentState | None = None,
        execution_id: str | None = None,
        attempt: int | None = None,
    ) -> SealedEntry:
        """Append an entry, chained to the one before and sealed."""
        entry = Entry(
            wallet=self.head.wallet,
            seq=self.head.seq + 1,
            kind=kind,
            at_ms=self.now_ms,
            agent_id=agent_id,
            execution_id=execution_id,
            attempt=attempt,
            agent_state=agent_state,
            body=body,
        )
        content = entry.canonical_bytes()
        chain_hash = next_hash(self.head.hash, content)
        hash_bytes = bytes.fromhex(chain_hash)
        queries.insert_entry(
            self._connection,
            wallet=entry.wallet,
            seq=entry.seq,
            content=content,
            hash=hash_bytes,
            **self._keys.seal(ENTRY_TAG, self._epoch + hash_bytes + content)._asdict(),
            **index_of(entry),
        )
        moved = {"seq": entry.seq, "hash": chain_hash, "at_ms": self.now_ms}
        self.head = self.head.model_copy(update=moved if attempt is None else {**moved, "attempts": attempt})
        return SealedEntry(entry, content, chain_hash)

    def set_active(self, agent_id: str, agent: ActiveAgent | None) -> None:
        """Let the agent fire under `agent`, or, with None, no longer."""
        others = {each: held for each, held in self.head.active.items() if each != agent_id}
        self.head = self.head.model_copy(update={"active": others if agent is None else {**others, agent_id: agent}})

    def forget_expired(self) -> None:
        """Take agents whose permits are over out of the head, so that it never outgrows the cap on active ones."""
        unexpired = {
            each: held for each, held in self.head.active.items() if not is_expired(held.expires_at_ms, self.now_ms)
        }
        self.head = self.head.model_copy(update={"active": unexpired})

    def write_head(self) -> None:
        """Seal and store the head, if anything was appended. The ledger calls this once, before the commit."""
        if self.head.seq == self._start_seq:
            return
        content = self.head.canonical_bytes()
        if not queries.advance_head(
            self._connection,
            self.head.wallet,
            seq=self._start_seq,
            to=self.head.seq,
            content=content,
            seal=self._keys.seal(HEAD_TAG, content),
        ):
            raise LedgerTampered(f"the head of wallet `{self.head.wallet}` doesn't stand at its sequence number")


def _fits(keys: SealKeys, seal: Seal, tag: bytes, *parts: object) -> bool:
    """Tell whether `seal` fits `parts`; never if the database gave anything but bytes."""
    texts = [part for part in (seal.mac, *parts) if isinstance(part, bytes)]
    return len(texts) == len(parts) + 1 and keys.fits(seal, tag, b"".join(texts[1:]))


def _unsealed(keys: SealKeys, tag: bytes, row: SealedRow) -> bytes:
    content, key_id, mac = row
    if not _fits(keys, Seal(key_id, mac), tag, content):
        raise LedgerTampered(f"a row of {tag.decode()} doesn't fit its seal: it was changed, or the key is another")
    return bytes(content)


def _read_or_make(
    store: SqliteStore, keys: SealKeys, limits: Limits, random_bytes: Callable[[int], bytes]
) -> tuple[str, Limits]:
    """Return the ledger's epoch and limits from its sealed row, written first if there is none."""
    engine = store.writer or store.reader
    with engine.begin() as connection:
        row = queries.read_ledger(connection)
        if row is None:
            held: dict[str, Any] = {
                "epoch": random_bytes(EPOCH_BYTES).hex(),
                "schema": SCHEMA_VERSION,
                "limits": limits.to_json_object(),
            }
            content = canonicalize(held)
            queries.insert_ledger(connection, content, keys.seal(LEDGER_TAG, content))
        else:
            held = json.loads(_unsealed(keys, LEDGER_TAG, row))
    if held["schema"] != SCHEMA_VERSION:
        raise LedgerError(f"the ledger has schema {held['schema']}, but this version reads {SCHEMA_VERSION}")
    return held["epoch"], Limits.from_json_object(held["limits"])
