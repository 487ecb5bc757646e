"""A wallet's events as pages of frames, read from the ledger: what streams send.

A position is a cursor into the ledger, and spells an event's id: `<epoch>-<seq>`. Ids rise, with gaps, since not every
entry is an event. A restored ledger tells by another epoch, so that an id from before means nothing in it: whoever has
one is told to `reset`, which is to say: ask by REST what is true, and go on from here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.errors import UnknownWallet
from executor.events import event_of
from executor.sse import encode

if TYPE_CHECKING:
    from typing import Self

    from executor.ledger import Ledger

__all__ = ["Page", "Position", "begin", "head_of", "page_after"]

ENTRIES_A_PAGE_MAX: Final = 100
"""About 30 KB of frames: what one page costs, in memory and in a stalled client's buffers."""

RETRY_MS: Final = 2_000
"""How long a client waits before it comes back."""

_event_id = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})").fullmatch


class Position(NamedTuple):
    """Everything up to and with entry `seq` was told."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def read(cls, event_id: str) -> Self | None:
        """Return the position that `event_id` spells; None if it is none of ours."""
        known = _event_id(event_id)
        return cls(known[1], int(known[2])) if known else None


class Page(NamedTuple):
    """What to tell whoever stands at `after`, and where they stand then."""

    after: Position
    upto: Position
    frames: bytes
    more: bool
    """Whether the ledger had more when this was read."""


def begin(head: Position, last_event_id: str | None, *, from_start: bool = False) -> tuple[Position, bytes]:
    r"""Return after which position to tell a client, and the frame that says so.

    Whoever names the last id that they saw goes on after it; one that this ledger never gave gets `reset`. Whoever
    names none hears what happens from now on, or, `from_start`, all of it.

    >>> head = Position("00112233445566aa", 7)
    >>> begin(head, "00112233445566aa-5")
    (Position(epoch='00112233445566aa', seq=5), b'id: 00112233445566aa-5\nretry: 2000\n\n')
    """
    if not last_event_id:
        position = head._replace(seq=0) if from_start else head
        return position, _opening(position)
    known = Position.read(last_event_id)
    if known is not None and known.epoch == head.epoch and known.seq <= head.seq:
        return known, _opening(known)
    return head, _resetting(head)


def _opening(position: Position) -> bytes:
    return encode(event_id=str(position), retry_ms=RETRY_MS)


def _resetting(position: Position) -> bytes:
    return encode("{}", event="reset", event_id=str(position), retry_ms=RETRY_MS)


def head_of(ledger: Ledger, wallet: str) -> Position:
    """Return where `wallet` stands now. Raises LedgerError."""
    try:
        with ledger.view(wallet) as view:
            return Position(view.stream_epoch, view.head.seq)
    except UnknownWallet:
        return Position(ledger.stream_epoch, 0)


def page_after(ledger: Ledger, wallet: str, after: Position) -> Page:
    """Return the page that follows `after`: a `reset`, if the ledger was put back meanwhile. Raises LedgerError."""
    try:
        with ledger.view(wallet) as view:
            head = Position(view.stream_epoch, view.head.seq)
            if head.epoch != after.epoch or head.seq < after.seq:
                return _reset(after, head)
            entries = [sealed.entry for sealed in view.after(after.seq, ENTRIES_A_PAGE_MAX)]
    except UnknownWallet:
        head = Position(ledger.stream_epoch, 0)
        return _reset(after, head) if head != after else Page(after, after, b"", more=False)
    events = ((after._replace(seq=entry.seq), event_of(entry)) for entry in entries)
    frames = b"".join(event.frame(str(position)) for position, event in events if event is not None)
    upto = after._replace(seq=entries[-1].seq) if entries else after
    return Page(after, upto, frames, more=upto != head)


def _reset(after: Position, head: Position) -> Page:
    return Page(after, head, _resetting(head), more=False)
