"""Who else may open a secret's file: a table of modes and owners, and files as Kubernetes mounts them."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor.errors import ExecutorError
from executor.prices.api_keys import KeyFile
from executor.private_files import is_private
from executor.service.files import read_private
from executor.signing.vault import read_master_key

ROOT, OURS, ANOTHER = 0, 1_000, 1_001


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o600, OURS, OURS, True),
        (0o400, OURS, OURS, True),
        (0o400, ROOT, ROOT, True),
        (0o440, ROOT, OURS, True),  # as kubelet mounts it
        (0o640, ROOT, OURS, True),
        (0o440, ROOT, ANOTHER, False),  # who is in it is none of this process's business
        (0o440, OURS, OURS, False),  # whose file it is may widen the group, and isn't root
        (0o440, ANOTHER, OURS, False),
        (0o460, ROOT, OURS, False),
        (0o450, ROOT, OURS, False),
        (0o444, ROOT, OURS, False),
        (0o441, ROOT, OURS, False),
        (0o442, ROOT, OURS, False),
        (0o604, ROOT, OURS, False),
        (0o604, OURS, OURS, False),
        (0o620, OURS, OURS, False),
    ],
)
def test_only_its_owner_or_root_for_a_group_of_ours_may_open_it(mode, uid, gid, expected):
    status = os.stat_result((0o100_000 | mode, 0, 0, 1, uid, gid, 64, 0, 0, 0))
    assert is_private(status, {OURS}) is expected


@contextmanager
def running_as(uid, gid):
    """Be somebody else, in one group, for a while."""
    before = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def key_file(path):
    return KeyFile(path).list()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that are root's")
@pytest.mark.parametrize(("read", "text"), [(read_private, "ab" * 32), (read_master_key, "ab" * 32), (key_file, "{}")])
def test_a_secret_is_read_as_kubernetes_mounts_it_and_not_if_it_is_open_to_others(read, text):
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        path = folder / "mounted.key"
        path.write_text(text)
        os.chown(path, ROOT, OURS)
        path.chmod(0o440)
        with running_as(OURS, OURS):
            read(path)
        for mode, uid, gid in (
            (0o444, ROOT, OURS),
            (0o460, ROOT, OURS),
            (0o440, ANOTHER, OURS),
            (0o444, ROOT, ANOTHER),
        ):
            os.chown(path, uid, gid)
            path.chmod(mode)
            with running_as(OURS, OURS), pytest.raises(ExecutorError) as refused:
                read(path)
            assert str(path) in str(refused.value)
            assert f"mode {mode:04o}, of user {uid} and group {gid}" in str(refused.value)
            assert f"chown root:{OURS}, chmod 440" in str(refused.value)
