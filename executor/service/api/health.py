"""How the service itself is: for whoever runs it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from executor.service.api.operation import Answer, Operation, Who

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from executor.service.metrics import Metrics
    from executor.service.parts import Parts

__all__ = ["operations"]


class Health(Answer):
    """It is well; what isn't is answered by a problem."""

    status: str = "ok"


def operations(parts: Parts, metrics: Metrics) -> list[Operation]:
    """Return what can be asked of the service itself."""

    async def ready(_request: Request, _wallet: str) -> Answer:
        await asyncio.to_thread(lambda: parts.guard.guard.ledger.limits)
        return Health()

    async def live(_request: Request, _wallet: str) -> Answer:
        return Health()

    async def measure(_request: Request, _wallet: str) -> Response:
        return metrics.response()

    return [
        Operation("GET", "/healthz", "Tell whether the ledger can be read and trusted", Who.ANYONE, ready, Health),
        Operation("GET", "/healthz/live", "Tell that the process answers", Who.ANYONE, live, Health),
        Operation("GET", "/metrics", "Tell what Prometheus counts", Who.OPERATOR, measure, None),
    ]
