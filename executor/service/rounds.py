"""Rounds: many streams are told by few tasks.

A task for each stream and event would cost more than the event. So one task makes the round, from stream to stream, and
most take what they are told without making it wait. If one does, the task stays with that one, and another goes on with
the rest: nobody waits for anybody else. Whoever keeps a task waiting for too long is ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

__all__ = ["Rounds", "Told"]

IN_A_ROW_MAX: Final = 250
"""Streams that a task tells before others may use the event loop: about 10 ms."""

SWEEP_S: Final = 1.0
"""How late, at most, a stream that is too slow is ended."""


class Told(Protocol):
    """A stream."""

    def tell_at_once(self) -> bool:
        """Tell it all that there is to tell, if that takes no waiting, and return True; else do nothing."""

    async def tell(self) -> None:
        """Tell it all that there is to tell. Raises nothing."""

    def end_if_late(self, now_s: float) -> None:
        """End it, if at this time of the event loop it has left a write waiting for too long."""


class Rounds:
    """The rounds of one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Told] = deque()
        self._being_told: dict[Told, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_driving = self._is_sweeping = False

    def put(self, stream: Told) -> None:
        """Have `stream` told, soon. It is in the rounds once at a time."""
        self._waiting.append(stream)
        if not self._is_driving:
            self._drive()

    async def leave(self, stream: Told) -> None:
        """Take `stream` out, whatever it is being told."""
        if stream in self._waiting:
            self._waiting.remove(stream)
        task = self._being_told.get(stream)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _drive(self) -> None:
        """Start a task, and look again once it has run: whatever waits then is kept by a stream that lets it wait."""
        self._is_driving = bool(self._waiting)
        loop = asyncio.get_running_loop()
        if self._is_driving:
            task = loop.create_task(self._round())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            loop.call_soon(self._drive)
        elif self._being_told and not self._is_sweeping:
            self._is_sweeping = True
            loop.call_later(SWEEP_S, self._sweep)

    async def _round(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        for _ in range(IN_A_ROW_MAX):
            if not self._waiting:
                return
            stream = self._waiting.popleft()
            if stream.tell_at_once():
                continue
            self._being_told[stream] = task
            try:
                await stream.tell()
            finally:
                del self._being_told[stream]

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for stream in tuple(self._being_told):
            stream.end_if_late(loop.time())
        self._is_sweeping = bool(self._being_told)
        if self._is_sweeping:
            loop.call_later(SWEEP_S, self._sweep)
