"""A proposed transaction, read as the runtime will read it: its one encoding, its signers, its accounts, its calls.

Legacy and version 0 messages. Nothing here knows what was authorized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from executor.errors import TransactionRefused
from executor.signing.programs import Call, decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from solders.message import MessageAddressTableLookup
    from solders.signature import Signature

    from executor.signing.programs import Decoded

__all__ = ["Proposal", "Resolved", "message_of", "read_proposal"]

TRANSACTION_BYTES_MAX: Final = 1_232
SIGNATURE_BYTES: Final = 64
"""No packet holds so many that their number would take more than the one byte before them."""


class Proposal(NamedTuple):
    """A well-formed transaction. Its lookup tables aren't resolved yet."""

    wire: bytes
    """Its one encoding, of which all here was read: nobody else has it to change it."""
    signatures: list[Signature]
    """One for each signer; the first is the payer's, or a place for it."""
    signed: bytes
    """What its signers sign: the message, as it stands behind the signatures."""
    message: Message | MessageV0
    static: list[Pubkey]
    """The accounts that it names itself; the first sign."""
    lookups: list[MessageAddressTableLookup]

    @property
    def signers(self) -> list[Pubkey]:
        """Who must sign; the first pays the fee."""
        return self.static[: self.message.header.num_required_signatures]

    @property
    def tables(self) -> list[str]:
        """The lookup tables from which it takes accounts, base58."""
        return [str(each.account_key) for each in self.lookups]

    def check_signers(self, session: Pubkey, cosigners: AbstractSet[str], cosigners_max: int) -> None:
        """Refuse it unless `session` pays, and every other signer is one of `cosigners` and has signed."""
        payer, *others = self.signers
        if payer != session:
            raise TransactionRefused(f"its fee payer is {payer}, not the session key")
        if len(others) > cosigners_max:
            raise TransactionRefused(f"it has {len(others)} cosigners, more than {cosigners_max}")
        for signer, signature in zip(others, self.signatures[1:], strict=True):
            if str(signer) not in cosigners:
                raise TransactionRefused(f"its signer {signer} is not one that the rail declared")
            if not signature.verify(signer, self.signed):
                raise TransactionRefused(f"its signer {signer} hasn't signed it")

    def resolve(self, tables: Mapping[str, Sequence[str]]) -> Resolved:
        """Look its accounts up in `tables`, which hold at least its own, and decode its instructions.

        Raises:
            TransactionRefused: a table isn't in `tables` or too short, an account is there twice, or as `decode`.

        """
        accounts = self.static + self._looked_up(tables) if self.lookups else self.static
        if len(set(accounts)) != len(accounts):
            twice = next(each for number, each in enumerate(accounts) if each in accounts[:number])
            raise TransactionRefused(f"it names the account {twice} twice")
        calls = [
            Call(accounts[each.program_id_index], tuple([accounts[index] for index in each.accounts]), bytes(each.data))
            for each in self.message.instructions
        ]
        return Resolved(self, accounts, [decode(call) for call in calls])

    def _looked_up(self, tables: Mapping[str, Sequence[str]]) -> list[Pubkey]:
        """Return what the tables hold at its indexes: of all tables the writable ones, then of all the others."""
        entries = list(zip(self.lookups, self.tables, strict=True))
        indexes = [(key, index) for each, key in entries for index in each.writable_indexes]
        indexes += [(key, index) for each, key in entries for index in each.readonly_indexes]
        for key, index in indexes:
            if key not in tables:
                raise TransactionRefused(f"its lookup table {key} is not resolved")
            if index >= len(tables[key]):
                raise TransactionRefused(
                    f"it takes entry {index} of the lookup table {key}, which has {len(tables[key])}"
                )
        return [Pubkey.from_string(tables[key][index]) for key, index in indexes]


class Resolved(NamedTuple):
    """A transaction, of which is known what it names and what it does."""

    proposal: Proposal
    accounts: list[Pubkey]
    """All that it names, in the order in which instructions count them."""
    instructions: list[Decoded]

    def writable(self) -> frozenset[Pubkey]:
        """Return the accounts that it may change, at most."""
        header, static, lookups = self.proposal.message.header, len(self.proposal.static), self.proposal.lookups
        signing = header.num_required_signatures
        readonly = range(signing - header.num_readonly_signed_accounts, signing)
        readonly_unsigned = range(static - header.num_readonly_unsigned_accounts, static)
        looked_up = range(static + sum(len(each.writable_indexes) for each in lookups), len(self.accounts))
        return frozenset(
            account
            for index, account in enumerate(self.accounts)
            if index not in readonly and index not in readonly_unsigned and index not in looked_up
        )


def read_proposal(transaction: bytes) -> Proposal:
    """Read `transaction`.

    Raises:
        TransactionRefused: the runtime would not take it, or it could be read in two ways.

    """
    if len(transaction) > TRANSACTION_BYTES_MAX:
        raise TransactionRefused(f"it has {len(transaction)} bytes, more than a packet's {TRANSACTION_BYTES_MAX}")
    try:
        parsed = VersionedTransaction.from_bytes(transaction)
    except Exception as error:  # noqa: BLE001 - whatever a foreign parser raises on hostile bytes, the answer is no
        raise TransactionRefused(f"it can't be read: {error}") from None
    wire = bytes(parsed)
    if wire != transaction:
        raise TransactionRefused("it is not in its one encoding")
    message = parsed.message
    if not isinstance(message, Message | MessageV0):
        raise TransactionRefused("it is neither a legacy transaction nor one of version 0")
    static = message.account_keys
    if any(each.program_id_index >= len(static) for each in message.instructions):
        raise TransactionRefused("it takes a program from a lookup table")
    try:
        parsed.sanitize()
    except Exception as error:  # noqa: BLE001 - the same
        raise TransactionRefused(f"it is not sound: {error}") from None
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    return Proposal(wire, parsed.signatures, message_of(wire), message, static, lookups)


def message_of(transaction: bytes) -> bytes:
    """Return what the signers of a well-formed transaction sign: all that stands behind the signatures."""
    return transaction[1 + SIGNATURE_BYTES * transaction[0] :]
