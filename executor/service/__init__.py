"""The service: events and state over HTTP."""

from executor.service.app import create_app
from executor.service.server import bind, serve

__all__ = ["bind", "create_app", "serve"]
