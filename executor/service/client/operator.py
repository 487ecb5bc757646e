"""The operator's side of a service's operator socket: what `executor halt` and others use while it holds the ledger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from executor.halts import Halt
from executor.limits import Limits
from executor.operations import Halted
from executor.service.client.fire import ask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from executor.halts import Scope

__all__ = ["OperationsThere"]

TIMEOUT_S: Final = 30.0
"""A halt waits for the commits before it, and each of those has 5 s at most."""


class OperationsThere:
    """`executor.operations.Operations`, done by the service that listens at `path`.

    Raises `CallError`, `ServiceAway` and `OutcomeUnknown`; after the last, the same again does no harm.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def halt(self, scope: Scope, why: str) -> Halted:
        """Let nothing in `scope` fire until the operator lifts that."""
        answer = self._ask("halt", {**_scope_json(scope), "why": why})
        return Halted(tuple(answer["mayStillLand"]), answer["more"])

    def lift(self, scope: Scope) -> bool:
        """Lift the operator's halt of exactly `scope`; tell whether there was one."""
        return bool(self._ask("lift", _scope_json(scope))["lifted"])

    def halts(self, wallet: str | None = None) -> Sequence[Halt]:
        """Return the halts of everything; with `wallet`, also those of it and its agents: the first hundred."""
        found = self._ask("halts", {} if wallet is None else {"wallet": wallet})["halts"]
        return [Halt.from_json_object(each) for each in found]

    def limits(self) -> Limits:
        """Return what every user is held to."""
        return Limits.from_json_object(self._ask("limits", {})["limits"])

    def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on."""
        self._ask("change-limits", {"limits": limits.to_json_object()})

    def set_fundable(self, wallet: str, *, fundable: bool) -> bool:
        """Let the operator fund the wallet's agents, or no longer; tell whether that changed anything."""
        return bool(self._ask("set-fundable", {"wallet": wallet, "fundable": fundable})["changed"])

    def _ask(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return asyncio.run(ask(self._path, name, arguments, timeout_s=TIMEOUT_S))


def _scope_json(scope: Scope) -> dict[str, Any]:
    members = {"agentId": scope.agent_id, "wallet": scope.wallet}
    return {name: member for name, member in members.items() if member is not None}
