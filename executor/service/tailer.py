"""The tailer: one task a process reads what is new of every followed wallet, once for all streams that follow it.

Each followed wallet has a tail: how far it was read, and the newest page. A stream that stands where that page begins
takes it as it is, the same bytes for all; any other reads a page of its own from the ledger, and streams that want the
same page share one reading. So nothing is queued for anybody: a wallet costs a page, a slow client nothing.

What is new is found by the wallets' heads, never by one number over all of them: within a wallet the order of commits
is the order of entries, over wallets it isn't. A commit in this process, or, on PostgreSQL, in any, is hinted; what no
hint told is found by the next poll.

The tailer starts with the first stream, and ends with the event loop, so that it needs no lifespan to run in.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from executor.errors import LedgerError
from executor.ledger import EVERYBODY
from executor.service.chunks import chunk_of
from executor.service.pages import Page, Position, head_of, page_after

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from executor.ledger import Ledger

__all__ = ["Follower", "Tail", "Tailer"]

log = logging.getLogger("executor.service")

POLL_S: Final = 0.25
"""How late an event is told, at most, when its hint got lost."""

READERS_MAX: Final = 4
"""Of the ledger's connections, as many as streams may use at a time: the others are for fires."""

T = TypeVar("T")


class Follower(Protocol):
    """A stream."""

    def wake(self) -> None:
        """Look at the tail, soon."""


class Tail:
    """A wallet that streams follow."""

    __slots__ = ("chunk", "followers", "page", "turn", "wallet")

    def __init__(self, wallet: str, head: Position) -> None:
        self.wallet = wallet
        self.page = Page(head, head, b"", more=False)
        """The newest."""
        self.chunk = b""
        """Its frames as HTTP/1.1 carries them."""
        self.turn = 0
        """Rises with each new page. Whoever has seen an older turn is behind."""
        self.followers: set[Follower] = set()

    def move(self, page: Page) -> None:
        """Take the next page."""
        self.page = page
        self.chunk = chunk_of(page.frames)
        self.wake()

    def wake(self) -> None:
        """Have every stream look again."""
        self.turn += 1
        for follower in self.followers:
            follower.wake()


class Tailer:
    """Reads the ledger for the streams of one event loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tails: dict[str, Tail] = {}
        self._everybody = Position("", -1)
        self._hints: set[str] = set()
        self._hinted = asyncio.Event()
        self._reading: dict[tuple[str, Position], asyncio.Future[Page]] = {}
        self._threads = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="streams")
        self._task: asyncio.Task[None] | None = None
        self.looked_at_s = 0.0
        """When the ledger last answered, by the event loop's clock."""

    # For streams

    async def head(self, wallet: str) -> Position:
        """Return where `wallet` stands now. Raises LedgerError."""
        head = await self._in_thread(head_of, self._ledger, wallet)
        self.looked_at_s = asyncio.get_running_loop().time()
        return head

    def join(self, wallet: str, head: Position, follower: Follower) -> Tail:
        """Follow `wallet`, whose head was just read; give it back by `leave`."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="tailer")
        tail = self._tails.setdefault(wallet, Tail(wallet, head))
        tail.followers.add(follower)
        return tail

    def leave(self, tail: Tail, follower: Follower) -> None:
        """Follow no longer."""
        tail.followers.discard(follower)
        if not tail.followers and self._tails.get(tail.wallet) is tail:
            del self._tails[tail.wallet]

    async def page(self, tail: Tail, after: Position) -> Page:
        """Return the page that follows `after`, read once for all who ask meanwhile. Raises LedgerError."""
        newest = tail.page
        return newest if newest.after == after != newest.upto else await self._read(tail.wallet, after)

    # The task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        poll_at = loop.time()
        self._hinted = asyncio.Event()
        with self._ledger.hinting(partial(self._hear, loop)):
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(poll_at):
                        await self._hinted.wait()
                self._hinted.clear()
                moved, self._hints = self._hints, set()
                if loop.time() >= poll_at:
                    moved |= await self._poll()
                    poll_at = loop.time() + POLL_S
                if EVERYBODY in moved:
                    moved |= await self._told_of_another_epoch()
                await asyncio.gather(*(self._advance(self._tails[each]) for each in moved if each in self._tails))

    def _hear(self, loop: asyncio.AbstractEventLoop, wallets: Collection[str]) -> None:
        """Take a hint, in whatever thread it comes."""
        followed = [wallet for wallet in wallets if wallet in self._tails or wallet == EVERYBODY]
        if followed:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._take, followed)

    def _take(self, hints: Iterable[str]) -> None:
        self._hints.update(hints)
        self._hinted.set()

    async def _poll(self) -> set[str]:
        """Return the followed wallets whose heads don't stand where their tails do, EVERYBODY among them."""
        if not self._tails:
            return set()
        try:
            seqs = await self._in_thread(self._ledger.head_seqs, [EVERYBODY, *self._tails])
        except LedgerError as error:
            log.error("streams wait, since the ledger can't be read: %s", error)  # noqa: TRY400 - one line says it
            return set()
        self.looked_at_s = asyncio.get_running_loop().time()
        moved = {wallet for wallet, tail in self._tails.items() if seqs.get(wallet, 0) != tail.page.upto.seq}
        return moved | {EVERYBODY} if seqs.get(EVERYBODY) != self._everybody.seq else moved

    async def _told_of_another_epoch(self) -> set[str]:
        """Return the wallets whose tails are of another epoch than the ledger now is."""
        try:
            self._everybody = await self._in_thread(head_of, self._ledger, EVERYBODY)
        except LedgerError as error:
            log.error("streams don't know their epoch: %s", error)  # noqa: TRY400 - one line says it
            return set()
        return {wallet for wallet, tail in self._tails.items() if tail.page.upto.epoch != self._everybody.epoch}

    async def _advance(self, tail: Tail) -> None:
        """Read the next page of `tail`. One that can't be read wakes its streams too: they read, fail, and end."""
        try:
            page = await self._read(tail.wallet, tail.page.upto)
        except LedgerError:
            tail.wake()
            return
        if page.upto != tail.page.upto:
            tail.move(page)
        if page.more:
            self._take([tail.wallet])

    async def _read(self, wallet: str, after: Position) -> Page:
        reading = self._reading.get((wallet, after))
        if reading is None:
            reading = self._reading[wallet, after] = self._in_thread(page_after, self._ledger, wallet, after)
            reading.add_done_callback(partial(self._has_read, (wallet, after)))
        return await asyncio.shield(reading)  # it is not of those who wait alone

    def _has_read(self, what: tuple[str, Position], reading: asyncio.Future[Page]) -> None:
        del self._reading[what]
        error = None if reading.cancelled() else reading.exception()
        if error is not None:
            log.error("streams of wallet %s end: %s", what[0], error)

    def _in_thread(self, call: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
