"""What `executor status` shows: each wallet's agents, what is used of each cap, and the halts.

On a terminal with the extra `cli` in colors, else in plain lines: the same words.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from executor.amounts import LAMPORT_DECIMALS, dollars, plain
from executor.caps import is_expired
from executor.errors import LedgerError
from executor.lifecycle import AgentState
from permits import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from executor.guard import Agent, Guard
    from executor.guard.headroom import Headroom, Room
    from executor.halts import Halt

__all__ = ["Status", "show", "status_of"]

BAR_CELLS: Final = 20


class Status(NamedTuple):
    """How one wallet stands."""

    wallet: str
    agents: tuple[Agent, ...] = ()
    headroom: Headroom | None = None
    fault: str | None = None
    """Why the rest, or its headroom, can't be told."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form: what isn't known is null."""
        return {
            "wallet": self.wallet,
            "agents": [
                {
                    "agentId": agent.agent_id,
                    "state": agent.state,
                    "since": timestamp(agent.since_ms),
                    "sessionPubkey": agent.session_pubkey,
                    "permitEnds": None if agent.bounds is None else agent.bounds.terms.expires_at,
                }
                for agent in self.agents
            ],
            "caps": None if self.headroom is None else _caps_json(self.headroom),
            "halts": None if self.headroom is None else [halt.to_json_object() for halt in self.headroom.halts],
            "fault": self.fault,
        }


def status_of(guard: Guard, wallet: str) -> Status:
    """Return how the wallet stands, as far as the ledger can be trusted."""
    agents: tuple[Agent, ...] = ()
    try:
        agents = tuple(guard.agents(wallet))
        return Status(wallet, agents, guard.headroom(wallet))
    except LedgerError as fault:
        return Status(wallet, agents, fault=str(fault))


def show(halts: Iterable[Halt], statuses: Iterable[Status]) -> None:
    """Print the halts of everything, and how each wallet stands."""
    lines = (*(f"halt: {_halt(halt)}" for halt in halts), *(line for each in statuses for line in _lines(each)))
    if sys.stdout.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - an extra
            from rich.highlighter import RegexHighlighter  # noqa: PLC0415
            from rich.theme import Theme  # noqa: PLC0415
        except ModuleNotFoundError:
            pass
        else:
            highlighter = type("Words", (RegexHighlighter,), {"highlights": WORDS})()
            console = Console(highlighter=highlighter, theme=Theme(STYLES), soft_wrap=True)
            for line in lines:
                console.print(line, markup=False)
            return
    for line in lines:
        print(line)


WORDS: Final = [
    "^(?P<wallet>wallet)",
    "^ *(?P<halt>(halt|fault):.*)",
    "(?P<active>active) until",
    "(?P<over>paused|stopped|completed|over) (at|since)",
    "(?P<used>[█#]+)(?P<left>[░.]*)$",
]
STYLES: Final = {
    "wallet": "bold",
    "halt": "bold red",
    "active": "green",
    "over": "yellow",
    "used": "cyan",
    "left": "bright_black",
}


def _lines(status: Status) -> Iterator[str]:
    yield f"wallet {status.wallet}"
    for agent in status.agents:
        yield f"  agent {agent.agent_id}  {_permit(agent, status.headroom)}, session key {agent.session_pubkey}"
    if status.headroom is not None:
        yield from _caps(status.headroom)
        yield from (f"  halt: {_halt(halt)}" for halt in status.headroom.halts if halt.wallet is not None)
    if status.fault is not None:
        yield f"  fault: {status.fault}"


def _permit(agent: Agent, headroom: Headroom | None) -> str:
    if agent.bounds is None:
        return agent.state
    if agent.state is not AgentState.ACTIVE:
        return f"{agent.state} at {timestamp(agent.since_ms)}"
    over = headroom is not None and is_expired(agent.bounds.expires_at_ms, headroom.at_ms)
    return f"active{', but its permit is over since' if over else ' until'} {agent.bounds.terms.expires_at}"


def _caps(headroom: Headroom) -> Iterator[str]:
    yield _cap("active agents", headroom.active_agents)
    yield _cap("executions in 24 h", headroom.executions)
    if headroom.next_slot_at_ms is not None:
        yield f"    the next slot comes free at {timestamp(headroom.next_slot_at_ms)}"
    if headroom.notional_micro_usd is not None:
        yield _cap("USD in 24 h", headroom.notional_micro_usd, lambda micro_usd: dollars(micro_usd, 6))
    if headroom.autofund_lamports is not None:
        yield _cap("SOL given in 24 h", headroom.autofund_lamports, lambda units: plain(units, LAMPORT_DECIMALS))


def _cap(name: str, room: Room, say: Callable[[int], str] = str) -> str:
    filled = BAR_CELLS if room.used >= room.limit else min(BAR_CELLS - 1, -(-BAR_CELLS * room.used // room.limit))
    used, left = _cells()
    return f"  {name:<20}{f'{say(room.used)} of {say(room.limit)}':<23} {used * filled}{left * (BAR_CELLS - filled)}"


def _cells() -> tuple[str, str]:
    """Return what bars are made of, used and left, of characters that standard output can show."""
    try:
        "█░".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#", "."
    return "█", "░"


def _caps_json(headroom: Headroom) -> dict[str, Any]:
    rooms = {
        "activeAgents": headroom.active_agents,
        "executionsPer24H": headroom.executions,
        "notionalMicroUsdPer24H": headroom.notional_micro_usd,
        "autofundLamportsPer24H": headroom.autofund_lamports,
    }
    at_ms = headroom.next_slot_at_ms
    return {
        **{name: None if room is None else {"used": room.used, "limit": room.limit} for name, room in rooms.items()},
        "at": timestamp(headroom.at_ms),
        "nextSlotAt": None if at_ms is None else timestamp(at_ms),
    }


def _halt(halt: Halt) -> str:
    return f"{halt}, since {timestamp(halt.at_ms)}"
