"""Signing: session keys, what they may sign, and the one place where they do."""

from executor.signing.gate import SignedTransaction, SigningGate
from executor.signing.vault import SessionVault

__all__ = ["SessionVault", "SignedTransaction", "SigningGate"]
