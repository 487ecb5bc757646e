"""A proposed transaction, read as the runtime will read it: its one encoding, its accounts, its signers.

Legacy and version 0 messages. Nothing here knows what was authorized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from executor.errors import TransactionRefused
from executor.signing.programs import Call

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from solders.instruction import CompiledInstruction
    from solders.message import MessageAddressTableLookup

__all__ = ["Proposal", "read_proposal"]

TRANSACTION_BYTES_MAX: Final = 1_232
SIGNATURE_BYTES: Final = 64
"""No packet holds so many that their number would take more than the one byte before them."""


class Proposal(NamedTuple):
    """A well-formed transaction. Its lookup tables aren't resolved yet."""

    transaction: VersionedTransaction
    signed: bytes
    """What its signers sign: the message, as it stands behind the signatures."""
    message: Message | MessageV0
    static: list[Pubkey]
    """The accounts that it names itself; the first sign."""
    instructions: list[CompiledInstruction]
    lookups: list[MessageAddressTableLookup]

    @property
    def signers(self) -> list[Pubkey]:
        """Who must sign; the first pays the fee."""
        return self.static[: self.message.header.num_required_signatures]

    def accounts(self, tables: Mapping[str, tuple[str, ...]]) -> list[Pubkey]:
        """Return all its accounts in the order in which instructions count them.

        Raises:
            TransactionRefused: a table isn't in `tables` or is too short, or an account is there twice.

        """
        accounts = self.static + self._looked_up(tables) if self.lookups else self.static
        if len(set(accounts)) != len(accounts):
            twice = next(each for number, each in enumerate(accounts) if each in accounts[:number])
            raise TransactionRefused(f"it names the account {twice} twice")
        return accounts

    def calls(self, accounts: list[Pubkey]) -> list[Call]:
        """Return its instructions with their accounts, as `accounts` returns them, looked up."""
        return [
            Call(accounts[each.program_id_index], tuple([accounts[index] for index in each.accounts]), bytes(each.data))
            for each in self.instructions
        ]

    def writable(self, accounts: list[Pubkey]) -> frozenset[Pubkey]:
        """Return the accounts that it may change, at most."""
        header, static = self.message.header, len(self.static)
        signing = header.num_required_signatures
        readonly = range(signing - header.num_readonly_signed_accounts, signing)
        readonly_unsigned = range(static - header.num_readonly_unsigned_accounts, static)
        looked_up = range(static + sum(len(each.writable_indexes) for each in self.lookups), len(accounts))
        return frozenset(
            account
            for index, account in enumerate(accounts)
            if index not in readonly and index not in readonly_unsigned and index not in looked_up
        )

    def check_signers(self, session: Pubkey, cosigners: AbstractSet[str], cosigners_max: int) -> None:
        """Refuse it unless `session` pays, and every other signer is one of `cosigners` and has signed."""
        payer, *others = self.signers
        if payer != session:
            raise TransactionRefused(f"its fee payer is {payer}, not the session key")
        if len(others) > cosigners_max:
            raise TransactionRefused(f"it has {len(others)} cosigners, more than {cosigners_max}")
        for signer, signature in zip(others, self.transaction.signatures[1:], strict=True):
            if str(signer) not in cosigners:
                raise TransactionRefused(f"its signer {signer} is not one that the rail declared")
            if not signature.verify(signer, self.signed):
                raise TransactionRefused(f"its signer {signer} hasn't signed it")

    def _looked_up(self, tables: Mapping[str, tuple[str, ...]]) -> list[Pubkey]:
        """Return what the tables hold at its indexes: of all tables the writable ones, then of all the others."""
        entries = [(each, str(each.account_key)) for each in self.lookups]
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
    if bytes(parsed) != transaction:
        raise TransactionRefused("it is not in its one encoding")
    message = parsed.message
    if not isinstance(message, Message | MessageV0):
        raise TransactionRefused("it is neither a legacy transaction nor one of version 0")
    static, instructions = message.account_keys, message.instructions
    if any(each.program_id_index >= len(static) for each in instructions):
        raise TransactionRefused("it takes a program from a lookup table")
    try:
        parsed.sanitize()
    except Exception as error:  # noqa: BLE001 - the same
        raise TransactionRefused(f"it is not sound: {error}") from None
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    signed = transaction[1 + SIGNATURE_BYTES * message.header.num_required_signatures :]
    return Proposal(parsed, signed, message, static, instructions, lookups)
