"""Signing: session keys, what they may sign, and the one place where they do."""

from executor.signing.book import Facts
from executor.signing.gate import SignedTransaction, SigningGate
from executor.signing.inspection import Inspected, Needs, inspect, needs
from executor.signing.policy import Policy
from executor.signing.proposal import Proposal, read_proposal
from executor.signing.vault import SessionVault

__all__ = [
    "Facts",
    "Inspected",
    "Needs",
    "Policy",
    "Proposal",
    "SessionVault",
    "SignedTransaction",
    "SigningGate",
    "inspect",
    "needs",
    "read_proposal",
]
