"""What a request must pass before any endpoint sees it.

| fence | against | answer |
|---|---|---|
| the head's size | header bombs that come in one piece | 431 |
| `Host` | DNS rebinding: a page whose name was turned to our address | 421 |
| rate per address | floods | 429, with `Retry-After` |
| `Origin`, on writes and WebSockets | other sites' pages; a request without one isn't a page's | 403 |
| the body's size and time | floods, slow-loris | 413, 408 |

Slow heads are cut off by `executor.service.server`, and so is what a request goes on sending after its answer.
"""

from __future__ import annotations

import asyncio
import re
from math import ceil
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.websockets import WebSocket

from executor.service.problems import Problem
from executor.service.rates import Rates, client_of, payer_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from executor.service.settings import Settings

__all__ = ["Fences", "too_many"]

HEAD_BYTES_MAX: Final = 16_384
HEADERS_MAX: Final = 100
CLOSE: Final = {"Connection": "close"}
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing: a browser keeps foreign pages from reading the answers by itself."""
HEADERS: Final = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]

_host = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.\-]+)(:[0-9]{1,5})?", re.ASCII).fullmatch


class Fences:
    """The ASGI middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._rates = Rates(settings.requests_per_minute_per_ip)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what passes; answer what doesn't."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope, Headers(scope=scope))
            if scope["type"] == "http":
                whole = await self._with_body(Headers(scope=scope), receive)
                if whole is None:
                    return
                receive, send = whole, _with_headers(send)
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        size = sum(len(name) + len(value) for name, value in headers.raw)
        size += len(scope.get("raw_path") or b"") + len(scope["query_string"])
        if size > HEAD_BYTES_MAX or len(headers) > HEADERS_MAX:
            detail = f"a head may have {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers"
            raise Problem(431, "HEAD_TOO_LARGE", detail, headers=CLOSE)
        host = self._host(headers)
        peer = (scope.get("client") or ("", 0))[0]
        client = client_of(peer, headers.getlist("x-forwarded-for"), self._settings.trusted_proxies)
        wait_s = self._rates.wait_s(payer_of(client), asyncio.get_running_loop().time())
        if wait_s:
            raise too_many(wait_s)
        if scope["type"] == "websocket" or scope["method"] not in READING:
            self._check_origin(host, headers)

    def _host(self, headers: Headers) -> str:
        """Return the `Host`, with its port, if it is one of ours."""
        told = headers.getlist("host")
        found = _host(told[0].lower()) if len(told) == 1 else None
        if found is None or found[1] not in self._settings.hosts:
            raise Problem(421, "HOST_UNKNOWN", "nothing is served under this name")
        return found[0]

    def _check_origin(self, host: str, headers: Headers) -> None:
        for origin in headers.getlist("origin"):
            own = origin in {f"http://{host}", f"https://{host}"}
            if not own and origin not in self._settings.origins:
                raise Problem(403, "ORIGIN_FOREIGN", "pages of this site may not write here")

    async def _with_body(self, headers: Headers, receive: Receive) -> Receive | None:
        """Return `receive` with the whole body at hand; None if the client left before that: half a body is none."""
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            return receive
        size_max = self._settings.body_bytes_max
        if int(headers.get("content-length", "0")) > size_max:  # the server refuses what is no number
            raise _too_large(size_max)
        body, more = b"", True
        try:
            async with asyncio.timeout(self._settings.header_deadline_s):
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body, more = body + message.get("body", b""), message.get("more_body", False)
                    if len(body) > size_max:
                        raise _too_large(size_max)
        except TimeoutError:
            raise Problem(408, "TOO_SLOW", "the body took too long", headers=CLOSE) from None
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return pending.pop() if pending else await receive()

        return replayed


def too_many(wait_s: float) -> Problem:
    """Return the answer to whoever asked too often, who may again in `wait_s`."""
    after = {"Retry-After": str(ceil(wait_s))}
    return Problem(429, "TOO_MANY_REQUESTS", "too many requests: wait as `Retry-After` says", headers=after)


def _too_large(size_max: int) -> Problem:
    return Problem(413, "BODY_TOO_LARGE", f"a body may have {size_max} bytes")


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return with_headers


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem.response()
    if scope["type"] == "http":
        await response(scope, receive, _with_headers(send))
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
