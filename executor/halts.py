"""Halts: who said stop, to what, and why. A halt only takes authority away, and lifting it gives none back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field

from executor.value import Value

__all__ = ["EVERYTHING", "Halt", "Halter", "Scope"]


class Halter(StrEnum):
    """Who halts. A halt is lifted only by who set it."""

    USER = "user"
    OPERATOR = "operator"


class Scope(NamedTuple):
    """What a halt holds: one agent, one wallet (no `agent_id`), or everything (no `wallet`)."""

    wallet: str | None = None
    agent_id: str | None = None


EVERYTHING = Scope()


class Halt(Value):
    """A halt in force."""

    agent_id: str | None = None
    at_ms: int
    """When it was set, Unix ms."""
    by: Annotated[Halter, Field(strict=False)]
    wallet: str | None = None
    why: Annotated[str, Field(min_length=1, max_length=200)]

    @property
    def scope(self) -> Scope:
        """What it holds."""
        return Scope(self.wallet, self.agent_id)

    def __str__(self) -> str:
        held = f"agent {self.agent_id}" if self.agent_id else "the wallet" if self.wallet else "everything"
        return f"{held}, by the {self.by}: {self.why}"
