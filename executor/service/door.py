"""The door: all that decides who comes in, put together from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from executor.service.auth import Authentication
from executor.service.fences import Fences
from executor.service.files import SecretRefused, read_secret
from executor.service.sign_in import SignIn
from executor.service.tickets import Tickets
from executor.service.tokens import Issuer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute

    from executor.ledger import Ledger
    from executor.service.settings import Settings

__all__ = ["Door", "open_door", "require_usable"]


class Door(NamedTuple):
    """What `create_app` builds in."""

    authentication: Authentication
    routes: Sequence[BaseRoute]
    middleware: Sequence[Middleware]


def open_door(settings: Settings, ledger: Ledger) -> Door:
    """Return the door that `settings` describe; what is spent there is written to `ledger`.

    Raises:
        SecretRefused: a file with a key or a secret can't be used, or is missing for what the settings ask for.

    """
    require_usable(settings)
    middleware = [Middleware(Fences, settings=settings)]
    if settings.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
            expose_headers=["Retry-After"],
        )
        middleware.append(cors)
    if settings.secret_file is None:
        return Door(Authentication(settings), [], middleware)
    secret = read_secret(settings.secret_file)
    tickets = Tickets(ledger, secret)
    authentication = Authentication(settings, tickets=tickets)
    routes = tickets.routes(authentication)
    if settings.sign_in_domain is not None:
        routes += SignIn(settings, ledger, secret).routes()
    return Door(authentication, routes, middleware)


def require_usable(settings: Settings) -> None:
    """Raise SecretRefused for the first file that a door made of `settings` could not use."""
    Authentication(settings)
    if settings.secret_file is not None:
        read_secret(settings.secret_file)
    if settings.sign_in_domain is not None:
        Issuer(settings)
        if settings.secret_file is None:
            raise SecretRefused("sign-in needs `secret_file`, to know its challenges by")
