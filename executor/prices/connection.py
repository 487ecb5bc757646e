"""A client's connection that comes back, and how a program runs it: on its loop, or in a thread.

`stay_connected` dials, lets the caller attend to the connection, and dials again when it ended, after a delay that
doubles from 1 s to 60 s and starts anew after a connection that was good. Whatever else the network or the server does
is retried; a refused key never is: that raises `AuthenticationError`. `Runner` starts and stops it, from any thread.

No redirect is followed: a key goes nowhere but where the program said. The library below writes no debug lines, since
they hold every header and the whole URL.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, InvalidURI
from websockets.uri import parse_uri

from executor.credentials import harmless_error
from executor.errors import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from websockets.uri import WebSocketURI

__all__ = ["AuthenticationError", "Runner", "Target", "backoff", "read_url", "send", "stay_connected"]

log = logging.getLogger("executor.prices")

DELAY_S_MIN: Final = 1.0
DELAY_S_MAX: Final = 60.0

OPEN_S_MAX: Final = 10.0
CLOSE_S_MAX: Final = 1.0
"""How long a server may take to answer a close: a half-open one never does, and the next connection waits for it."""

SEND_S_MAX: Final = 10.0
"""How long a server may leave a message untaken: it is as dead as a silent one."""

MESSAGE_BYTES_MAX: Final = 2**20

UNAUTHORIZED: Final = frozenset({401, 403})


class AuthenticationError(ExecutorError):
    """The server refused the key or token; the same one would be refused again, so nothing is retried."""


class NoProxy(ExecutorError):
    """`HTTPS_PROXY` or its like holds no proxy's URL. It isn't repeated in the text: it may hold a password."""


class Target(NamedTuple):
    """Where to connect, and with what. Its `repr` shows neither."""

    url: str
    headers: dict[str, str]
    secrets: tuple[str, ...]
    """What of both must stand in no text."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def read_url(url: str) -> WebSocketURI:
    """Return what `url` names.

    Raises:
        ValueError: it is no WebSocket's, or holds a user's name. It isn't repeated in the text: it may hold a key.

    """
    try:
        uri = parse_uri(url)
    except (InvalidURI, ValueError):
        uri = None
    if uri is None or uri.user_info is not None:
        raise ValueError("the server's URL must begin with ws:// or wss:// and name a host alone, without a user")
    return uri


def backoff(jitter: Callable[[], float] = lambda: 1.0) -> Iterator[float]:
    """Yield delays in seconds: 1, 2, 4 … 60. `jitter` returns 0 to 1: which part of the delay's second half to wait."""
    delay_s = DELAY_S_MIN
    while True:
        yield delay_s * (1 + jitter()) / 2
        delay_s = min(2 * delay_s, DELAY_S_MAX)


async def stay_connected(
    dial: Callable[[], Awaitable[Target]],
    attend: Callable[[ClientConnection, Callable[[], None]], Awaitable[None]],
    *,
    delays: Callable[[], Iterator[float]] = backoff,
    report: Callable[[Exception], None] | None = None,
    is_refused: Callable[[int], bool] = UNAUTHORIZED.__contains__,
) -> None:
    """Connect, attend, and connect again, until canceled.

    `dial` is asked before each connection. `attend` returns or raises when the connection is over, and calls what it
    gets as second argument once the connection has proved good. `is_refused` tells whether an HTTP status refuses the
    key for good; any other is tried again.

    Raises:
        AuthenticationError: the server refused the key, or `attend` raised it.

    """
    no_secrets: tuple[str, ...] = ()
    waits = delays()

    def good() -> None:
        nonlocal waits
        waits = delays()

    while True:
        least_s, secrets = 0.0, no_secrets
        try:
            target = await dial()
            secrets = target.secrets
            async with _Connect(target) as socket:
                try:
                    await attend(socket, good)
                finally:
                    await socket.close()  # else it would be closed as if a mistake had been made here
        except AuthenticationError:
            raise
        except InvalidStatus as error:
            if is_refused(error.response.status_code):
                raise AuthenticationError(f"the server refused the key: {error.response.status_code}") from None
            least_s = _retry_after_s(error)
            _tell(error, secrets, report)
        except InvalidProxy:
            _tell(NoProxy("the proxy that the environment names can't be used"), secrets, report)
        except Exception as error:  # noqa: BLE001 - no network, no token, a server that makes no sense
            _tell(error, secrets, report)
        await asyncio.sleep(max(next(waits), least_s))


async def send(socket: ClientConnection, text: str) -> None:
    """Send one message; a server that doesn't take it in time is given up.

    Raises:
        ConnectionClosed: the connection has ended.
        TimeoutError: it is given up.

    """
    try:
        async with asyncio.timeout(SEND_S_MAX):
            await socket.send(text)
    except TimeoutError:
        socket.transport.abort()
        raise


class Runner:
    """Runs one coroutine at a time, on the caller's loop or in a thread, until it ends, or is stopped or closed.

    What was stopped may run again. Closed once is for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._is_stopped = False

    @property
    def is_closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._is_closed

    @property
    def is_ending(self) -> bool:
        """Tell whether what runs was stopped or closed."""
        return self._is_closed or self._is_stopped

    def call_soon(self, function: Callable[[], Any]) -> None:
        """Call `function` on the loop of what runs, from any thread; if nothing runs, don't."""
        with self._lock:
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(function)

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run `main`; return when it was closed, raise what it raises.

        Raises:
            RuntimeError: it runs already.

        """

        async def running() -> None:
            await main()

        with self._lock:
            if self._is_closed:
                return
            if self._task is not None:
                raise RuntimeError("it is running already")
            self._is_stopped = False
            self._task = task = asyncio.create_task(running())
        try:
            await asyncio.wait([task])
            if not (task.cancelled() and self.is_ending):
                task.result()
        finally:
            with self._lock:
                self._task = None
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    def run_forever(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run `main` on a loop of its own. Ctrl-C closes it, and is no error."""
        try:
            asyncio.run(self.run(main))
        except KeyboardInterrupt:
            log.info("interrupted")

    async def stop(self) -> None:
        """End what runs, and wait for that if it runs on this loop."""
        with self._lock:
            task = self._task
            self._is_stopped = task is not None
            if task is not None:
                task.get_loop().call_soon_threadsafe(task.cancel)
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    def close(self) -> None:
        """End what runs, and whatever would. From any thread, a handler's too; it doesn't wait for the end."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                if self._task is not None:
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)


class _Connect(connect):
    def __init__(self, target: Target) -> None:
        super().__init__(
            target.url,
            additional_headers=target.headers,
            compression=None,  # it took four times the memory when measured
            open_timeout=OPEN_S_MAX,
            close_timeout=CLOSE_S_MAX,
            ping_interval=None,  # both protocols have pings of their own, and a watchdog
            max_size=MESSAGE_BYTES_MAX,
            logger=_Terse(logging.getLogger("websockets.client"), {}),
        )

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Terse(logging.LoggerAdapter[logging.Logger]):
    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level > logging.DEBUG and super().isEnabledFor(level)


def _tell(error: Exception, secrets: tuple[str, ...], report: Callable[[Exception], None] | None) -> None:
    told = harmless_error(error, secrets)
    log.warning("connection lost: %s", str(told) or type(told).__name__)
    if report is not None and not isinstance(error, ConnectionClosed):
        report(told)


def _retry_after_s(error: InvalidStatus) -> float:
    asked = error.response.headers.get("Retry-After", "")
    return min(float(asked), DELAY_S_MAX) if asked.isascii() and asked.isdigit() else 0.0
