"""Secrets come from files that nobody but their owner may read."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from executor.errors import ExecutorError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SECRET_BYTES_MIN", "SecretRefused", "read_private", "read_secret"]

SECRET_BYTES_MIN: Final = 32
"""What HS256 asks of its key (RFC 7518, section 3.2), and the least that can't be guessed if it is random text."""
FILE_BYTES_MAX: Final = 65_536


class SecretRefused(ExecutorError):
    """A file with a secret can't be used; the text names it and never tells what it holds."""


def read_private(path: Path) -> bytes:
    """Return what the file at `path` holds, without white space around it.

    Raises:
        SecretRefused: it can't be read, others may read or write it, or it is longer than any secret.

    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SecretRefused(f"`{path}` must be readable by its owner alone: chmod 600")
            held = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SecretRefused(f"`{path}`: {error.strerror}") from None
    if len(held) > FILE_BYTES_MAX:
        raise SecretRefused(f"`{path}` is too long for a secret")
    return held.strip()


def read_secret(path: Path) -> bytes:
    """Return the secret at `path`. Raises as `read_private` does, and if it is shorter than 32 bytes."""
    secret = read_private(path)
    if len(secret) < SECRET_BYTES_MIN:
        raise SecretRefused(f"`{path}` must hold a secret of at least {SECRET_BYTES_MIN} bytes")
    return secret
