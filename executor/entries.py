"""Entries: the ledger's one kind of fact. Appended, never changed; ledger, outbox and audit trail in one.

A wallet's entries are numbered without gaps and form a hash chain: each entry's hash covers the one before, back to a
beginning that belongs to this ledger and this wallet alone. What an entry says is its canonical JSON; everything else
that storage keeps of it is an index. The JSON is canonical because all that it is made of is written down in order; the
audit and the tests hold every stored entry against that.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from executor.halts import Halt
from executor.lifecycle import ATTEMPT_STEP, AgentState
from executor.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENDS",
    "Entry",
    "Head",
    "Kind",
    "attempted_at_ms",
    "chain_start",
    "index_of",
    "next_hash",
]

HASH_TAG: Final = b"holdfire/entry/v1\x00"
CHAIN_TAG: Final = b"holdfire/chain/v1\x00"


class Kind(StrEnum):
    """What happened."""

    RESERVED = "reserved"
    """A session key was set aside for an agent."""
    ACTIVATED = "activated"
    """A permit's bounds came into force."""
    STOPPED = "stopped"
    """The user stopped an agent."""
    COMPLETED = "completed"
    """The executor ended an agent."""
    REVOKED = "revoked"
    """The user spent a permit's nonce."""
    TRIGGER_ARMED = "trigger-armed"
    NEXT_RUN_SET = "next-run-set"
    HALTED = "halted"
    LIFTED = "lifted"
    LIMITS_CHANGED = "limits-changed"
    """Everybody is held to other limits; on the chain of everybody alone."""
    RESTORED = "restored"
    """This is a copy from before: event ids begin anew; on the chain of everybody alone."""
    REFUSED = "refused"
    SWEEP_SIGNED = "sweep-signed"
    """A transaction was signed that pays what an agent's session wallet holds back to the user's."""
    KEY_DESTROYED = "key-destroyed"
    """An agent's session key is gone: its wallet is empty."""
    FUNDING_SET = "funding-set"
    """The operator funds the wallet's agents from now on, or no longer."""
    FUNDING_COUNTED = "funding-counted"
    """A user's funding counts among everybody's; on the treasury's chain alone."""
    AUTHORIZED = "authorized"
    VOIDED = "voided"
    SIGNED = "signed"
    LANDED = "landed"
    FAILED = "failed"
    DEAD = "dead"


KINDS: Final = {kind.value: kind for kind in Kind}

ENDS: Final = frozenset({Kind.VOIDED, Kind.LANDED, Kind.FAILED, Kind.DEAD})
"""The kinds that end an attempt."""


class Entry(NamedTuple):
    """One fact about one wallet."""

    wallet: str
    seq: int
    """Its place among the wallet's entries, from 1 without gaps."""
    kind: Kind
    at_ms: int
    """When it was appended, Unix ms; never before the entry before it."""
    body: dict[str, Any]
    """What its kind needs to be proved: see `executor.guard`. What stands in it is in canonical order."""
    agent_id: str | None = None
    execution_id: str | None = None
    attempt: int | None = None
    """The number of an authorized attempt among the wallet's, from 1 without gaps."""
    refusal: int | None = None
    """The number of a refusal among the wallet's, from 1 without gaps."""
    agent_state: AgentState | None = None
    """Where it leaves the agent, if it moves it."""
    funding: int | None = None
    """The number of an authorized funding on this chain, from 1 without gaps; all of a funding's entries have it."""

    @property
    def counts_funding(self) -> int | None:
        """The number of the funding that this entry adds to its chain's; None if it adds none."""
        return self.funding if self.kind in COUNTS_FUNDING else None

    def canonical_bytes(self) -> bytes:
        """Return the one spelling of this entry that is stored, hashed and sealed."""
        body = self.body
        members = {
            "agentId": self.agent_id,
            "agentState": self.agent_state,
            "atMs": self.at_ms,
            "attempt": self.attempt,
            "body": {name: body[name] for name in sorted(body)},
            "executionId": self.execution_id,
            "funding": self.funding,
            "kind": self.kind._value_,
            "refusal": self.refusal,
            "seq": self.seq,
            "wallet": self.wallet,
        }
        for name in OPTIONAL:
            if members[name] is None:
                del members[name]
        return to_json(members)

    @classmethod
    def read(cls, content: bytes) -> Entry:
        """Return the entry that `canonical_bytes` spelled: sealed content, which is as it was written."""
        members = from_json(content)
        state = members.get("agentState")
        return cls(
            wallet=members["wallet"],
            seq=members["seq"],
            kind=KINDS[members["kind"]],
            at_ms=members["atMs"],
            body=members["body"],
            agent_id=members.get("agentId"),
            execution_id=members.get("executionId"),
            attempt=members.get("attempt"),
            refusal=members.get("refusal"),
            agent_state=None if state is None else AgentState(state),
            funding=members.get("funding"),
        )


SIGNATURES: Final = frozenset({Kind.SIGNED, Kind.SWEEP_SIGNED})
COUNTS_FUNDING: Final = frozenset({Kind.AUTHORIZED, Kind.FUNDING_COUNTED})
OPTIONAL: Final = ("agentId", "agentState", "attempt", "executionId", "funding", "refusal")


class ActiveAgent(NamedTuple):
    """An agent that may fire: the entry that holds its bounds, and their end."""

    activation: int
    expires_at_ms: int
    fired_at_ms: int | None = None
    """When it was last authorized, Unix ms; None if it never was."""


class Head(NamedTuple):
    """The sealed top of a wallet's chain: all that a fire must trust before it reads anything else."""

    ledger_id: str
    """Of the ledger that it is in; stored under the name that it had before there were two, `epoch`."""
    wallet: str
    hash: str
    """Hex of the last entry's chain hash."""
    seq: int = 0
    at_ms: int = 0
    """The latest time seen: time never runs backwards for a wallet."""
    attempts: int = 0
    """The number of the last authorized attempt."""
    open_attempts: int = 0
    """How many of them have not ended."""
    notional_micro_usd: int = 0
    """What all of them were worth together when they were authorized."""
    refusals: int = 0
    """The number of the last refusal that was recorded."""
    refusals_unrecorded: int = 0
    """How many more there were, beyond what is recorded in 24 hours."""
    active: Mapping[str, ActiveAgent] = MappingProxyType({})
    """The agents that may fire, by agentId."""
    halts: tuple[Halt, ...] = ()
    """The halts of this wallet and its agents; in the head for everybody, those of everything."""
    limits: Limits | None = None
    """In the head for everybody: what every user is held to."""
    fundable: bool = False
    """Whether the operator funds the wallet's agents."""
    fundings: int = 0
    """The number of the last authorized funding."""
    funded_lamports: int = 0
    """What all of them were together."""
    restored_epoch: str | None = None
    """In the head for everybody of a restored ledger: the epoch that its stream was given then, in hex."""
    version: int = 0
    """How often it was written: each time by one more than the head that it replaced."""
    everybody: int = 0
    """The newest number of an entry about everybody that was read for this wallet."""

    @property
    def stream_epoch(self) -> str:
        """In the head for everybody: what event ids begin with, in hex; the ledger's id until it is restored."""
        return self.restored_epoch or self.ledger_id

    def canonical_bytes(self) -> bytes:
        """Return the one spelling of this head that is stored and sealed."""
        members = {
            "active": {agent_id: [*self.active[agent_id]] for agent_id in sorted(self.active)},
            "atMs": self.at_ms,
            "attempts": self.attempts,
            "epoch": self.ledger_id,
            "everybody": self.everybody,
            **({"fundable": True} if self.fundable else {}),
            **({"fundedLamports": str(self.funded_lamports), "fundings": self.fundings} if self.fundings else {}),
            "halts": [halt.to_json_object() for halt in self.halts],
            "hash": self.hash,
            **({} if self.limits is None else {"limits": self.limits.to_json_object()}),
            "notionalMicroUsd": str(self.notional_micro_usd),
            "openAttempts": self.open_attempts,
            "refusals": self.refusals,
            "refusalsUnrecorded": self.refusals_unrecorded,
            **({} if self.restored_epoch is None else {"restoredEpoch": self.restored_epoch}),
            "seq": self.seq,
            "version": self.version,
            "wallet": self.wallet,
        }
        return to_json(members)

    @classmethod
    def read(cls, content: bytes) -> Head:
        """Return the head that `canonical_bytes` spelled: sealed content, which is as it was written."""
        members = from_json(content)
        limits = members.get("limits")
        return cls(
            ledger_id=members["epoch"],
            wallet=members["wallet"],
            hash=members["hash"],
            seq=members["seq"],
            at_ms=members["atMs"],
            attempts=members["attempts"],
            open_attempts=members["openAttempts"],
            notional_micro_usd=int(members["notionalMicroUsd"]),
            refusals=members["refusals"],
            refusals_unrecorded=members["refusalsUnrecorded"],
            active={agent_id: ActiveAgent(*agent) for agent_id, agent in members["active"].items()},
            halts=tuple(Halt.from_json_object(halt) for halt in members["halts"]),
            limits=None if limits is None else Limits.from_json_object(limits),
            fundable=members.get("fundable", False),
            fundings=members.get("fundings", 0),
            funded_lamports=int(members.get("fundedLamports", "0")),
            restored_epoch=members.get("restoredEpoch"),
            version=members.get("version", 0),  # of a head that was last written before revision 0004
            everybody=members.get("everybody", 0),
        )


def attempted_at_ms(content: bytes, wallet: str, number: int) -> int | None:
    """Return when the wallet's attempt of this number was authorized, Unix ms; None if `content` tells of no such.

    It is read off an entry's canonical bytes, where these members have their places: fires look back at one each.
    """
    begun = _attempt_begins(content)
    if begun is None or int(begun["attempt"]) != number or not content.endswith(b'"wallet":"%b"}' % wallet.encode()):
        return None
    return int(begun["at_ms"])


_attempt_begins: Final = re.compile(
    rb'\{"agentId":"[0-9a-f-]{36}","atMs":(?P<at_ms>[0-9]+),"attempt":(?P<attempt>[0-9]+),'
).match


def index_of(entry: Entry) -> dict[str, object]:
    """Return the columns by which storage finds `entry`: all of them follow from what it says."""
    body, kind = entry.body, entry.kind
    nonce = intent_key = None
    if kind is Kind.ACTIVATED:
        nonce = body["bounds"]["permit"]["nonce"]
    elif kind is Kind.REVOKED:
        nonce = body["nonce"]
    elif entry.attempt is not None:
        intent_key = body["evidence"]["request"].get("intentKey")
    return {
        "at_ms": entry.at_ms,
        "kind": kind,
        "agent_id": entry.agent_id,
        "agent_state": entry.agent_state,
        "execution_id": entry.execution_id,
        "step": STEPS.get(kind),
        "attempt": entry.attempt,
        "refusal": entry.refusal,
        "intent_key": intent_key,
        "nonce": nonce,
        "session_pubkey": body["sessionPubkey"] if kind is Kind.RESERVED else None,
        "tx_signature": body["txSignature"] if kind in SIGNATURES else None,
        "funding": entry.counts_funding,
    }


STEPS: Final = {Kind(state): step for state, step in ATTEMPT_STEP.items()}


def chain_start(ledger_id: str, wallet: str) -> str:
    """Return the hex that stands before a wallet's first entry."""
    return sha256(CHAIN_TAG + f"{ledger_id}\x00{wallet}".encode()).hexdigest()


def next_hash(before: str, entry: bytes) -> str:
    """Return the chain hash, in hex, of an entry's canonical bytes after the hash `before`."""
    return sha256(HASH_TAG + bytes.fromhex(before) + entry).hexdigest()
