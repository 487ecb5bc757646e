"""What the endpoints share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from executor.guard import AsyncGuard
    from executor.service.auth import Authentication
    from executor.service.settings import Settings
    from executor.service.tailer import Tailer
    from executor.signing import SessionVault

__all__ = ["Parts"]


class Parts(NamedTuple):
    """The parts of one application. Each room of endpoints makes its routes from them."""

    guard: AsyncGuard
    settings: Settings
    authentication: Authentication
    tailer: Tailer
    vault: SessionVault | None
    """Where session keys are made; None: this service makes none."""
