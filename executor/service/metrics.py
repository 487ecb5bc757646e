"""What Prometheus counts. No wallet, agent or id is a label: there are without end, and they are nobody's business."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Measured", "Metrics"]

STREAM_PATH: Final = "/api/agents/stream"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
"""Others are counted together: callers make them up."""


class Metrics:
    """One application's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "holdfire_requests", "Requests that were answered.", ("method", "route", "status"), registry=self._registry
        )
        self.seconds = Histogram("holdfire_request_seconds", "How long answers took.", registry=self._registry)
        self.open_streams = Gauge("holdfire_open_streams", "Event streams that are open.", registry=self._registry)
        self.streams = Counter("holdfire_streams", "Event streams that were asked for.", registry=self._registry)

    def response(self) -> Response:
        """Return all of it, in Prometheus' text format."""
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class Measured:
    """The ASGI middleware that counts. A stream's frames don't pass through it: it counts only that it is open."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].removeprefix(scope.get("root_path", "")) == STREAM_PATH:
            self._metrics.streams.inc()
            with self._metrics.open_streams.track_inprogress():
                await self._app(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = "none"

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.seconds.time():
            await self._app(scope, receive, noting)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, getattr(scope.get("route"), "path", "none"), status).inc()
