r"""The price stream's protocol: its frames, and the state of both ends of a connection, without any I/O.

    client                                   server
      │  ── upgrade, with a credential ──▶    │
      │  ◀── hello: tier, limits ──           │
      │  ── subscribe, unsubscribe ──▶        │   all or nothing: over the cap it changes nothing, and closes
      │  ◀── price, bar_update ──             │
      │  ◀── ping, every 30 s ──              │   with an expired token it closes instead
      │  ── pong ──▶                          │   missing at the next ping: closed
      │  ◀── error, then close ──             │

There is no answer to a subscription that is taken: one that isn't closes the connection. So the ends agree: on an open
connection, once everything sent has arrived, the server's `subscribed` is the client's. Nothing outlives a connection.

`ServerSession` and `ClientSession` take a message and the time, and return a `Step`: what to send, and whether to
close after it. Their callers do just that, in that order. A session that closed stays closed, whatever comes.

>>> decode_from_client('{"type": "subscribe", "assets": ["SOL", "BTC"]}')
Subscribe(assets=('SOL', 'BTC'))
>>> Tick("SOL", Decimal("178.40"), 1746144000000, "pyth", stale=False).encode()
'{"type":"price","data":{"symbol":"SOL","priceUsd":178.40,"ts":1746144000000,"source":"pyth","stale":false}}'
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from permits.canonical import NUMBER_CHARACTERS_MAX, parse
from permits.errors import PermitError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

__all__ = [
    "HEARTBEAT_MS",
    "HELLO_MS_MAX",
    "INTERVALS_MS",
    "QUIET_MS_MAX",
    "TIERS",
    "Bar",
    "ClientSession",
    "ClientState",
    "CloseCode",
    "ErrorCode",
    "Failure",
    "FrameError",
    "Hello",
    "Ping",
    "Pong",
    "ServerSession",
    "Step",
    "Subscribe",
    "Tick",
    "Tier",
    "Unsubscribe",
    "decode_from_client",
    "decode_from_server",
]

HEARTBEAT_MS: Final = 30_000
"""How often a server pings; a pong may take as long."""

HELLO_MS_MAX: Final = 10_000
"""How long a client waits for the hello: it is the first thing that a server writes."""

QUIET_MS_MAX: Final = 45_000
"""How long a server may say nothing, pings included, before its client takes it for dead: half a heartbeat late."""

INTERVALS_MS: Final = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
}

MESSAGES_AT_ONCE: Final = 100
MESSAGES_PER_S: Final = 10
"""What one client may send, pongs included: a few subscriptions a second are already a mistake of its program."""

CHANGES_AT_ONCE: Final = 4
"""How many times its cap of assets a client may name at once in subscriptions: all of them, all away, twice over."""
CHANGES_REFILL_S: Final = 10
"""In how many seconds a client may again name as many assets as its cap."""

ASSETS_PER_FRAME: Final = 200
"""How many assets this client names in a frame: at 44 characters each, well below the 16 KiB that a frame may take."""

TIME_MS_MAX: Final = 2**53 - 1

_is_symbol = re.compile(r"[A-Za-z0-9]{1,44}").fullmatch  # a ticker, or a mint in base58
_is_source = re.compile(r"[A-Za-z0-9._:-]{1,64}").fullmatch


# Who may have how much.


class Tier(NamedTuple):
    """What a subject's tier allows."""

    name: str
    connections_max: int
    assets_max: int
    """On each connection."""


TIERS: Final = {tier.name: tier for tier in (Tier("free", 1, 10), Tier("pro", 5, 100), Tier("quant", 25, 1_000))}


# How a connection ends.


class ErrorCode(StrEnum):
    """Why the server will close, told in an error frame."""

    BAD_JSON = "bad_json"
    SYMBOL_LIMIT = "symbol_limit"
    """More assets, or more connections, than the tier allows."""
    UNKNOWN_TYPE = "unknown_type"


class CloseCode(IntEnum):
    """Why a connection was closed: the WebSocket's close code. Those from 4000 on are this protocol's."""

    NORMAL = 1000
    BROKEN = 1002
    """The other end sent what no such end sends."""
    NOT_TEXT = 1003
    NOT_UTF8 = 1007
    RESTARTING = 1012
    """The server stops: uvicorn says so. Come back with backoff."""
    BAD_JSON = 4400
    TOKEN_EXPIRED = 4401
    """Come back with a fresh token."""
    UNKNOWN_TYPE = 4404
    MISSED_PONG = 4408
    SYMBOL_LIMIT = 4409
    TOO_FAST = 4429
    """More messages, or more changes of subscriptions, than `MESSAGES_AT_ONCE` and `CHANGES_AT_ONCE` allow."""
    QUIET = 4430
    """Said by the client: the server was silent for longer than `QUIET_MS_MAX`, or sent no hello."""


CLOSE_OF: Final = {
    ErrorCode.BAD_JSON: CloseCode.BAD_JSON,
    ErrorCode.SYMBOL_LIMIT: CloseCode.SYMBOL_LIMIT,
    ErrorCode.UNKNOWN_TYPE: CloseCode.UNKNOWN_TYPE,
}


class FrameError(ValueError):
    """A message is no frame of this protocol; `code` is what a server answers with."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


# Frames: each is a value, and encodes itself.


class Subscribe(NamedTuple):
    """Send me these too."""

    assets: tuple[str, ...]

    def encode(self) -> str:
        """Return the frame's text."""
        return _assets_text("subscribe", self.assets)


class Unsubscribe(NamedTuple):
    """Send me these no more."""

    assets: tuple[str, ...]

    def encode(self) -> str:
        """Return the frame's text."""
        return _assets_text("unsubscribe", self.assets)


class Pong(NamedTuple):
    """Answers a ping."""

    def encode(self) -> str:
        """Return the frame's text."""
        return '{"type":"pong"}'


class Hello(NamedTuple):
    """What the credential is worth: the first frame of every connection that is taken."""

    tier: str
    assets_max: int
    connections_max: int

    def encode(self) -> str:
        """Return the frame's text."""
        limits = f'{{"maxAssets":{self.assets_max},"maxConnections":{self.connections_max}}}'
        return f'{{"type":"hello","tier":{json.dumps(self.tier)},"limits":{limits}}}'


class Tick(NamedTuple):
    """One unified price."""

    symbol: str
    price_usd: Decimal
    ts_ms: int
    source: str
    stale: bool
    """The oracle behind it is degraded: show it, don't trade on it."""

    def encode(self) -> str:
        """Return the frame's text, the price digit for digit as it is.

        Raises:
            ValueError: a field is nothing that the other end would read back.

        """
        _require(_is_source(self.source), "source", self.source)
        return (
            f'{{"type":"price","data":{{"symbol":"{_checked_symbol(self.symbol)}","priceUsd":{_digits(self.price_usd)},'
            f'"ts":{_checked_time(self.ts_ms)},"source":"{self.source}","stale":{"true" if self.stale else "false"}}}}}'
        )


class Bar(NamedTuple):
    """What one closed interval saw: open, high, low, close."""

    symbol: str
    interval: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    ts_ms: int
    """When the interval began, Unix ms."""

    def encode(self) -> str:
        """Return the frame's text, each number digit for digit as it is.

        Raises:
            ValueError: a field is nothing that the other end would read back.

        """
        _require(self.interval in INTERVALS_MS, "interval", self.interval)
        return (
            f'{{"type":"bar_update","data":{{"symbol":"{_checked_symbol(self.symbol)}","interval":"{self.interval}",'
            f'"open":{_digits(self.open)},"high":{_digits(self.high)},"low":{_digits(self.low)},'
            f'"close":{_digits(self.close)},"volume":{_digits(self.volume, least=0)},'
            f'"ts":{_checked_time(self.ts_ms)}}}}}'
        )


class Ping(NamedTuple):
    """Asks whether the other end is still there."""

    ts_ms: int

    def encode(self) -> str:
        """Return the frame's text."""
        return f'{{"type":"ping","ts":{self.ts_ms}}}'


class Failure(NamedTuple):
    """Why the connection will be closed: the `error` frame. `code` is a string, since a server may know more codes."""

    code: str
    message: str

    def encode(self) -> str:
        """Return the frame's text."""
        return f'{{"type":"error","code":{json.dumps(self.code)},"message":{json.dumps(self.message)}}}'


def decode_from_client(text: str | bytes) -> Subscribe | Unsubscribe | Pong:
    """Read what a client sent: exactly the members that its type has, in strict JSON of at most 16 KiB.

    Raises:
        FrameError: it is no such frame.

    """
    match _object(text):
        case {"type": "subscribe", "assets": list() as assets, **rest} if not rest:
            return Subscribe(_symbols(assets))
        case {"type": "unsubscribe", "assets": list() as assets, **rest} if not rest:
            return Unsubscribe(_symbols(assets))
        case {"type": "pong", **rest} if not rest:
            return Pong()
        case {"type": "subscribe" | "unsubscribe" | "pong" as kind}:
            raise FrameError(ErrorCode.BAD_JSON, f"a `{kind}` frame has other members")
        case {"type": str() as kind}:
            raise FrameError(ErrorCode.UNKNOWN_TYPE, f"no frame is of type `{kind[:32]}`")
    raise FrameError(ErrorCode.BAD_JSON, "a frame has a `type`, which is a string")


def decode_from_server(text: str | bytes) -> Hello | Tick | Bar | Ping | Failure | None:
    """Read what a server sent; None: a frame of a type that came later. Members that came later are passed over.

    Raises:
        FrameError: it is no frame, or one whose known members are not what they should be.

    """
    match _object(text):
        case {"type": "price", "data": dict() as data}:
            return _tick(data)
        case {"type": "bar_update", "data": dict() as data}:
            return _bar(data)
        case {"type": "ping", "ts": ts}:
            return Ping(_time(ts))
        case {"type": "hello", "tier": str() as tier, "limits": {"maxAssets": assets, "maxConnections": connections}}:
            return Hello(tier, _count(assets), _count(connections))
        case {"type": "error", "code": str() as code, "message": str() as message}:
            return Failure(code, message)
        case {"type": "price" | "bar_update" | "ping" | "hello" | "error" as kind}:
            raise FrameError(ErrorCode.BAD_JSON, f"a `{kind}` frame has other members")
        case {"type": str()}:
            return None
    raise FrameError(ErrorCode.BAD_JSON, "a frame has a `type`, which is a string")


# The two ends.


class Step(NamedTuple):
    """What an end does next: send these texts in order, then close if `close` says so."""

    send: tuple[str, ...] = ()
    close: CloseCode | None = None
    added: AbstractSet[str] = frozenset()
    """What a server's client is subscribed to now and wasn't before."""
    removed: AbstractSet[str] = frozenset()


NOTHING: Final = Step()
_NO_ASSETS: Final[frozenset[str]] = frozenset()


class ServerSession:
    """The server's end of one connection.

    The caller sends `greeting()` first, calls `receive` for each message, and `heartbeat` every `HEARTBEAT_MS` by a
    clock that never jumps. `now_ms` is Unix time.
    """

    __slots__ = ("_awaits_pong", "_changes", "_expires_at_ms", "_messages", "is_closed", "subscribed", "tier")

    def __init__(self, tier: Tier, *, now_ms: int, expires_at_ms: int | None = None) -> None:
        self.tier = tier
        self.subscribed: AbstractSet[str] = _NO_ASSETS
        self.is_closed = False
        self._expires_at_ms = expires_at_ms
        self._awaits_pong = False
        self._messages = _Allowance(MESSAGES_AT_ONCE, MESSAGES_PER_S, now_ms)
        self._changes = _changes(tier.assets_max, now_ms)

    def greeting(self) -> Step:
        """Say hello."""
        return Step((Hello(self.tier.name, self.tier.assets_max, self.tier.connections_max).encode(),))

    def receive(self, message: str | bytes, now_ms: int) -> Step:
        """Take one text message. What is refused has changed nothing."""
        if self.is_closed:
            return NOTHING
        if not self._messages.take(1, now_ms):
            return self._end(CloseCode.TOO_FAST)
        try:
            frame = decode_from_client(message)
        except FrameError as error:
            return self._fail(error.code, str(error))
        if isinstance(frame, Pong):
            self._awaits_pong = False
            return NOTHING
        if not self._changes.take(len(frame.assets), now_ms):
            return self._end(CloseCode.TOO_FAST)
        if isinstance(frame, Unsubscribe):
            removed = self.subscribed & set(frame.assets)
            self.subscribed -= removed
            return Step(removed=removed)
        added = frozenset(frame.assets) - self.subscribed
        if len(self.subscribed) + len(added) > self.tier.assets_max:
            return self._fail(ErrorCode.SYMBOL_LIMIT, "Tier cap reached")
        self.subscribed |= added
        return Step(added=added)

    def heartbeat(self, now_ms: int) -> Step:
        """Ping; or close, if the last ping got no pong or the token has expired."""
        if self.is_closed:
            return NOTHING
        if self._expires_at_ms is not None and now_ms >= self._expires_at_ms:
            return self._end(CloseCode.TOKEN_EXPIRED)
        if self._awaits_pong:
            return self._end(CloseCode.MISSED_PONG)
        self._awaits_pong = True
        return Step((Ping(now_ms).encode(),))

    def end(self) -> AbstractSet[str]:
        """Forget the connection, which is closed now, and return what it was subscribed to."""
        removed, self.subscribed = self.subscribed, _NO_ASSETS
        self.is_closed = True
        return removed

    def _fail(self, code: ErrorCode, message: str) -> Step:
        return self._end(CLOSE_OF[code], Failure(code, message).encode())

    def _end(self, close: CloseCode, *send: str) -> Step:
        return Step(send, close, removed=self.end())


class ClientState(Enum):
    """Where a client's end stands."""

    CLOSED = "closed"
    GREETING = "greeting"
    """Connected, and waiting for the hello."""
    OPEN = "open"


class ClientSession:
    """The client's end, over all its connections: what it wants stays, what it has told the server goes with each.

    The caller says `connected` and `disconnected`, calls `receive` for each message, and `due` after each call that may
    change something and again at `next_at_ms`. `now_ms` is any clock that doesn't go back.
    """

    def __init__(self, wanted: Iterable[str] = ()) -> None:
        self.state = ClientState.CLOSED
        self.hello: Hello | None = None
        """What the server said of this connection, or of the last one."""
        self.subscribed: frozenset[str] = _NO_ASSETS
        """What the server has been asked for on this connection and not told to leave out."""
        self._wanted: dict[str, None] = {}
        self._heard_at_ms = 0
        self._messages = _Allowance(0, 0, 0)
        self._changes = self._messages
        self._again_at_ms: int | None = None
        self.want(wanted)

    @property
    def wanted(self) -> tuple[str, ...]:
        """All that is wanted, the most important first; kept while no connection is there."""
        return tuple(self._wanted)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is wanted and doesn't fit the tier's cap, as far as the server has told it."""
        return () if self.hello is None else tuple(islice(self._wanted, self.hello.assets_max, None))

    @property
    def next_at_ms(self) -> int | None:
        """When to call `due` at the latest; None: there is no connection."""
        if self.state is ClientState.CLOSED:
            return None
        quiet_ms_max = HELLO_MS_MAX if self.state is ClientState.GREETING else QUIET_MS_MAX
        dead_at_ms = self._heard_at_ms + quiet_ms_max + 1
        return dead_at_ms if self._again_at_ms is None else min(dead_at_ms, self._again_at_ms)

    def want(self, assets: Iterable[str]) -> None:
        """Want exactly `assets` from now on, the most important first.

        Raises:
            ValueError: one of them is no symbol; nothing changed.

        """
        self._wanted = dict.fromkeys(map(_checked_symbol, assets))

    def connected(self, now_ms: int) -> None:
        """Begin a connection: the WebSocket is open, the hello is still to come."""
        self.disconnected()
        self.state = ClientState.GREETING
        self._heard_at_ms = now_ms

    def disconnected(self) -> None:
        """End the connection, if there is one: the server has forgotten what it was asked for."""
        self.state = ClientState.CLOSED
        self.subscribed = _NO_ASSETS
        self._again_at_ms = None

    def receive(self, message: str | bytes, now_ms: int) -> tuple[Hello | Tick | Bar | Failure | None, Step]:
        """Take one text message; return what it tells the user, if anything, and what to do.

        A price or a bar of what is no longer wanted, still under way when it was unsubscribed, tells nothing.
        """
        if self.state is ClientState.CLOSED:
            return None, NOTHING
        try:
            frame = decode_from_server(message)
        except FrameError:
            return None, self._end(CloseCode.BROKEN)
        if isinstance(frame, Failure):  # the close comes after it, a reason for it too; even instead of a hello
            self._heard_at_ms = now_ms
            return frame, NOTHING
        if isinstance(frame, Hello) is not (self.state is ClientState.GREETING):
            return None, self._end(CloseCode.BROKEN)
        self._heard_at_ms = now_ms
        match frame:
            case Hello():
                self._greeted(frame, now_ms)
                return frame, NOTHING
            case Ping():
                return None, Step((Pong().encode(),))
            case Tick() | Bar() if frame.symbol in self._wanted:
                return frame, NOTHING
        return None, NOTHING

    def due(self, now_ms: int) -> Step:
        """Tell the server what changed in what is wanted, as fast as it may be told; close if it is silent too long."""
        if self.state is ClientState.CLOSED:
            return NOTHING
        if now_ms >= (self._heard_at_ms + (HELLO_MS_MAX if self.state is ClientState.GREETING else QUIET_MS_MAX)) + 1:
            return self._end(CloseCode.QUIET)
        self._again_at_ms = None
        if self.state is ClientState.GREETING or self.hello is None:
            return NOTHING
        target = dict.fromkeys(islice(self._wanted, self.hello.assets_max))
        sent: list[str] = []
        for assets in _batches(sorted(self.subscribed - target.keys())):
            if not self._may_change(len(assets), now_ms):
                return Step(tuple(sent))
            self.subscribed -= set(assets)
            sent.append(Unsubscribe(assets).encode())
        for assets in _batches([symbol for symbol in target if symbol not in self.subscribed]):
            if not self._may_change(len(assets), now_ms):
                break
            self.subscribed |= set(assets)
            sent.append(Subscribe(assets).encode())
        return Step(tuple(sent))

    def _greeted(self, hello: Hello, now_ms: int) -> None:
        # Half of what the server allows: messages that a network held up arrive closer together than they were sent.
        self.state = ClientState.OPEN
        self.hello = hello
        self._messages = _Allowance(MESSAGES_AT_ONCE / 2, MESSAGES_PER_S / 2, now_ms)
        self._changes = _changes(hello.assets_max / 2, now_ms)

    def _may_change(self, assets: int, now_ms: int) -> bool:
        wait_ms = max(self._messages.wait_ms(1, now_ms), self._changes.wait_ms(assets, now_ms))
        if wait_ms:
            self._again_at_ms = now_ms + wait_ms
            return False
        return self._messages.take(1, now_ms) and self._changes.take(assets, now_ms)

    def _end(self, close: CloseCode) -> Step:
        self.disconnected()
        return Step(close=close)


class _Allowance:
    """A bucket that holds `at_once` and fills by `per_s`."""

    __slots__ = ("_at_ms", "_at_once", "_left", "_per_s")

    def __init__(self, at_once: float, per_s: float, now_ms: int) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._left = at_once
        self._at_ms = now_ms

    def take(self, count: int, now_ms: int) -> bool:
        """Take `count` out, if they are there."""
        left = self._left_at(now_ms)
        if left < count:
            return False
        self._left, self._at_ms = left - count, now_ms
        return True

    def wait_ms(self, count: int, now_ms: int) -> int:
        """Return in how long `count` will be there; 0: they are."""
        missing = count - self._left_at(now_ms)
        return 0 if missing <= 0 else int(missing * 1_000 / self._per_s) + 1

    def _left_at(self, now_ms: int) -> float:
        return min(self._at_once, self._left + max(0, now_ms - self._at_ms) * self._per_s / 1_000)


def _changes(assets_max: float, now_ms: int) -> _Allowance:
    return _Allowance(assets_max * CHANGES_AT_ONCE, assets_max / CHANGES_REFILL_S, now_ms)


def _batches(assets: list[str]) -> Iterable[tuple[str, ...]]:
    for start in range(0, len(assets), ASSETS_PER_FRAME):
        yield tuple(assets[start : start + ASSETS_PER_FRAME])


# What stands in a frame.


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        value = parse(text if isinstance(text, bytes) else text.encode())
    except (PermitError, UnicodeEncodeError) as error:
        raise FrameError(ErrorCode.BAD_JSON, f"not strict JSON: {error}"[:200]) from None
    if not isinstance(value, dict):
        raise FrameError(ErrorCode.BAD_JSON, "a frame is a JSON object")
    return value


def _symbols(assets: list[Any]) -> tuple[str, ...]:
    for each in assets:
        if not isinstance(each, str) or not _is_symbol(each):
            raise FrameError(ErrorCode.BAD_JSON, "an asset is a symbol of 1 to 44 letters and digits")
    return tuple(assets)


def _tick(data: dict[str, Any]) -> Tick:
    match data:
        case {"symbol": symbol, "priceUsd": price, "ts": ts, "source": str() as source, "stale": bool() as stale} if (
            _is_source(source)
        ):
            return Tick(_symbols([symbol])[0], _number(price), _time(ts), source, stale)
    raise FrameError(ErrorCode.BAD_JSON, "a `price` frame has other members")


def _bar(data: dict[str, Any]) -> Bar:
    match data:
        case {
            "symbol": symbol,
            "interval": str() as interval,
            "open": opened,
            "high": high,
            "low": low,
            "close": closed,
            "volume": volume,
            "ts": ts,
        } if interval in INTERVALS_MS:
            return Bar(
                _symbols([symbol])[0],
                interval,
                open=_number(opened),
                high=_number(high),
                low=_number(low),
                close=_number(closed),
                volume=_number(volume, least=0),
                ts_ms=_time(ts),
            )
    raise FrameError(ErrorCode.BAD_JSON, "a `bar_update` frame has other members")


def _number(value: object, *, least: int | None = None) -> Decimal:
    """Read a number above zero, or of at least `least`."""
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        number = Decimal(value)
        if number > 0 or (least is not None and number == least):
            return number
    raise FrameError(ErrorCode.BAD_JSON, "a price is a number above zero")


def _time(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TIME_MS_MAX:
        raise FrameError(ErrorCode.BAD_JSON, "a time is in Unix milliseconds")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= TIME_MS_MAX:
        raise FrameError(ErrorCode.BAD_JSON, "a limit is a whole number above zero")
    return value


def _assets_text(kind: str, assets: tuple[str, ...]) -> str:
    names = ",".join(f'"{_checked_symbol(each)}"' for each in assets)
    return f'{{"type":"{kind}","assets":[{names}]}}'


def _checked_symbol(symbol: str) -> str:
    _require(_is_symbol(symbol), "symbol", symbol)
    return symbol


def _checked_time(ts_ms: int) -> int:
    _require(0 <= ts_ms <= TIME_MS_MAX, "time", ts_ms)
    return ts_ms


def _digits(number: Decimal, *, least: int | None = None) -> str:
    """Write `number` digit for digit, never in exponent form, which strict readers refuse."""
    _require(number.is_finite() and (number > 0 or number == least), "number", number)
    _require(-NUMBER_CHARACTERS_MAX <= number.adjusted() <= NUMBER_CHARACTERS_MAX, "number", number)
    text = f"{number:f}"
    _require(len(text) <= NUMBER_CHARACTERS_MAX, "number", number)
    return text


def _require(holds: object, what: str, value: object) -> None:
    if not holds:
        raise ValueError(f"`{value}` is no {what} of a price stream")
