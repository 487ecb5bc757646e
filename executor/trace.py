"""From a transaction on the chain back to what the user signed: `executor trace`.

Transaction → attempt → decision with its checks → activation → permit id. Each step is compared with the one before:
what the ledger stored, with what the signature is really over.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from executor.amounts import amount, dollars, sol, symbol_of
from executor.decide import Allowed
from executor.entries import Kind
from executor.errors import LedgerError
from executor.evidence import Evidence
from executor.guard.attempts import execution
from executor.signing.sweep import pays_home
from executor.solana import MEMO_PROGRAM
from permits import keys, permit_id, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executor.guard import Execution
    from executor.ledger import Ledger, SealedEntry, WalletView

__all__ = ["Trace", "lines_of", "trace"]


class Trace(NamedTuple):
    """Where a transaction comes from."""

    wallet: str
    signed: SealedEntry
    """The entry that recorded its signature."""
    execution: Execution | None
    """The story of its attempt; None for a sweep, which needs no permit."""
    findings: tuple[str, ...]
    """What doesn't fit, a line each; empty: the transaction is exactly what the permit allowed."""


def trace(ledger: Ledger, tx_signature: str) -> Trace | None:
    """Return where the transaction of this signature (base58) comes from; None if the ledger knows nothing of it.

    Raises:
        LedgerError: as `Ledger.view`.

    """
    wallet = ledger.wallet_of_signature(tx_signature)
    if wallet is None:
        return None
    with ledger.view(wallet) as view:
        signed = view.signed(tx_signature)
        if signed is None:
            raise LedgerError(f"the ledger files `{tx_signature}` under a wallet that knows nothing of it")
        found = None if signed.entry.kind is Kind.SWEEP_SIGNED else execution(view, signed.entry.execution_id or "")
        return Trace(wallet, signed, found, tuple(_findings(view, signed, found, tx_signature)))


def lines_of(found: Trace) -> Iterator[str]:
    """Yield what `executor trace` shows, a line each."""
    entry = found.signed.entry
    yield f"transaction {entry.body['txSignature']}"
    yield f"wallet      {found.wallet}"
    yield f"agent       {entry.agent_id}"
    if found.execution is None:
        yield f"sweep       signed {timestamp(entry.at_ms)}: pays back to the wallet alone"
    else:
        yield from _lines_of_attempt(found.execution)
    yield from (f"WRONG: {finding}" for finding in found.findings)


def _lines_of_attempt(execution: Execution) -> Iterator[str]:
    decided, evidence, bounds, decision = execution.steps[0], execution.evidence, execution.bounds, execution.decision
    yield f"execution   {decided.entry.execution_id}, {execution.state}"
    if isinstance(evidence, Evidence):
        request = evidence.request
        sold, bought = (
            amount(request.sell_amount, request.sell, bounds),
            amount(request.min_received, request.buy, bounds),
        )
        yield f"attempt     {evidence.usage.attempt}: at most {sold} for at least {bought}"
        yield from (
            f"quote       {symbol_of(quote.mint, bounds)} at {dollars(quote.price_pico_usd, 12)}, {quote.source}, "
            f"{timestamp(quote.at_ms)}, mint {quote.mint}"
            for quote in evidence.quotes
        )
    else:
        yield f"funding     {evidence.usage.number}: {sol(evidence.request.lamports)}"
    worth = f", worth {dollars(decision.value_micro_usd, 6)}" if isinstance(decision, Allowed) else ""
    yield f"decision    {decision.outcome} {timestamp(decided.entry.at_ms)}{worth}, entry {decided.hash}"
    yield from (f"limit       {name} {_limit(name, value)}" for name, value in evidence.limits if value is not None)
    yield f"activation  entry {evidence.activation}, permit {bounds.permit_id}"
    yield f"permit      {json.dumps(bounds.permit)}"


def _limit(name: str, value: int) -> str:
    if "lamports" in name:
        return sol(value)
    return dollars(value, 6) if "micro_usd" in name else str(value)


def _findings(view: WalletView, signed: SealedEntry, found: Execution | None, tx_signature: str) -> list[str]:
    transaction = VersionedTransaction.from_bytes(bytes.fromhex(signed.entry.body["transaction"]))
    message, signature = transaction.message, transaction.signatures[0]
    payer = message.account_keys[0]
    checks = [
        (str(signature) == tx_signature, "the stored transaction has another signature"),
        (
            signature.verify(payer, to_bytes_versioned(message)),
            "the stored signature is not over the stored transaction",
        ),
    ]
    if found is None:
        is_sweep = isinstance(message, MessageV0) and pays_home(message, view.head.wallet)
        checks.append((is_sweep, "it pays somebody else than the wallet"))
    else:
        bounds, wallet = found.bounds, keys.decode_key(view.head.wallet) or b""
        memos = [
            bytes(each.data)
            for each in message.instructions
            if message.account_keys[each.program_id_index] == MEMO_PROGRAM
        ]
        checks += [
            (memos == [b"holdfire:" + found.steps[0].hash.encode()], "its memo doesn't name its decision"),
            (permit_id(wallet, bounds.terms.canonical_bytes()) == bounds.permit_id, "the bounds aren't the permit's"),
        ]
        if found.steps[0].entry.attempt is not None:
            session = Pubkey.from_string(bounds.terms.session_pubkey)
            checks.append((payer == session, "another key than the permit's session key has signed it"))
    return [finding for holds, finding in checks if not holds]
