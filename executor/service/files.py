"""Secrets come from files that are private to this process, or from functions that fetch them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from executor.errors import ExecutorError
from executor.private_files import exposure

__all__ = ["SECRET_BYTES_MIN", "SecretRefused", "Source", "name_of", "read_private", "read_secret"]

Source = Path | Callable[[], bytes]
"""Where a secret comes from. A function is called when what needs the secret is made, and may be called again."""

SECRET_BYTES_MIN: Final = 32
"""What HS256 asks of its key (RFC 7518, section 3.2), and the least that can't be guessed if it is random text."""
FILE_BYTES_MAX: Final = 65_536


class SecretRefused(ExecutorError):
    """A secret can't be used; the text names where it comes from, and never tells what it is."""


def read_private(source: Source) -> bytes:
    """Return what `source` holds, without white space around it.

    What a function raises is its own, and goes on to the caller.

    Raises:
        SecretRefused: a file can't be read, or others may read or write it; or it is longer than any secret.

    """
    held = _in_file(source) if isinstance(source, Path) else source()
    if len(held) > FILE_BYTES_MAX:
        raise SecretRefused(f"{name_of(source)} is too long for a secret")
    return held.strip()


def read_secret(source: Source) -> bytes:
    """Return the secret that `source` holds. Raises as `read_private` does, and if it is shorter than 32 bytes."""
    secret = read_private(source)
    if len(secret) < SECRET_BYTES_MIN:
        raise SecretRefused(f"{name_of(source)} must hold a secret of at least {SECRET_BYTES_MIN} bytes")
    return secret


def name_of(source: Source) -> str:
    """Return what to call `source` in a message."""
    return f"`{source}`" if isinstance(source, Path) else f"what `{getattr(source, '__name__', 'a function')}` returns"


def _in_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if (exposed := exposure(file, path)) is not None:
                raise SecretRefused(exposed)
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SecretRefused(f"`{path}`: {error.strerror}") from None
