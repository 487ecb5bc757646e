"""Rails: where an authorized trade is turned into a transaction and sent; and the chain that says what became of it."""

from executor.rails.chain import (
    ACCOUNTS_MAX,
    Account,
    Balances,
    Block,
    Blockhash,
    Chain,
    Holding,
    Pending,
    Simulation,
    TokenBalance,
    TransactionRecord,
    earliest_slot,
)
from executor.rails.rail import Rail, SendingRail

__all__ = [
    "ACCOUNTS_MAX",
    "Account",
    "Balances",
    "Block",
    "Blockhash",
    "Chain",
    "Holding",
    "Pending",
    "Rail",
    "SendingRail",
    "Simulation",
    "TokenBalance",
    "TransactionRecord",
    "earliest_slot",
]
