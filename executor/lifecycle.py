"""The states of attempts and agents, as tables. What isn't in a table doesn't happen.

Each step is one entry in the ledger, and the entry's kind is the state it leads to.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from executor.errors import IllegalTransition

__all__ = ["AGENT_STEPS", "ATTEMPT_STEPS", "AgentState", "AttemptState", "require_agent_step", "require_attempt_step"]


class AgentState(StrEnum):
    """Where an agent stands."""

    RESERVED = "reserved"
    """A session key is set aside; no permit was ever activated."""
    ACTIVE = "active"
    PAUSED = "paused"
    """Its permit ended; a new one of the same scope resumes it."""
    STOPPED = "stopped"
    """The user stopped it; a permit signed after that, of any scope, starts it again."""
    COMPLETED = "completed"
    """The executor is done with it, for ever."""


class AttemptState(StrEnum):
    """Where one execution stands."""

    REFUSED = "refused"
    AUTHORIZED = "authorized"
    """It counts against the caps, and may be signed on for a while."""
    VOIDED = "voided"
    """Never signed, and never will be."""
    SIGNED = "signed"
    """A signature exists: it may land."""
    LANDED = "landed"
    FAILED = "failed"
    """Landed on the chain, but the chain undid it."""
    DEAD = "dead"
    """Never landed, and no longer can."""


AGENT_STEPS: Final[dict[AgentState | None, frozenset[AgentState]]] = {
    None: frozenset({AgentState.RESERVED}),
    AgentState.RESERVED: frozenset({AgentState.ACTIVE, AgentState.COMPLETED}),
    AgentState.ACTIVE: frozenset({AgentState.ACTIVE, AgentState.PAUSED, AgentState.STOPPED, AgentState.COMPLETED}),
    AgentState.PAUSED: frozenset({AgentState.ACTIVE, AgentState.STOPPED, AgentState.COMPLETED}),
    AgentState.STOPPED: frozenset({AgentState.ACTIVE, AgentState.COMPLETED}),
    AgentState.COMPLETED: frozenset(),
}

ATTEMPT_STEPS: Final[dict[AttemptState | None, frozenset[AttemptState]]] = {
    None: frozenset({AttemptState.REFUSED, AttemptState.AUTHORIZED}),
    AttemptState.REFUSED: frozenset(),
    AttemptState.AUTHORIZED: frozenset({AttemptState.VOIDED, AttemptState.SIGNED}),
    AttemptState.VOIDED: frozenset(),
    AttemptState.SIGNED: frozenset({AttemptState.LANDED, AttemptState.FAILED, AttemptState.DEAD}),
    AttemptState.LANDED: frozenset(),
    AttemptState.FAILED: frozenset(),
    AttemptState.DEAD: frozenset(),
}

ATTEMPT_STEP: Final[dict[AttemptState, int]] = {
    AttemptState.REFUSED: 0,
    AttemptState.AUTHORIZED: 0,
    AttemptState.VOIDED: 1,
    AttemptState.SIGNED: 1,
    AttemptState.LANDED: 2,
    AttemptState.FAILED: 2,
    AttemptState.DEAD: 2,
}
"""How many steps lie before each state. Storage allows each number once per execution: a compare-and-swap."""


def require_agent_step(current: AgentState | None, following: AgentState) -> None:
    """Raise IllegalTransition unless an agent may go from `current` to `following`."""
    if following not in AGENT_STEPS[current]:
        raise IllegalTransition(f"an agent can't go from {current or 'nothing'} to {following}")


def require_attempt_step(current: AttemptState | None, following: AttemptState) -> None:
    """Raise IllegalTransition unless an attempt may go from `current` to `following`."""
    if following not in ATTEMPT_STEPS[current]:
        raise IllegalTransition(f"an attempt can't go from {current or 'nothing'} to {following}")
