"""Wakes the streams: one task a process watches the heads of all the wallets that any stream waits for."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from executor.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from executor.ledger import Ledger

__all__ = ["Tailer"]

log = logging.getLogger("executor.service")

POLL_S: Final = 0.1
"""How late an event may be told, at most, by the tailer."""


class Tailer:
    """Watches the heads of the wallets that streams wait for, with one query for all of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}

    async def moved_past(self, wallet: str, seq: int) -> None:
        """Return once the wallet's head stands above `seq`."""
        moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[moved] = (wallet, seq)
        try:
            await moved
        finally:
            del self._waiting[moved]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll for as long as the context is open."""
        task = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            wallets = {wallet for wallet, _ in self._waiting.values()}
            if not wallets:
                continue
            try:
                heads = await asyncio.to_thread(self._ledger.head_seqs, wallets)
            except LedgerError as error:
                log.error("the tailer can't read the ledger: %s", error)  # noqa: TRY400 - one line says it
                for moved in self._unsettled():
                    moved.set_exception(error)
                continue
            for moved in self._unsettled():
                wallet, seq = self._waiting[moved]
                if heads.get(wallet, 0) > seq:
                    moved.set_result(None)

    def _unsettled(self) -> list[asyncio.Future[None]]:
        return [moved for moved in self._waiting if not moved.done()]
