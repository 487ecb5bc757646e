"""Inspection: proof that a transaction does no more than what was authorized.

Values in, values out: the shell reads what `needs` names from the executor's own chain connection, and `inspect` says
what the session key would sign. It is proved by cases. A transaction lands whole or not at all, and each instruction is

- **decoded**, and then it either is one of the few that take from the session wallet by the book, or neither takes from
  it nor carries its authority. What strangers do among themselves, with their own signatures, is theirs: it needs
  nothing from the session key, so that signing grants nothing;
- **opaque**, of a program that the operator listed, and then the gate appends instructions by which the chain itself
  holds floors: what it does to lamports and tokens is bounded by them, and of accounts in
  which a wallet may have any other right it gets none to write;
- or the whole transaction is refused.

By the book is: at most the authorized amount of the sold token out of its associated account, to anybody; wrapping as
much SOL, if that is what is sold; unwrapping it, back to the wallet; opening the wallet's accounts of the two tokens;
fees. Nothing else: no approval, no authority, no burning, no closing of other accounts, for whoever's benefit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from executor.errors import TransactionRefused
from executor.signing.book import Book, Trade
from executor.signing.programs import AccountClosing, AccountOpening, Opaque, TokenTransfer
from executor.solana import RENT_SYSVAR

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from executor.authorization import Authorization
    from executor.signing.book import Facts
    from executor.signing.policy import Policy
    from executor.signing.proposal import Resolved

__all__ = ["Inspected", "inspect", "needs"]

SIGNATURE_LAMPORTS: Final = 5_000


class Inspected(NamedTuple):
    """What a transaction that the session key may sign does, and the most that it costs."""

    programs: tuple[str, ...]
    """Listed programs that it calls and that aren't decoded, base58: floors must be appended."""
    selling: str
    """The session wallet's account of the sold token, base58."""
    buying: str
    """The session wallet's account of the bought token, base58."""
    sold_max: int
    """The most of the sold token that leaves, base units; with opaque programs, by their floors."""
    received_min: int
    """What decoded transfers bring of the bought token, net of its fees, base units."""
    fee_lamports: int
    """For the signatures, and for priority."""
    rents: Mapping[str, int]
    """What the accounts that it opens for the session wallet, and leaves open, cost at most: lamports by address."""
    wrapped_lamports: int
    """What it moves from the session wallet into the wallet's own account of wrapped SOL."""
    unwrapped: str | None
    """The account of wrapped SOL that it closes into the session wallet, base58; None: it unwraps none."""

    @property
    def lamports_max(self) -> int:
        """The most that leaves the session wallet itself, lamports."""
        return self.fee_lamports + sum(self.rents.values()) + self.wrapped_lamports


def needs(resolved: Resolved, authorization: Authorization) -> frozenset[str]:
    """Return the addresses, base58, of the accounts that the shell must read before `inspect` can judge `resolved`."""
    trade = Trade.of(authorization)
    touched = {trade.session, trade.selling, trade.buying}
    if any(isinstance(each, AccountOpening | Opaque) for each in resolved.instructions):
        touched.add(RENT_SYSVAR)
    for each in resolved.instructions:
        if isinstance(each, TokenTransfer):
            touched.add(each.source)
        elif isinstance(each, AccountClosing):
            touched.add(each.account)
        elif isinstance(each, Opaque):
            touched.update(resolved.writable().intersection(each.accounts))
    return frozenset([authorization.sell.mint, authorization.buy.mint, *map(str, touched)])


def inspect(
    resolved: Resolved,
    authorization: Authorization,
    blockhash: str,
    cosigners: AbstractSet[str],
    facts: Facts,
    policy: Policy,
) -> Inspected:
    """Return what the session key may sign.

    Args:
        resolved: complete but for the session key's signature, whose place is ignored.
        authorization: what was allowed.
        blockhash: the one that the executor itself fetched.
        cosigners: who else may sign, base58: the rail declared them before.
        facts: what the chain says of all that `needs` named.
        policy: what the operator lets pass.

    Raises:
        TransactionRefused: it is anything but the authorized trade, or that can't be proved.

    """
    trade, proposal = Trade.of(authorization), resolved.proposal
    if str(proposal.message.recent_blockhash) != blockhash:
        raise TransactionRefused("its blockhash is not the executor's")
    proposal.check_signers(trade.session, cosigners, policy.cosigners_max)
    book = Book(authorization, trade, facts, policy)
    for instruction in resolved.instructions:
        book.take(instruction)
    if book.opaque:
        book.check_opaque(len(proposal.signers), resolved.writable())
    fee_lamports = SIGNATURE_LAMPORTS * len(proposal.signers) + book.check_priority_fee()
    book.check_costs()
    book.check_memo()
    book.check_accounts()
    book.check_amounts()
    return Inspected(
        tuple(dict.fromkeys(str(each.program) for each in book.opaque)),
        str(trade.selling),
        str(trade.buying),
        authorization.sell_amount if book.opaque else book.left,
        book.received,
        fee_lamports,
        {str(account): lamports for account, lamports in book.rents.items()},
        book.wrapped_lamports,
        str(trade.wrapped) if book.unwraps else None,
    )
