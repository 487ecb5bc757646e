"""API keys for the price stream: a file of hashes.

A key is 256 random bits after `ak_`, shown once, when it is made. The file holds its SHA-256 (a slow hash would guard
what can be guessed, which this can't), whose it is and which tier it has. Whoever can write the file can let anyone in,
so it is private to the process. A running hub reads it anew once it has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, ValidationError

from executor.credentials import redacted
from executor.errors import ExecutorError
from executor.prices.hub import AuthenticationUnavailable, Subject
from executor.prices.protocol import TIERS
from executor.private_files import exposure
from executor.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ApiKey", "KeyFile", "KeyFileError", "is_key"]

KEYS_MAX: Final = 100_000
"""More belong in a database."""

is_key = re.compile(r"(?:ak|hf)_[A-Za-z0-9_-]{20,128}").fullmatch
"""Tells an API key from a token by its form."""


class KeyFileError(ExecutorError):
    """The key file can't be used; the text says why and names it."""


class ApiKey(Value):
    """What is kept of a key."""

    created_at_s: Annotated[int, Field(ge=0)]
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    """The first digits of the hash: to name it without knowing it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    subject: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,64}$")]
    """Whose it is; connections are counted by it, over all its keys."""
    tier: Annotated[str, Field(pattern=f"^(?:{'|'.join(TIERS)})$")]


class _Keys(Value):
    keys: Annotated[tuple[ApiKey, ...], Field(max_length=KEYS_MAX, strict=False)] = ()


class KeyFile:
    """The keys in one file, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_as: tuple[int, ...] = ()
        self._by_hash: dict[str, ApiKey] = {}

    async def authenticate(self, credential: str) -> Subject | None:
        """Return whose key `credential` is, as `hub.Authenticator`; None: nobody's, or one that was revoked."""
        if not is_key(credential):
            return None
        try:
            self._read_if_changed()
        except KeyFileError as error:
            raise AuthenticationUnavailable(str(error)) from None
        found = self._by_hash.get(_hash(credential))
        return None if found is None else Subject(f"key:{found.subject}", TIERS[found.tier])

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, the oldest first. Raises KeyFileError."""
        self._read_if_changed()
        return tuple(self._by_hash.values())

    def add(self, subject: str, tier: str, *, secret: bytes, now_s: int) -> tuple[str, ApiKey]:
        """Make a key of `secret`, 32 random bytes; return it, which is told never again, and what is kept of it.

        Raises:
            KeyFileError: the file can't be used, or the subject or the tier is none.

        """
        key = f"ak_{secret.hex()}"
        digits = _hash(key)
        try:
            made = ApiKey(created_at_s=now_s, key_id=digits[:12], sha256=digits, subject=subject, tier=tier)
        except ValidationError:
            raise KeyFileError(
                f"`{redacted(subject)}` with tier `{tier}` can't have a key: a subject is 1 to 64 letters, digits and "
                f"`._:@-`, and the tiers are {', '.join(TIERS)}"
            ) from None
        with self._locked():
            self._write((*self.list(), made))
        return key, made

    def revoke(self, key_id: str) -> bool:
        """Take a key away, and tell whether it was there. Its open connections close at their next heartbeat.

        Raises:
            KeyFileError: the file can't be used.

        """
        with self._locked():
            before = self.list()
            after = tuple(each for each in before if each.key_id != key_id)
            if len(after) == len(before):
                return False
            self._write(after)
        return True

    def _read_if_changed(self) -> None:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                seen: tuple[int, ...] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
                if seen == self._read_as:
                    return
                if (exposed := exposure(file, self._path)) is not None:
                    raise KeyFileError(exposed)
                kept = _Keys.model_validate_json(file.read())
        except FileNotFoundError:
            kept, seen = _Keys(), (0,)
        except OSError as error:
            raise KeyFileError(f"`{self._path}`: {error.strerror}") from None
        except ValidationError:
            raise KeyFileError(f"`{self._path}` is no file of API keys") from None
        self._by_hash = {each.sha256: each for each in kept.keys}
        self._read_as = seen

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")  # 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(_Keys(keys=keys).model_dump_json(indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            raise KeyFileError(f"`{self._path}`: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let nobody else change the file meanwhile: two who add at once must not lose a key."""
        try:
            file = self._path.with_name(f"{self._path.name}.lock").open("ab")
        except OSError as error:
            raise KeyFileError(f"`{self._path}`: {error.strerror}") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
