"""A Solana chain inside this process: LiteSVM, which runs the real programs, with block heights put around it.

The VM knows one valid blockhash and no heights; expiry is `expire_blockhash`. So blocks are counted here, and the
blockhash goes out of date after 150 of them, as on the real chain. It isn't thread-safe: one thread owns it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.signature import Signature
from solders.system_program import CreateAccountParams, create_account
from solders.token.associated import get_associated_token_address
from solders.token.state import TokenAccount
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from executor.errors import ChainError
from executor.rails.rail import Blockhash, TransactionRecord
from executor.solana import (
    MINT_BYTES,
    TOKEN_PROGRAM,
    create_associated_account,
    initialize_mint,
    mint_to,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from solders.instruction import Instruction
    from solders.pubkey import Pubkey

__all__ = ["LocalChain"]

BLOCKHASH_BLOCKS: Final = 150
"""How long a blockhash lives, as on mainnet."""

HISTORY_TRANSACTIONS: Final = 1_000_000
"""What the VM forgets, it would execute again."""

TOKEN_ACCOUNT_BYTES: Final = 165


class LocalChain:
    """A chain of its own, empty at first. Implements `executor.rails.Chain`; a sent transaction is final at once."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """Start a chain whose mints' and accounts' keys come from `random_bytes`."""
        self._vm = LiteSVM().with_transaction_history(HISTORY_TRANSACTIONS)
        self._random_bytes = random_bytes
        self._height = 1
        self._last_valid = self._height + BLOCKHASH_BLOCKS
        self._records: dict[str, TransactionRecord] = {}
        self._payer = self.new_keypair()
        self._vm.airdrop(self._payer.pubkey(), 10**12)

    def latest_blockhash(self) -> Blockhash:
        """Return the only valid blockhash, and the last height at which it is."""
        return Blockhash(str(self._vm.latest_blockhash()), self._last_valid)

    def block_height(self) -> int:
        """Return the height, which `advance` and every landed transaction raise."""
        return self._height

    def advance(self, blocks: int) -> None:
        """Let `blocks` blocks go by without a transaction."""
        self._height += blocks
        if self._height > self._last_valid:
            self._vm.expire_blockhash()
            self._last_valid = self._height + BLOCKHASH_BLOCKS

    def send(self, transaction: bytes) -> None:
        """Execute `transaction` at once. Raises ChainError if the VM turns it away before executing it."""
        try:
            parsed = VersionedTransaction.from_bytes(transaction)
        except ValueError as error:
            raise ChainError(f"the chain can't read the transaction: {error}") from None
        tx_signature = str(parsed.signatures[0])
        if tx_signature in self._records:
            return
        accounts = parsed.message.account_keys
        before = self._token_balances(accounts)
        result = self._vm.send_transaction(parsed)
        failure = str(result.err()) if isinstance(result, FailedTransactionMetadata) else None
        if failure is not None and self._vm.get_transaction(parsed.signatures[0]) is None:
            raise ChainError(f"the chain turned the transaction away: {failure}")
        metadata = result.meta() if isinstance(result, FailedTransactionMetadata) else result
        self.advance(1)
        self._records[tx_signature] = TransactionRecord(
            slot=self._height,
            error=failure,
            fee_lamports=metadata.fee(),
            before=before,
            after=self._token_balances(accounts),
        )

    def record(self, tx_signature: str) -> TransactionRecord | None:
        """Return what became of an executed transaction; None if it never was."""
        return self._records.get(tx_signature)

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

    def token_balance(self, owner: Pubkey, mint: Pubkey) -> int:
        """Return the base units in `owner`'s account for `mint`."""
        account = get_associated_token_address(owner, mint)
        return self._token_balances([account]).get(str(account), 0)

    def lamports(self, owner: Pubkey) -> int:
        """Return `owner`'s lamports."""
        return self._vm.get_balance(owner) or 0

    def _execute(self, instructions: list[Instruction], *signers: Keypair) -> None:
        message = MessageV0.try_compile(self._payer.pubkey(), instructions, [], self._vm.latest_blockhash())
        transaction = VersionedTransaction(message, [self._payer, *signers])
        self.send(bytes(transaction))
        record = self.record(str(transaction.signatures[0]))
        if record is None or record.error is not None:
            raise ChainError(f"the local chain could not be set up: {record}")

    def _token_balances(self, accounts: Sequence[Pubkey]) -> dict[str, int]:
        found = ((key, self._vm.get_account(key)) for key in accounts)
        return {
            str(key): TokenAccount.from_bytes(bytes(account.data)).amount
            for key, account in found
            if account is not None and account.owner == TOKEN_PROGRAM and len(account.data) == TOKEN_ACCOUNT_BYTES
        }
