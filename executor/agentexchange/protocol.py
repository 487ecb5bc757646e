"""What TradeReady's WebSocket says, and what its client says to it, without any I/O.

Messages come in two shapes, nested (`channel`, `symbol`, `data`) and flat (`type`, and the data beside it);
handlers get one flat dict of either. A message that makes no sense is passed over: this server keeps the socket open
after errors.

>>> Channel("candles", "BTCUSDT", "1m").subscribe()
'{"action":"subscribe","channel":"candles","symbol":"BTCUSDT","interval":"1m"}'
>>> read('{"type":"ticker","symbol":"BTCUSDT","price":"64000.10"}')
Data(channel='ticker', symbol='BTCUSDT', interval='', fields={'symbol': 'BTCUSDT', 'price': '64000.10'})
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple, NoReturn, Self

__all__ = [
    "INTERVALS",
    "PONG",
    "QUIET_S_MAX",
    "UNAUTHORIZED",
    "Channel",
    "Data",
    "Problem",
    "Said",
    "read",
    "symbol_of",
]

INTERVALS: Final = ("1m", "5m", "15m", "1h", "4h", "1d")

QUIET_S_MAX: Final = 40.0
"""How long the server may say nothing, pings included."""

UNAUTHORIZED: Final = 4401
"""The close code of a refused key."""

PONG: Final = '{"type":"pong","action":"pong"}'
"""Its page asks for `type`; the live server knows `action` alone, and closes for want of it."""

_CHANNELS: Final = {
    "ticker": "ticker",
    "ticker_all": "ticker",
    "price": "ticker",
    "candles": "candles",
    "candle": "candles",
    "orders": "orders",
    "order": "orders",
    "order_update": "orders",
    "portfolio": "portfolio",
    "portfolio_update": "portfolio",
}
"""What each channel is called, nested and flat."""

_is_symbol = re.compile(r"[A-Z0-9]{1,32}").fullmatch


class Channel(NamedTuple):
    """What can be subscribed to."""

    name: Literal["ticker", "ticker_all", "candles", "orders", "portfolio"]
    symbol: str = ""
    interval: str = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the channel that the server and its SDK call `text`, such as `candles:ETHUSDT:1m` or `ticker:all`.

        Raises:
            ValueError: there is no such channel.

        """
        match text.split(":"):
            case ["ticker", name] if name.lower() == "all":
                return cls("ticker_all")
            case ["ticker", name]:
                return cls("ticker", symbol_of(name))
            case ["candles", name, interval] if interval in INTERVALS:
                return cls("candles", symbol_of(name), interval)
            case ["orders" | "portfolio" as name]:
                return cls(name)
        raise ValueError(f"`{text}` is no channel: `ticker:BTCUSDT`, `candles:BTCUSDT:1m` and `orders` are like one")

    def subscribe(self) -> str:
        """Return the message that asks for it."""
        return self._message("subscribe")

    def unsubscribe(self) -> str:
        """Return the message that asks for it no more."""
        return self._message("unsubscribe")

    def _message(self, action: str) -> str:
        fields = {"action": action, "channel": self.name, "symbol": self.symbol, "interval": self.interval}
        return json.dumps({key: value for key, value in fields.items() if value}, separators=(",", ":"))


class Data(NamedTuple):
    """News for handlers."""

    channel: str
    symbol: str
    interval: str
    fields: dict[str, Any]


class Problem(NamedTuple):
    """An error that the server told; the connection goes on."""

    code: str
    message: str


Said = Literal["ping", "subscribed"] | Data | Problem | None


def symbol_of(text: str) -> str:
    """Return `text` as a symbol of the exchange.

    Raises:
        ValueError: it can't be one.

    """
    symbol = text.upper()
    if not _is_symbol(symbol):
        raise ValueError(f"`{text}` is no symbol")
    return symbol


def read(text: str | bytes) -> Said:
    """Return what a message says; None: nothing for anyone, such as a candle that hasn't closed.

    Raises:
        ValueError: it is no JSON object.

    """
    try:
        message = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - as for any other content
    match message:
        case {"type": "ping"}:
            return "ping"
        case {"type": "subscribed"}:
            return "subscribed"
        case {"type": "error"}:
            return Problem(str(message.get("code", "")), str(message.get("message", "")))
    return _data(message)


def _data(message: dict[str, Any]) -> Data | None:
    named = message.get("channel") or message.get("type")
    if not isinstance(named, str):
        return None
    name, *rest = named.split(":")
    channel = _CHANNELS.get(name)
    if channel is None:
        return None
    nested = message.get("data")
    about = dict(zip(("symbol", "interval"), rest, strict=False))  # as `candles:BTCUSDT:1m` names them
    beside = {key: value for key, value in message.items() if key not in {"type", "channel", "data"}}
    fields = {**about, **beside, **(nested if isinstance(nested, dict) else {})}
    if channel == "candles":
        if fields.get("is_closed", True) is not True:
            return None
        if "time" in fields:
            fields.setdefault("open_time", fields["time"])
    return Data(channel, str(fields.get("symbol", "")), str(fields.get("interval", "")), fields)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"`{constant}` is no number")
