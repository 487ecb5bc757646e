"""One wallet's part of the ledger: read with every seal checked, and appended to under its lock.

Nothing read from the database is trusted before its seal fits and it says what was asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from heapq import merge
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from executor.bounds import Bounds
from executor.caps import is_expired
from executor.entries import ENDS, Entry, Head, Kind, attempted_at_ms, chain_start, index_of, next_hash
from executor.errors import LedgerTampered
from executor.ledger import statements as sql
from executor.ledger.ratchet import Seen, StoredHead, require_newest
from executor.lifecycle import ATTEMPT_STEP, ATTEMPT_STEPS, AgentState, AttemptState
from executor.seal import Seal, SealKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from executor.entries import ActiveAgent
    from executor.errors import ClockUntrusted
    from executor.halts import Halt
    from executor.ledger.statements import Cursor, Row, Statement
    from executor.limits import Limits

__all__ = ["SealedEntry", "Seals", "WalletTransaction", "WalletView"]

if TYPE_CHECKING:

    class Floors(Protocol):
        """What was seen of each wallet before it is read: a `Ratchet`, or what one said then."""

        def get(self, wallet: str, /) -> Seen | None:
            """Return what was seen of `wallet`; None if nothing was."""


HEAD_TAG: Final = b"holdfire/head/v1"
ENTRY_TAG: Final = b"holdfire/entry/v1"

EVERYBODY: Final = "*"
"""Stands for all wallets where a wallet's name would: what concerns all of them has a chain of its own."""

TREASURY: Final = "$"
"""Stands where a wallet's name would for the operator's own: the chain that counts what all users were given."""

TOLD_LATELY: Final = 1_000
"""More than a wallet's entries between a commit whose answer was lost and the next try."""

REMEMBERED: Final = 4_096
"""Rows whose seals were checked before: a few MB. Activations and heads are read before every fire."""


@dataclass(frozen=True)
class SealedEntry:
    """An entry as the ledger holds it, its seal checked."""

    entry: Entry
    content: bytes
    """Its canonical bytes, as they were hashed and sealed."""
    hash: str
    """Hex of its place in the wallet's chain."""

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds that an activation put into force."""
        return Bounds.from_json_object(self.entry.body["bounds"])


class Seals:
    """Checks seals, and remembers what fitted: the same bytes under the same seal are what they were."""

    def __init__(self, keys: SealKeys, ledger_id: str) -> None:
        self._keys = keys
        self._ledger_id_bytes = bytes.fromhex(ledger_id)
        self._read: OrderedDict[bytes, tuple[Row, Head | SealedEntry]] = OrderedDict()
        self.ledger_id: Final = ledger_id

    def head(self, row: Row) -> StoredHead:
        """Return the head in `row` (content, key id, MAC, sequence number), or raise LedgerTampered."""
        content, key_id, mac, seq = row
        head = self._known(mac, row[:3])
        if not isinstance(head, Head):
            if not fits(self._keys, Seal(key_id, mac), HEAD_TAG, content):
                raise LedgerTampered("a head doesn't fit its seal: it was changed, or the key is another")
            head = Head.read(content)
            self._remember(mac, row[:3], head)
        if head.seq != seq:
            raise LedgerTampered(f"the head of wallet `{head.wallet}` doesn't stand at its sequence number")
        return StoredHead(head, mac)

    def entry(self, row: Row) -> SealedEntry:
        """Return the entry in `row` (content, hash, key id, MAC). Raises LedgerTampered if the seal doesn't fit."""
        mac = row[3]
        known = self._known(mac, row)
        if isinstance(known, SealedEntry):
            return known
        content = self.content(row)
        sealed = SealedEntry(Entry.read(content), content, row[1].hex())
        if sealed.entry.kind is Kind.ACTIVATED:
            self._remember(mac, row, sealed)
        return sealed

    def content(self, row: Row) -> bytes:
        """Return the canonical bytes of the entry in `row`. Raises LedgerTampered if the seal doesn't fit."""
        content, chain_hash, key_id, mac = row
        if not fits(self._keys, Seal(key_id, mac), ENTRY_TAG, self._ledger_id_bytes, chain_hash, content):
            raise LedgerTampered("an entry doesn't fit its seal: it was changed, or the key is another")
        found: bytes = content
        return found

    def seal_head(self, head: Head) -> tuple[bytes, Seal]:
        """Return the content and the seal to store for `head`."""
        content = head.canonical_bytes()
        seal = self._keys.seal(HEAD_TAG, content)
        self._remember(seal.mac, (content, *seal), head)
        return content, seal

    def seal_entry(self, entry: bytes, chain_hash: bytes) -> Seal:
        """Return the seal to store for the entry with these canonical bytes."""
        return self._keys.seal(ENTRY_TAG, self._ledger_id_bytes + chain_hash + entry)

    def _known(self, mac: bytes, row: Row) -> Head | SealedEntry | None:
        known = self._read.get(mac)
        return known[1] if known is not None and known[0] == row else None

    def _remember(self, mac: bytes, row: Row, read: Head | SealedEntry) -> None:
        self._read[mac] = row, read
        if len(self._read) > REMEMBERED:
            self._read.popitem(last=False)


def fits(keys: SealKeys, seal: Seal, tag: bytes, *parts: Any) -> bool:  # noqa: ANN401 - whatever a database gives
    """Tell whether `seal` fits `parts`; never if the database gave anything but bytes."""
    try:
        return keys.fits(seal, tag, b"".join(parts))
    except TypeError:
        return False


class WalletView:
    """One wallet's entries, each verified as it is read."""

    def __init__(
        self, cursor: Cursor, seals: Seals, stored: StoredHead, floors: Floors, time: Callable[[], int]
    ) -> None:
        """Look at the wallet of `stored`. Raises LedgerTampered if that is older than what `floors` say was seen."""
        self._cursor = cursor
        self._seals = seals
        self._floors = floors
        self._time = time
        self._entries: dict[int, SealedEntry] = {}
        self.head = stored.head
        require_newest(floors.get(self.head.wallet), stored, lambda seq: self.entry(seq).hash)

    @cached_property
    def _for_everybody(self) -> ForEverybody:
        found = for_everybody(self._cursor, self._seals, self._floors)
        if found.seq < self.head.everybody:
            raise LedgerTampered(f"wallet `{self.head.wallet}` has seen newer halts of everything, or newer limits")
        return found

    @property
    def limits(self) -> Limits:
        """What every user is held to: the same for all of this look or change."""
        return self._for_everybody.limits

    @property
    def stream_epoch(self) -> str:
        """What the ids of this ledger's events begin with, in hex."""
        return self._for_everybody.stream_epoch

    @property
    def everybody(self) -> int:
        """The number of the newest entry that concerns everybody: limits and halts are as it left them."""
        return self._for_everybody.seq

    @cached_property
    def now_ms(self) -> int:
        """The one time of this look or change, Unix ms. Raises ClockUntrusted if nobody knows it."""
        return self._time()

    def halts(self, agent_id: str | None = None) -> tuple[Halt, ...]:
        """Return the halts that hold the wallet's agent: those of everything, of the wallet, and its own."""
        everything = self._for_everybody.halts
        if not self.head.halts or self.head.wallet == EVERYBODY:
            return everything
        return (*everything, *(halt for halt in self.head.halts if halt.agent_id in (None, agent_id)))

    def every_halt(self) -> tuple[Halt, ...]:
        """Return the halts of everything, of the wallet, and of each of its agents."""
        return self.halts() if self.head.wallet == EVERYBODY else (*self._for_everybody.halts, *self.head.halts)

    def entry(self, seq: int) -> SealedEntry:
        """Return the entry at `seq`. Raises LedgerTampered unless it is there, as its head says it must be."""
        found = self._entries.get(seq)
        if found is None:
            found = self._entries[seq] = self._present(sql.FIND_SEQ, seq=seq)
        return found

    def attempt(self, number: int) -> SealedEntry:
        """Return the attempt of this number. Raises LedgerTampered unless it is there: numbers have no gaps."""
        return self._present(sql.FIND_ATTEMPT, attempt=number)

    def attempted_at_ms(self, number: int) -> int:
        """Return when the attempt of this number was authorized, Unix ms. Raises as `attempt` does."""
        row = self._row(sql.FIND_ATTEMPT, attempt=number)
        at_ms = attempted_at_ms(self._seals.content(row), self.head.wallet, number)
        if at_ms is None:
            raise self._misplaced()
        return at_ms

    def funding(self, number: int) -> SealedEntry:
        """Return the entry that counted the funding of this number. Raises LedgerTampered unless it is there."""
        return self._present(sql.FIND_FUNDING, funding=number)

    def refusal(self, number: int) -> SealedEntry:
        """Return the recorded refusal of this number. Raises LedgerTampered unless it is there."""
        return self._present(sql.FIND_REFUSAL, refusal=number)

    def execution(self, execution_id: str) -> list[SealedEntry]:
        """Return the steps of an execution in their order; none if its id was never used."""
        rows = self._cursor.all(sql.FIND_EXECUTION, wallet=self.head.wallet, execution_id=execution_id)
        steps = [self._trusted(row, execution_id=execution_id) for row in rows]
        if [ATTEMPT_STEP[AttemptState(step.entry.kind)] for step in steps] != list(range(len(steps))):
            raise LedgerTampered(f"the steps of execution `{execution_id}` are out of order, or one is gone")
        return steps

    def agent_move(self, agent_id: str, state: AgentState | None = None) -> SealedEntry | None:
        """Return the newest entry that moved the agent, into `state` if one is given; None if none did."""
        wanted = {"wallet": self.head.wallet, "agent_id": agent_id}
        if state is None:
            row = self._cursor.one(sql.FIND_LAST_MOVE, **wanted)
        else:
            row = self._cursor.one(sql.FIND_LAST_MOVE_TO, **wanted, agent_state=state)
        if row is None:
            return None
        moved = self._trusted(row, agent_id=agent_id)
        if moved.entry.agent_state is None or state not in (None, moved.entry.agent_state):
            raise LedgerTampered(f"entry {moved.entry.seq} of wallet `{self.head.wallet}` stands where another belongs")
        return moved

    def has_told(self, event_id: str) -> bool:
        """Tell whether one of the wallet's last entries has this minted id: for what may have been told before."""
        recent = self.after(max(0, self.head.seq - TOLD_LATELY), TOLD_LATELY)
        return any(sealed.entry.execution_id == event_id for sealed in recent)

    def last_fire(self, agent_id: str) -> SealedEntry | None:
        """Return the newest entry that authorized the agent; None if none ever did."""
        row = self._cursor.one(sql.FIND_LAST_FIRE, wallet=self.head.wallet, agent_id=agent_id)
        return None if row is None else self._trusted(row, kind=Kind.AUTHORIZED, agent_id=agent_id)

    def signed(self, tx_signature: str) -> SealedEntry | None:
        """Return the entry that recorded the transaction signature; None if this wallet's chain has none."""
        row = self._cursor.one(sql.FIND_SIGNATURE, wallet=self.head.wallet, tx_signature=tx_signature)
        if row is None:
            return None
        signed = self._trusted(row)
        if signed.entry.body.get("txSignature") != tx_signature:
            raise self._misplaced()
        return signed

    def reservation(self, session_pubkey: str) -> SealedEntry | None:
        """Return the entry that reserved the session key; None if this wallet never did."""
        row = self._cursor.one(sql.FIND_SESSION_KEY, wallet=self.head.wallet, session_pubkey=session_pubkey)
        if row is None:
            return None
        reserved = self._trusted(row, kind=Kind.RESERVED)
        if reserved.entry.body["sessionPubkey"] != session_pubkey:
            raise LedgerTampered(f"session key `{session_pubkey}` was reserved by an entry that says otherwise")
        return reserved

    def is_nonce_spent(self, nonce: str) -> bool:
        """Tell whether the wallet used or revoked `nonce` before."""
        return self._cursor.one(sql.FIND_NONCE, wallet=self.head.wallet, nonce=nonce) is not None

    def intents(self, agent_id: str, intent_key: str) -> list[SealedEntry]:
        """Return the attempts that the agent was authorized to make for one intent, newest first."""
        rows = self._cursor.all(sql.FIND_INTENT, wallet=self.head.wallet, agent_id=agent_id, intent_key=intent_key)
        return [self._trusted(row, kind=Kind.AUTHORIZED, agent_id=agent_id) for row in rows]

    def open_attempts(self) -> list[list[SealedEntry]]:
        """Return the steps of each attempt and funding that has not ended, newest first: as many as the head says."""
        found: list[list[SealedEntry]] = []
        attempts = (self.attempt(number) for number in range(self.head.attempts, 0, -1))
        fundings = (self.funding(number) for number in range(self.head.fundings, 0, -1))
        newest_first = merge(attempts, fundings, key=lambda authorized: authorized.entry.seq, reverse=True)
        while len(found) < self.head.open_attempts and (authorized := next(newest_first, None)) is not None:
            steps = self.execution(authorized.entry.execution_id or "")
            if ATTEMPT_STEPS[AttemptState(steps[-1].entry.kind)]:
                found.append(steps)
        if len(found) != self.head.open_attempts:
            raise LedgerTampered(f"of wallet `{self.head.wallet}` an open attempt is gone")
        return found

    def reservations(self) -> list[SealedEntry]:
        """Return the entries that reserved session keys: one for each agent, in their order."""
        rows = self._cursor.all(sql.SCAN_RESERVATIONS, wallet=self.head.wallet)
        return [self._trusted(row, kind=Kind.RESERVED) for row in rows]

    def decided(self, agent_id: str, before: int, count_max: int) -> list[SealedEntry]:
        """Return up to `count_max` entries below `before` that decided on the agent's fires, newest first."""
        rows = self._cursor.all(
            sql.SCAN_DECIDED, wallet=self.head.wallet, agent_id=agent_id, before=before, count_max=count_max
        )
        return [self._trusted(row, agent_id=agent_id) for row in rows]

    def after(self, seq: int, count_max: int) -> list[SealedEntry]:
        """Return up to `count_max` entries above `seq`, in order, without a gap."""
        rows = self._cursor.all(sql.SCAN_ENTRIES, wallet=self.head.wallet, after=seq, count_max=count_max)
        if len(rows) != max(0, min(count_max, self.head.seq - seq)):
            raise LedgerTampered(f"of wallet `{self.head.wallet}` entries are gone above {seq}")
        return [self._trusted(row, seq=seq + place) for place, row in enumerate(rows, 1)]

    def secret(self, agent_id: str) -> bytes | None:
        """Return the box that lies beside the chain for the agent's session key, as storage has it; None: none."""
        row = self._cursor.one(sql.READ_SECRET, of_wallet=self.head.wallet, of_agent=agent_id)
        return None if row is None else row[0]

    def secrets(self) -> list[str]:
        """Return the ids of the agents for whose session keys there is such a box."""
        return [agent_id for (agent_id,) in self._cursor.all(sql.SCAN_SECRETS, of_wallet=self.head.wallet)]

    def head_index(self) -> tuple[object, ...] | None:
        """Return the head's sequence number and open attempts as storage has them beside it: for the audit."""
        return self._cursor.one(sql.READ_HEAD_INDEX, wallet=self.head.wallet)

    def index_after(self, seq: int, count_max: int) -> Sequence[dict[str, object]]:
        """Return the index columns of the entries that `after` returns, as storage has them: for the audit."""
        names = [column.name for column in sql.INDEX_COLUMNS]
        rows = self._cursor.all(sql.SCAN_INDEX, wallet=self.head.wallet, after=seq, count_max=count_max)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def stored_cap(self) -> object:
        """Return the cap on executions as storage's own trigger knows it: for the audit."""
        row = self._cursor.one(sql.READ_STORED_CAP)
        return None if row is None else row[0]

    def _present(self, statement: Statement, **place: int) -> SealedEntry:
        return self._trusted(self._row(statement, **place), **place)

    def _row(self, statement: Statement, **place: int) -> Row:
        row = self._cursor.one(statement, wallet=self.head.wallet, **place)
        if row is None:
            raise LedgerTampered(f"of wallet `{self.head.wallet}` an entry is gone: {place}")
        return row

    def _trusted(self, row: Row, **expected: object) -> SealedEntry:
        """Return the entry in `row` if its seal fits and it is what was asked for: columns are only an index."""
        sealed = self._seals.entry(row)
        entry = sealed.entry
        expected["wallet"] = self.head.wallet
        for name, value in expected.items():
            if getattr(entry, name) != value:
                raise self._misplaced()
        return sealed

    def _misplaced(self) -> LedgerTampered:
        return LedgerTampered(f"an entry of wallet `{self.head.wallet}` stands where another belongs")


class WalletTransaction(WalletView):
    """One change to one wallet, under its lock."""

    again = False
    """Whether the same was tried before, and may have been committed although no answer came."""
    treasury: WalletTransaction
    """The chain that counts what all users were given, where the change asked for it too."""

    def __init__(
        self,
        cursor: Cursor,
        seals: Seals,
        stored: StoredHead,
        floors: Floors,
        now_ms: int,
        doubt: ClockUntrusted | None = None,
    ) -> None:
        super().__init__(cursor, seals, stored, floors, lambda: now_ms)
        self.now_ms = now_ms
        self._doubt = doubt
        self._stored = stored

    def require_time(self) -> None:
        """Raise ClockUntrusted if nobody knows the time, and `now_ms` is only the one that the head has."""
        if self._doubt is not None:
            raise self._doubt

    def append(
        self,
        kind: Kind,
        agent_id: str | None,
        body: dict[str, Any],
        moves: dict[str, Any] | None = None,
        **fields: Any,  # noqa: ANN401 - the types are those of Entry's fields
    ) -> SealedEntry:
        """Append an entry, chained to the one before and sealed.

        `moves` is what else the head says from then on (see `move_head`); `fields` are the entry's others.
        """
        head = self.head
        entry = Entry(
            wallet=head.wallet, seq=head.seq + 1, kind=kind, at_ms=self.now_ms, agent_id=agent_id, body=body, **fields
        )
        content = entry.canonical_bytes()
        chain_hash = next_hash(head.hash, content)
        hash_bytes = bytes.fromhex(chain_hash)
        seal = self._seals.seal_entry(content, hash_bytes)
        self._cursor.send(
            sql.INSERT_ENTRY,
            wallet=entry.wallet,
            seq=entry.seq,
            content=content,
            hash=hash_bytes,
            key_id=seal.key_id,
            mac=seal.mac,
            **index_of(entry),
        )
        moved: dict[str, Any] = {"seq": entry.seq, "hash": chain_hash, **(moves or {})}
        if kind is Kind.AUTHORIZED:
            moved["open_attempts"] = head.open_attempts + 1
        elif kind in ENDS:
            moved["open_attempts"] = head.open_attempts - 1
        if entry.attempt is not None:
            moved["attempts"] = entry.attempt
        if entry.counts_funding is not None:
            moved["fundings"] = entry.funding
        if entry.refusal is not None:
            moved["refusals"] = entry.refusal
        self.move_head(**moved)
        return SealedEntry(entry, content, chain_hash)

    def move_head(self, **changes: Any) -> None:  # noqa: ANN401 - the types are those of Head's fields
        """Let the head say something else: see `Head`."""
        self.head = self.head._replace(at_ms=self.now_ms, **changes)

    def join(self, treasury: WalletTransaction) -> None:
        """Change the treasury's chain together with this one, at one time: the later of what both have seen.

        Raises ClockUntrusted if nobody knows the treasury's.
        """
        treasury.require_time()
        self.treasury = treasury
        self.now_ms = treasury.now_ms = max(self.now_ms, treasury.now_ms)

    def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on: in the transaction of EVERYBODY alone. The same change nothing."""
        held = self.head.limits
        if held is None or held == limits:
            return
        body = {"old": held.to_json_object(), "new": limits.to_json_object()}
        self.append(Kind.LIMITS_CHANGED, None, body, {"limits": limits})
        self._cursor.send(sql.CHANGE_STORED_CAP, executions_per_24h=limits.executions_per_24h)

    def keep_secret(self, agent_id: str, box: bytes) -> None:
        """Lay the box with the agent's session key beside the chain."""
        self._cursor.send(sql.INSERT_SECRET, wallet=self.head.wallet, agent_id=agent_id, box=box)

    def change_secret(self, agent_id: str, box: bytes | None) -> None:
        """Lay another box in the place of that one; with None, take it away for ever."""
        place = {"of_wallet": self.head.wallet, "of_agent": agent_id}
        if box is None:
            self._cursor.send(sql.DELETE_SECRET, **place)
        else:
            self._cursor.send(sql.CHANGE_SECRET, **place, box=box)

    def set_active(self, agent_id: str, agent: ActiveAgent | None) -> None:
        """Let the agent fire under `agent`, or, with None, no longer."""
        others = {each: held for each, held in self.head.active.items() if each != agent_id}
        self.move_head(active=others if agent is None else {**others, agent_id: agent})

    def forget_expired(self) -> None:
        """Take agents whose permits are over out of the head, so that it never outgrows the cap on active ones."""
        unexpired = {
            each: held for each, held in self.head.active.items() if not is_expired(held.expires_at_ms, self.now_ms)
        }
        self.move_head(active=unexpired)

    def write_head(self) -> None:
        """Seal and store the head, if it moved. The ledger calls this once, before the commit."""
        before = self._stored
        if self.head is before.head:
            return
        everybody = self._for_everybody.seq if "_for_everybody" in self.__dict__ else self.head.everybody
        self.head = self.head._replace(version=self.head.version + 1, everybody=everybody)
        content, seal = self._seals.seal_head(self.head)
        self._cursor.send(
            sql.ADVANCE_HEAD,
            of_wallet=self.head.wallet,
            before=before.mac,
            seq=self.head.seq,
            open_attempts=self.head.open_attempts,
            content=content,
            key_id=seal.key_id,
            mac=seal.mac,
        )
        self._stored = StoredHead(self.head, seal.mac)

    def seen(self) -> Iterator[StoredHead]:
        """Yield the heads that this transaction has read or written: once it is committed, nothing older is true."""
        yield self._stored
        if "_for_everybody" in self.__dict__ and self.head.wallet != EVERYBODY:
            yield self._for_everybody.stored


class ForEverybody(NamedTuple):
    """What concerns every wallet, and the number of the newest entry about it."""

    seq: int
    halts: tuple[Halt, ...]
    """Those of everything."""
    limits: Limits
    stream_epoch: str
    stored: StoredHead


def for_everybody(cursor: Cursor, seals: Seals, floors: Floors) -> ForEverybody:
    """Return what the head for everybody says, by one statement.

    Raises LedgerTampered if it is gone, isn't the newest, or is older than what was seen of it.
    """
    row = cursor.one(sql.READ_EVERYBODY, everybody=EVERYBODY)
    if row is None:
        raise LedgerTampered("the head for everybody is gone")
    *sealed, newest = row
    stored = seals.head(tuple(sealed))
    head = stored.head
    found, wanted = (head.wallet, head.ledger_id, head.seq), (EVERYBODY, seals.ledger_id, newest or 0)
    if found != wanted or head.limits is None:
        raise LedgerTampered("the halts of everything and the limits are not the newest")
    require_newest(floors.get(EVERYBODY), stored, lambda seq: _hash_for_everybody(cursor, seals, seq))
    return ForEverybody(head.seq, head.halts, head.limits, head.stream_epoch, stored)


def _hash_for_everybody(cursor: Cursor, seals: Seals, seq: int) -> str:
    row = cursor.one(sql.FIND_SEQ, wallet=EVERYBODY, seq=seq)
    if row is None:
        raise LedgerTampered("of the chain for everybody an entry is gone")
    return seals.entry(row).hash


def insert_head(cursor: Cursor, seals: Seals, wallet: str, limits: Limits | None = None) -> StoredHead:
    """Store and return the head of a wallet that has no entry yet; `limits` for EVERYBODY."""
    start = chain_start(seals.ledger_id, wallet)
    head = Head(ledger_id=seals.ledger_id, wallet=wallet, hash=start, limits=limits)
    content, seal = seals.seal_head(head)
    cursor.send(
        sql.INSERT_HEAD, wallet=wallet, seq=0, open_attempts=0, content=content, key_id=seal.key_id, mac=seal.mac
    )
    return StoredHead(head, seal.mac)
