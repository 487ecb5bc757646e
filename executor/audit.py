"""The audit: what the ledger says, checked against itself from the first entry to the last.

It trusts nothing but the seal keys: every seal, every link of the chain, every number without a gap, every permit's id
and every decision, made again from its evidence, by the limits and halts that everybody's chain held then.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.bounds import Bounds
from executor.caps import is_expired
from executor.entries import ENDS, Kind, chain_start, index_of, next_hash
from executor.errors import LedgerError, UnknownWallet
from executor.evidence import decision_of, evidence_of, replay
from executor.funding import FundingEvidence
from executor.halts import EVERYTHING, Halt, Halter, Scope
from executor.ledger import EVERYBODY, TREASURY
from executor.lifecycle import AgentState
from executor.limits import Limits
from permits import keys, permit_id
from permits.canonical import canonicalize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executor.entries import Entry, Head
    from executor.ledger import Ledger, SealedEntry, Snapshot, WalletView

__all__ = ["Checked", "Report", "check_each", "check_ledger"]

ENTRIES_AT_ONCE: Final = 1_000


class Report(NamedTuple):
    """What an audit saw."""

    wallets: int
    entries: int
    findings: tuple[str, ...]
    """What is wrong, a line each; empty: nothing."""


def check_ledger(ledger: Ledger) -> Report:
    """Check how `ledger` is defined, what concerns everybody, and every wallet.

    A wallet's check ends at its first broken entry.
    """
    wallets = entries = 0
    findings = [f"the database isn't defined as this version defines it: {what}" for what in ledger.differences()]
    for checked in check_each(ledger):
        wallets += checked.wallet not in (EVERYBODY, TREASURY)
        entries += checked.entries
        findings += [f"{checked.wallet}: {finding}" for finding in checked.findings]
    return Report(wallets, entries, tuple(findings))


class Checked(NamedTuple):
    """What an audit saw of one wallet, or of EVERYBODY."""

    wallet: str
    head: Head | None
    """None if there is none that can be trusted."""
    entries: int
    findings: tuple[str, ...]


def check_each(ledger: Ledger | Snapshot) -> Iterator[Checked]:
    """Check what concerns everybody, then each wallet, and tell of them one by one."""
    everybody = _Everybody(ledger)
    for wallet in chain([EVERYBODY, TREASURY], ledger.wallets()):
        if (checked := _check(wallet, ledger, everybody)) is not None:
            yield checked


def _check(wallet: str, ledger: Ledger | Snapshot, everybody: _Everybody) -> Checked | None:
    head, entries, findings = None, 0, []
    try:
        with ledger.view(wallet) as view:
            head = view.head
            for entry, finding in _check_wallet(view, ledger, everybody):
                entries += entry is not None
                if finding is not None:
                    findings.append(finding)
    except UnknownWallet as error:
        if wallet == TREASURY:  # made by the first funding; each funding is looked for there
            return None
        findings.append(str(error))
    except LedgerError as error:
        findings.append(str(error))
    return Checked(wallet, head, entries, tuple(findings))


def _check_wallet(
    view: WalletView, ledger: Ledger | Snapshot, everybody: _Everybody
) -> Iterator[tuple[Entry | None, str | None]]:
    """Yield each entry with what is wrong about it, then what is wrong about the whole."""
    summed = _Sum(chain_start(ledger.id, view.head.wallet), ledger.first_limits, ledger.id)
    for sealed, index in _all(view):
        entry = sealed.entry
        if next_hash(summed.hash, sealed.content) != sealed.hash:
            yield entry, f"entry {entry.seq} is not chained to the one before"
            return
        if canonicalize(json.loads(sealed.content)) != sealed.content:
            yield entry, f"entry {entry.seq} is not in canonical form"
        if index != index_of(entry):
            yield entry, f"entry {entry.seq} is filed under what it doesn't say"
            return
        summed.add(entry, sealed.hash)
        yield entry, _finding(entry, summed, everybody) or _count_finding(entry, ledger)
    yield from ((None, finding) for finding in _head_findings(view.head, summed))
    if view.head_index() != (view.head.seq, view.head.open_attempts):
        yield None, "the head is filed under what it doesn't say"
    if view.head.wallet == EVERYBODY and view.stored_cap() != summed.limits.executions_per_24h:
        yield None, "storage itself keeps another cap on executions than the limits"


class _Everybody:
    """What everybody's chain held after each of its entries, read on as far as decisions name them."""

    def __init__(self, ledger: Ledger | Snapshot) -> None:
        self._ledger = ledger
        self._summed = _Sum("", ledger.first_limits, ledger.id)
        self._held = [self._now()]

    def at(self, seq: int) -> tuple[Limits, tuple[Halt, ...]] | None:
        """Return the limits and the halts of everything after entry `seq`; None if the chain doesn't go so far."""
        if seq >= len(self._held):
            with suppress(LedgerError), self._ledger.view(EVERYBODY) as view:  # told where that chain is checked
                for sealed, _ in _all(view, self._summed.seq):
                    self._summed.add(sealed.entry, sealed.hash)
                    self._held.append(self._now())
        return self._held[seq] if 0 <= seq < len(self._held) else None

    def _now(self) -> tuple[Limits, tuple[Halt, ...]]:
        return self._summed.limits, tuple(self._summed.halts.values())


@dataclass
class _Sum:
    """What a wallet's entries add up to."""

    hash: str
    limits: Limits
    """Those that EVERYBODY's entries lead to."""
    stream_epoch: str
    """The one that EVERYBODY's entries lead to."""
    everybody: int = 0
    """The newest of EVERYBODY's entries that a decision named: none may name an older one after it."""
    limits_joined: bool = True
    """Whether each change of them was one of those before it."""
    epochs_joined: bool = True
    """The same of the stream's epochs."""
    seq: int = 0
    attempts: int = 0
    open_attempts: int = 0
    notional_micro_usd: int = 0
    refusals: int = 0
    fundable: bool = False
    fundings: int = 0
    funded_lamports: int = 0
    activations: dict[int, Entry] = field(default_factory=dict)
    active: dict[str | None, Entry] = field(default_factory=dict)
    halts: dict[tuple[Scope, Halter], Halt] = field(default_factory=dict)

    def add(self, entry: Entry, chain_hash: str) -> None:
        """Take in the next entry."""
        self.hash, self.seq = chain_hash, entry.seq
        self._count(entry)
        self._move(entry)
        self._change_rules(entry)

    def _count(self, entry: Entry) -> None:
        self.refusals += entry.kind is Kind.REFUSED
        self.open_attempts -= entry.kind in ENDS
        self.open_attempts += entry.kind is Kind.AUTHORIZED
        if entry.attempt is not None:
            self.attempts += 1
            self.notional_micro_usd += int(entry.body["decision"]["valueMicroUsd"])
        if entry.counts_funding is not None:
            self.fundings += 1
            self.funded_lamports += _funded(entry)

    def _move(self, entry: Entry) -> None:
        if entry.kind is Kind.ACTIVATED:
            self.activations[entry.seq] = entry
        if entry.agent_state is AgentState.ACTIVE:
            self.active[entry.agent_id] = entry
        elif entry.agent_state is not None:
            self.active.pop(entry.agent_id, None)

    def _change_rules(self, entry: Entry) -> None:
        if entry.kind is Kind.FUNDING_SET:
            self.fundable = entry.body["fundable"]
        if entry.kind is Kind.LIMITS_CHANGED:
            self.limits_joined &= self.limits == Limits.from_json_object(entry.body["old"])
            self.limits = Limits.from_json_object(entry.body["new"])
        if entry.kind is Kind.RESTORED:
            self.epochs_joined &= self.stream_epoch == entry.body["before"]
            self.stream_epoch = entry.body["epoch"]
        if entry.kind in {Kind.HALTED, Kind.LIFTED}:
            halt = Halt.from_json_object(entry.body["halt"])
            self.halts.pop((halt.scope, halt.by), None)
            if entry.kind is Kind.HALTED:
                self.halts[halt.scope, halt.by] = halt


def _head_findings(head: Head, summed: _Sum) -> Iterator[str]:
    if (head.seq, head.hash) != (summed.seq, summed.hash):
        yield f"the head stands at entry {head.seq}, but the last is {summed.seq}, or another"
    for name in ADD_UP:
        if getattr(head, name) != getattr(summed, name):
            yield f"the head says {getattr(head, name)} {name}, its entries {getattr(summed, name)}"
    if sorted(head.halts, key=str) != sorted(summed.halts.values(), key=str):
        yield "the head knows other halts than its entries"
    if not summed.limits_joined:
        yield "limits were changed that weren't in force"
    if head.limits != (summed.limits if head.wallet == EVERYBODY else None):
        yield "the head knows other limits than its entries"
    if not summed.epochs_joined:
        yield "the stream got a new epoch after one that it didn't have"
    if head.stream_epoch != summed.stream_epoch:
        yield "the head gives the stream another epoch than its entries"
    unexpired = {
        agent_id: entry.seq
        for agent_id, entry in summed.active.items()
        if not is_expired(_bounds(entry).expires_at_ms, head.at_ms)
    }
    if _firing(head) != unexpired:
        yield "the head lets other agents fire than its entries do"


ADD_UP: Final = (
    "attempts",
    "open_attempts",
    "notional_micro_usd",
    "refusals",
    "fundable",
    "fundings",
    "funded_lamports",
)
"""What a head must say just as its entries do."""


def _all(view: WalletView, after: int = 0) -> Iterator[tuple[SealedEntry, dict[str, object]]]:
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


def _finding(entry: Entry, summed: _Sum, everybody: _Everybody) -> str | None:
    if entry.attempt not in (None, summed.attempts):
        return f"entry {entry.seq} is attempt {entry.attempt}, but should be {summed.attempts}"
    if entry.refusal not in (None, summed.refusals):
        return f"entry {entry.seq} is refusal {entry.refusal}, but should be {summed.refusals}"
    if entry.counts_funding not in (None, summed.fundings):
        return f"entry {entry.seq} is funding {entry.funding}, but should be {summed.fundings}"
    if entry.kind is Kind.ACTIVATED and not _id_fits(_bounds(entry)):
        return f"entry {entry.seq}: the permit's id is not that of its bounds"
    return _decision_finding(entry, summed, everybody) if "evidence" in entry.body else None


def _decision_finding(entry: Entry, summed: _Sum, everybody: _Everybody) -> str | None:
    evidence = evidence_of(entry)
    before, summed.everybody = summed.everybody, evidence.everybody
    halts_of_all = tuple(halt for halt in evidence.usage.halts if halt.scope == EVERYTHING)
    if evidence.everybody < before or everybody.at(evidence.everybody) != (evidence.limits, halts_of_all):
        return f"entry {entry.seq} was decided by limits or halts that weren't in force"
    activated = summed.activations.get(evidence.activation)
    if activated is None:
        return f"entry {entry.seq} was decided by no activation"
    if replay(entry, activated) != decision_of(entry):
        return f"entry {entry.seq}: its evidence leads to another decision"
    return None


def _count_finding(entry: Entry, ledger: Ledger | Snapshot) -> str | None:
    """Hold a funding against its other half: a user's is counted in the treasury's chain, and nothing else is."""
    if entry.counts_funding is None:
        return None
    with suppress(LedgerError):
        if entry.kind is Kind.FUNDING_COUNTED:
            with ledger.view(entry.body["wallet"]) as view:
                user, count = view.execution(entry.body["executionId"])[:1], entry
                if user and _is_counted(user[0].entry, count):
                    return None
        elif isinstance(evidence := evidence_of(entry), FundingEvidence):
            with ledger.view(TREASURY) as view:
                if _is_counted(entry, view.funding(evidence.usage.total_number).entry):
                    return None
    return f"entry {entry.seq}: the user's chain and the treasury's don't tell of the same funding"


def _is_counted(user: Entry, count: Entry) -> bool:
    evidence = evidence_of(user)
    said = {"executionId": user.execution_id, "lamports": str(_funded(user)), "wallet": user.wallet}
    return (
        isinstance(evidence, FundingEvidence)
        and evidence.usage.total_number == count.funding
        and said.items() <= count.body.items()
    )


def _funded(entry: Entry) -> int:
    told = entry.body if entry.kind is Kind.FUNDING_COUNTED else entry.body["evidence"]["request"]
    return int(told["lamports"])


def _bounds(activated: Entry) -> Bounds:
    return Bounds.from_json_object(activated.body["bounds"])


def _id_fits(bounds: Bounds) -> bool:
    wallet = keys.decode_key(bounds.wallet)
    return wallet is not None and permit_id(wallet, bounds.terms.canonical_bytes()) == bounds.permit_id
