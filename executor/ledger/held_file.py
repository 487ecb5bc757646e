"""That one process alone writes to a file, by whatever path it came.

A lock file beside it keeps a second process out, and tells it who is in. That follows the path; so the file itself is
locked too, and one that has a second path is refused: SQLite keeps what was committed last beside the path that it was
opened by, and by another that is missing.

INVARIANT: no descriptor of the file is closed while the process may have SQLite open on it: POSIX drops all locks of a
process on a file with any descriptor of it, SQLite's too. What is let go is unlocked, and kept for the next time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from executor.errors import LedgerError, LedgerInUse

__all__ = ["HeldFile", "require_one_path"]

MOUNTS: Final = Path("/proc/self/mountinfo")
MOUNT_POINT: Final = 4
"""The place of the mount point in a line of MOUNTS: proc_pid_mountinfo(5), which escapes white space in octal."""

KEPT_MAX: Final = 64
"""Files that were let go and whose descriptors are kept; of one that was let go so long ago, SQLite has none open."""

_octal = re.compile(rb"\\([0-7]{3})")


class HeldFile:
    """A file that this process holds alone until it lets go, or ends. A fork of it holds nothing."""

    def __init__(self, path: Path) -> None:
        """Take `path`, which is absolute and no symbolic link; make the file where there is none.

        Raises:
            LedgerInUse: another process holds it.
            LedgerError: it can't be written or locked, or has another path too.

        """
        self._path: Final = path
        self._file: int | None = None
        self._lock: int | None = _lock_beside(path)
        try:
            self._file = _open_kept(path)
            self._watched = [(path, os.fstat(self._file))]
            require_one_path(path)
            if sys.platform == "linux":  # elsewhere this lock and SQLite's own would keep each other out
                _lock(self._file, path, "a process that came by another path, or whose lock file was deleted")
        except BaseException:
            self.let_go()
            raise
        _held.add(self)

    def let_go(self) -> None:
        """Let other processes in."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            _keep(self._file)
        self._close_lock()

    def let_go_in_child(self) -> None:
        """Hold nothing in a fork, whose descriptors are its parent's: to unlock them would unlock the parent's."""
        if self._file is not None:
            os.close(self._file)
        self._close_lock()

    def _close_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # last: its file says who holds the other
        self._file = self._lock = None

    def watch(self, beside: Path) -> None:
        """Have a file beside this one in its place, too, from now on."""
        self._watched.append((beside, beside.stat()))

    def require_in_place(self) -> None:
        """Raise LedgerError once this was let go, or if a file was deleted or replaced.

        SQLite would go on writing to what nobody finds.
        """
        if self._file is None:
            raise LedgerError(f"`{self._path}` was closed")
        for path, status in self._watched:
            try:
                found = os.stat(path)  # noqa: PTH116 - before every fire, and four times as fast as Path's
            except OSError as error:
                raise LedgerError(f"`{path}` is gone: {error.strerror}") from None
            if not os.path.samestat(found, status):
                raise LedgerError(f"`{path}` was replaced by another file while it was open")


def require_one_path(path: Path) -> None:
    """Raise LedgerError if the file at `path` may be reached by another path too; nothing, where there is no file."""
    try:
        links = path.stat().st_nlink
    except OSError:
        return
    if links > 1:
        raise LedgerError(
            f"`{path}` has {links} hard links, and by each of them SQLite would miss what was written by another: "
            "leave one, or open a copy"
        )
    if _is_mount_point(path):
        raise LedgerError(
            f"`{path}` is mounted by itself, without the files that SQLite keeps beside it: mount its folder instead"
        )


def _is_mount_point(path: Path) -> bool:
    """Tell whether a file was mounted at `path`, as far as the system tells its mounts; Linux does."""
    try:
        mounts = MOUNTS.read_bytes().splitlines()
    except OSError:
        return False
    points = (_octal.sub(lambda found: bytes([int(found[1], 8)]), mount.split()[MOUNT_POINT]) for mount in mounts)
    return os.fsencode(path) in points


def _lock_beside(path: Path) -> int:
    """Take the lock file beside `path`, write into it who holds it, and return its descriptor."""
    lock_path = path.with_name(path.name + ".lock")
    descriptor = _open(lock_path)
    try:
        _lock(descriptor, path, f"process {os.pread(descriptor, 20, 0).decode('ascii', 'replace').strip()}")
    except BaseException:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return descriptor


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerError(f"`{path}` can't be written: {error.strerror}") from None


def _open_kept(path: Path) -> int:
    """Return a descriptor of the file at `path`: one that was kept, or a new one."""
    with suppress(OSError):
        found = path.stat()
        for kept in _kept:
            if os.path.samestat(os.fstat(kept), found):
                if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
                    raise LedgerError(f"`{path}` can't be written: {os.strerror(errno.EACCES)}")
                _kept.remove(kept)
                return kept
    return _open(path)


def _keep(descriptor: int) -> None:
    _kept.append(descriptor)
    if len(_kept) > KEPT_MAX:
        os.close(_kept.popleft())


def _lock(descriptor: int, path: Path, holder: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LedgerInUse(str(path), holder) from None
    except OSError as error:
        raise LedgerError(f"`{path}` can't be locked, so it may not be on this file system: {error.strerror}") from None


def _let_go_in_child() -> None:
    """Hold nothing in a fork: else one that outlives its parent would keep the parent's successor out."""
    for held in _held:
        held.let_go_in_child()
    while _kept:
        os.close(_kept.pop())


_held: Final[WeakSet[HeldFile]] = WeakSet()
_kept: Final[deque[int]] = deque()
"""Descriptors of files that were let go, the oldest first."""
os.register_at_fork(after_in_child=_let_go_in_child)
