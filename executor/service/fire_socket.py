"""The service's Unix sockets: strategies fire through one, the operator's command line speaks through the other.

Fires never come over TCP, and who may do what is a matter of which socket they can open. A process that can open the
strategies' socket can fire by permits that are in force, ask, and nothing else: it has no call that halts, lifts,
activates, funds or changes a limit. A process that can open the operator's can do what `executor halt`, `lift`,
`limits` and `funding` do, and can't fire. Whoever runs as the service's own user opens both, and its ledger and its
keys too: **a strategy that isn't trusted runs as another user**, who is listed here.

A socket's file is there with mode 0600 from its first moment, and nobody can connect before its owner and mode are as
they stay. Who connects is known by the kernel (SO_PEERCRED); for any uid that isn't listed the connection ends without
an answer. One process at a time listens at a path: it holds `<path>.lock`, and removes only a socket that nobody
listens on.

No peer can hold up another: what it may have under way is bounded, and what it sends or doesn't read has a deadline. A
fire that has begun goes on when its peer goes away: the ledger says what became of it, to whoever asks with its
executionId. `executor.service.calls` says what goes over the wire.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from pydantic import ValidationError

from executor.errors import ExecutorError, UnknownWallet
from executor.evidence import Evidence
from executor.halts import Halt, Halter, Scope
from executor.limits import Limits
from executor.operations import OperationsHere
from executor.request import FireRequest
from executor.service.calls import LINE_BYTES_MAX, LISTED_MAX, Call, CallError, Code, Fired, Told, address_of, encode
from executor.status import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from executor.execution import Executor
    from executor.guard import AsyncGuard

__all__ = ["LINUX_ONLY", "FireSocket", "OperatorSocket", "tells_who_connects"]

log = logging.getLogger("executor.service")

CONNECTIONS_MAX: Final = 128
"""Of one socket. The client makes one a call; one more is told BUSY."""

CALLS_MAX: Final = 8
"""Under way on one connection: the next is read when one of them has ended."""

LINE_S_MAX: Final = 5.0
"""From a line's first byte to its last. Before the first, a connection may wait for ever."""

ANSWER_S_MAX: Final = 5.0
"""How long a peer may leave an answer unread."""

ENDING_S_MAX: Final = 45.0
"""How long closing waits for what is under way: a rail has 20 s to build, 20 s to send. What is cut off then stands in
the ledger, for settlement."""

OPERATOR_THREADS: Final = 4
"""Of the operator's own, so that a halt never waits for a thread behind fires."""

CREDENTIALS: Final = struct.Struct("3i")
LINUX_ONLY: Final = "the service's Unix sockets are for Linux only: elsewhere nothing here can tell who connects"


def tells_who_connects() -> bool:
    """Tell whether this system says which user a peer is; without that no socket is opened."""
    return hasattr(socket, "SO_PEERCRED")


class _UnixSocket:
    """Listens at a path, and answers calls from those it knows. A context manager: it listens while entered."""

    tells_faults: ClassVar[bool] = False
    """Whether the peers are whom the texts of faults are written for."""

    def __init__(
        self,
        path: str | Path,
        calls: Mapping[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]],
        *,
        uids: Collection[int] | None,
        gid: int | None,
    ) -> None:
        self.path: Final = Path(path).absolute()
        self._calls = calls
        self._uids = frozenset({os.geteuid()} if uids is None else uids)
        self._gid = gid
        self._lock: int | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing = False

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: a living process listens at the path, a file that is no socket is there, its folder can't be
                used, or this isn't Linux; `filename` is the path.

        """
        if not tells_who_connects():
            raise OSError(errno.ENOTSUP, LINUX_ONLY, str(self.path))
        self._lock = _lock(self.path)
        try:
            bound = _bind(self.path, self._gid)
            self._file = self.path.stat()
            self._server = await asyncio.start_unix_server(self._connected, sock=bound, limit=LINE_BYTES_MAX)
        except BaseException:
            os.close(self._lock)
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Take no more calls, and wait for those under way."""
        assert self._server is not None  # noqa: S101 - entered
        assert self._lock is not None  # noqa: S101
        self._closing = True
        self._server.close()
        with suppress(FileNotFoundError):
            if os.path.samestat(self.path.stat(), self._file):
                self.path.unlink()
        for connection in self._connections:
            connection.cancel()  # it reads no more, and ends when what it asked for is answered
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=ENDING_S_MAX)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._connections, *self._under_way, return_exceptions=True)
        os.close(self._lock)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._connections.add(task)
        try:
            _pid, uid, _gid = CREDENTIALS.unpack(
                writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            )
            if self._closing:
                return
            if uid not in self._uids:
                log.warning("`%s`: uid %d is not listed", self.path, uid)
            elif len(self._connections) > CONNECTIONS_MAX:
                await _answer(writer, _error(None, CallError(Code.BUSY, "too many connections: try again")))
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError):  # it went away, or it dawdles
            pass
        except asyncio.CancelledError:  # closing: asyncio's server would tell it as an error of the handler's
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read calls, and have each answered when it is done, until a line is none or the peer goes away."""
        room = asyncio.Semaphore(CALLS_MAX)
        mine: set[asyncio.Task[None]] = set()
        try:
            while True:
                await room.acquire()
                try:
                    call = Call.read(await _line(reader))
                except CallError as error:
                    await _answer(writer, _error(None, error))
                    return
                task = asyncio.create_task(self._carry_out(call, writer))
                for held in (mine, self._under_way):
                    held.add(task)
                    task.add_done_callback(held.discard)
                task.add_done_callback(lambda _: room.release())
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            if mine:  # nothing more is asked, but the peer may wait for answers
                await asyncio.wait(mine)

    async def _carry_out(self, call: Call, writer: asyncio.StreamWriter) -> None:
        answer = await self._answer_to(call)
        try:
            await _answer(writer, answer)
        except (OSError, TimeoutError):
            writer.transport.abort()

    async def _answer_to(self, call: Call) -> dict[str, Any]:
        try:
            return {"answer": await self._calls.get(call.name, _unknown_call)(call.arguments), "id": call.id}
        except CallError as error:
            return _error(call.id, error)
        except ExecutorError as error:
            log.error("`%s`: `%s` failed: %s", self.path, call.name, error)  # noqa: TRY400 - one line says it
            return _error(call.id, CallError(Code.FAULT, str(error) if self.tells_faults else "the service failed"))
        except Exception:
            log.exception("`%s`: `%s` failed", self.path, call.name)
            return _error(call.id, CallError(Code.FAULT, "the service failed"))  # the text may hold a secret


class FireSocket(_UnixSocket):
    """The strategies' socket, mode 0600: fire, explain, execution, headroom.

    | call | with | answer |
    |---|---|---|
    | fire | a FireRequest | decision, execution or null |
    | explain | a FireRequest | decision |
    | execution | wallet, executionId | execution or null |
    | headroom | wallet | caps, halts |
    """

    def __init__(
        self,
        path: str | Path,
        guard: AsyncGuard,
        executor: Executor | None = None,
        *,
        uids: Collection[int] | None = None,
        gid: int | None = None,
        scopes: Collection[Scope] | None = None,
    ) -> None:
        """Offer `executor`'s fires at `path`; without one, every fire is answered NO_RAILS.

        Args:
            path: where; a strategy of another user must be able to reach the folder.
            guard: the one that `executor` fires by.
            executor: None: this service has no rails.
            uids: who may connect; None: the service's own user.
            gid: a group whose members may open the file too (mode 0660), for uids that aren't its owner's.
            scopes: the wallets, or single agents, that may be named here; None: all.

        """
        calls = {
            "fire": self._fire,
            "explain": self._explain,
            "execution": self._execution,
            "headroom": self._headroom,
        }
        super().__init__(path, calls, uids=uids, gid=gid)
        self._guard = guard
        self._executor = executor
        self._scopes = None if scopes is None else frozenset(scopes)

    async def _fire(self, arguments: dict[str, Any]) -> dict[str, Any]:
        request = self._request(arguments)
        if self._executor is None:
            raise CallError(Code.NO_RAILS, "this service fires nothing")
        if request.rail not in self._executor.rails:
            raise CallError(Code.RAIL_UNKNOWN, f"there is no rail `{request.rail}`")
        outcome = await self._executor.fire(request)
        return Fired.of(outcome.decision, outcome.execution).to_json_object()

    async def _explain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        decision = await self._guard.explain(self._request(arguments))
        return {"decision": decision.to_json_object()}

    async def _execution(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wallet, execution_id = _strings(arguments, "wallet", "executionId")
        found = None
        if self._scopes is None or any(scope.wallet == wallet for scope in self._scopes):
            found = await self._guard.execution(wallet, execution_id)
        if found is None or not isinstance(found.evidence, Evidence):  # a funding is the operator's
            return {"execution": None}
        told = Told.of(found)
        return {"execution": told.to_json_object() if self._lists(wallet, told.agent_id) else None}

    async def _headroom(self, arguments: dict[str, Any]) -> dict[str, Any]:
        (wallet,) = _strings(arguments, "wallet")
        if self._scopes is not None and all(scope.wallet != wallet for scope in self._scopes):
            raise _forbidden()
        try:
            found = await self._guard.headroom(wallet)
        except UnknownWallet:
            raise _forbidden() from None
        halts = [halt for halt in found.halts if halt.agent_id is None or self._lists(wallet, halt.agent_id)]
        status = Status(wallet, headroom=found._replace(halts=tuple(halts[:LISTED_MAX]))).to_json_object()
        return {"caps": status["caps"], "halts": status["halts"]}

    def _request(self, arguments: dict[str, Any]) -> FireRequest:
        try:
            request = FireRequest.from_json_object(arguments)
        except ValidationError as error:
            raise _malformed(error) from None
        if not self._lists(request.wallet, request.agent_id):
            raise _forbidden()
        return request

    def _lists(self, wallet: str, agent_id: str) -> bool:
        return self._scopes is None or not self._scopes.isdisjoint({Scope(wallet), Scope(wallet, agent_id)})


class OperatorSocket(_UnixSocket):
    """The operator's socket, mode 0600: halt, lift, halts, limits, change-limits, set-fundable.

    | call | with | answer |
    |---|---|---|
    | halt | wallet, agentId (without them: everything), why | mayStillLand, more |
    | lift | wallet, agentId | lifted |
    | halts | wallet, if of one | halts, more |
    | limits | | limits |
    | change-limits | limits | |
    | set-fundable | wallet, fundable | changed |
    """

    tells_faults = True

    def __init__(
        self,
        path: str | Path,
        guard: AsyncGuard,
        *,
        uids: Collection[int] | None = None,
        gid: int | None = None,
    ) -> None:
        """Do at `path` what an operator may do to `guard`'s ledger. See `FireSocket` for `uids` and `gid`."""
        calls = {
            "halt": self._halt,
            "lift": self._lift,
            "halts": self._halts,
            "limits": self._limits,
            "change-limits": self._change_limits,
            "set-fundable": self._set_fundable,
        }
        super().__init__(path, calls, uids=uids, gid=gid)
        self._operations = OperationsHere(guard.guard)
        self._threads = ThreadPoolExecutor(OPERATOR_THREADS, thread_name_prefix="operator")

    async def __aexit__(self, *exception: object) -> None:
        """Take no more calls, and wait for those under way."""
        await super().__aexit__(*exception)
        await asyncio.to_thread(self._threads.shutdown)

    async def _halt(self, arguments: dict[str, Any]) -> dict[str, Any]:
        scope = _scope({name: value for name, value in arguments.items() if name != "why"})
        members = {**arguments, "atMs": 0, "by": Halter.OPERATOR.value}
        try:
            halt = Halt.from_json_object(members)
        except ValidationError as error:
            raise _malformed(error) from None

        found, more = await self._in_thread(lambda: self._operations.halt(scope, halt.why))
        log.warning("halted: %s", halt)
        return {"mayStillLand": found[:LISTED_MAX], "more": more or len(found) > LISTED_MAX}

    async def _lift(self, arguments: dict[str, Any]) -> dict[str, Any]:
        scope = _scope(arguments)
        lifted = await self._in_thread(lambda: self._operations.lift(scope))
        log.warning("lifted: %s", scope.agent_id or scope.wallet or "everything")
        return {"lifted": lifted}

    async def _halts(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wallet = _scope(arguments).wallet
        found = await self._in_thread(lambda: self._operations.halts(wallet))
        return {"halts": [halt.to_json_object() for halt in found[:LISTED_MAX]], "more": len(found) > LISTED_MAX}

    async def _limits(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"limits": (await self._in_thread(self._operations.limits)).to_json_object()}

    async def _change_limits(self, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            limits = Limits.from_json_object(arguments.get("limits"))
        except ValidationError as error:
            raise _malformed(error) from None
        await self._in_thread(lambda: self._operations.change_limits(limits))
        log.warning("limits changed: %s", limits)
        return {}

    async def _set_fundable(self, arguments: dict[str, Any]) -> dict[str, Any]:
        match arguments:
            case {"wallet": str() as wallet, "fundable": bool() as fundable}:
                return {
                    "changed": await self._in_thread(lambda: self._operations.set_fundable(wallet, fundable=fundable))
                }
        raise CallError(Code.MALFORMED, "`wallet` must be an address, and `fundable` true or false")

    async def _in_thread(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - what the work returns
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ValueError as error:
            raise CallError(Code.MALFORMED, str(error)) from None


def _lock(path: Path) -> int:
    """Take the lock file beside `path`, for as long as the returned descriptor stays open."""
    folder = path.parent.stat()
    if folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX:
        raise OSError(0, "others may write in its folder, and could put their own socket there", str(path))
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(error.errno, "another process listens there", str(path)) from None
    return descriptor


def _bind(path: Path, gid: int | None) -> socket.socket:
    """Return a socket bound to `path`, its mode and owner as they stay; nobody can connect before it listens."""
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(bound.fileno(), 0o600)  # Linux gives the file this mode, less the umask
        with address_of(path) as address:
            bound.bind(address)
        path.chmod(0o600)
        if gid is not None:
            os.chown(path, -1, gid)
            path.chmod(0o660)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return bound


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; any other file stays, and raises OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(0, "a file that is no socket is there", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trying:
        trying.setblocking(False)  # a full backlog is somebody's too
        try:
            with address_of(path) as address:
                trying.connect(address)
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass
    raise OSError(0, "another process listens there", str(path))


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line.

    Raises:
        CallError: it is too long.
        IncompleteReadError: there is no more.
        TimeoutError: it has begun, and doesn't end.

    """
    first = await reader.readexactly(1)
    if first == b"\n":
        return first
    try:
        async with asyncio.timeout(LINE_S_MAX):
            return first + await reader.readuntil()
    except asyncio.LimitOverrunError:
        raise CallError(Code.MALFORMED, f"a line must be at most {LINE_BYTES_MAX} bytes") from None


async def _answer(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(encode(answer))
    async with asyncio.timeout(ANSWER_S_MAX):
        await writer.drain()


async def _unknown_call(_arguments: dict[str, Any]) -> dict[str, Any]:
    raise CallError(Code.CALL_UNKNOWN, "this socket has no such call")


def _error(call_id: int | None, error: CallError) -> dict[str, Any]:
    return {"error": error.to_json_object(), "id": call_id}


def _forbidden() -> CallError:
    return CallError(Code.FORBIDDEN, "the operator didn't list that for this socket")


def _malformed(error: ValidationError) -> CallError:
    first = error.errors(include_input=False, include_url=False)[0]
    return CallError(Code.MALFORMED, f"`{'.'.join(map(str, first['loc']))[:80]}`: {first['msg'][:200]}")


def _strings(arguments: dict[str, Any], *names: str) -> tuple[str, ...]:
    found = tuple(value for name in names if isinstance(value := arguments.get(name), str))
    if len(found) != len(names) or len(arguments) != len(names):
        raise CallError(Code.MALFORMED, f"the call must be with {' and '.join(f'`{name}`' for name in names)}")
    return found


def _scope(arguments: dict[str, Any]) -> Scope:
    match arguments:
        case {"wallet": str() as wallet, "agentId": str() as agent_id} if len(arguments) == 2:  # noqa: PLR2004
            return Scope(wallet, agent_id)
        case {"wallet": str() as wallet} if len(arguments) == 1:
            return Scope(wallet)
        case _ if not arguments:
            return Scope()
    raise CallError(Code.MALFORMED, "a scope must be nothing (everything), `wallet`, or `wallet` and `agentId`")
