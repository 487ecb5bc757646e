"""What programs on the other side of the service use. Nothing of the server is imported here."""

from executor.service.client.fire import FireClient, OutcomeUnknown, ServiceAway

__all__ = ["FireClient", "OutcomeUnknown", "ServiceAway"]
