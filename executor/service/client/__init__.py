"""What programs on the other side of the service use. Nothing of the server is imported here."""

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
