"""What programs on the other side of the service use. Nothing of the server is imported here.

Its parts are imported when they are asked for: to fire, or to halt, no extra need be installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from executor.service.client.fire import FireClient, OutcomeUnknown, ServiceAway
    from executor.service.client.stream import AgentEvent, AgentStream, AuthenticationError, Reset, StreamRefused

__all__ = [
    "AgentEvent",
    "AgentStream",
    "AuthenticationError",
    "FireClient",
    "OutcomeUnknown",
    "Reset",
    "ServiceAway",
    "StreamRefused",
]

OF_FIRE: Final = {"FireClient", "OutcomeUnknown", "ServiceAway"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    if name not in __all__:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{'fire' if name in OF_FIRE else 'stream'}"), name)
