"""What an operator does to a ledger, on the ledger itself; over a service's socket it is the same, from elsewhere."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from executor.errors import LedgerError
from executor.halts import Halter
from executor.lifecycle import AttemptState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.guard import Guard
    from executor.halts import Halt, Scope
    from executor.limits import Limits

__all__ = ["Halted", "Operations", "OperationsHere", "in_doubt"]

log = logging.getLogger("executor")


LISTED_MAX: Final = 1_000
"""Signatures that a halt tells: a wallet has at most 500 attempts a day."""


class Halted(NamedTuple):
    """What a halt or a stop couldn't reach any more."""

    may_still_land: Sequence[str]
    """The signatures, in its scope, of transactions that exist and have not ended."""
    more: bool = False
    """Whether there may be others that this doesn't list: too many, or of a wallet whose entries can't be trusted."""


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
        self._guard.halt(scope, Halter.OPERATOR, why)
        return in_doubt(self._guard, scope.wallet, scope.agent_id)

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


def in_doubt(guard: Guard, wallet: str | None = None, agent_id: str | None = None) -> Halted:
    """Return the signatures that may still land: of all, of the wallet, or of its agent.

    What was tampered with hides its own, and nothing else: a halt that holds must not look like one that failed.
    """
    found: list[str] = []
    try:
        for _, execution in guard.in_doubt(wallet):
            signed = execution.state is AttemptState.SIGNED and agent_id in {None, execution.bounds.terms.agent_id}
            if signed and len(found) == LISTED_MAX:
                return Halted(found, more=True)
            found += [execution.tx_signature or ""] if signed else []
    except LedgerError as fault:
        log.error("what may still land can't be told whole: %s", fault)  # noqa: TRY400 - one line says it
        return Halted(found, more=True)
    return Halted(found)
