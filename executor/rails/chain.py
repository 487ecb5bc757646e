"""What the executor asks of the chain, and what it is told.

The connection is the executor's own: no rail and no agent chooses whom it asks. Two commitments are used. What money is
computed from afterwards is *finalized*: it can't be undone. What a transaction is built on is *confirmed*: a block
that two thirds of the stake have voted for, seconds old. Should such a block be dropped after all, its blockhash is
valid nowhere, and the transaction never lands: it dies as any other that is too late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from executor.rails.passing import error_passes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ACCOUNTS_MAX",
    "BLOCKHASH_BLOCKS",
    "Account",
    "Balances",
    "Block",
    "Blockhash",
    "Chain",
    "Holding",
    "Pending",
    "Simulation",
    "TokenBalance",
    "TransactionRecord",
    "earliest_slot",
]

BLOCKHASH_BLOCKS: Final = 150
"""How many blocks the chain takes a blockhash for, after its own."""

ACCOUNTS_MAX: Final = 100
"""How many accounts a chain is asked for at once: nodes answer for no more, and more requests aren't of one moment."""

SLOTS_A_BLOCK_MAX: Final = 2
"""How many slots a block takes at most, over any stretch of the chain; by far more than half of all slots have one."""


class Account(NamedTuple):
    """An account as the chain holds it."""

    owner: str
    """The program that it belongs to, base58."""
    lamports: int
    data: bytes


class Block(NamedTuple):
    """Where the chain stands. Slots are skipped, heights are not: `height` is at most `slot`."""

    slot: int
    height: int
    epoch: int


class Blockhash(NamedTuple):
    """A recent blockhash, and the last block height at which a transaction with it may still land (inclusive)."""

    hash: str
    last_valid_block_height: int


class Holding(NamedTuple):
    """A token account, and what it holds."""

    address: str
    token_program: str
    mint: str
    amount: int
    """Base units."""
    lamports: int
    """What it keeps for rent, and, where it holds wrapped SOL, `amount` too."""
    frozen: bool
    """Whether the mint's authority lets nothing out of it."""


class TokenBalance(NamedTuple):
    """What one token account held at one moment."""

    mint: str
    owner: str
    amount: int
    """Base units."""


class Balances(NamedTuple):
    """What the accounts that a transaction names held at one moment."""

    lamports: Mapping[str, int]
    """By address, of every one of them; in a token account of wrapped SOL, the amount is among its lamports."""
    tokens: Mapping[str, TokenBalance]
    """By address; an account that wasn't there then is missing."""

    def of(self, owner: str, mint: str) -> int:
        """Return the base units of `mint` in all token accounts of `owner` together."""
        return sum(each.amount for each in self.tokens.values() if (each.owner, each.mint) == (owner, mint))


class TransactionRecord(NamedTuple):
    """What became of an executed transaction, for good."""

    slot: int
    error: str | None
    """What undid it, all but the fee; None if it landed."""
    fee_lamports: int
    """Paid by the first signer, and taken from its lamports in `after`."""
    before: Balances
    after: Balances


class Pending(NamedTuple):
    """A transaction that was executed in a block which isn't final yet: it may land, fail, or be dropped with it."""

    slot: int


class Simulation(NamedTuple):
    """What a transaction would do on the newest confirmed block. A hint: a program can tell it from the real thing."""

    error: str | None
    """Why it would be undone or turned away; None if it would land."""
    logs: Sequence[str]

    @property
    def passes(self) -> bool:
        """Whether `error` says nothing of the transaction, and may be another, or none, at the next try."""
        return error_passes(self.error)


def earliest_slot(last_valid_block_height: int, newest: Block) -> int:
    """Return a slot before which no transaction on a blockhash of that life can have landed, as seen from `newest`.

    >>> earliest_slot(1_000, Block(slot=2_000, height=1_050, epoch=0))
    1600
    """
    blocks = max(0, newest.height - (last_valid_block_height - BLOCKHASH_BLOCKS))
    return max(0, newest.slot - SLOTS_A_BLOCK_MAX * blocks)


class Chain(Protocol):
    """The executor's own connection to the chain.

    Every method raises ChainError if it couldn't be asked, or its answer isn't to be believed: no answer is guessed.
    Addresses, hashes and signatures are base58.
    """

    async def latest_blockhash(self) -> Blockhash:
        """Return the newest confirmed block's hash, and how long it lives: both from one answer."""

    async def finalized_block(self) -> Block:
        """Return the newest finalized block."""

    async def accounts(self, addresses: Sequence[str], *, finalized: bool = False) -> Sequence[Account | None]:
        """Return what lies at each address, all of one moment, in their order; None: nothing.

        Raises ValueError for more than `ACCOUNTS_MAX` addresses.
        """

    async def holdings(self, owner: str, *, finalized: bool = False) -> Sequence[Holding]:
        """Return every token account of `owner`, of the SPL Token and Token-2022 programs, empty ones too."""

    async def tables(self, addresses: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the finalized content of each address lookup table. An entry never changes once it is there.

        Raises:
            ChainError: there is no such table, it is being deactivated, or as above.

        """

    async def rent(self, data_bytes: int) -> int:
        """Return the lamports with which an account of `data_bytes` is kept for ever."""

    async def simulate(self, transaction: bytes) -> Simulation:
        """Try the transaction, signed or not, on a chain no older than what was told of accounts before.

        What the answer says may pass (`Simulation.passes`): then it says nothing of the transaction.
        """

    async def send(self, transaction: bytes) -> None:
        """Hand over a signed transaction. The same bytes again land at most once.

        The caller has committed the signature to the ledger before.

        Raises:
            ChainError: it was turned away, or nobody answered. It may have landed all the same: only `record` tells.

        """

    async def record(
        self, tx_signature: str, as_of_slot: int, since_slot: int = 0
    ) -> TransactionRecord | Pending | None:
        """Look the transaction up in the full history.

        Args:
            tx_signature: its first signature.
            as_of_slot: the answer must know every block up to this slot. To conclude from None that a transaction is
                dead, the caller passes the slot of a *finalized* block which it read *before*, whose height is above
                the last at which the transaction's blockhash is valid: the other way round it could land in between.
            since_slot: None must know every block from this slot on: `earliest_slot`, of the same block.

        Returns:
            What is finalized of it; Pending while that isn't final; None if the full history has nothing of it.

        """
