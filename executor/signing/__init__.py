"""Signing: session keys, what they may sign, and the one place where they do."""

from executor.signing.book import Facts
from executor.signing.gate import SignedTransaction, SigningGate
from executor.signing.inspection import Inspected, inspect, needs
from executor.signing.policy import Policy
from executor.signing.proposal import Proposal, Resolved, read_proposal
from executor.signing.vault import SessionVault

__all__ = [
    "Facts",
    "Inspected",
    "Policy",
    "Proposal",
    "Resolved",
    "SessionVault",
    "SignedTransaction",
    "SigningGate",
    "inspect",
    "needs",
    "read_proposal",
]
