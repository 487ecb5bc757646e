"""A Solana chain inside this process: LiteSVM, which runs the real programs, with blocks put around it.

The VM has one blockhash and no heights, so blocks are counted here: each has a hash of its own, which is good for the
150 blocks after it, as on the real chain. It isn't thread-safe: one thread owns it, that of the event loop.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from solders.account import Account as VmAccount
from solders.address_lookup_table_account import ID as TABLE_PROGRAM
from solders.hash import Hash
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import CreateAccountParams, create_account
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata
from solders.transaction_status import InstructionErrorCustom, TransactionErrorInstructionError

from executor.errors import ChainError
from executor.rails.accounts import holding, table, table_bytes, token_balance
from executor.rails.answers import error_text
from executor.rails.chain import (
    ACCOUNTS_MAX,
    BLOCKHASH_BLOCKS,
    Account,
    Balances,
    Block,
    Blockhash,
    Holding,
    Pending,
    Simulation,
    TransactionRecord,
)
from executor.solana import (
    MINT_BYTES,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    create_associated_account,
    initialize_mint,
    mint_to,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from solders.instruction import Instruction

__all__ = ["LocalChain"]

SKIPPED_SLOTS: Final = 7
"""On a real chain, slots without a block keep the slot ahead of the height; who mixes them up notices it here."""

EPOCH_SLOTS: Final = 432_000

HISTORY_TRANSACTIONS: Final = 1_000_000
"""What the VM forgets, it would execute again."""


class LocalChain:
    """A chain of its own, empty at first. Implements `executor.rails.Chain`; a sent transaction is final at once.

    What is no method of `Chain` sets it up, or looks at it from outside.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """Start a chain whose mints' and accounts' keys come from `random_bytes`."""
        self._vm = LiteSVM().with_transaction_history(HISTORY_TRANSACTIONS).with_blockhash_check(False)
        self._random_bytes = random_bytes
        self._height = 1
        self._records: dict[str, TransactionRecord] = {}
        self._sent: dict[str, bytes] = {}
        self._payer = self.new_keypair()
        self._vm.airdrop(self._payer.pubkey(), 10**12)

    async def latest_blockhash(self) -> Blockhash:
        """Return the newest block's hash."""
        return Blockhash(str(self._blockhash(self._height)), self._height + BLOCKHASH_BLOCKS)

    async def finalized_block(self) -> Block:
        """Return the newest block; `advance` and every landed transaction make one."""
        return self.block()

    async def accounts(self, addresses: Sequence[str], *, finalized: bool = False) -> Sequence[Account | None]:
        """Return what lies at each address; here, everything is finalized."""
        del finalized
        if len(addresses) > ACCOUNTS_MAX:
            raise ValueError(f"{len(addresses)} accounts can't be asked for at once, only {ACCOUNTS_MAX}")
        return [self._account(Pubkey.from_string(address)) for address in addresses]

    async def holdings(self, owner: str, *, finalized: bool = False) -> Sequence[Holding]:
        """Return every token account of `owner`; here, everything is finalized."""
        del finalized
        found = (
            (holding(str(address), _plain(account)), token_balance(_plain(account)))
            for program in (TOKEN_PROGRAM, TOKEN_2022_PROGRAM)
            for address, account in self._vm.get_program_accounts(program)
        )
        return sorted(held for held, balance in found if held is not None and balance and balance.owner == owner)

    async def tables(self, addresses: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the content of each address lookup table."""
        return {address: table(address, self._account(Pubkey.from_string(address))) for address in addresses}

    async def rent(self, data_bytes: int) -> int:
        """Return the lamports with which an account of `data_bytes` is kept for ever."""
        return self._vm.minimum_balance_for_rent_exemption(data_bytes)

    async def simulate(self, transaction: bytes) -> Simulation:
        """Try the transaction; its signatures aren't looked at."""
        parsed = _parse(transaction)
        if not self._is_recent(parsed):
            return Simulation("BlockhashNotFound", ())
        self._vm.with_sigverify(False)
        try:
            result = self._vm.simulate_transaction(parsed)
        finally:
            self._vm.with_sigverify(True)
        error = _error(result) if isinstance(result, FailedTransactionMetadata) else None
        return Simulation(error, tuple(result.meta().logs()))

    async def send(self, transaction: bytes) -> None:
        """Execute `transaction` at once. Raises ChainError if the VM turns it away before executing it."""
        self.execute(transaction)

    async def record(
        self, tx_signature: str, as_of_slot: int, since_slot: int = 0
    ) -> TransactionRecord | Pending | None:
        """Return what became of an executed transaction; None if it never was."""
        del since_slot
        if as_of_slot > self.block().slot:
            raise ChainError(f"the chain hasn't come to slot {as_of_slot} yet")
        return self._records.get(tx_signature)

    def block(self) -> Block:
        """Return the newest block."""
        slot = self._height + SKIPPED_SLOTS
        return Block(slot, self._height, slot // EPOCH_SLOTS)

    def advance(self, blocks: int) -> None:
        """Let `blocks` blocks go by without a transaction."""
        self._height += blocks

    def execute(self, transaction: bytes) -> None:
        """Execute `transaction` in a block of its own; nothing if it was executed before. Raises as `send` does."""
        parsed = _parse(transaction)
        tx_signature = str(parsed.signatures[0])
        if tx_signature in self._records and self._sent[tx_signature] == transaction:
            return
        if not self._is_recent(parsed):
            raise ChainError("the chain turned the transaction away: BlockhashNotFound")
        accounts = self.named_accounts(parsed)
        before = self._balances(accounts)
        result = self._vm.send_transaction(parsed)
        error = _error(result) if isinstance(result, FailedTransactionMetadata) else None
        executed = self._vm.get_transaction(parsed.signatures[0]) is not None and tx_signature not in self._records
        if error is not None and not executed:
            raise ChainError(f"the chain turned the transaction away: {error}")
        self.advance(1)
        self._sent[tx_signature] = transaction
        self._records[tx_signature] = TransactionRecord(
            slot=self.block().slot,
            error=error,
            fee_lamports=(result.meta() if isinstance(result, FailedTransactionMetadata) else result).fee(),
            before=before,
            after=self._balances(accounts),
        )

    def transaction(self, tx_signature: str) -> bytes | None:
        """Return the bytes of an executed transaction."""
        return self._sent.get(tx_signature)

    def named_accounts(self, transaction: VersionedTransaction) -> list[str]:
        """Return every address that the transaction names, in order: its own, then from tables, writable ones first."""
        message = transaction.message
        lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
        tables = [table(str(each.account_key), self._account(each.account_key)) for each in lookups]
        pairs = list(zip(lookups, tables, strict=True))
        try:
            writable = [content[index] for lookup, content in pairs for index in lookup.writable_indexes]
            readonly = [content[index] for lookup, content in pairs for index in lookup.readonly_indexes]
        except IndexError:
            raise ChainError("the chain turned the transaction away: InvalidAddressLookupTableIndex") from None
        return [*map(str, message.account_keys), *writable, *readonly]

    def logs(self, tx_signature: str) -> list[str]:
        """Return what the programs logged in an executed transaction; the memo is in it."""
        executed = self._vm.get_transaction(Signature.from_string(tx_signature))
        if executed is None:
            return []
        return executed.meta().logs() if isinstance(executed, FailedTransactionMetadata) else executed.logs()

    def new_keypair(self) -> Keypair:
        """Return a new key pair."""
        return Keypair.from_seed(self._random_bytes(32))

    def give_lamports(self, owner: Pubkey, lamports: int) -> None:
        """Give `owner` lamports out of nothing."""
        self._vm.airdrop(owner, lamports)

    def make_mint(self, decimals: int) -> Pubkey:
        """Make an SPL token and return its mint."""
        mint = self.new_keypair()
        rent = self._vm.minimum_balance_for_rent_exemption(MINT_BYTES)
        self._execute(
            [
                create_account(
                    CreateAccountParams(
                        from_pubkey=self._payer.pubkey(),
                        to_pubkey=mint.pubkey(),
                        lamports=rent,
                        space=MINT_BYTES,
                        owner=TOKEN_PROGRAM,
                    )
                ),
                initialize_mint(mint.pubkey(), self._payer.pubkey(), decimals),
            ],
            mint,
        )
        return mint.pubkey()

    def give_tokens(self, owner: Pubkey, mint: Pubkey, amount: int) -> None:
        """Open `owner`'s account for `mint`, made by `make_mint`, and mint `amount` base units into it."""
        account = get_associated_token_address(owner, mint)
        self._execute(
            [
                create_associated_account(self._payer.pubkey(), owner, mint),
                mint_to(mint, account, self._payer.pubkey(), amount),
            ]
        )

    def make_table(self, addresses: Iterable[str]) -> str:
        """Put an address lookup table onto the chain, and return where it lies."""
        where = self.new_keypair().pubkey()
        self.put(str(where), Account(str(TABLE_PROGRAM), 10**9, table_bytes(addresses)))
        return str(where)

    def put(self, address: str, account: Account) -> None:
        """Let `account` lie at `address`, however it would have come there."""
        owner = Pubkey.from_string(account.owner)
        self._vm.set_account(Pubkey.from_string(address), VmAccount(account.lamports, account.data, owner))

    def token_balance(self, owner: Pubkey, mint: Pubkey) -> int:
        """Return the base units in `owner`'s account for `mint`."""
        account = self._account(get_associated_token_address(owner, mint))
        balance = None if account is None else token_balance(account)
        return 0 if balance is None else balance.amount

    def lamports(self, owner: Pubkey) -> int:
        """Return `owner`'s lamports."""
        return self._vm.get_balance(owner) or 0

    def _execute(self, instructions: list[Instruction], *signers: Keypair) -> None:
        message = MessageV0.try_compile(self._payer.pubkey(), instructions, [], self._blockhash(self._height))
        transaction = VersionedTransaction(message, [self._payer, *signers])
        self.execute(bytes(transaction))
        record = self._records[str(transaction.signatures[0])]
        if record.error is not None:
            raise ChainError(f"the local chain could not be set up: {record.error}")

    def _blockhash(self, height: int) -> Hash:
        return Hash(hashlib.sha256(bytes(self._vm.latest_blockhash()) + height.to_bytes(8, "little")).digest())

    def _is_recent(self, transaction: VersionedTransaction) -> bool:
        """Tell whether a transaction on this blockhash may stand in the next block."""
        recent = range(max(0, self._height + 1 - BLOCKHASH_BLOCKS), self._height + 1)
        return any(transaction.message.recent_blockhash == self._blockhash(height) for height in recent)

    def _account(self, address: Pubkey) -> Account | None:
        found = self._vm.get_account(address)
        return None if found is None else _plain(found)

    def _balances(self, addresses: Iterable[str]) -> Balances:
        found = {address: self._account(Pubkey.from_string(address)) for address in addresses}
        tokens = {address: account and token_balance(account) for address, account in found.items()}
        return Balances(
            lamports={address: account.lamports if account else 0 for address, account in found.items()},
            tokens={address: balance for address, balance in tokens.items() if balance is not None},
        )


def _parse(transaction: bytes) -> VersionedTransaction:
    try:
        return VersionedTransaction.from_bytes(transaction)
    except ValueError as error:
        raise ChainError(f"the chain can't read the transaction: {error}") from None


def _plain(account: VmAccount) -> Account:
    return Account(str(account.owner), account.lamports, bytes(account.data))


def _error(failed: FailedTransactionMetadata) -> str | None:
    """Return what undid a transaction in the words of a node."""
    error = failed.err()
    if not isinstance(error, TransactionErrorInstructionError):
        return error_text(_name(error))
    inner = error.err
    named = {"Custom": inner.code} if isinstance(inner, InstructionErrorCustom) else _name(inner)
    return error_text({"InstructionError": [error.index, named]})


def _name(error: object) -> str:
    return str(error).rpartition(".")[2]
