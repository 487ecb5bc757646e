"""What an operator does to a ledger, on the ledger itself; over a service's socket it is the same, from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from executor.halts import EVERYTHING, Halter
from executor.lifecycle import AttemptState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from executor.guard import Guard
    from executor.halts import Halt, Scope
    from executor.limits import Limits

__all__ = ["Halted", "Operations", "OperationsHere", "signatures_in_doubt"]


class Halted(NamedTuple):
    """What a halt couldn't reach any more."""

    may_still_land: Iterable[str]
    """The signatures, in the halt's scope, of transactions that exist and have not ended."""
    more: bool = False
    """Whether there are others that this doesn't list."""


class Operations(Protocol):
    """Each raises what the guard's method of its name does."""

    def halt(self, scope: Scope, why: str) -> Halted:
        """Let nothing in `scope` fire until the operator lifts that."""

    def lift(self, scope: Scope) -> bool:
        """Lift the operator's halt of exactly `scope`; tell whether there was one."""

    def halts(self, wallet: str | None = None) -> Sequence[Halt]:
        """Return the halts of everything; with `wallet`, also those of it and its agents."""

    def limits(self) -> Limits:
        """Return what every user is held to."""

    def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on."""

    def set_fundable(self, wallet: str, *, fundable: bool) -> bool:
        """Let the operator fund the wallet's agents, or no longer; tell whether that changed anything."""


class OperationsHere:
    """The operations, on a ledger that this process holds."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def halt(self, scope: Scope, why: str) -> Halted:
        """Let nothing in `scope` fire until the operator lifts that."""
        signatures = self._guard.halt(scope, Halter.OPERATOR, why)
        return Halted(signatures_in_doubt(self._guard) if scope == EVERYTHING else signatures)

    def lift(self, scope: Scope) -> bool:
        """Lift the operator's halt of exactly `scope`; tell whether there was one."""
        return self._guard.lift(scope, Halter.OPERATOR)

    def halts(self, wallet: str | None = None) -> Sequence[Halt]:
        """Return the halts of everything; with `wallet`, also those of it and its agents."""
        return self._guard.halts(wallet)

    def limits(self) -> Limits:
        """Return what every user is held to."""
        return self._guard.ledger.limits

    def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on."""
        self._guard.change_limits(limits)

    def set_fundable(self, wallet: str, *, fundable: bool) -> bool:
        """Let the operator fund the wallet's agents, or no longer; tell whether that changed anything."""
        return self._guard.set_fundable(wallet, fundable=fundable)


def signatures_in_doubt(guard: Guard) -> Iterator[str]:
    """Yield the signature of each transaction of the ledger that may still land."""
    for _, execution in guard.in_doubt():
        if execution.state is AttemptState.SIGNED:
            yield execution.steps[-1].entry.body["txSignature"]
