"""Players: threads in real processes, which do what a test tells them, all at the same moment.

The test is the referee: it deals out tasks over pipes, waits until every player is ready, and says go. A task prepares
all that it can, and returns what is left to do at the signal. The players of one process share its guard; no two
processes share anything but the database. Whoever waits has a deadline.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from executor.assets import KnownAssets
from executor.guard import Guard
from executor.prices.quote import FixedPrices, Quote
from executor.seal import SealKeys
from tests.support import BONK, JTO, T0, USDC

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 60
STOP_S = 10

SEAL_KEYS = SealKeys.single(b"s" * 32)
ASSETS = KnownAssets([USDC, JTO, BONK])


def prices():
    quotes = {USDC: "1", JTO: "2.50"}
    return FixedPrices(
        [Quote.of(asset.mint, usd, at_ms=T0, max_age_ms=10**12, source="test") for asset, usd in quotes.items()]
    )


# In the players' processes


class Table:
    """What the players of one process share: its guard."""

    def __init__(self):
        self._lock = threading.Lock()
        self.guard = None

    def open(self, url, limits):
        with self._lock:
            if self.guard is None:
                self.guard = Guard.open(
                    url, seal_keys=SEAL_KEYS, prices=prices(), assets=ASSETS, limits=limits, clock=lambda: T0
                )
        return self.guard.ledger.id

    def close(self):
        with self._lock:
            if self.guard is not None:
                self.guard.close()
                self.guard = None


class Player:
    """What a task is given: the table, a number that no other player has, and the line to the referee."""

    def __init__(self, number, table, line):
        self.number = number
        self.table = table
        self.connection = None
        self._line = line

    @property
    def guard(self):
        return self.table.guard

    def say(self, what=None):
        """Tell the referee how far the play has come."""
        self._line.send(("said", what))

    def is_told(self, within_s=0):
        """Tell whether the referee has said anything since the signal."""
        return self._line.poll(within_s)

    def meet(self):
        """Wait until the referee has heard of all players that they have come this far."""
        self.say()
        assert self.is_told(DEADLINE_S)


def play(number, table, line):
    """Do one task after the other, until the referee hangs up."""
    player = Player(number, table, line)
    with suppress(EOFError, OSError):
        while True:
            task, args = line.recv()
            try:
                at_the_signal = task(player, *args)
                line.send(("ready", None))
                answer = ("done", at_the_signal() if line.recv() == "go" else None)
            except Exception:  # noqa: BLE001 - told to the referee
                answer = ("failed", traceback.format_exc())
            while line.poll():
                line.recv()  # what the referee has said, which a task may have seen but leaves there
            line.send(answer)


def main(first, descriptors):
    table = Table()
    threads = [
        threading.Thread(target=play, args=(number, table, Connection(descriptor)))
        for number, descriptor in enumerate(descriptors, first)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table.close()


# In the referee's process


class Line:
    """The referee's end of the pipe to one player."""

    def __init__(self, number, connection):
        self.number = number
        self._connection = connection

    def send(self, what):
        self._connection.send(what)

    def hear(self, *kinds):
        """Return what the player says next, which must be of one of `kinds`."""
        if not self._connection.poll(DEADLINE_S):
            raise TimeoutError(f"player {self.number} says nothing")
        kind, what = self._connection.recv()
        assert kind in kinds, f"player {self.number} {kind}: {what}"
        return kind, what

    def close(self):
        self._connection.close()


def start(lines, task, *args):
    """Deal out `task` with `args`, and say go when all are ready. A function in `args` is given the player's number."""
    for line in lines:
        line.send((task, [arg(line.number) if callable(arg) else arg for arg in args]))
    heard = [line.hear("ready", "failed") for line in lines]
    failures = [what for kind, what in heard if kind == "failed"]
    for line, (kind, _what) in zip(lines, heard, strict=True):
        if kind == "ready":
            line.send("no" if failures else "go")
    if failures:
        finish([line for line, (kind, _what) in zip(lines, heard, strict=True) if kind == "ready"])
        raise AssertionError(failures[0])


def finish(lines):
    """Return what each has to show for it."""
    heard = [line.hear("done", "failed") for line in lines]
    failures = [what for kind, what in heard if kind == "failed"]
    assert not failures, f"{len(failures)} players failed, the first so:\n{failures[0]}"
    return [what for _kind, what in heard]


def let_on(lines):
    """Wait until each has come so far, and then let all know."""
    for line in lines:
        line.hear("said")
    for line in lines:
        line.send("go on")


def at_once(lines, task, *args):
    start(lines, task, *args)
    return finish(lines)


@contextmanager
def seated(processes, threads):
    """Yield the lines to the players of so many processes with so many threads each."""
    lines, running = [], []
    try:
        for _ in range(processes):
            pipes = [Pipe() for _ in range(threads)]
            descriptors = [theirs.fileno() for _ours, theirs in pipes]
            command = [sys.executable, "-m", "tests.races.players", str(len(lines)), *map(str, descriptors)]
            running.append(subprocess.Popen(command, cwd=ROOT, pass_fds=descriptors))
            for ours, theirs in pipes:
                theirs.close()
                lines.append(Line(len(lines), ours))
        yield lines
    finally:
        for line in lines:
            line.close()
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    number, *inherited = map(int, sys.argv[1:])
    main(number, inherited)
