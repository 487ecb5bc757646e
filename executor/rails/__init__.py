"""Rails: where an authorized trade is turned into a transaction and sent."""

from executor.rails.rail import Account, Blockhash, Chain, Rail, TransactionRecord

__all__ = ["Account", "Blockhash", "Chain", "Rail", "TransactionRecord"]
