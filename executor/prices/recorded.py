"""The price stream beside a service, as its settings describe it: a recording, for trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from executor.prices.callers import believing
from executor.prices.hub import Hub
from executor.prices.replay import played, read_recording
from executor.prices.socket import WEBSOCKET, routes, running

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from executor.service.settings import Settings

__all__ = ["RecordedPrices"]


class RecordedPrices:
    """A hub that a recording is played to; who may connect is the service's to say."""

    websocket: Final[dict[str, Any]] = WEBSOCKET
    """What the server must be told."""

    def __init__(self, recording: Path, settings: Settings) -> None:
        """Read `recording`. Raises ExecutorError, OSError if it, or what `settings` name, can't be used."""
        self._ticks = read_recording(recording)
        self._hub = Hub(believing(settings))
        self.routes = routes(self._hub, settings.trusted_proxies)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Run the hub, and play the recording once, on the running event loop."""
        return running(self._hub, played(self._ticks, self._hub.publish))
