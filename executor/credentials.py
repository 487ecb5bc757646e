r"""Keys and tokens that clients send, and how none gets into a text.

One rule for all clients: white space around a credential is dropped, since files end with a newline; what is left must
be printable ASCII without white space, as a header takes it. No text that is raised, reported, logged or shown by
`repr` holds one. Libraries don't know which of their bytes are secret, so what they say passes through here.

>>> credential_of("ak_0123456789\n", "the API key")
'ak_0123456789'
>>> harmless("no such key: ak_0123456789", ["ak_0123456789"])
'no such key: …'
"""

from __future__ import annotations

import logging
import re
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote

from executor.errors import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["TokenUnavailable", "credential_of", "harmless", "harmless_error", "redacted", "secrets_in", "unlogged"]

TEXT_CHARS_MAX: Final = 200
"""What is told of another's words."""
SECRET_CHARS_MIN: Final = 8
"""What is as long may be a key; what is shorter may be any word."""

_is_credential = re.compile(r"[!-~]+").fullmatch


class TokenUnavailable(ExecutorError):
    """The program's own function raised instead of giving a token.

    What it raised is the `__context__`. Its text isn't repeated, since it may hold a credential, as an HTTP client's
    does that names the URL.
    """

    @classmethod
    def after(cls, error: Exception) -> Self:
        """Return what tells of `error`, by its name alone. Raise it `from None`."""
        return cls(f"no token could be had: its function raised `{type(error).__name__}`")


class _Reported(ExecutorError):
    """What a library raised, in its words, but for the credential that they held."""


def credential_of(given: object, what: str) -> str:
    """Return the credential that was `given`, without white space around it.

    Raises:
        ValueError: it can't be sent; the text names it as `what` and doesn't hold it.

    """
    if not isinstance(given, str):
        raise ValueError(f"{what} must be text")  # noqa: TRY004 - as for any other value that can't be sent
    credential = given.strip()
    if not credential:
        raise ValueError(f"{what} is empty")
    if not _is_credential(credential):
        raise ValueError(f"{what} holds white space, or what is no printable ASCII: it can't be sent in a header")
    return credential


_user = re.compile(r"(:/+).*@", re.DOTALL)
_named = re.compile(r"((?:password|passwd|api[-_]?key|token|secret)=)[^\s&`'\"]+", re.IGNORECASE)
_key = re.compile(r"\b((?:ak|hf)_)[A-Za-z0-9_-]{8,}")


def redacted(text: str) -> str:
    """Return `text`, in which somebody may have misplaced a credential, without what looks like one.

    >>> redacted("there is no ledger `postgresql://ann:secret@host/ledger?sslpassword=more`")
    'there is no ledger `postgresql://…@host/ledger?sslpassword=…`'
    """
    return _key.sub(r"\1…", _named.sub(r"\1…", _user.sub(r"\1…@", text)))


def secrets_in(resource: str) -> tuple[str, ...]:
    """Return what may be a key in a URL's path and query, as it stands there and decoded."""
    parts = re.split("[/?&=]", resource)
    return (*parts, *map(unquote, parts))


def harmless(text: object, secrets: Iterable[str]) -> str:
    """Return `text`, another's words, as one short line without `secrets`."""
    line = " ".join(str(text).split())
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SECRET_CHARS_MIN:
            line = line.replace(secret, "…")
    return "".join(each for each in line if each.isprintable())[:TEXT_CHARS_MAX]


def harmless_error(error: Exception, secrets: Iterable[str]) -> Exception:
    """Return `error` if nothing that a program may print of it holds one of `secrets`; else another in its place."""
    secrets = tuple(secrets)
    shown = "".join([*traceback.format_exception(error), repr(error)])
    if not any(secret in shown for secret in secrets if len(secret) >= SECRET_CHARS_MIN):
        return error
    return _Reported(harmless(str(error) or type(error).__name__, secrets))


_is_unlogged: ContextVar[bool] = ContextVar("is_unlogged", default=False)


@contextmanager
def unlogged() -> Iterator[None]:
    """Have HTTPX and HTTPCore log nothing of what this task asks meanwhile: they log whole URLs and heads.

    Don't yield from an async generator within it: that would take the caller's context along.
    """
    token = _is_unlogged.set(True)
    try:
        yield
    finally:
        _is_unlogged.reset(token)


def _is_logged(_record: logging.LogRecord) -> bool:
    return not _is_unlogged.get()


for _name in ("httpx", *(f"httpcore.{_part}" for _part in ("connection", "http11", "http2", "proxy", "socks"))):
    logging.getLogger(_name).addFilter(_is_logged)
