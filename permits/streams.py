"""Standard output and standard error as a command needs them, whatever stands at their other end.

A reader may leave early (`| head -1`), a disk may be full, and a terminal may know less than Unicode. A command does
all of its work within `checked_streams`, and ends by what `StreamLost.report` says::

    try:
        with checked_streams():
            return work()
    except StreamLost as lost:
        return lost.report("permits")
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StreamLost", "checked_streams"]

READER_LEFT_STATUS: Final = 141
"""What a shell says of any command that SIGPIPE ended: 128 + 13."""


class StreamLost(Exception):
    """A standard stream takes no more. What was written before may be lost, too."""

    def __init__(self, stream: TextIO, name: str, error: OSError) -> None:
        super().__init__(f"{name}: {error.strerror}")
        self._stream = stream
        self._reader_left = isinstance(error, BrokenPipeError)

    def report(self, command: str, *, fault: int = 1) -> int:
        """Return the exit status: 141, quietly, if nobody reads any more, else `fault`, and a line says why.

        The caller ends the process: what the stream still holds is thrown away.
        """
        with suppress(OSError):  # else the interpreter writes it again as it ends, and complains
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        if self._reader_left:
            return READER_LEFT_STATUS
        with suppress(OSError):
            print(f"{command}: {self}", file=sys.stderr)
        return fault


@contextmanager
def checked_streams() -> Iterator[None]:
    """Within it, a character that a standard stream can't show is escaped, and a write that fails raises StreamLost.

    On the way out both streams are flushed, however the work ended.

    Raises:
        StreamLost: standard output or standard error couldn't be written to.

    """
    outside = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _checked(sys.stdout, "standard output"), _checked(sys.stderr, "standard error")
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    finally:
        sys.stdout, sys.stderr = outside


def _checked(stream: TextIO | None, name: str) -> TextIO:
    """Return `stream`, checked; a stream that was closed before the process began is None, and stays so."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return cast("TextIO", None if stream is None else _Checked(stream, name))


class _Checked:
    """`stream`, whose failures say which stream it is: an error of a pipe or a disk alone doesn't."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise StreamLost(self._stream, self._name, error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise StreamLost(self._stream, self._name, error) from error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)
