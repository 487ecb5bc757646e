"""What one can ask of the service, as values: the routes and the OpenAPI document are made from the same list.

Who asks is settled before the handler is called, and what is asked is read once, into a type that holds nothing else.
A fault becomes the answer that says it here, in one place, and tells nothing of what lies inside.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from executor.errors import ClockUntrusted, IllegalTransition, LedgerError, LedgerTampered, UnknownWallet, VaultError
from executor.halts import Halt, Halter
from executor.reasons import Reason
from executor.request import Uuid, WalletAddress
from executor.service.problems import Problem
from permits import PermitError, keys, timestamp
from permits.canonical import INPUT_BYTES_MAX, parse
from permits.model import UUID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute

    from executor.decide import Check, Decision, Refused
    from executor.funding import FundingDecision
    from executor.service.parts import Parts

__all__ = [
    "AllowedAnswer",
    "Answer",
    "Asked",
    "CheckAnswer",
    "Digits",
    "HaltAnswer",
    "Operation",
    "Queried",
    "RefusedAnswer",
    "Time",
    "Wallet",
    "Who",
    "body_of",
    "not_found",
    "read_body",
    "read_query",
    "refusal",
    "require_uuid",
    "routes_of",
    "tell_decision",
]

log = logging.getLogger("executor.service")

_is_uuid = re.compile(UUID_PATTERN).fullmatch


class Asked(BaseModel):
    """What is asked: nothing coerced, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class Queried(BaseModel):
    """What is asked in a query, where all is text."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class Answer(BaseModel):
    """What is answered: every member is there, null where there is nothing."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True
    )


Time = Annotated[
    int, PlainSerializer(timestamp, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""Unix ms; ISO 8601 in JSON."""

Digits = Annotated[
    int, PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "pattern": "^[0-9]+$"})
]
"""A whole number that may pass 2**53: a string of digits in JSON."""


def _require_key(text: str) -> str:
    if keys.decode_key(text) is None:
        raise ValueError("must be base58 of 32 bytes")
    return text


Wallet = Annotated[WalletAddress, AfterValidator(_require_key)]


class Who(Enum):
    """Who may ask."""

    ANYONE = auto()
    """Nobody is asked for a token: what is sent says by itself whose it is, or nothing of a wallet is told."""
    WALLET = auto()
    """A wallet, by its token."""
    OPERATOR = auto()
    """The operator, by theirs."""
    EITHER = auto()
    """It depends on what is asked: the handler settles it."""


Handler = Callable[[Request, str], Awaitable[BaseModel | Response]]
"""Takes the request, and the wallet of its token: the empty text unless `Who.WALLET` asks."""


class Operation(NamedTuple):
    """Something that can be asked."""

    method: str
    path: str
    summary: str
    who: Who
    handler: Handler
    answer: type[BaseModel] | None
    """None: the answer is no JSON."""
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | dict[str, Any] | None = None
    """What the body is: a type, or a JSON Schema."""
    body_required: bool = True
    says_no: tuple[int, ...] = ()
    """The statuses of its own noes; those that any request may get aren't repeated here."""


def routes_of(parts: Parts, operations: Sequence[Operation]) -> list[BaseRoute]:
    """Return a route for each path, so that `Allow` names all of its methods."""
    paths = dict.fromkeys(operation.path for operation in operations)
    return [_route(parts, path, [each for each in operations if each.path == path]) for path in paths]


def _route(parts: Parts, path: str, operations: Sequence[Operation]) -> Route:
    by_method = {operation.method: operation for operation in operations}

    async def endpoint(request: Request) -> Response:
        operation = by_method["GET" if request.method == "HEAD" else request.method]
        wallet = ""
        if operation.who is Who.WALLET:
            wallet = (await parts.authentication.caller(request)).wallet
        elif operation.who is Who.OPERATOR:
            parts.authentication.require_operator(request)
        try:
            answer = await operation.handler(request, wallet)
        except (PermitError, LedgerError, IllegalTransition, VaultError) as fault:
            raise _problem(fault) from None
        if isinstance(answer, Response):
            return answer
        return Response(answer.model_dump_json(), operation.status, NOT_STORED, "application/json")

    return Route(path, endpoint, methods=list(by_method))


NOT_STORED: Final = {"Cache-Control": "no-store"}
"""What stands in an answer is a wallet's own, and soon another."""


def _problem(fault: Exception) -> Problem:
    """Return the answer that tells `fault`: what callers did in its own words, what broke inside in ours."""
    if isinstance(fault, PermitError):
        return Problem(400, fault.code, str(fault))
    if isinstance(fault, UnknownWallet):
        return not_found()
    if isinstance(fault, IllegalTransition):
        return Problem(409, "ILLEGAL_TRANSITION", str(fault))
    log.error("a request can't be answered: %s", fault)
    if isinstance(fault, VaultError):
        return Problem(409, "SESSION_KEY_UNAVAILABLE", "the agent's session key was destroyed, or isn't kept here")
    if isinstance(fault, LedgerTampered):
        return Problem(503, Reason.LEDGER_TAMPERED, "what the ledger holds of this wallet can't be trusted")
    if isinstance(fault, ClockUntrusted):
        return Problem(503, Reason.CLOCK_UNTRUSTED, "nobody knows the time")
    return Problem(503, "LEDGER_UNAVAILABLE", "the ledger can't be used now")


def not_found() -> Problem:
    """Return the one answer to ids that aren't the caller's, whether others have them or nobody has."""
    return Problem(404, "NOT_FOUND", "there is nothing of this name that is yours")


def require_uuid(request: Request, name: str) -> str:
    """Return the id in the path if it can be one. Raises Problem as if nobody had it."""
    told: str = request.path_params[name]
    if not _is_uuid(told):
        raise not_found()
    return told


async def body_of(request: Request) -> bytes:
    """Return the body. Raises Problem: 413 as soon as it is too long."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > INPUT_BYTES_MAX:
            raise Problem(413, "BODY_TOO_LARGE", f"a body may have {INPUT_BYTES_MAX} bytes")
    return body


A = TypeVar("A", bound=BaseModel)


async def read_body(request: Request, asked: type[A], **known: str) -> A:
    """Return the body as `asked`; `known` are members that the body must not have. Raises Problem, PermitError."""
    body = parse(await body_of(request))
    if known and isinstance(body, dict):
        for name in known:
            if name in body:
                raise _malformed([{"at": name, "rule": "must not be given"}])
        body |= known
    return _read(asked, body)


def read_query(request: Request, asked: type[A]) -> A:
    """Return the query as `asked`. Raises Problem."""
    told = request.query_params.multi_items()
    if len(dict(told)) != len(told):
        raise _malformed([{"at": "query", "rule": "must give each parameter once"}])
    return _read(asked, dict(told))


def _read(asked: type[A], told: object) -> A:
    try:
        return asked.model_validate(told)
    except ValidationError as error:
        raise _malformed(
            [
                {"at": ".".join(map(str, each["loc"])), "rule": each["msg"].removeprefix("Value error, ")}
                for each in error.errors(include_url=False, include_input=False, include_context=False)
            ]
        ) from None


def _malformed(errors: list[dict[str, str]]) -> Problem:
    return Problem(422, "REQUEST_MALFORMED", "the request isn't of its form", members={"errors": errors})


class CheckAnswer(Answer):
    """One rule that said no: what it allows, and what it found."""

    reason: Reason
    limit: str
    actual: str
    retry_at: Time | None

    @classmethod
    def of(cls, check: Check) -> CheckAnswer:
        """Tell `check`."""
        return cls(reason=check.reason, limit=check.limit, actual=check.actual, retry_at=check.retry_at_ms)


class AllowedAnswer(Answer):
    """The fire may happen."""

    outcome: Literal["allowed"] = "allowed"
    value_micro_usd: Digits


class RefusedAnswer(Answer):
    """The fire may not happen."""

    outcome: Literal["refused"] = "refused"
    reason: Reason
    checks: list[CheckAnswer]
    retry_at: Time | None


def tell_decision(decision: Decision | FundingDecision) -> AllowedAnswer | RefusedAnswer:
    """Return `decision` as it is answered: without the right to use it."""
    if decision.outcome == "refused":
        checks = [CheckAnswer.of(check) for check in decision.checks]
        return RefusedAnswer(reason=decision.reason, checks=checks, retry_at=decision.retry_at_ms)
    return AllowedAnswer(value_micro_usd=getattr(decision, "value_micro_usd", 0))


def refusal(refused: Refused) -> Problem:
    """Return the refusal of what was asked, with all that failed and when time will have cured it."""
    told = tell_decision(refused).model_dump(mode="json")
    members = {name: told[name] for name in ("checks", "retryAt") if told[name]}
    status = 503 if refused.reason in {Reason.LEDGER_TAMPERED, Reason.CLOCK_UNTRUSTED} else 409
    failed = "; ".join(f"{check.reason}: {check.actual}, allowed is {check.limit}" for check in refused.checks)
    return Problem(status, refused.reason, failed or "the rules say no", members=members)


class HaltAnswer(Answer):
    """A halt in force."""

    scope: Annotated[str, Field(pattern="^(wallet|agent|everything)$")]
    wallet_address: str | None
    agent_id: Uuid | None
    by: Halter
    why: str
    at: Time

    @classmethod
    def of(cls, halt: Halt) -> HaltAnswer:
        """Tell `halt`."""
        scope = "agent" if halt.agent_id else "wallet" if halt.wallet else "everything"
        return cls(
            scope=scope, wallet_address=halt.wallet, agent_id=halt.agent_id, by=halt.by, why=halt.why, at=halt.at_ms
        )
