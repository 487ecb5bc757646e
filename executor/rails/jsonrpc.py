"""JSON-RPC 2.0 over HTTP: one question, one answer, and what to do when none comes that can be believed.

A URL usually carries the key to a provider's account, so nothing here writes it down: errors and `repr` name the host
alone, and the libraries below log nothing, since a server's redirect repeats the URL. HTTPX's client isn't used, only
the transport below it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
from pydantic import ValidationError

from executor.credentials import harmless, secrets_in, unlogged
from executor.errors import ChainError
from executor.rails.passing import code_passes, status_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Declined", "JsonRpc", "Unanswered"]

ANSWER_BYTES_MAX: Final = 16 * 2**20
"""Room for the accounts of a wallet that was sent thousands of worthless tokens, and no more."""

PLACE_CHARS_MAX: Final = 200

T = TypeVar("T")


class Declined(ChainError):
    """The server answered with an error of its own."""

    def __init__(self, text: str, code: int, data: object) -> None:
        super().__init__(text)
        self.code = code
        self.data = data


class Unanswered(ChainError):
    """No answer, or none that can be believed; the next one may be better."""


class JsonRpc:
    """One server. Its connections belong to the event loop that first uses it; close it there."""

    def __init__(self, url: str, *, timeout_s: float, pauses_s: Sequence[float]) -> None:
        """Prepare to ask the server at `url`; nothing is sent yet.

        Args:
            url: https, or http.
            timeout_s: for each try, from connecting to the last byte.
            pauses_s: how long to wait before the second try, the third, and so on; then it is given up.

        Raises:
            ValueError: the URL isn't one of a server, or holds a user's name. It isn't repeated in the text.

        """
        try:
            self._url = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            raise ValueError("the URL of the chain's server can't be read") from None
        if self._url.scheme not in {"https", "http"} or not self._url.host or self._url.userinfo:
            raise ValueError("the URL of the chain's server must begin with https:// or http:// and name a host alone")
        self.host: Final = self._url.host
        self._secrets = secrets_in(self._url.raw_path.decode("ascii"))
        self._timeout_s = timeout_s
        self._pauses_s = tuple(pauses_s)
        self._transport = httpx.AsyncHTTPTransport()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.host!r})"

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def ask(self, method: str, parameters: Sequence[Any], read: Callable[[Any], T]) -> T:
        """Return what `read` makes of the result. Asked again if no answer comes: so only what may be done twice.

        Args:
            method: the procedure's name.
            parameters: its parameters.
            read: takes the result as parsed JSON. It raises Unanswered for one that another try may better, pydantic's
                ValidationError or ChainError for one that isn't to be believed.

        Raises:
            Declined: the server answered with an error that stays (`executor.rails.passing`).
            Unanswered: it didn't answer, or not in time, or not this question, or what passes, at the last try too.
            ChainError: it answered something that isn't documented.

        """
        for pause_s in self._pauses_s:
            try:
                return await self._ask_once(method, parameters, read)
            except Unanswered:
                await asyncio.sleep(pause_s)
        return await self._ask_once(method, parameters, read)

    async def _ask_once(self, method: str, parameters: Sequence[Any], read: Callable[[Any], T]) -> T:
        question_id = secrets.token_hex(8)  # unlike any other's: an answer that went astray isn't taken for ours
        question = {"jsonrpc": "2.0", "id": question_id, "method": method, "params": parameters}
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._post(json.dumps(question).encode())
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:  # a timeout is an OSError
            raise Unanswered(f"{self.host} didn't answer `{method}`: {type(error).__name__}") from None
        if status_passes(status):
            raise Unanswered(f"{self.host} answered `{method}` with HTTP {status}")
        if status != httpx.codes.OK:
            raise ChainError(f"{self.host} answered `{method}` with HTTP {status}")
        result = self._result(method, question_id, body)
        try:
            return read(result)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])[:PLACE_CHARS_MAX]
            raise ChainError(f"{self.host} answered `{method}` with what isn't documented, at `{where}`") from None

    async def _post(self, content: bytes) -> tuple[int, bytes]:
        # Unzipped, a small answer could fill the memory.
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        with unlogged():
            return await self._read(httpx.Request("POST", self._url, headers=headers, content=content))

    async def _read(self, request: httpx.Request) -> tuple[int, bytes]:
        response = await self._transport.handle_async_request(request)
        try:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise ChainError(f"{self.host} packed its answer, unasked")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise ChainError(f"{self.host} answered with more than {ANSWER_BYTES_MAX} bytes")
        finally:
            await response.aclose()
        return response.status_code, bytes(body)

    def _result(self, method: str, question_id: str, body: bytes) -> object:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise Unanswered(f"{self.host} answered `{method}` with what can't be read") from None
        if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0" or answer.get("id") != question_id:
            raise Unanswered(f"{self.host} answered another question than `{method}`")
        error = answer.get("error")
        if error is None:
            if "result" not in answer:
                raise Unanswered(f"{self.host} answered `{method}` with neither a result nor an error")
            return answer["result"]
        code = error.get("code") if isinstance(error, dict) else None
        if not isinstance(code, int):
            raise Unanswered(f"{self.host} answered `{method}` with an error that can't be read")
        text = f"{self.host} declined `{method}`: {code} {harmless(error.get('message'), self._secrets)}"
        data = error.get("data")
        raise Unanswered(text) if code_passes(code, data) else Declined(text, code, data)
