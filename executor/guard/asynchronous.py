"""The guard for programs that run on an event loop, which it never blocks.

Every call is the guard's own, made in a thread. While one commit waits for the disk the next calls gather, and ride in
the next one together: many tasks cost few commits.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from executor.errors import LedgerError
from executor.guard.guard import Guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from executor.assets import AssetRegistry
    from executor.authorization import Authorization
    from executor.bounds import Bounds
    from executor.decide import Decision, Refused
    from executor.events import Event
    from executor.fill import Fill, Landing
    from executor.funding import FundingAuthorization, FundingDecision, FundingRequest
    from executor.guard.agents import Agent
    from executor.guard.attempts import Execution
    from executor.guard.headroom import Headroom
    from executor.halts import Halt, Halter, Scope
    from executor.ledger import Clock, SealedEntry, WalletView
    from executor.limits import Limits
    from executor.prices.quote import PriceSource
    from executor.reasons import Reason
    from executor.request import FireRequest
    from executor.seal import SealKeys
    from permits import SignedPermit, SignedRevocation

__all__ = ["AsyncGuard"]

THREADS: Final = 64
"""Each waits for a lock or a disk most of the time."""
URGENT_THREADS: Final = 4
"""For what only takes authority away, so that it waits for no thread behind fires."""

T = TypeVar("T")


class AsyncGuard:
    """A `Guard` whose methods are awaited. Each takes, returns and raises what the guard's of its name does.

    A call whose task is cancelled goes on, even if it has not begun: ask again with the same executionId to learn what
    became of it, and a halt is made.
    """

    def __init__(self, guard: Guard) -> None:
        """Make `guard` awaitable; closing this closes it."""
        self.guard: Final = guard
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="guard")
        self._urgent_threads = ThreadPoolExecutor(URGENT_THREADS, thread_name_prefix="guard urgent")

    @classmethod
    async def open(
        cls,
        url: str | Path,
        *,
        seal_keys: SealKeys,
        prices: PriceSource,
        assets: AssetRegistry,
        limits: Limits | None = None,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Open the ledger at `url` and guard it, as `Guard.open` does."""
        guard = await asyncio.to_thread(
            Guard.open,
            url,
            seal_keys=seal_keys,
            prices=prices,
            assets=assets,
            limits=limits,
            clock=clock,
            random_bytes=random_bytes,
        )
        return cls(guard)

    async def close(self) -> None:
        """Wait for the calls under way, and close the ledger."""
        for threads in (self._threads, self._urgent_threads):  # a halt is taken for as long as anything may fire
            await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(self.guard.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def reserve_session_key(self, wallet: str, agent_id: str, session_pubkey: str) -> None:
        """Set a session key aside for the wallet's agent."""
        await self._call(self.guard.reserve_session_key, wallet, agent_id, session_pubkey)

    async def activate(self, signed: SignedPermit | bytes) -> Bounds | Refused:
        """Put a signed permit into force."""
        return await self._call(self.guard.activate, signed)

    async def revoke(self, signed: SignedRevocation | bytes) -> bool:
        """Spend a permit's nonce for ever."""
        return await self._call_urgently(self.guard.revoke, signed)

    async def stop(self, wallet: str, agent_id: str) -> Sequence[str]:
        """Stop an agent for its user."""
        return await self._call_urgently(self.guard.stop, wallet, agent_id)

    async def complete(self, wallet: str, agent_id: str, reason: str) -> Sequence[str]:
        """End an agent for ever."""
        return await self._call_urgently(self.guard.complete, wallet, agent_id, reason)

    async def record_sweep(
        self,
        wallet: str,
        agent_id: str,
        make: Callable[[WalletView], tuple[str, bytes]],
        *,
        last_valid_block_height: int,
    ) -> None:
        """Have a transaction signed that pays the wallet back, and record it."""
        await self._call(
            self.guard.record_sweep, wallet, agent_id, make, last_valid_block_height=last_valid_block_height
        )

    async def destroy_session_key(self, wallet: str, agent_id: str) -> None:
        """Take the agent's session key away for ever."""
        await self._call(self.guard.destroy_session_key, wallet, agent_id)

    async def arm_trigger(self, wallet: str, agent_id: str, condition: str) -> None:
        """Tell the user that the agent waits for `condition`."""
        await self._call(self.guard.arm_trigger, wallet, agent_id, condition)

    async def set_next_run(self, wallet: str, agent_id: str, at_ms: int | None) -> None:
        """Tell the user when the agent runs next."""
        await self._call(self.guard.set_next_run, wallet, agent_id, at_ms)

    async def halt(self, scope: Scope, by: Halter, why: str) -> Sequence[str]:
        """Let nothing in `scope` fire until `by` lifts it."""
        return await self._call_urgently(self.guard.halt, scope, by, why)

    async def lift(self, scope: Scope, by: Halter) -> bool:
        """Lift the halt that `by` set on `scope`."""
        return await self._call(self.guard.lift, scope, by)

    async def halts(self, wallet: str | None = None) -> Sequence[Halt]:
        """Return the halts in force."""
        return await self._call(self.guard.halts, wallet)

    async def mark_restored(self, why: str = "restored from a backup") -> str:
        """Say that the ledger was put back to an earlier state."""
        return await self._call_urgently(self.guard.mark_restored, why)

    async def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on."""
        await self._call_urgently(self.guard.change_limits, limits)

    async def set_fundable(self, wallet: str, *, fundable: bool) -> bool:
        """Let the operator fund the wallet's agents from now on, or no longer."""
        return await self._call(self.guard.set_fundable, wallet, fundable=fundable)

    async def authorize_funding(self, request: FundingRequest, *, alone_since: int | None = None) -> FundingDecision:
        """Decide whether the agent's session wallet may be given lamports, and count them if so."""
        return await self._call(self.guard.authorize_funding, request, alone_since=alone_since)

    async def authorize(self, request: FireRequest) -> Decision:
        """Decide on `request`, and count it if it is allowed."""
        return await self._call(self.guard.authorize, request)

    async def authorize_many(self, requests: Iterable[FireRequest]) -> Sequence[Decision]:
        """Decide on each of `requests`, in few transactions."""
        return await self._call(self.guard.authorize_many, list(requests))

    async def explain(self, request: FireRequest) -> Decision:
        """Return what `authorize` would answer now, and write nothing."""
        return await self._call(self.guard.explain, request)

    async def check(self, authorization: Authorization) -> None:
        """Make sure that `authorization` was given by the guard, and is not used up."""
        await self._call(self.guard.check, authorization)

    async def mark_signed(
        self,
        authorization: Authorization | FundingAuthorization,
        *,
        tx_signature: str,
        transaction_bytes: bytes,
        last_valid_block_height: int,
        alone_since: int | None = None,
    ) -> Refused | None:
        """Record that the signature exists, if the rules still allow it."""
        return await self._call(
            self.guard.mark_signed,
            authorization,
            tx_signature=tx_signature,
            transaction_bytes=transaction_bytes,
            last_valid_block_height=last_valid_block_height,
            alone_since=alone_since,
        )

    async def sign_with(
        self,
        make: Callable[[WalletView], tuple[str, bytes]],
        authorization: Authorization,
        *,
        last_valid_block_height: int,
        alone_since: int | None = None,
    ) -> Refused | None:
        """Decide once more, and only then have it signed, in the same transaction."""
        return await self._call(
            self.guard.sign_with,
            make,
            authorization,
            last_valid_block_height=last_valid_block_height,
            alone_since=alone_since,
        )

    async def head_seq(self, wallet: str) -> int:
        """Return the number of the wallet's newest entry."""
        return await self._call(self.guard.head_seq, wallet)

    async def may_send(self, wallet: str, execution_id: str) -> Refused | None:
        """Return why a signed transaction may not be sent now."""
        return await self._call(self.guard.may_send, wallet, execution_id)

    async def void_expired(self, wallet: str, execution_id: str) -> bool:
        """Give up an attempt whose authorization nobody used in its time."""
        return await self._call(self.guard.void_expired, wallet, execution_id)

    async def void(self, wallet: str, execution_id: str, reason: Reason, detail: str) -> None:
        """Give up an attempt that was never signed."""
        await self._call(self.guard.void, wallet, execution_id, reason, detail)

    async def mark_landed(self, wallet: str, execution_id: str, landing: Landing) -> Fill:
        """Record that the signed transaction landed, and what it moved."""
        return await self._call(self.guard.mark_landed, wallet, execution_id, landing)

    async def mark_funded(self, wallet: str, execution_id: str, *, slot: int, fee_lamports: int) -> None:
        """Record that the signed funding landed."""
        await self._call(self.guard.mark_funded, wallet, execution_id, slot=slot, fee_lamports=fee_lamports)

    async def mark_failed(self, wallet: str, execution_id: str, detail: str) -> None:
        """Record that the chain executed the signed transaction and undid it."""
        await self._call(self.guard.mark_failed, wallet, execution_id, detail)

    async def mark_dead(self, wallet: str, execution_id: str) -> None:
        """Record that the signed transaction never landed and no longer can."""
        await self._call(self.guard.mark_dead, wallet, execution_id)

    async def agent(self, wallet: str, agent_id: str) -> Agent | None:
        """Return the wallet's agent."""
        return await self._call(self.guard.agent, wallet, agent_id)

    async def agents(self, wallet: str) -> Sequence[Agent]:
        """Return every agent of the wallet."""
        return await self._call(self.guard.agents, wallet)

    async def headroom(self, wallet: str) -> Headroom:
        """Return how much of each cap the wallet has left."""
        return await self._call(self.guard.headroom, wallet)

    async def execution(self, wallet: str, execution_id: str) -> Execution | None:
        """Return the story of one execution."""
        return await self._call(self.guard.execution, wallet, execution_id)

    async def executions(
        self, wallet: str, agent_id: str, *, before: int | None = None, count_max: int = 100
    ) -> Sequence[Execution]:
        """Return the agent's executions and refusals, newest first."""
        return await self._call(self.guard.executions, wallet, agent_id, before=before, count_max=count_max)

    async def in_doubt(self, wallet: str | None = None) -> AsyncIterator[tuple[str, Execution]]:
        """Yield the wallet and the story of each attempt that has not ended."""
        doubts = self.guard.in_doubt(wallet)
        while (doubt := await self._call(next, doubts, None)) is not None:
            yield doubt

    async def events(self, wallet: str, after: int = 0, count_max: int = 1_000) -> Sequence[tuple[int, Event]]:
        """Return the events among the entries above `after`."""
        return await self._call(self.guard.events, wallet, after, count_max)

    async def entries(self, wallet: str, after: int = 0, count_max: int = 1_000) -> Sequence[SealedEntry]:
        """Return the wallet's entries above `after`."""
        return await self._call(self.guard.entries, wallet, after, count_max)

    async def _call(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:  # noqa: ANN401
        return await self._in_thread(self._threads, partial(method, *arguments, **named))

    async def _call_urgently(self, method: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        return await self._in_thread(self._urgent_threads, partial(method, *arguments))

    async def _in_thread(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        self.guard.ledger.require_usable()  # in a fork the threads are not there, and nobody would ever answer
        # Shielded: a call that waits for its thread would else be taken back, and nobody would be told.
        try:
            made = asyncio.get_running_loop().run_in_executor(threads, call)
        except RuntimeError:  # the threads take nothing more
            raise LedgerError("the guard was closed") from None
        return await asyncio.shield(made)
