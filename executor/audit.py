"""The audit: what the ledger says, checked against itself from the first entry to the last.

It trusts nothing but the seal keys: every seal, every link of the chain, every number without a gap, every permit's id
and every decision, made again from its evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from executor.bounds import Bounds
from executor.caps import is_expired
from executor.decide import read_decision
from executor.entries import Kind, chain_start, index_of, next_hash
from executor.errors import LedgerError
from executor.evidence import replay
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
    """Check every wallet of `ledger`; a wallet's check ends at its first broken entry."""
    findings: list[str] = []
    count = 0
    wallets = ledger.wallets()
    for wallet in wallets:
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
    chain_hash, seq, attempts = chain_start(epoch, view.head.wallet), 0, 0
    activations: dict[int, Entry] = {}
    active: dict[str, Entry] = {}
    for sealed, index in _all(view):
        entry = sealed.entry
        chain_hash, seq = next_hash(chain_hash, sealed.content), entry.seq
        if chain_hash != sealed.hash:
            yield entry, f"entry {seq} is not chained to the one before"
            return
        if index != index_of(entry):
            yield entry, f"entry {seq} is filed under what it doesn't say"
            return
        if entry.kind is Kind.ACTIVATED:
            activations[seq] = entry
        if entry.agent_state is AgentState.ACTIVE:
            active[entry.agent_id] = entry
        elif entry.agent_state is not None:
            active.pop(entry.agent_id, None)
        attempts += entry.attempt is not None
        yield entry, _finding(entry, attempts, activations)
    if (view.head.seq, view.head.hash, view.head.attempts) != (seq, chain_hash, attempts):
        yield None, f"the head stands at entry {view.head.seq}, attempt {view.head.attempts}; found {seq}, {attempts}"
    if _firing(view.head) != {
        agent_id: entry.seq
        for agent_id, entry in active.items()
        if not is_expired(_bounds(entry).expires_at_ms, view.head.at_ms)
    }:
        yield None, "the head lets other agents fire than its entries do"


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


def _finding(entry: Entry, attempts: int, activations: dict[int, Entry]) -> str | None:
    if entry.attempt not in (None, attempts):
        return f"entry {entry.seq} is attempt {entry.attempt}, but should be {attempts}"
    if entry.kind is Kind.ACTIVATED and not _id_fits(_bounds(entry)):
        return f"entry {entry.seq}: the permit's id is not that of its bounds"
    if "evidence" in entry.body:
        activated = activations.get(entry.body["evidence"]["activation"])
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
