r"""Server-sent events (WHATWG HTML, section 9.2): one encoder and one incremental decoder.

A stream is lines, ended by CR, LF or CRLF; a line is a field, a comment, or empty; an empty line ends a block. A block
with data is an event. One without is none, but what it says of ids and of waiting counts all the same.

>>> encode("two\nlines", event="told", event_id="7")
b'id: 7\nevent: told\ndata: two\ndata: lines\n\n'
>>> decoder = Decoder()
>>> list(decoder.feed(b": heartbeat\r\n\r\nid: 7\r"))
[]
>>> list(decoder.feed(b"\ndata: two\ndata: lines\n\n"))
[ServerSentEvent(event='message', data='two\nlines', last_event_id='7')]
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from executor.errors import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EVENT_BYTES_MAX", "Decoder", "ServerSentEvent", "StreamTooLong", "encode"]

EVENT_BYTES_MAX: Final = 1_048_576
"""The most that a line, or the data of an event, may take: a peer that never ends one must not fill the memory.

The executor's own events take less than a kilobyte.
"""

RETRY_DIGITS_MAX: Final = 15
"""That is 30,000 years; a number without end would take long to read."""

BOM: Final = b"\xef\xbb\xbf"

_line_end = re.compile(rb"\r\n|\r|\n")
_digits = re.compile(r"[0-9]+").fullmatch


class StreamTooLong(ExecutorError):
    """The stream has a line or an event longer than anyone should send. Close it."""


class ServerSentEvent(NamedTuple):
    """An event, as a browser's `MessageEvent` has it."""

    event: str
    data: str
    last_event_id: str


def encode(
    data: str | None = None, *, event: str | None = None, event_id: str | None = None, retry_ms: int | None = None
) -> bytes:
    """Return one block. A decoder reads from it exactly what was put in; a block without data is no event.

    Raises:
        ValueError: `event` or `event_id` holds what would end its line (CR, LF) or be ignored (NUL), `data` holds a CR,
            which would come out as LF, or one of them a lone surrogate.

    """
    for name, value in (("event", event), ("id", event_id)):
        if value is not None and not {"\r", "\n", "\0"}.isdisjoint(value):
            raise ValueError(f"`{name}` of a server-sent event holds a line end or NUL: `{value!r}`")
    if data is not None and "\r" in data:
        raise ValueError("`data` of a server-sent event holds a carriage return")
    lines = []
    if event_id is not None:
        lines.append(f"id: {event_id}\n")
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms:d}\n")
    if event is not None:
        lines.append(f"event: {event}\n")
    if data is not None:
        lines += (f"data: {line}\n" for line in data.split("\n"))
    return "".join((*lines, "\n")).encode()


class Decoder:
    """Reads one stream, in whatever pieces it comes."""

    def __init__(self, last_event_id: str = "") -> None:
        """Begin a stream; `last_event_id` is what an earlier one left off with."""
        self.last_event_id = last_event_id
        """That of the last block that ended, whether it was an event or not: where to resume."""
        self.retry_ms: int | None = None
        """How long the server asks to wait before coming back."""
        self._line = bytearray()
        self._is_first_line = True
        self._after_cr = False
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that `chunk` completes. Take them all before the next chunk.

        What follows the last empty line when the stream ends is no event (section 9.2.6).

        Raises:
            StreamTooLong: a line or an event is longer than EVENT_BYTES_MAX; the events before it have been yielded.

        """
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")  # the CR before it has ended the line
        self._after_cr = self._after_cr or chunk.endswith(b"\r")
        *ends, rest = _line_end.split(chunk)
        for end in ends:
            self._take(end)
            line = bytes(self._line)
            self._line.clear()
            if self._is_first_line:
                self._is_first_line = False
                line = line.removeprefix(BOM)
            if line:
                self._field(line)
                continue
            self.last_event_id = self._id
            if self._data:
                event = ServerSentEvent(self._event or "message", "\n".join(self._data), self._id)
                self._event, self._data, self._data_bytes = "", [], 0
                yield event
            self._event = ""
        self._take(rest)

    def _take(self, part: bytes) -> None:
        if len(self._line) + len(part) > EVENT_BYTES_MAX:
            raise StreamTooLong(f"a line of the stream has more than {EVENT_BYTES_MAX} bytes")
        self._line += part

    def _field(self, line: bytes) -> None:
        """Process one line that isn't empty. A comment is a field without a name, and no field has none."""
        name, _, rest = line.partition(b":")
        value = rest.removeprefix(b" ").decode(errors="replace")
        if name == b"data":
            self._data_bytes += len(rest) + 1
            if self._data_bytes > EVENT_BYTES_MAX:
                raise StreamTooLong(f"an event of the stream has more than {EVENT_BYTES_MAX} bytes of data")
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and "\0" not in value:
            self._id = value
        elif name == b"retry" and _digits(value):
            if len(value) > RETRY_DIGITS_MAX:
                raise StreamTooLong(f"`retry` has more than {RETRY_DIGITS_MAX} digits")
            self.retry_ms = int(value)
