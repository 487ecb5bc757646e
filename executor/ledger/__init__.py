"""The ledger: what was decided, kept so that it can be relied on and proved. All SQL lives in this package."""

from executor.ledger.ahead import Ahead
from executor.ledger.clock import Clock
from executor.ledger.scratch import scratch
from executor.ledger.snapshot import Snapshot
from executor.ledger.store import Ledger
from executor.ledger.wallet import EVERYBODY, TREASURY, SealedEntry, WalletTransaction, WalletView

__all__ = [
    "EVERYBODY",
    "TREASURY",
    "Ahead",
    "Clock",
    "Ledger",
    "SealedEntry",
    "Snapshot",
    "WalletTransaction",
    "WalletView",
    "scratch",
]
