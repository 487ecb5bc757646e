"""The hub: who is connected, who wants which price, and one write to each of them.

A tick is encoded once and written to everyone who wants it, in one loop that never waits. A client that hasn't taken
the last write yet gets none: of what comes meanwhile only the latest of each symbol (and of each of its bars) is kept
for it, and written once it has caught up. One that takes nothing for 10 s is dropped. So a slow client costs the others
nothing, and itself what was overtaken.

Connections are counted here, all of them on one event loop: between counting and taking a place nothing else runs, so
the caps are exact. They hold for one process; each replica counts its own.

It knows sockets only as something to write to (`Wire`); `executor.prices.socket` brings the real ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from executor.prices.bars import Bars
from executor.prices.protocol import HEARTBEAT_MS, CloseCode, ErrorCode, Failure, ServerSession, Step
from executor.service.rates import payer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from executor.prices.protocol import Bar, Tick, Tier

__all__ = [
    "AuthenticationUnavailable",
    "Authenticator",
    "Caps",
    "Connection",
    "Hub",
    "Refusal",
    "Subject",
    "Wire",
    "framed",
]

log = logging.getLogger("executor.prices")

WRITE_S_MAX: Final = 10.0
"""How long a client may leave a write untaken: far longer than any network's hiccup that TCP survives unnoticed."""

BEATS: Final = HEARTBEAT_MS // 1_000
"""Heartbeats are spread over this many seconds, by when each connection began: no second pings everyone."""

RETRY_AFTER_S: Final = 30


class Subject(NamedTuple):
    """Whose credential it is, and what it is worth."""

    name: str
    """Connections are counted by it."""
    tier: Tier
    expires_at_s: int | None = None
    """Unix seconds, exclusive. None: no end is known, so it is looked at again at each heartbeat."""


class Authenticator(Protocol):
    """Tells whose a credential is."""

    async def authenticate(self, credential: str) -> Subject | None:
        """Return whose `credential` is; None: nobody's, or no longer.

        Raises:
            AuthenticationUnavailable: that can't be told now; nobody is let in meanwhile.

        """


class AuthenticationUnavailable(Exception):
    """Whose a credential is can't be told now; the text is for the operator."""


class Caps(NamedTuple):
    """How many connections one process takes."""

    connections: int = 15_000
    per_address: int = 50


class Refusal(NamedTuple):
    """Why a connection isn't taken: an HTTP status, before any upgrade."""

    status: int
    code: str
    detail: str
    retry_after_s: int = RETRY_AFTER_S


class Wire(Protocol):
    """One client's socket, as the hub sees it."""

    def write(self, data: bytes) -> None:
        """Write without waiting; what the kernel doesn't take is kept."""

    def is_idle(self) -> bool:
        """Tell whether the kernel has taken all that was written."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; the socket is gone soon after, whatever the client does."""

    def abort(self) -> None:
        """Drop the socket now."""


class Connection:
    """One client that was let in."""

    __slots__ = ("_behind_since_s", "_waiting", "beat", "credential", "session", "subject", "wire")

    def __init__(
        self, wire: Wire, session: ServerSession, subject: Subject, *, credential: str | None, beat: int
    ) -> None:
        self.wire = wire
        self.beat = beat
        """Which of the `BEATS` is its heartbeat."""
        self.session = session
        self.subject = subject
        self.credential = credential
        """Kept only if it has no end."""
        self._waiting: dict[object, bytes] | None = None
        self._behind_since_s: float | None = None

    def push(self, key: object, data: bytes) -> bool:
        """Write `data` if all before it was taken, else keep it as the latest of `key`; tell whether it was written."""
        if self._waiting is None and self.wire.is_idle():
            self.wire.write(data)
            return True
        if self._waiting is None:
            self._waiting = {}
            self._behind_since_s = time.monotonic()
        self._waiting[key] = data
        return False

    def caught_up(self) -> bool:
        """Write all that waits, since everything before it was taken; tell whether anything did."""
        if self._waiting is None:
            return False
        waiting, self._waiting, self._behind_since_s = self._waiting, None, None
        self.wire.write(b"".join(waiting.values()))
        return True

    def forget(self, symbols: AbstractSet[str]) -> None:
        """Don't write what waits of `symbols`."""
        if self._waiting is not None:
            self._waiting = {key: data for key, data in self._waiting.items() if _symbol_of(key) not in symbols}

    def is_behind_since(self, at_s: float) -> bool:
        """Tell whether a write has been waiting since before `at_s`."""
        return self._behind_since_s is not None and self._behind_since_s < at_s


class Hub:
    """All connections of one process. Everything is called on its event loop."""

    def __init__(self, authenticator: Authenticator, caps: Caps | None = None, *, bars: Bars | None = None) -> None:
        self.authenticator = authenticator
        self.caps = caps or Caps()
        self.dropped_as_too_slow = 0
        self._bars = bars or Bars()
        self._open = 0
        self._open_by_address: Counter[str] = Counter()
        self._open_by_subject: Counter[str] = Counter()
        self._subscribers: dict[str, dict[Connection, None]] = {}
        self._beats: list[dict[Connection, None]] = [{} for _ in range(BEATS)]
        self._behind: dict[Connection, None] = {}

    @property
    def connections(self) -> int:
        """How many sockets are open."""
        return self._open

    # Who is let in.

    def claim(self, address: str) -> Refusal | Callable[[], None]:
        """Take a place for a socket from `address`; return what gives it back, or why there is none."""
        payer = payer_of(address)  # of IPv6 the /64: a host chooses addresses in it at will
        if self._open >= self.caps.connections:
            return Refusal(503, "CONNECTIONS_FULL", "all connections are taken")
        if self._open_by_address[payer] >= self.caps.per_address:
            return Refusal(429, "ADDRESS_CONNECTIONS", f"at most {self.caps.per_address} connections from one address")
        self._open += 1
        self._open_by_address[payer] += 1

        def release() -> None:
            self._open -= 1
            _count_down(self._open_by_address, payer)

        return release

    def join(self, wire: Wire, subject: Subject, credential: str) -> Connection | None:
        """Greet a client whose socket has its place; None: its tier has no more, so it was told, and closed."""
        if self._open_by_subject[subject.name] >= subject.tier.connections_max:
            wire.write(framed(Failure(ErrorCode.SYMBOL_LIMIT, "Tier cap reached").encode()))
            wire.close(CloseCode.SYMBOL_LIMIT, "too many connections")
            return None
        expires_at_ms = None if subject.expires_at_s is None else subject.expires_at_s * 1_000
        session = ServerSession(subject.tier, now_ms=_now_ms(), expires_at_ms=expires_at_ms)
        kept = credential if expires_at_ms is None else None
        connection = Connection(wire, session, subject, credential=kept, beat=_beat())
        self._open_by_subject[subject.name] += 1
        self._beats[connection.beat][connection] = None
        self._do(connection, session.greeting())
        return connection

    def receive(self, connection: Connection, message: str | bytes) -> None:
        """Take one message of a client's."""
        if isinstance(message, bytes):
            self._close(connection, CloseCode.NOT_TEXT)
            return
        self._do(connection, connection.session.receive(message, _now_ms()))

    def caught_up(self, connection: Connection) -> None:
        """Go on writing: the client has taken all that was written."""
        self._behind.pop(connection, None)
        connection.caught_up()

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended, however. Again is harmless."""
        self._unsubscribe(connection, connection.session.end())
        self._behind.pop(connection, None)
        if connection in self._beats[connection.beat]:
            del self._beats[connection.beat][connection]
            _count_down(self._open_by_subject, connection.subject.name)

    # What they are told.

    def publish(self, tick: Tick, volume: Decimal = Decimal(0)) -> None:
        """Send `tick` to everyone who wants it, and the bars that it closes. `volume` is what was traded at it.

        Raises:
            ValueError: the tick can't be written as a frame; nobody was told.

        """
        data = framed(tick.encode())
        for bar in self._bars.add(tick, volume, _now_ms()):
            self._publish_bar(bar)
        self._write(tick.symbol, tick.symbol, data)

    def _publish_bar(self, bar: Bar) -> None:
        self._write(bar.symbol, (bar.symbol, bar.interval), framed(bar.encode()))

    def _write(self, symbol: str, key: object, data: bytes) -> None:
        for connection in self._subscribers.get(symbol, ()):
            if not connection.push(key, data):
                self._behind[connection] = None

    async def run(self) -> None:
        """Ping, drop who doesn't read, and close bars, each second, until canceled."""
        beat = _beat()
        while True:
            await asyncio.sleep(0.25)
            while beat != _beat():
                beat = (beat + 1) % BEATS
                await self.heartbeat(beat)
            for bar in self._bars.close_until(_now_ms()):
                self._publish_bar(bar)

    async def heartbeat(self, beat: int) -> None:
        """Do what is due for the connections of one of the `BEATS`, and for all who don't read."""
        self.drop_overdue()
        for connection in list(self._beats[beat]):
            if await self._is_still_good(connection):
                self._do(connection, connection.session.heartbeat(_now_ms()))
            else:
                self._close(connection, CloseCode.TOKEN_EXPIRED)

    def drop_overdue(self) -> None:
        """Drop who hasn't read for `WRITE_S_MAX`."""
        overdue_s = time.monotonic() - WRITE_S_MAX
        for connection in [each for each in self._behind if each.is_behind_since(overdue_s)]:
            self.dropped_as_too_slow += 1
            self.leave(connection)
            connection.wire.abort()

    async def _is_still_good(self, connection: Connection) -> bool:
        """Tell whether a credential without an end is still worth the same; while nobody can tell, it is."""
        if connection.credential is None:
            return True
        try:
            return await self.authenticator.authenticate(connection.credential) == connection.subject
        except AuthenticationUnavailable as error:
            log.error("open price streams can't be looked at again: %s", error)  # noqa: TRY400 - one line says it
            return True

    def _do(self, connection: Connection, step: Step) -> None:
        if step.removed:
            self._unsubscribe(connection, step.removed)
        for symbol in step.added:
            self._subscribers.setdefault(symbol, {})[connection] = None
        for text in step.send:
            if step.close is not None:  # the last words, whatever waits: they are not conflated
                connection.wire.write(framed(text))
            elif not connection.push(Step, framed(text)):
                self._behind[connection] = None
        if step.close is not None:
            self._close(connection, step.close)

    def _close(self, connection: Connection, code: CloseCode) -> None:
        self.leave(connection)
        connection.wire.close(code, code.name.lower().replace("_", " "))

    def _unsubscribe(self, connection: Connection, removed: AbstractSet[str]) -> None:
        for symbol in removed:
            subscribers = self._subscribers[symbol]
            del subscribers[connection]
            if not subscribers:
                del self._subscribers[symbol]
        connection.forget(removed)


def framed(text: str) -> bytes:
    """Return `text` as one WebSocket frame of a server (RFC 6455, section 5.2): final, text, not masked."""
    data = text.encode()
    if len(data) < 126:  # noqa: PLR2004 - the RFC's
        return bytes((0x81, len(data))) + data
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data  # our frames stay far below 64 KiB


def _symbol_of(key: object) -> object:
    return key[0] if isinstance(key, tuple) else key


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _beat() -> int:
    return int(time.monotonic()) % BEATS


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
