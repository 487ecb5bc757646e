"""REST: what the stream tells as it happens, told as it stands. Each noun has a module, and lists its operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executor.service.api import agents, executions, halts, health, wallets
from executor.service.api.operation import routes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute

    from executor.service.api.operation import Operation
    from executor.service.metrics import Metrics
    from executor.service.parts import Parts

__all__ = ["operations", "routes"]


def operations(parts: Parts, metrics: Metrics) -> list[Operation]:
    """Return all that can be asked: what the routes and the OpenAPI document are both made from."""
    nouns = (agents, halts, executions, wallets)
    return [each for noun in nouns for each in noun.operations(parts)] + health.operations(parts, metrics)


def routes(parts: Parts, operations: Sequence[Operation]) -> list[BaseRoute]:
    """Return where `operations` are answered."""
    return routes_of(parts, operations)
