"""One process, one file: by a lock file, by the file itself, and by no second path."""

import os
import subprocess
import sys

import pytest

from executor.audit import check_ledger
from executor.errors import LedgerError, LedgerInUse
from executor.halts import EVERYTHING, Halter
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


def test_a_ledger_that_was_closed_neither_fires_nor_answers(setup):
    setup.activate()
    setup.guard.close()
    for ask in (lambda: setup.guard.authorize(setup.request(1)), lambda: setup.guard.headroom(setup.wallet)):
        with pytest.raises(LedgerError, match="was closed"):
            ask()
    with pytest.raises(LedgerError, match="was closed"):
        setup.guard.halt(EVERYTHING, Halter.OPERATOR, "too late to be in force")
    setup.guard = setup.open()
    assert setup.guard.headroom(setup.wallet).executions.used == 0
    assert setup.guard.halts() == ()


def test_a_change_that_waits_while_the_ledger_is_closed_is_not_made(sqlite_setup):
    """Nobody writes to a file that another process may hold by now."""
    sqlite_setup.activate()
    store = sqlite_setup.guard.ledger._store
    sqlite_setup.guard.close()
    with pytest.raises(LedgerError, match="was closed"), store.writing():
        pass


def test_a_log_that_is_taken_away_while_the_ledger_is_open_is_noticed(sqlite_setup):
    setup = sqlite_setup
    setup.activate()
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
    log = setup.path.with_name("ledger.db-wal")
    log.unlink()
    with pytest.raises(LedgerError, match=r"ledger\.db-wal` is gone"):
        setup.guard.authorize(setup.request(2))
    log.touch()
    with pytest.raises(LedgerError, match=r"ledger\.db-wal` was replaced"):
        setup.guard.authorize(setup.request(2))
    log.unlink()
    setup.reopen()  # at its end SQLite writes back what it has in hand
    assert setup.guard.headroom(setup.wallet).executions.used == 1
    assert check_ledger(setup.guard.ledger).findings == ()


READ = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM entries').fetchone()"


@pytest.mark.parametrize("how", ["reopened", "refused"])
def test_no_close_takes_the_locks_of_others_in_the_process_away(sqlite_setup, how):
    """POSIX drops them with any descriptor of the file; then whoever reads it last takes the log away."""
    setup = sqlite_setup
    setup.activate()
    with Ledger.open(setup.path, seal_keys=setup.seal_keys, read_only=True) as reader:
        assert reader.wallets() == [setup.wallet]
        if how == "reopened":
            setup.reopen()
        else:
            setup.path.with_name("ledger.db.lock").unlink()
            with pytest.raises(LedgerInUse):
                setup.open()
        for execution in range(3):
            assert setup.guard.authorize(setup.request(execution)).outcome == "allowed"
            command = [sys.executable, "-c", READ, str(setup.path)]
            subprocess.run(command, timeout=60, check=True)
            assert setup.path.with_name("ledger.db-wal").exists()
        setup.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
    assert check_ledger(setup.guard.ledger).findings == ()
