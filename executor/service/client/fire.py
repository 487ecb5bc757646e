"""A strategy's side of the fire socket: no key, no ledger, no rail. It asks, and is told what became of it.

    client = FireClient("ledger.db.fire.sock")
    fired = await client.fire(request)      # or, without an event loop: client.fire_now(request)
    fired.decision.outcome, fired.execution

Each call is a connection of its own, so a client may be used by any number of tasks and threads, and has nothing to
close. What isn't known is said so: the same executionId again never fires twice, and tells.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from executor.decide import Decision, read_decision
from executor.errors import ExecutorError
from executor.service.calls import LINE_BYTES_MAX, Call, CallError, Code, Fired, Told, address_of, encode, read_answer

if TYPE_CHECKING:
    from executor.request import FireRequest

__all__ = ["FireClient", "OutcomeUnknown", "ServiceAway", "ask"]

TIMEOUT_S: Final = 60.0
"""For all tries of one call: a rail has 20 s to build and 20 s to send, and the ledger its own."""

AGAIN_AFTER_S: Final = (0.1, 0.5, 2.0)
"""Pauses before a fire is asked again by the same id: a service that is restarted is back by then."""

AGAIN: Final = {Code.BUSY, Code.FAULT}
"""What passes, or what only the ledger can tell of: the same executionId again."""


class ServiceAway(ExecutorError):
    """Nobody listens there, or not to this process: nothing was asked."""


class OutcomeUnknown(ExecutorError):
    """It was asked, and no answer came. It may have been done; asking the same again tells, and never does it twice."""


class FireClient:
    """Fires through a service's socket.

    Each method raises `CallError` with the service's code if it says no to the call itself, `ServiceAway` if nothing
    was asked, and `OutcomeUnknown`. A refusal by the rules is no exception: it is a decision.
    """

    def __init__(self, path: str | Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = Path(path)
        self._timeout_s = timeout_s

    async def fire(self, request: FireRequest) -> Fired:
        """Have `request` carried out, if the rules allow it, and return what became of it by now.

        A connection that is lost is tried again a few times within the timeout, with the same executionId. One that
        is cancelled may have fired: ask again.
        """
        asked = False
        try:
            async with asyncio.timeout(self._timeout_s):
                for pause_s in AGAIN_AFTER_S:
                    try:
                        return await self._fire_once(request)
                    except OutcomeUnknown:
                        asked = True
                    except ServiceAway:  # that may be a restart, if it was there before
                        if not asked:
                            raise
                    await asyncio.sleep(pause_s)
                return await self._fire_once(request)
        except TimeoutError:
            raise _unknown(request, f"no answer within {self._timeout_s:g} s") from None
        except OutcomeUnknown as error:
            raise _unknown(request, str(error)) from None
        except (ServiceAway, CallError) as error:
            if asked:
                raise _unknown(request, str(error)) from None
            raise

    async def _fire_once(self, request: FireRequest) -> Fired:
        try:
            return Fired.from_json_object(await ask(self._path, "fire", request.to_json_object()))
        except CallError as error:
            if error.code in AGAIN:
                raise OutcomeUnknown(str(error)) from None
            raise

    def fire_now(self, request: FireRequest) -> Fired:
        """Do what `fire` does, where no event loop runs."""
        return asyncio.run(self.fire(request))

    async def explain(self, request: FireRequest) -> Decision:
        """Return what would be decided on `request` now; nothing is written."""
        return read_decision((await self._ask("explain", request.to_json_object()))["decision"])

    async def execution(self, wallet: str, execution_id: str) -> Told | None:
        """Return what became of an execution; None if the wallet has none of this id, or this socket none of it."""
        found = (await self._ask("execution", {"wallet": wallet, "executionId": execution_id}))["execution"]
        return None if found is None else Told.from_json_object(found)

    async def headroom(self, wallet: str) -> dict[str, Any]:
        """Return what is used of each cap, and the halts: `caps` and `halts` of `executor status --json`."""
        return await self._ask("headroom", {"wallet": wallet})

    async def _ask(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return await ask(self._path, name, arguments, timeout_s=self._timeout_s)


def _unknown(request: FireRequest, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{why}: ask again with the same executionId `{request.execution_id}`")


async def ask(path: Path, name: str, arguments: dict[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
    """Make one call, on a connection of its own.

    Raises:
        CallError: the service says no to it.
        ServiceAway: nobody listens at `path`, or this process may not ask there.
        OutcomeUnknown: the connection ended, or `timeout_s` passed, before the answer came.

    """
    asked = False
    try:
        async with asyncio.timeout(timeout_s):
            with address_of(path) as address:
                reader, writer = await asyncio.open_unix_connection(address, limit=LINE_BYTES_MAX)
            try:
                asked = True
                writer.write(encode(Call(1, name, arguments).to_json_object()))
                return read_answer(await reader.readuntil())
            finally:
                writer.transport.abort()
    except TimeoutError:
        what = f"`{path}` gave no answer within {timeout_s} s"
        raise (OutcomeUnknown if asked else ServiceAway)(what) from None
    except OSError as error:
        if asked:
            raise OutcomeUnknown(f"the connection to `{path}` was lost: {error.strerror}") from None
        raise ServiceAway(f"nobody answers at `{path}`: {error.strerror}") from None
    except asyncio.IncompleteReadError:
        raise OutcomeUnknown(f"`{path}` closed the connection without an answer") from None
    except (asyncio.LimitOverrunError, ValueError) as error:
        raise OutcomeUnknown(f"`{path}` answered something else: {error}") from None
