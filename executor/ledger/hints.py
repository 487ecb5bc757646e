"""Hints on PostgreSQL: which wallets other processes have just changed.

NOTIFY within a fire's own transaction costs a fifth of the fires, since PostgreSQL lets those that notify commit only
one after the other. So a commit only leaves word here, in memory, and a thread with a connection of its own sends on
what has gathered, without waiting for a disk. All of that may fail, and then the hint is lost: whoever must know looks
by themselves, too.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy import Engine

__all__ = ["Hints"]

CHANNEL: Final = "holdfire_moved"

PAUSE_S: Final = 0.02
"""Between two notices: a busy process sends 50 a second, each with all that was committed meanwhile."""

LEFT_MAX: Final = 10_000
"""Commits whose hints wait. More than that wait only for a database that is away; then hints help nobody."""

WALLETS_A_NOTICE_MAX: Final = 150
"""Of 45 bytes each: a notice holds less than 8,000."""

LOOK_S: Final = 0.5
"""How long a listener may go on after it was told to end."""

AGAIN_S: Final = 1.0
"""Before the next try to connect."""


class Hints:
    """What one process tells the others, and hears from them. Each direction takes a connection while it is used."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._errors = (engine.dialect.loaded_dbapi.Error, SQLAlchemyError)
        self._left: SimpleQueue[Collection[str]] = SimpleQueue()
        self._starting = threading.Lock()
        self._sender: threading.Thread | None = None
        self._sender_pid = 0
        self._closed = threading.Event()

    def close(self) -> None:
        """Send on what was left, and hear nothing more."""
        self._closed.set()
        self._left.put(())
        if self._sender is not None:
            self._sender.join()

    def leave(self, wallets: Collection[str]) -> None:
        """Leave word that `wallets` were changed. It costs the caller a microsecond."""
        if self._left.qsize() < LEFT_MAX:
            self._left.put(wallets)
        if self._sender is None:
            with self._starting:
                if self._sender is None:
                    sender = threading.Thread(
                        target=self._keep, args=(self._send, self._closed), name="hints out", daemon=True
                    )
                    sender.start()
                    self._sender = sender

    @contextmanager
    def listening(self, told: Callable[[Collection[str]], None]) -> Iterator[None]:
        """Call `told`, in a thread of its own, with what other processes left word of."""
        ended = threading.Event()
        listen = partial(self._listen, told, ended)
        threading.Thread(target=self._keep, args=(listen, ended), name="hints in", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _keep(self, use: Callable[[Any], None], ended: threading.Event) -> None:
        """Lend `use` a driver's connection that commits each statement, and another after each that fails."""
        while True:
            try:
                connection = self._engine.raw_connection()
                try:
                    driver: Any = connection.driver_connection
                    driver.autocommit = True
                    use(driver)
                finally:
                    connection.invalidate()  # it is not as others need it
            except self._errors:
                ended.wait(AGAIN_S)
            if ended.is_set() or self._closed.is_set():
                return

    def _send(self, driver: Any) -> None:  # noqa: ANN401 - the driver is an extra
        self._sender_pid = driver.info.backend_pid
        driver.execute("SET synchronous_commit TO off")
        while gathered := self._gathered():
            wallets = iter(gathered)
            while some := " ".join(islice(wallets, WALLETS_A_NOTICE_MAX)):
                driver.execute("SELECT pg_notify(%s, %s)", (CHANNEL, some))
            self._closed.wait(PAUSE_S)

    def _gathered(self) -> set[str]:
        """Wait for word; return the wallets of all that was left by then. Nothing: it is closed."""
        gathered: set[str] = set()
        with suppress(Empty):
            gathered.update(self._left.get(block=not self._closed.is_set()))
            while True:
                gathered.update(self._left.get_nowait())
        return gathered

    def _listen(self, told: Callable[[Collection[str]], None], ended: threading.Event, driver: Any) -> None:  # noqa: ANN401
        driver.execute(f"LISTEN {CHANNEL}")
        while not (ended.is_set() or self._closed.is_set()):
            for notice in driver.notifies(timeout=LOOK_S):
                if notice.pid != self._sender_pid:  # what this process did, it knows
                    told(notice.payload.split())
