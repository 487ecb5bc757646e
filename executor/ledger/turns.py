"""Whose turn it is to commit.

Changes wait in one queue. A thread that finds a writer free takes all that waits and commits it, its own change or not;
the others sleep, each on a signal of its own, until their change has ended or they are to commit what came meanwhile.

What only takes authority away has a queue of its own: it is committed next, and by itself, so that it waits for no more
than what is under way.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Turns", "Waiting"]

TOGETHER_MAX: Final = 128
"""Changes in one commit: enough to make the disk's share of each small, and one that fails is not made again often."""


class Waiting:
    """What waits for its turn."""

    def __init__(self, *, urgent: bool = False) -> None:
        self.urgent = urgent
        """Whether it goes before all that isn't."""
        self.ended = False
        self.signal: SimpleQueue[None] = SimpleQueue()


W = TypeVar("W", bound=Waiting)


class Turns(Generic[W]):
    """The queue of one ledger, before `writers_max` writers."""

    def __init__(self, writers_max: int) -> None:
        self._lock = threading.Lock()
        self._urgent: deque[W] = deque()
        self._queue: deque[W] = deque()
        self._writing = 0
        self._writers_max = writers_max

    def __len__(self) -> int:
        """Return how many wait and are not taken yet."""
        return len(self._urgent) + len(self._queue)

    def enter(self, changes: Iterable[W]) -> None:
        """Queue `changes`. Whoever does takes their turns until each has ended, or gives up their places."""
        with self._lock:
            for change in changes:
                self._queue_of(change).append(change)

    def take(self, change: W) -> Sequence[W]:
        """Wait for a turn, and return what to commit; nothing, once `change` has ended. Then call `end`."""
        while True:
            with self._lock:
                if change.ended:
                    return ()
                if (queue := self._next()) and self._writing < self._writers_max:
                    self._writing += 1
                    return [queue.popleft() for _ in range(min(len(queue), TOGETHER_MAX))]
            change.signal.get()

    def end(self, taken: Iterable[W]) -> None:
        """End a turn: `taken` are committed or failed."""
        with self._lock:
            self._writing -= 1
            for change in taken:
                change.ended = True
        for change in taken:
            change.signal.put(None)
        self._wake_next()

    def give_up(self, changes: Iterable[W]) -> None:
        """Take `changes` out of the queue, those that nobody has taken: whoever waited for them was interrupted."""
        with self._lock:
            for change in changes:
                if change in (queue := self._queue_of(change)):
                    queue.remove(change)
        self._wake_next()

    def _queue_of(self, change: W) -> deque[W]:
        return self._urgent if change.urgent else self._queue

    def _next(self) -> deque[W]:
        return self._urgent or self._queue

    def _wake_next(self) -> None:
        with self._lock:
            queue = self._next()
            following = queue[0] if queue else None
        if following is not None:
            following.signal.put(None)
