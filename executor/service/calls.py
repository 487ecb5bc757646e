"""Calls over a Unix socket: one JSON object a line, each way, at most 16 KiB. Both ends speak by this file.

A call names itself, and is answered once, in whatever order calls end:

    {"id": 1, "call": "fire", "with": {...}}
    {"answer": {...}, "id": 1}
    {"error": {"code": "NO_RAILS", "detail": "..."}, "id": 1}

The reading is that of permits: a duplicate key, an unknown one or a number in exponent form is an error. A line that is
no call is answered with `"id": null`, and ends the connection: where the next one begins is anybody's guess.

| code | what it says |
|---|---|
| MALFORMED | it is no call, or not of the form that the call has |
| CALL_UNKNOWN | this socket has no such call: the operator's aren't on the strategies' |
| FORBIDDEN | the operator didn't list this wallet or agent for this socket |
| NO_RAILS | this service fires nothing |
| RAIL_UNKNOWN | this service has no such rail |
| BUSY | too many connections; the call was not read |
| FAULT | the service failed at it: what happened stands in its ledger |

All but FAULT say that the call did nothing.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from executor.decide import Decision, read_decision
from executor.errors import ExecutorError
from executor.fill import Fill
from executor.lifecycle import AttemptState
from permits import PermitError
from permits.canonical import INPUT_BYTES_MAX, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from executor.guard import Execution

__all__ = [
    "LINE_BYTES_MAX",
    "LISTED_MAX",
    "Call",
    "CallError",
    "Code",
    "Fired",
    "Told",
    "address_of",
    "encode",
    "fire_socket_path",
    "operator_socket_path",
    "read_answer",
]

LINE_BYTES_MAX: Final = INPUT_BYTES_MAX
"""With its end of line: a fire takes about 500 bytes, its answer with every check about 4 KiB."""

LISTED_MAX: Final = 100
"""What one answer lists of signatures or halts, so that it fits a line; `more` says whether there are others."""

ADDRESS_BYTES_MAX: Final = 107
"""Linux, `sun_path`, with its NUL."""

ID_MAX: Final = 2**53 - 1
CALL_MEMBERS: Final = {"call", "id", "with"}


class Code(StrEnum):
    """Why a call has no answer."""

    MALFORMED = "MALFORMED"
    CALL_UNKNOWN = "CALL_UNKNOWN"
    FORBIDDEN = "FORBIDDEN"
    NO_RAILS = "NO_RAILS"
    RAIL_UNKNOWN = "RAIL_UNKNOWN"
    BUSY = "BUSY"
    FAULT = "FAULT"


class CallError(ExecutorError):
    """The service says that a call has no answer."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {"code": self.code.value, "detail": self.detail}


class Call(NamedTuple):
    """What a line asks for."""

    id: int
    name: str
    arguments: dict[str, Any]

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form."""
        return {"call": self.name, "id": self.id, "with": self.arguments}

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Read a line. Raises CallError: it is no call."""
        try:
            found = parse(line)
        except PermitError as error:
            raise CallError(Code.MALFORMED, str(error)) from None
        match found:
            case {"id": int() as number, "call": str() as name, "with": dict() as arguments}:
                if not isinstance(number, bool) and 0 <= number <= ID_MAX and found.keys() == CALL_MEMBERS:
                    return cls(number, name, arguments)
        raise CallError(Code.MALFORMED, 'a call must be {"id": NUMBER, "call": NAME, "with": {...}}')


def encode(value: dict[str, Any]) -> bytes:
    """Return `value` as a line."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode("ascii") + b"\n"


def read_answer(line: bytes) -> dict[str, Any]:
    """Return what a line answers.

    Raises:
        CallError: it says why there is no answer.
        ValueError: it is no answer.

    """
    match parse(line):
        case {"answer": dict() as answer}:
            return answer
        case {"error": {"code": str() as code, "detail": str() as detail}}:
            raise CallError(Code(code), detail)
    raise ValueError("that is no answer")


class Told(NamedTuple):
    """What a strategy is told of an execution: not the signed transaction itself, which it might hold back or send."""

    execution_id: str
    agent_id: str
    state: AttemptState
    tx_signature: str | None = None
    fill: Fill | None = None
    """What it moved; only of one that landed."""
    reason: str | None = None
    """Why it didn't land."""
    detail: str | None = None

    @classmethod
    def of(cls, execution: Execution) -> Self:
        """Tell of `execution`, which is no funding."""
        decided, last = execution.steps[0].entry, execution.steps[-1].entry
        fill = last.body.get("fill")
        return cls(
            execution_id=decided.execution_id or "",
            agent_id=decided.agent_id or "",
            state=execution.state,
            tx_signature=execution.tx_signature,
            fill=None if fill is None else Fill.from_json_object(fill),
            reason=execution.reason,
            detail=last.body.get("detail"),
        )

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form; what there isn't is left out."""
        members = {
            "agentId": self.agent_id,
            "detail": self.detail,
            "executionId": self.execution_id,
            "fill": None if self.fill is None else self.fill.to_json_object(),
            "reason": self.reason,
            "state": self.state.value,
            "txSignature": self.tx_signature,
        }
        return {name: member for name, member in members.items() if member is not None}

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> Self:
        """Read back what `to_json_object` gave."""
        fill = value.get("fill")
        return cls(
            execution_id=value["executionId"],
            agent_id=value["agentId"],
            state=AttemptState(value["state"]),
            tx_signature=value.get("txSignature"),
            fill=None if fill is None else Fill.from_json_object(fill),
            reason=value.get("reason"),
            detail=value.get("detail"),
        )


class Fired(NamedTuple):
    """What became of a request: `executor.execution.Outcome`, as far as a strategy is told."""

    decision: Decision
    execution: Told | None
    """What the ledger holds of it; None where a refusal isn't recorded: an unknown agent, a conflict, a fault."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form."""
        execution = None if self.execution is None else self.execution.to_json_object()
        return {"decision": self.decision.to_json_object(), "execution": execution}

    @classmethod
    def of(cls, decision: Decision, execution: Execution | None) -> Self:
        """Tell of what `Executor.fire` returned."""
        return cls(decision, None if execution is None else Told.of(execution))

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> Self:
        """Read back what `to_json_object` gave."""
        told = value["execution"]
        return cls(read_decision(value["decision"]), None if told is None else Told.from_json_object(told))


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Lend a spelling of `path` that fits a socket's address, however long it is. Raises OSError: no such folder."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    if not hasattr(os, "O_PATH"):  # Linux has it
        raise OSError(errno.ENAMETOOLONG, "a socket's path is at most 103 bytes here", str(path))
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def fire_socket_path(ledger: Path) -> Path:
    """Return where strategies find the service that holds the SQLite file `ledger`, unless told otherwise."""
    path = ledger.resolve()
    return path.with_name(path.name + ".fire.sock")


def operator_socket_path(ledger: Path) -> Path:
    """Return where the command line finds it."""
    path = ledger.resolve()
    return path.with_name(path.name + ".operator.sock")
