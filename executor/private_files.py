"""Files with secrets: who else may open them.

Such a file is its owner's alone. Or it is root's, and a group that this process is in may read it: so Kubernetes mounts
secrets for processes that aren't root. Whoever puts others into that group is root, and could read the file as well.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["exposure", "is_private"]

ROOT: Final = 0
OTHERS: Final = 0o077
OTHERS_BUT_A_READING_GROUP: Final = 0o037


def exposure(file: BinaryIO, path: Path) -> str | None:
    """Return who else may open the secret in `file`, opened at `path`, and what to do; None: nobody may.

    The open file is asked: whatever is at the path meanwhile, that is what is read.
    """
    status = os.fstat(file.fileno())
    if is_private(status, {os.getegid(), *os.getgroups()}):
        return None
    return (
        f"`{path}` is open to others (mode {stat.S_IMODE(status.st_mode):04o}, of user {status.st_uid} and group "
        f"{status.st_gid}): make it its owner's alone (chmod 600), or root's and readable by a group of this process "
        f"(chown root:{os.getegid()}, chmod 440)"
    )


def is_private(status: os.stat_result, groups: Collection[int]) -> bool:
    """Tell whether a file of this `status` is its owner's alone, or root's for one of `groups`, the process's, to read.

    Lists of access rights beyond the mode show in it as rights of the group, and are root's to give, too.
    """
    others = OTHERS_BUT_A_READING_GROUP if status.st_uid == ROOT and status.st_gid in groups else OTHERS
    return not status.st_mode & others
