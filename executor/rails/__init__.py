"""Rails: where an authorized trade is turned into a transaction and sent."""

from executor.rails.rail import Blockhash, Chain, Rail, TransactionRecord

__all__ = ["Blockhash", "Chain", "Rail", "TransactionRecord"]
