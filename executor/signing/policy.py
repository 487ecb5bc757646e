"""What the operator may set for the inspection: how much a transaction may cost, and what is let pass unread.

Nothing here widens what a permit or an authorization allows. The defaults let only what can be decoded pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's limits and lists. All limits are inclusive."""

    priority_fee_lamports_max: int = 1_000_000
    """What the session wallet may pay to be included sooner; the default is a thousandth of a SOL."""
    rent_lamports_max: int = 5_000_000
    """What it may pay for token accounts that it opens for itself; the default is enough for two."""
    cosigners_max: int = 3
    """Each signature costs the session wallet 5,000 lamports."""
    programs: frozenset[str] = frozenset()
    """Programs, base58, that a transaction may call though they can't be decoded: then floors hold what they do."""
    mints: frozenset[str] = frozenset()
    """Token-2022 mints, base58, that are accepted with powers in others' hands: see `executor.signing.tokens`."""
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pinned lookup tables: what each holds, base58, whatever the chain is said to hold."""
