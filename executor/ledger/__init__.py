"""The ledger: what was decided, kept so that it can be relied on and proved. All SQL lives in this package."""

from executor.ledger.store import Clock, Ledger, SealedEntry, WalletTransaction, WalletView, system_clock_ms

__all__ = ["Clock", "Ledger", "SealedEntry", "WalletTransaction", "WalletView", "system_clock_ms"]
