"""The audit: what the ledger says, checked against itself from the first entry to the last.

It trusts nothing but the seal keys: every seal, every link of the chain, every number without a gap, every permit's id
and every decision, made again from its evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.bounds import Bounds
from executor.caps import is_expired
from executor.decide import read_decision
from executor.entries import ENDS, Kind, chain_start, index_of, next_hash
from executor.errors import LedgerError
from executor.evidence import replay
from executor.halts import Halt, Halter, Scope
from executor.ledger import EVERYBODY
from executor.lifecycle import AgentState
from permits import keys, permit_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executor.entries import Entry, Head
    from executor.ledger import Ledger, SealedEntry, WalletView

__all__ = ["Report", "check_ledger"]

ENTRIES_AT_ONCE: Final = 1_000


class Report(NamedTuple):
    """What an audit saw."""

    wallets: int
    entries: int
    findings: tuple[str, ...]
    """What is wrong, a line each; empty: nothing."""


def check_ledger(ledger: Ledger) -> Report:
    """Check what concerns everybody, and every wallet of `ledger`; a wallet's check ends at its first broken entry."""
    findings: list[str] = []
    count = 0
    wallets = [wallet for wallet in ledger.wallets() if wallet != EVERYBODY]
    for wallet in (EVERYBODY, *wallets):
        try:
            with ledger.view(wallet) as view:
                for entry, finding in _check_wallet(view, ledger.epoch):
                    count += entry is not None
                    if finding is not None:
                        findings.append(f"{wallet}: {finding}")
        except LedgerError as error:
            findings.append(f"{wallet}: {error}")
    return Report(len(wallets), count, tuple(findings))


def _check_wallet(view: WalletView, epoch: str) -> Iterator[tuple[Entry | None, str | None]]:
    """Yield each entry with what is wrong about it, then what is wrong about the whole."""
    summed = _Sum(hash=chain_start(epoch, view.head.wallet))
    for sealed, index in _all(view):
        entry = sealed.entry
        if next_hash(summed.hash, sealed.content) != sealed.hash:
            yield entry, f"entry {entry.seq} is not chained to the one before"
            return
        if index != index_of(entry):
            yield entry, f"entry {entry.seq} is filed under what it doesn't say"
            return
        summed.add(entry, sealed.hash)
        yield entry, _finding(entry, summed)
    yield from ((None, finding) for finding in _head_findings(view.head, summed))
    if view.head_index() != (view.head.seq, view.head.open_attempts):
        yield None, "the head is filed under what it doesn't say"


@dataclass
class _Sum:
    """What a wallet's entries add up to."""

    hash: str
    seq: int = 0
    attempts: int = 0
    open_attempts: int = 0
    notional_micro_usd: int = 0
    refusals: int = 0
    activations: dict[int, Entry] = field(default_factory=dict)
    active: dict[str | None, Entry] = field(default_factory=dict)
    halts: dict[tuple[Scope, Halter], Halt] = field(default_factory=dict)

    def add(self, entry: Entry, chain_hash: str) -> None:
        """Take in the next entry."""
        self.hash, self.seq = chain_hash, entry.seq
        self.refusals += entry.kind is Kind.REFUSED
        self.open_attempts -= entry.kind in ENDS
        if entry.kind is Kind.AUTHORIZED:
            self.attempts += 1
            self.open_attempts += 1
            self.notional_micro_usd += int(entry.body["decision"]["valueMicroUsd"])
        if entry.kind is Kind.ACTIVATED:
            self.activations[entry.seq] = entry
        if entry.agent_state is AgentState.ACTIVE:
            self.active[entry.agent_id] = entry
        elif entry.agent_state is not None:
            self.active.pop(entry.agent_id, None)
        if entry.kind in {Kind.HALTED, Kind.LIFTED}:
            halt = Halt.from_json_object(entry.body["halt"])
            self.halts.pop((halt.scope, halt.by), None)
            if entry.kind is Kind.HALTED:
                self.halts[halt.scope, halt.by] = halt


def _head_findings(head: Head, summed: _Sum) -> Iterator[str]:
    if (head.seq, head.hash) != (summed.seq, summed.hash):
        yield f"the head stands at entry {head.seq}, but the last is {summed.seq}, or another"
    counts = ("attempts", "open_attempts", "notional_micro_usd", "refusals")
    for name in counts:
        if getattr(head, name) != getattr(summed, name):
            yield f"the head counts {getattr(head, name)} {name}, its entries {getattr(summed, name)}"
    if sorted(head.halts, key=str) != sorted(summed.halts.values(), key=str):
        yield "the head knows other halts than its entries"
    unexpired = {
        agent_id: entry.seq
        for agent_id, entry in summed.active.items()
        if not is_expired(_bounds(entry).expires_at_ms, head.at_ms)
    }
    if _firing(head) != unexpired:
        yield "the head lets other agents fire than its entries do"


def _all(view: WalletView) -> Iterator[tuple[SealedEntry, dict[str, object]]]:
    after = 0
    while batch := view.after(after, ENTRIES_AT_ONCE):
        yield from zip(batch, view.index_after(after, ENTRIES_AT_ONCE), strict=True)
        after = batch[-1].entry.seq


def _firing(head: Head) -> dict[str, int]:
    """Return the entries that the head lets agents fire by; an expired one may stand there until a fire finds out."""
    return {
        agent_id: agent.activation
        for agent_id, agent in head.active.items()
        if not is_expired(agent.expires_at_ms, head.at_ms)
    }


def _finding(entry: Entry, summed: _Sum) -> str | None:
    if entry.attempt not in (None, summed.attempts):
        return f"entry {entry.seq} is attempt {entry.attempt}, but should be {summed.attempts}"
    if entry.refusal not in (None, summed.refusals):
        return f"entry {entry.seq} is refusal {entry.refusal}, but should be {summed.refusals}"
    if entry.kind is Kind.ACTIVATED and not _id_fits(_bounds(entry)):
        return f"entry {entry.seq}: the permit's id is not that of its bounds"
    if "evidence" in entry.body:
        activated = summed.activations.get(entry.body["evidence"]["activation"])
        if activated is None:
            return f"entry {entry.seq} was decided by no activation"
        if replay(entry, activated) != read_decision(entry.body["decision"]):
            return f"entry {entry.seq}: its evidence leads to another decision"
    return None


def _bounds(activated: Entry) -> Bounds:
    return Bounds.from_json_object(activated.body["bounds"])


def _id_fits(bounds: Bounds) -> bool:
    wallet = keys.decode_key(bounds.wallet)
    return wallet is not None and permit_id(wallet, bounds.terms.canonical_bytes()) == bounds.permit_id
