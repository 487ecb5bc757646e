r"""Chunks: how HTTP/1.1 carries a body whose length nobody knows (RFC 9112, section 7.1).

The same frames go to many streams. Through ASGI each of them would be framed for each connection again, by layers that
cost more than the write itself. So a server may offer, beside `send`, a function that writes a chunk as it is.
`executor.service.server` does; under any other server everything goes through `send`.

A middleware may change what goes through `send`: compress it, or hold it back for a while. Then a chunk written beside
it would be no part of the body, or overtake it. So both ends keep a hash of all that went through, the application of
what it sent, the server of what arrived, and only while they are the same is a chunk written.

>>> chunk_of(b": heartbeat\n\n")
b'd\r\n: heartbeat\n\n\r\n'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["WRITE_CHUNK", "WriteChunk", "chunk_of", "chunk_writer", "rolling_hash"]

WRITE_CHUNK: Final = "holdfire.write_chunk"
"""Where a server puts its function, in the scope's `state`."""

WriteChunk: TypeAlias = Callable[[bytes, int], bool]
"""Writes a chunk, if all that was sent, by its `rolling_hash`, has left as it was written; else returns False."""


def chunk_of(body: bytes) -> bytes:
    """Return `body` as a chunk. Of nothing that is nothing: a chunk without bytes would end the answer."""
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


def chunk_writer(scope: Scope) -> WriteChunk:
    """Return how to write chunks past `send`; where the server can't, or HTTP/1.0 has none, a function that won't."""
    offered: WriteChunk | None = scope.get("state", {}).get(WRITE_CHUNK)
    return offered if offered is not None and scope["http_version"] == "1.1" else _wont


def rolling_hash(before: int, body: bytes) -> int:
    """Return the hash of a body, which so far had the hash `before` (of nothing: 0), with `body` behind it."""
    return hash((before, body)) if body else before


def _wont(_chunk: bytes, _sent: int) -> bool:
    return False
