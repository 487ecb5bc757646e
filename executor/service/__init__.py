"""The service: events and state over HTTP."""

from executor.service.app import create_app
from executor.service.server import bind, serve
from executor.service.settings import Settings

__all__ = ["Settings", "bind", "create_app", "serve"]
