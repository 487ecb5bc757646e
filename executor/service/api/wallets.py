"""What a wallet may still do, what it did in a day, and its events in pages."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field
from starlette.responses import Response

from executor.errors import UnknownWallet
from executor.events import event_of
from executor.guard.headroom import headroom
from executor.ledger import EVERYBODY
from executor.service.api.operation import NOT_STORED, Answer, Digits, HaltAnswer, Operation, Queried, Time, Who
from executor.service.api.operation import read_query as read
from executor.service.pages import Position
from executor.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from starlette.requests import Request

    from executor.entries import Entry
    from executor.guard.headroom import Headroom
    from executor.ledger import Ledger, WalletView
    from executor.service.parts import Parts

    T = TypeVar("T")

__all__ = ["operations"]

HOUR_MS: Final = 3_600_000
HOURS: Final = 24
ENTRIES_AT_ONCE: Final = 500
ENTRIES_MAX: Final = 5_000
"""A day's 500 executions of at most three entries each, and 1,000 refusals, and as much again for all else."""


class CountRoom(Answer):
    """How much of a cap is used."""

    used: int
    limit: int


class AmountRoom(Answer):
    """How much of a cap is used, where that may pass 2**53."""

    used: Digits
    limit: Digits


class HeadroomAnswer(Answer):
    """How much of each cap a wallet has left."""

    wallet_address: str
    at: Time
    active_agents: CountRoom
    executions_per_24h: Annotated[CountRoom, Field(alias="executionsPer24H")]
    notional_micro_usd_per_24h: Annotated[AmountRoom | None, Field(alias="notionalMicroUsdPer24H")]
    autofund_lamports_per_24h: Annotated[AmountRoom | None, Field(alias="autofundLamportsPer24H")]
    next_slot_at: Time | None
    halts: list[HaltAnswer]

    @classmethod
    def of(cls, wallet: str, room: Headroom) -> HeadroomAnswer:
        """Tell the wallet's headroom."""
        notional, autofund = (
            None if each is None else AmountRoom(used=each.used, limit=each.limit)
            for each in (room.notional_micro_usd, room.autofund_lamports)
        )
        return cls(
            wallet_address=wallet,
            at=room.at_ms,
            active_agents=CountRoom(used=room.active_agents.used, limit=room.active_agents.limit),
            executions_per_24h=CountRoom(used=room.executions.used, limit=room.executions.limit),
            notional_micro_usd_per_24h=notional,
            autofund_lamports_per_24h=autofund,
            next_slot_at=room.next_slot_at_ms,
            halts=[HaltAnswer.of(halt) for halt in room.halts],
        )


class HourAnswer(Answer):
    """An hour of the clock: how many executions landed, and how many ended otherwise, by reason."""

    at: Time
    executed: int
    errored: dict[str, int]


class ActivityAnswer(Answer):
    """A day of a wallet, oldest hour first."""

    from_: Annotated[Time, Field(alias="from")]
    to: Time
    as_of: str
    complete: bool
    hours: list[HourAnswer]


class EventsAsked(Queried):
    """Which events."""

    after: Annotated[str, Field(max_length=64)] | None = None
    limit: Annotated[int, Field(ge=1, le=ENTRIES_AT_ONCE)] = 100


class EventAnswer(Answer):
    """An event, as on the stream."""

    id: str
    event: str
    data: dict[str, str | int | float | None]


class EventsAnswer(Answer):
    """A page of the stream."""

    events: list[EventAnswer]
    next: str
    more: bool


def _look(ledger: Ledger, wallet: str, look: Callable[[WalletView], T]) -> T:
    """Return what `look` sees of the wallet; of one that the ledger doesn't know, on a chain without any of its kinds.

    The chain of everybody has the limits, the time and the epoch that hold for a wallet without a past, too.
    """
    try:
        with ledger.view(wallet) as view:
            return look(view)
    except UnknownWallet:
        with ledger.view(EVERYBODY) as view:
            return look(view)


def _newest_first(view: WalletView) -> Iterator[Entry]:
    """Yield up to ENTRIES_MAX of the wallet's entries."""
    least = max(0, view.head.seq - ENTRIES_MAX)
    above = view.head.seq
    while above > least:
        below = max(least, above - ENTRIES_AT_ONCE)
        yield from (sealed.entry for sealed in reversed(view.after(below, above - below)))
        above = below


def _activity(view: WalletView, *, known: bool) -> ActivityAnswer:
    first_ms = view.now_ms // HOUR_MS * HOUR_MS - (HOURS - 1) * HOUR_MS
    executed: Counter[int] = Counter()
    errored: dict[int, Counter[str]] = {hour: Counter() for hour in range(HOURS)}
    oldest = None
    for oldest in _newest_first(view):
        if oldest.at_ms < first_ms:
            break
        event = event_of(oldest)
        hour = min(HOURS - 1, (oldest.at_ms - first_ms) // HOUR_MS)
        if event is not None and event.name == "executed":
            executed[hour] += 1
        elif event is not None and event.name == "errored":
            errored[hour][event.data["reason"] or "UNKNOWN"] += 1
    return ActivityAnswer(
        from_=first_ms,
        to=view.now_ms,
        as_of=str(Position(view.stream_epoch, view.head.seq if known else 0)),
        complete=oldest is None or oldest.seq == 1 or oldest.at_ms < first_ms,
        hours=[
            HourAnswer(
                at=first_ms + hour * HOUR_MS, executed=executed[hour], errored=dict(sorted(errored[hour].items()))
            )
            for hour in range(HOURS)
        ],
    )


def _events(view: WalletView, asked: EventsAsked, *, known: bool) -> str:
    """Return a page as JSON: amounts stand in it digit for digit, as on the stream."""
    epoch, head = view.stream_epoch, view.head.seq if known else 0
    told = Position.read(asked.after) if asked.after is not None else None
    if asked.after is not None and (told is None or told.epoch != epoch or told.seq > head):
        raise Problem(
            410, "EVENTS_RESET", "read the state anew, then go on after `next`", members={"next": f"{epoch}-{head}"}
        )
    after = told.seq if told else 0
    entries = [sealed.entry for sealed in view.after(after, asked.limit)] if known else []
    events = (
        f'{{"id":"{epoch}-{entry.seq}","event":"{event.name}","data":{event.data_json()}}}'
        for entry in entries
        if (event := event_of(entry)) is not None
    )
    last = entries[-1].seq if entries else after
    more = "true" if last < head else "false"
    return f'{{"events":[{",".join(events)}],"next":"{epoch}-{last}","more":{more}}}'


def operations(parts: Parts) -> list[Operation]:
    """Return what can be asked of a wallet as a whole."""
    ledger = parts.guard.guard.ledger

    async def tell_headroom(_request: Request, wallet: str) -> Answer:
        return HeadroomAnswer.of(wallet, await asyncio.to_thread(_look, ledger, wallet, headroom))

    async def tell_activity(_request: Request, wallet: str) -> Answer:
        def look(view: WalletView) -> ActivityAnswer:
            return _activity(view, known=view.head.wallet == wallet)

        return await asyncio.to_thread(_look, ledger, wallet, look)

    async def tell_events(request: Request, wallet: str) -> Response:
        asked = read(request, EventsAsked)

        def look(view: WalletView) -> str:
            return _events(view, asked, known=view.head.wallet == wallet)

        page = await asyncio.to_thread(_look, ledger, wallet, look)
        return Response(page, headers=NOT_STORED, media_type="application/json")

    w = Who.WALLET
    return [
        Operation("GET", "/api/headroom", "Tell how much of each cap is left", w, tell_headroom, HeadroomAnswer),
        Operation("GET", "/api/activity", "Tell a day, hour by hour", w, tell_activity, ActivityAnswer),
        Operation(
            "GET",
            "/api/events",
            "Tell the stream in pages",
            w,
            tell_events,
            EventsAnswer,
            query=EventsAsked,
            says_no=(410,),
        ),
    ]
