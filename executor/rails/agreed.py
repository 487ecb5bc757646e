"""Two sources that must agree, for what one that lies or lags could cost money by."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from executor.errors import ChainError
from executor.rails.chain import Pending
from executor.rails.jsonrpc import Unanswered
from executor.rails.passing import PAUSES_S
from executor.rails.rpc import require_plausible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from executor.rails.chain import Account, Block, Blockhash, Chain, Holding, Simulation, TransactionRecord

__all__ = ["AgreedChain"]

T = TypeVar("T")


class AgreedChain:
    """Asks two chains, of different operators, as one. Implements `executor.rails.Chain`.

    What became of a transaction, how far finality has come, how long a blockhash lives, what a lookup table holds, and
    what is finally in an account is believed only where both say so. All else is asked of the first, since it changes
    while two are asked. What one of them can still do is be silent: then nothing fires, and nothing is settled.
    """

    def __init__(self, first: Chain, second: Chain) -> None:
        """Ask `first` and `second`; whoever made them closes them."""
        self._first = first
        self._second = second

    async def latest_blockhash(self) -> Blockhash:
        """Return the first's blockhash, taken to live as long as the newest of either, as the second bears out.

        The first may be a slot behind the second's finalized block: it is asked again then.
        """
        newest = await self._second.finalized_block()
        for pause_s in PAUSES_S:
            with suppress(Unanswered):
                return await self._borne_out(newest)
            await asyncio.sleep(pause_s)
        return await self._borne_out(newest)

    async def finalized_block(self) -> Block:
        """Return the newest block that both call finalized."""
        return min(await asyncio.gather(self._first.finalized_block(), self._second.finalized_block()))

    async def accounts(self, addresses: Sequence[str], *, finalized: bool = False) -> Sequence[Account | None]:
        """Return what the first says, or what both call final. Raises ChainError where they differ about that."""
        ours = self._first.accounts(addresses, finalized=finalized)
        if not finalized:
            return await ours
        return _agreed(
            "what is in an account", *await asyncio.gather(ours, self._second.accounts(addresses, finalized=True))
        )

    async def holdings(self, owner: str, *, finalized: bool = False) -> Sequence[Holding]:
        """Return what the first says, or what both call final. Raises ChainError where they differ about that."""
        ours = self._first.holdings(owner, finalized=finalized)
        if not finalized:
            return await ours
        return _agreed(
            "the tokens of a wallet", *await asyncio.gather(ours, self._second.holdings(owner, finalized=True))
        )

    async def tables(self, addresses: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return what both say. Raises ChainError where they differ, as they do while a table grows."""
        return _agreed(
            "an address lookup table",
            *await asyncio.gather(self._first.tables(addresses), self._second.tables(addresses)),
        )

    async def rent(self, data_bytes: int) -> int:
        """Return what the first says."""
        return await self._first.rent(data_bytes)

    async def simulate(self, transaction: bytes) -> Simulation:
        """Return what the first says."""
        return await self._first.simulate(transaction)

    async def send(self, transaction: bytes) -> None:
        """Hand it to the first."""
        await self._first.send(transaction)

    async def record(
        self, tx_signature: str, as_of_slot: int, since_slot: int = 0
    ) -> TransactionRecord | Pending | None:
        """Return what both say. Raises ChainError where they differ, as they do while one of them lags."""
        ours, theirs = await asyncio.gather(
            self._first.record(tx_signature, as_of_slot, since_slot),
            self._second.record(tx_signature, as_of_slot, since_slot),
        )
        if ours != theirs and not (isinstance(ours, Pending) and isinstance(theirs, Pending)):
            raise ChainError(f"two sources disagree about the transaction `{tx_signature}`")
        return ours

    async def _borne_out(self, newest: Block) -> Blockhash:
        blockhash, theirs = await asyncio.gather(self._first.latest_blockhash(), self._second.latest_blockhash())
        for each in (blockhash, theirs):
            require_plausible(each, newest)
        longest = max(blockhash.last_valid_block_height, theirs.last_valid_block_height)
        return blockhash._replace(last_valid_block_height=longest)  # too long only costs a wait


def _agreed(what: str, ours: T, theirs: T) -> T:
    if ours != theirs:
        raise ChainError(f"two sources disagree about {what}")
    return ours
