"""The agent execution stream, from the other side: every event of one wallet once, in order, whatever happens between.

Connections end, servers restart, replicas take over. The stream comes back after a while with the last event's id and
gets what it missed. Two fences keep an event from being handed over twice: within one epoch of the ledger ids rise, so
the position suffices; across epochs, after the ledger was restored from a backup, the last executionIds are remembered.

After a restore (`reset`) the stream reads the restored ledger again from the highest position up to which its memory
can tell old from new, hands over what it doesn't know, and says so first, with a `Reset`: what the ledger holds at or
below that position may have changed, and only the REST API can tell.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import re
from contextlib import aclosing, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

import httpx

from executor.credentials import TokenUnavailable, credential_of, harmless, harmless_error, unlogged
from executor.errors import ExecutorError
from executor.sse import Decoder, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

__all__ = ["AgentEvent", "AgentStream", "AuthenticationError", "Reset", "StreamRefused"]

log = logging.getLogger("executor.service.client")

SILENCE_S_MAX: Final = 50.0
"""Two heartbeats. A connection that is silent for longer is dead, whatever TCP says."""

CONNECT_S_MAX: Final = 10.0

RETRY_S: Final = 2.0
"""How long to wait before coming back, until the server says something else with `retry:`."""

DELAY_S_MAX: Final = 60.0
"""However many tries failed, and whatever a server asks for: a minute late is late enough."""

REMEMBERED_MAX: Final = 10_000
"""ExecutionIds kept to tell old from new after a restore: twenty days of one wallet's cap, in about 1.5 MB."""

REFUSAL_BYTES_MAX: Final = 65_536
"""What is read of an answer that says no."""

TRANSIENT: Final = frozenset({408, 425, 429})
"""Answers of the 4xx that mean: later."""

_event_id = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})").fullmatch

H = TypeVar("H", bound="Callable[..., object]")


class StreamRefused(ExecutorError):
    """The service said no, and will say so again: asking once more is of no use."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"the service refused the stream: {status} {said}".rstrip())
        self.status = status


class AuthenticationError(StreamRefused):
    """The service doesn't take the token, nor a fresh one."""


class StreamFault(ExecutorError):
    """A connection failed, or what came over it is no agent stream. The next one may be better."""


class AgentEvent(NamedTuple):
    """One event. Its members are those of TrueFinance's realtime API ("Event types")."""

    id: str
    """Store it once the event is dealt with: a stream that is given it as `last_event_id` goes on right after it."""
    name: str
    data: dict[str, Any]
    """Numbers are `Decimal`, digit for digit."""

    @property
    def execution_id(self) -> str:
        """What is unique to this event, over all replicas and for ever."""
        return str(self.data["executionId"])


class Reset(NamedTuple):
    """The ledger was put back to an earlier state; ids mean other events now.

    Every event of the ledger as it is now above `known_above` is handed over after this, unless it was before. What it
    holds up to there may differ from what was handed over: ask the REST API for the agents' executions.
    """

    id: str
    """Where the ledger stands."""
    known_above: str


class Position(NamedTuple):
    """What an event's id spells: a ledger's epoch, and an entry's number in the wallet's chain."""

    epoch: str
    seq: int

    @classmethod
    def of(cls, event_id: str) -> Self:
        """Read an id, or raise `StreamFault`."""
        if (read := _event_id(event_id)) is None:
            raise StreamFault(f"`{event_id[:80]}` is no id of an agent stream")
        return cls(read[1], int(read[2]))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


def delays_s(first_s: float, uniform: Callable[[float, float], float] = random.uniform) -> Iterator[float]:
    """Yield how long to wait before each next try: twice as long each time, spread so that clients don't come at once.

    Never less than `first_s`, which the server asked for, and never more than `DELAY_S_MAX`.
    """
    delay_s = first_s
    while True:
        yield min(DELAY_S_MAX, delay_s * uniform(1.0, 1.5))
        delay_s = min(DELAY_S_MAX, 2 * delay_s)


class AgentStream:
    """One wallet's events: `async for item in stream`, where an item is an `AgentEvent` or a `Reset`.

    The loop ends only by an exception or when you leave it; leaving `async with stream` closes the connection. Coming
    back to the loop goes on where it was left. One task at a time may read.
    """

    def __init__(
        self,
        url: str,
        *,
        wallet: str | None = None,
        token: Callable[[], str | Awaitable[str]] | None = None,
        last_event_id: str | None = None,
        from_start: bool = False,
        delays_s: Callable[[float], Iterator[float]] = delays_s,
    ) -> None:
        """Read the stream of the service at `url`.

        Args:
            url: where the service is mounted, as `https://holdfire.example`.
            wallet: name the wallet in the query, where the service allows that; else the token says whose events.
            token: called before each connection for the JWT; may be a coroutine function. White space around what
                it returns is dropped.
            last_event_id: go on right after this event.
            from_start: begin with the wallet's first event, not with the next.
            delays_s: yields how long to wait before each try, given the server's `retry:` in seconds.

        Raises:
            ValueError: `last_event_id` is not the id of an event, or the URL none of a service. That isn't repeated.

        """
        if not _is_service(url):
            raise ValueError("the service's URL must begin with https:// or http:// and name no user, query or part")
        if last_event_id is not None and _event_id(last_event_id) is None:
            raise ValueError(f"`{last_event_id}` is not the id of an event")
        self._url = url.rstrip("/") + "/api/agents/stream"
        self._query = ({"walletAddress": wallet} if wallet else {}) | ({"from": "start"} if from_start else {})
        self._token = token
        self._delays_s = delays_s
        self._handlers: dict[str, list[Callable[..., object]]] = {}
        self._memory = _Memory(None if last_event_id is None else Position.of(last_event_id))
        self._items: AsyncGenerator[AgentEvent | Reset, None] | None = None
        self._secrets: tuple[str, ...] = ()
        """The token that was sent last."""

    def on(self, name: str) -> Callable[[H], H]:
        """Decorate a handler of the events of this name; it may be a coroutine function.

        A handler's exception is logged and given to the `on_error` handlers; the stream goes on.
        """

        def register(handler: H) -> H:
            self._handlers.setdefault(name, []).append(handler)
            return handler

        return register

    def on_reset(self, handler: H) -> H:
        """Decorate a handler that is given each `Reset`."""
        return self.on(RESET)(handler)

    def on_error(self, handler: H) -> H:
        """Decorate a handler that is given each exception that doesn't end the stream."""
        return self.on(ERROR)(handler)

    async def run(self) -> None:
        """Read for ever, for programs that have handlers only.

        Raises:
            AuthenticationError: the token isn't taken, nor a fresh one.
            StreamRefused: the service says no for another reason that stays.
            ExecutorError: the environment names a proxy that can't be used.

        """
        async for _item in self:
            pass

    def sync(self) -> Iterator[AgentEvent | Reset]:
        """Iterate without an event loop of one's own. Nothing runs between two items: there is no thread.

        Raises:
            RuntimeError: an event loop runs in this thread: there, use `async for`.

        """
        with asyncio.Runner() as runner:
            try:
                while True:
                    yield runner.run(self._next())
            finally:
                runner.run(self.aclose())

    async def _next(self) -> AgentEvent | Reset:
        return await anext(aiter(self))

    async def aclose(self) -> None:
        """Close the connection. The stream can be read on, over another."""
        if self._items is not None:
            await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncGenerator[AgentEvent | Reset, None]:
        if self._items is None:
            self._items = self._read()
        return self._items

    async def _read(self) -> AsyncGenerator[AgentEvent | Reset, None]:
        """Connect again and again, and hand over what is new."""
        timeout = httpx.Timeout(CONNECT_S_MAX, read=SILENCE_S_MAX)
        try:
            try:
                made = httpx.AsyncClient(timeout=timeout, headers=HEADERS)
            except (httpx.InvalidURL, ValueError):
                raise StreamFault("the proxy that the environment names can't be used") from None
            async with made as client:
                async for item in self._reconnecting(client):
                    await self._tell(item.name if isinstance(item, AgentEvent) else RESET, item)
                    yield item
        finally:
            self._items = None

    async def _reconnecting(self, client: httpx.AsyncClient) -> AsyncGenerator[AgentEvent | Reset, None]:
        retry_s, is_denied = RETRY_S, False
        delays_s = self._delays_s(retry_s)
        while True:
            at_least_s, at_once = 0.0, False
            decoder = Decoder()
            try:
                async with aclosing(self._connection(client, decoder)) as items:
                    async for item in items:
                        yield item
                        at_once = isinstance(item, Reset)
                log.info("the agent stream ended; it comes back")
            except AuthenticationError as error:
                if is_denied or self._token is None:
                    raise
                await self._report(error)
                is_denied = at_once = True
            except _Later as later:
                at_least_s = later.after_s
                await self._report(later)
            except (httpx.HTTPError, ExecutorError) as error:
                if isinstance(error, StreamRefused):
                    raise
                await self._report(error)
            if decoder.last_event_id:  # it was a good connection
                is_denied = False
                retry_s = RETRY_S if decoder.retry_ms is None else decoder.retry_ms / 1000
                delays_s = self._delays_s(retry_s)
            if not at_once:
                await asyncio.sleep(max(next(delays_s), at_least_s))

    async def _connection(
        self, client: httpx.AsyncClient, decoder: Decoder
    ) -> AsyncGenerator[AgentEvent | Reset, None]:
        """Read one connection until it ends or a reset wants another."""
        query, headers = self._query, await self._authorization()
        if self._memory.position is not None:
            headers["Last-Event-ID"] = str(self._memory.position)
        request = client.build_request("GET", self._url, params=query, headers=headers)
        with unlogged():
            response = await client.send(request, stream=True)
        async with aclosing(response):
            if response.status_code != httpx.codes.OK:
                raise await _refusal(response, self._secrets)
            kind = response.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() != "text/event-stream":
                raise StreamFault(f"the answer is `{harmless(kind, self._secrets)}`, not an event stream")
            async for chunk in response.aiter_bytes():
                for event in decoder.feed(chunk):
                    if event.event == RESET:
                        yield self._memory.reset(Position.of(event.last_event_id))
                        return
                    if (item := self._memory.new(event)) is not None:
                        yield item
                if decoder.last_event_id:
                    self._memory.stand_at(Position.of(decoder.last_event_id))

    async def _authorization(self) -> dict[str, str]:
        if self._token is None:
            return {}
        try:
            given = self._token()
            token = await given if inspect.isawaitable(given) else given
        except Exception as error:  # noqa: BLE001 - whatever a program's own code raises
            raise TokenUnavailable.after(error) from None
        try:
            token = credential_of(token, "what the token's function returned")
        except ValueError as error:
            raise StreamFault(str(error)) from None
        self._secrets = (token,)
        return {"Authorization": f"Bearer {token}"}

    async def _report(self, error: Exception) -> None:
        error = harmless_error(error, self._secrets)
        log.warning("the agent stream goes on after: %s", str(error) or type(error).__name__)
        await self._tell(ERROR, error)

    async def _tell(self, name: str, what: object) -> None:
        for handler in self._handlers.get(name, ()):
            try:
                result = handler(what)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:
                log.exception("a handler of `%s` failed", name)
                if name != ERROR:
                    await self._tell(ERROR, error)


RESET: Final = "reset"
ERROR: Final = "error"
HEADERS: Final = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}


class _Memory:
    """What was handed over: the position, and the last executionIds."""

    def __init__(self, position: Position | None) -> None:
        self.position = position
        """After what to ask; None: nothing is known yet, not even where the ledger stands."""
        self._floor = 0 if position is None else position.seq
        """The highest number at or below which the ids aren't remembered. Only a reset asks."""
        self._ids: dict[str, int] = {}
        """The executionIds of this epoch above the floor, oldest first, and their numbers."""
        self._before: dict[str, int] = {}
        """Those of the epochs before, as far as the new one hasn't told them again."""

    def stand_at(self, position: Position) -> None:
        """Take the server's word for where the stream stands, between events."""
        if self.position is None:
            self._floor = position.seq
        if self.position is None or self.position.epoch != position.epoch or self.position.seq < position.seq:
            self.position = position

    def new(self, event: ServerSentEvent) -> AgentEvent | None:
        """Return the event; None if it was handed over already."""
        position = Position.of(event.last_event_id)
        data = _read_json(event.data)
        if self.position is None:
            self._floor = position.seq - 1
        elif self.position.epoch == position.epoch and position.seq <= self.position.seq:
            return None
        self.position = position
        execution_id = data["executionId"]
        is_known = execution_id in self._ids or self._before.pop(execution_id, None) is not None
        self._ids[execution_id] = position.seq
        while len(self._ids) > REMEMBERED_MAX:
            self._forget(self._ids)
        return None if is_known else AgentEvent(str(position), event.event, data)

    def reset(self, head: Position) -> Reset:
        """Begin the restored ledger: from the floor on, as far as it reaches that."""
        self._before |= self._ids
        self._ids = {}
        while len(self._before) > REMEMBERED_MAX:
            self._forget(self._before)
        self._floor = min(self._floor, head.seq)
        self.position = head._replace(seq=self._floor)
        return Reset(str(head), str(self.position))

    def _forget(self, ids: dict[str, int]) -> None:
        self._floor = max(self._floor, ids.pop(next(iter(ids))))


class _Later(StreamFault):
    """The service can't just now."""

    def __init__(self, status: int, after_s: float) -> None:
        super().__init__(f"the service answers {status}")
        self.after_s = after_s


async def _refusal(response: httpx.Response, secrets: tuple[str, ...]) -> StreamRefused | _Later:
    """Return what an answer other than 200 means."""
    status = response.status_code
    if status in TRANSIENT or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        after = response.headers.get("retry-after", "")
        return _Later(status, min(float(after), DELAY_S_MAX) if re.fullmatch("[0-9]{1,9}", after) else 0.0)
    said = b""
    async for chunk in response.aiter_bytes():
        said += chunk
        if len(said) > REFUSAL_BYTES_MAX:
            break
    text = said.decode(errors="replace")
    with suppress(ValueError):
        problem = json.loads(said)
        if isinstance(problem, dict):
            text = f"{problem.get('code', '')}: {problem.get('detail', '')}"
    denied = status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
    return (AuthenticationError if denied else StreamRefused)(status, harmless(text, secrets))


def _is_service(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        return False
    is_more = parts.userinfo or parts.query or parts.fragment
    return parts.scheme in {"https", "http"} and bool(parts.host) and not is_more


def _read_json(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise StreamFault(f"an event's data is no JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("executionId"), str):
        raise StreamFault("an event has no executionId")
    return data


def _no_number(name: str) -> Decimal:
    raise ValueError(f"`{name}` is no JSON number")
