"""One process, one file: by a lock file, by the file itself, and by no second path."""

import os
import subprocess
import sys

import pytest

from executor.audit import check_ledger
from executor.errors import LedgerError, LedgerInUse
from executor.ledger import Ledger, held_file
from executor.ledger.held_file import HeldFile
from executor.limits import Limits
from tests.support import Setup, in_fork

OPEN = (
    "import sys; from pathlib import Path; from executor.ledger import Ledger; from executor.seal import SealKeys\n"
    "Ledger.open(Path(sys.argv[1]), seal_keys=SealKeys.single(b's' * 32)).close()\n"
)


def open_elsewhere(*paths, within=()):
    """Open and close the ledger by each of `paths`, in a process each; return what they said."""
    command = [*within, sys.executable, "-c", OPEN]
    done = [subprocess.run([*command, path], capture_output=True, text=True, timeout=60, check=False) for path in paths]
    return [each.stderr.strip().splitlines()[-1:] for each in done]


def test_a_hard_link_to_a_ledger_lets_no_second_guard_in(tmp_path):
    limits = Limits(executions_per_24h=3)
    setup = Setup(tmp_path / "ledger.db", limits=limits)
    setup.activate()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "ledger.db"
    link.hardlink_to(setup.path)
    assert [setup.guard.authorize(setup.request(each)).outcome for each in range(2)] == ["allowed"] * 2
    setup.guard.close()
    for path in (setup.path, link):
        for read_only in (False, True):
            with pytest.raises(LedgerError, match="has 2 hard links, and by each of them SQLite would miss"):
                Ledger.open(path, seal_keys=setup.seal_keys, read_only=read_only)
    link.unlink()
    setup.guard = setup.open()
    assert [setup.guard.authorize(setup.request(each)).outcome for each in range(4)] == ["allowed"] * 3 + ["refused"]
    assert check_ledger(setup.guard.ledger).findings == ()
    setup.guard.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux mounts a file over a file")
def test_a_ledger_that_is_mounted_by_itself_is_not_opened(tmp_path):
    """A container that is given the file, and not its folder, loses what SQLite keeps beside it."""
    setup = Setup(tmp_path / "ledger.db")
    setup.guard.close()
    folder = tmp_path / "an odd\tfolder"
    folder.mkdir()
    mounted = folder / "ledger.db"
    mounted.touch()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    within = ["unshare", "--mount", "sh", "-c", script, "sh", str(setup.path), str(mounted)]
    if subprocess.run([*within, "true"], capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("this user may mount nothing")
    ((said,),) = open_elsewhere(str(mounted), within=within)
    assert "is mounted by itself, without the files that SQLite keeps beside it: mount its folder instead" in said
    assert open_elsewhere(str(setup.path)) == [[]]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the lock file keeps a second process out")
def test_a_ledger_whose_lock_file_was_deleted_is_still_held(sqlite_setup):
    sqlite_setup.path.with_name("ledger.db.lock").unlink()
    ((said,),) = open_elsewhere(str(sqlite_setup.path))
    assert "is in use by a process that came by another path, or whose lock file was deleted" in said
    moved = sqlite_setup.path.rename(sqlite_setup.path.with_name("moved.db"))
    ((said,),) = open_elsewhere(str(moved))
    assert "is in use by" in said


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def no_locks(_descriptor, _operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(held_file.fcntl, "flock", no_locks)
    with pytest.raises(LedgerError, match="can't be locked, so it may not be on this file system: No locks available"):
        HeldFile(tmp_path / "ledger.db")


def test_a_fork_that_outlives_its_parent_keeps_nobody_out(tmp_path):
    """The kernel's lock goes along with a fork; the file is then free as soon as its holder has ended."""
    script = (
        "import os, sys; from pathlib import Path; from executor.ledger.held_file import HeldFile\n"
        "held = HeldFile(Path(sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "os.wait() if sys.argv[2:] else os._exit(0)\n"
    )
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()  # the child runs
        assert parent.wait(60) == 0
        HeldFile(path).let_go()
        parent.stdin.close()  # the child ends
    with subprocess.Popen([*command, "stay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        with pytest.raises(LedgerInUse, match=f"in use by process {parent.pid}$"):
            HeldFile(path)
        parent.stdin.close()


def test_a_fork_uses_nothing_of_its_parents_ledger(setup):
    setup.activate()
    refusal = f"was opened by process {os.getpid()}, of which this is a fork: open it in each process, after the fork"
    assert refusal in in_fork(lambda: setup.guard.authorize(setup.request(1)))
    assert refusal in in_fork(lambda: setup.guard.headroom(setup.wallet))
    assert in_fork(setup.guard.close) == "None"
    assert setup.guard.authorize(setup.request(1)).authorization.attempt == 1
    setup.reopen()
    assert check_ledger(setup.guard.ledger).findings == ()
