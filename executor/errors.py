"""What can go wrong that is no policy decision.

A refusal by the rules is a value (`executor.decide.Refused`). These are the faults: a broken store, a step that a
state doesn't allow, a transaction that isn't the authorized one. Each leaves nothing authorized and nothing signed.

    ExecutorError
    ├── LedgerError            the ledger can't be opened or used
    │   ├── LedgerInUse        another process holds the SQLite file
    │   ├── LedgerTampered     what it holds was not written by a holder of the seal key
    │   ├── ClockUntrusted     clocks are more than 2 s apart; nothing is decided on such a clock
    │   └── UnknownWallet      the ledger has nothing of this wallet
    ├── CheckpointRefused      a checkpoint is not one that this auditor signed of this ledger
    ├── IllegalTransition      the attempt or agent is not in a state that allows this step
    ├── TransactionRefused     a transaction is not exactly what was authorized, so it is not signed
    │   └── Unmovable          of a sweep: what it would move was shown not to move
    ├── VaultError             a session key is missing, or is not the one that was reserved
    └── ChainError             the chain or the rail didn't take or know a transaction
"""

from __future__ import annotations

__all__ = [
    "ChainError",
    "CheckpointRefused",
    "ClockUntrusted",
    "ExecutorError",
    "IllegalTransition",
    "LedgerError",
    "LedgerInUse",
    "LedgerTampered",
    "TransactionRefused",
    "UnknownWallet",
    "Unmovable",
    "VaultError",
]


class ExecutorError(Exception):
    """A fault. Its text is one line, written for the operator."""


class LedgerError(ExecutorError):
    """The ledger can't be opened or used; the text says why and names the file."""


class LedgerInUse(LedgerError):
    """Another process holds the SQLite file at `path`; the text says which, or how it may have come."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"`{path}` is in use by {holder}")
        self.path = path


class LedgerTampered(LedgerError):
    """A row is missing, or its seal doesn't fit what it says. Nothing fires for this wallet."""


class ClockUntrusted(LedgerError):
    """The clock was set, or stands more than 2 s before the ledger's last time or apart from the database's host."""


class UnknownWallet(LedgerError):
    """The ledger has no head for this wallet: nothing was ever reserved for it."""


class CheckpointRefused(ExecutorError):
    """What was given as a checkpoint isn't whole, or isn't this auditor's word of this ledger: nothing was compared."""


class IllegalTransition(ExecutorError):
    """The step isn't in the table of `executor.lifecycle` for the current state; nothing changed."""


class TransactionRefused(ExecutorError):
    """The signing gate saw a transaction that is not exactly the authorized one. It was not signed."""


class Unmovable(TransactionRefused):
    """A sweep would be undone by one of the token accounts in it: by that account, and by nothing else."""


class VaultError(ExecutorError):
    """The session key isn't in the vault, can't be opened with the master key, or isn't the reserved one."""


class ChainError(ExecutorError):
    """The chain didn't take a transaction, before executing it."""
