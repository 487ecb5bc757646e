"""Entries: the ledger's one kind of fact. Appended, never changed; ledger, outbox and audit trail in one.

A wallet's entries are numbered without gaps and form a hash chain: each entry's hash covers the one before, back to a
beginning that belongs to this ledger and this wallet alone. What an entry says is its canonical JSON; everything else
that storage keeps of it is an index.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final

from pydantic import Field

from executor.lifecycle import ATTEMPT_STEP, AgentState, AttemptState
from executor.value import Value
from permits.canonical import canonicalize

__all__ = ["Entry", "Head", "Kind", "chain_start", "index_of", "next_hash"]

HASH_TAG: Final = b"holdfire/entry/v1\x00"
CHAIN_TAG: Final = b"holdfire/chain/v1\x00"


class Kind(StrEnum):
    """What happened."""

    RESERVED = "reserved"
    """A session key was set aside for an agent."""
    ACTIVATED = "activated"
    """A permit's bounds came into force."""
    REFUSED = "refused"
    AUTHORIZED = "authorized"
    VOIDED = "voided"
    SIGNED = "signed"
    LANDED = "landed"
    FAILED = "failed"
    DEAD = "dead"


class Entry(Value):
    """One fact about one wallet."""

    wallet: str
    seq: Annotated[int, Field(ge=1)]
    """Its place among the wallet's entries, from 1 without gaps."""
    kind: Annotated[Kind, Field(strict=False)]
    at_ms: int
    """When it was appended, Unix ms; never before the entry before it."""
    agent_id: str
    execution_id: str | None = None
    attempt: int | None = None
    """The number of an authorized attempt among the wallet's, from 1 without gaps."""
    agent_state: Annotated[AgentState | None, Field(strict=False)] = None
    """Where it leaves the agent, if it moves it."""
    body: dict[str, Any]
    """What its kind needs to be proved: see `executor.guard`."""

    def canonical_bytes(self) -> bytes:
        """Return the one spelling of this entry that is stored, hashed and sealed."""
        return canonicalize(self.to_json_object())


class ActiveAgent(Value):
    """An agent that may fire: the entry that holds its bounds, and their end."""

    activation: int
    expires_at_ms: int


class Head(Value):
    """The sealed top of a wallet's chain: all that a fire must trust before it reads anything else."""

    epoch: str
    """The ledger's id; a restored copy gets a new one."""
    wallet: str
    seq: int = 0
    hash: str
    """Hex of the last entry's chain hash."""
    at_ms: int = 0
    """The latest time seen: time never runs backwards for a wallet."""
    attempts: int = 0
    """The number of the last authorized attempt."""
    active: dict[str, ActiveAgent] = Field(default_factory=dict)
    """The agents that may fire, by agentId."""

    def canonical_bytes(self) -> bytes:
        """Return the one spelling of this head that is stored and sealed."""
        return canonicalize(self.to_json_object())


def index_of(entry: Entry) -> dict[str, object]:
    """Return the columns by which storage finds `entry`: all of them follow from what it says."""
    body = entry.body
    return {
        "kind": entry.kind,
        "agent_id": entry.agent_id,
        "agent_state": entry.agent_state,
        "execution_id": entry.execution_id,
        "step": None if entry.execution_id is None else ATTEMPT_STEP[AttemptState(entry.kind)],
        "attempt": entry.attempt,
        "nonce": body["bounds"]["permit"]["nonce"] if entry.kind is Kind.ACTIVATED else None,
        "session_pubkey": body["sessionPubkey"] if entry.kind is Kind.RESERVED else None,
        "tx_signature": body["txSignature"] if entry.kind is Kind.SIGNED else None,
    }


def chain_start(epoch: str, wallet: str) -> str:
    """Return the hex that stands before a wallet's first entry."""
    return sha256(CHAIN_TAG + f"{epoch}\x00{wallet}".encode()).hexdigest()


def next_hash(before: str, entry: bytes) -> str:
    """Return the chain hash, in hex, of an entry's canonical bytes after the hash `before`."""
    return sha256(HASH_TAG + bytes.fromhex(before) + entry).hexdigest()
