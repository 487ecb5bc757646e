"""Calling the user's handlers, so that none holds up the connection, or another.

Each handler has a box of its own: what waits for it. Of what is only the latest of something (a price), a newer one
takes the older one's place. Everything else keeps its order. A full box loses its oldest, and says so: nothing is lost
in silence. A coroutine function runs on the loop, any other in a thread that serves it alone. An exception is logged,
reported, and ends nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

__all__ = ["WAITING_MAX", "Box", "Boxes", "FellBehind"]

log = logging.getLogger("executor.prices")

WAITING_MAX: Final = 4_096
"""What may wait for one handler: several times the pairs of a large exchange, and some megabytes at most."""

DRAIN_S_MAX: Final = 5.0
"""How long handlers may go on with what waits once the stream was closed."""


class FellBehind(Exception):
    """A handler was too slow, and `lost` of what waited for it was dropped."""

    def __init__(self, handler: str, lost: int) -> None:
        super().__init__(f"handler `{handler}` fell behind, and {lost} of what waited for it was dropped")
        self.handler = handler
        self.lost = lost


class Box:
    """What waits for one handler. Everything but the handler runs on one event loop."""

    def __init__(self, handler: Callable[..., Any], report: Callable[[Exception], None] | None = None) -> None:
        self.name: Final = getattr(handler, "__qualname__", None) or type(handler).__qualname__
        self.lost = 0
        self._handler = handler
        self._report = report
        self._waiting: dict[Hashable, Any] = {}
        self._lost_untold = 0
        self._is_busy = False
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, value: object, *, latest_of: Hashable | None = None) -> None:
        """Let `value` wait, instead of the one that waits as the latest of the same. It never blocks."""
        key: Hashable = object() if latest_of is None else latest_of
        if key not in self._waiting and len(self._waiting) >= WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
            self.lost += 1
            self._lost_untold += 1
            if self._lost_untold == 1:
                self._tell(FellBehind(self.name, 1))
        self._waiting[key] = value
        self._idle.clear()
        self._filled.set()

    async def serve(self) -> None:
        """Call the handler with all that comes, one after the other, until canceled."""
        call, end = _caller(self._handler)
        try:
            while True:
                await self._filled.wait()
                while self._waiting:
                    await self._serve_one(call)
                self._tell_lost()
                self._filled.clear()
                self._idle.set()
        finally:
            end()

    async def drained(self) -> None:
        """Wait until nothing waits and the handler has returned."""
        await self._idle.wait()

    def give_up(self) -> None:
        """Drop what waits, and say so."""
        dropped, self._waiting = len(self._waiting), {}
        self.lost += dropped
        if dropped:
            self._tell(FellBehind(self.name, dropped))

    async def _serve_one(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        value = self._waiting.pop(next(iter(self._waiting)))
        try:
            await call(value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._failed(error)  # the handler's own: something that it waited for was canceled
        except Exception as error:  # noqa: BLE001 - whatever a user's code raises
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        log.error("handler `%s` failed", self.name, exc_info=error)
        if self._report is not None and isinstance(error, Exception):
            self._report(error)

    def _tell_lost(self) -> None:
        lost, self._lost_untold = self._lost_untold, 0
        if lost > 1:
            self._tell(FellBehind(self.name, lost))

    def _tell(self, error: FellBehind) -> None:
        log.error("%s", error)
        if self._report is not None:
            self._report(error)


class Boxes:
    """The boxes of one run, each served by a task of its own."""

    def __init__(self) -> None:
        self._tasks: dict[Box, asyncio.Task[None]] = {}

    def add(self, handler: Callable[..., Any], report: Callable[[Exception], None] | None = None) -> Box:
        """Return a box for `handler`, served from now on."""
        box = Box(handler, report)
        self._tasks[box] = asyncio.create_task(box.serve(), name=f"handler {box.name}")
        return box

    def serve_this_task(self) -> bool:
        """Tell whether a handler asks: it would wait for itself, if it waited for their end."""
        return asyncio.current_task() in self._tasks.values()

    async def close(self) -> None:
        """Let the handlers finish what waits, as long as they may, then end."""
        if self._tasks:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S_MAX):
                    await asyncio.gather(*(box.drained() for box in self._tasks))
        await self.abandon()

    async def abandon(self) -> None:
        """End now, and say what was dropped."""
        for box, task in self._tasks.items():
            box.give_up()
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._tasks.clear()


def _caller(handler: Callable[..., Any]) -> tuple[Callable[[Any], Awaitable[Any]], Callable[[], None]]:
    """Return how to call `handler` from a loop without blocking it, and what ends that."""
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004 - asks for its kind
        return handler, lambda: None
    thread = _Thread(handler)
    return thread.call, thread.end


class _Thread:
    """A thread that calls one function. It is a daemon: a handler that hangs never keeps the process from ending."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._calls: SimpleQueue[tuple[Any, asyncio.Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="price handler", daemon=True).start()

    async def call(self, value: object) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._calls.put((value, answer))
        returned, error = await answer
        if error is not None:
            raise error
        if inspect.isawaitable(returned):
            await returned

    def end(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            value, answer = call
            result: tuple[Any, Exception | None]
            try:
                result = self._function(value), None
            except Exception as error:  # noqa: BLE001 - handed to whoever called
                result = None, error
            except BaseException as error:  # noqa: BLE001 - `sys.exit` in a handler ends nothing either
                result = None, RuntimeError(f"the handler raised {error!r}")
            with suppress(RuntimeError):  # the loop was closed meanwhile
                answer.get_loop().call_soon_threadsafe(_answer, answer, result)


def _answer(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)
