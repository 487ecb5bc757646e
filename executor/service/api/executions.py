"""Executions: what was decided, from what, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field, RootModel

from executor.bounds import Bounds
from executor.decide import Refused
from executor.evidence import Evidence
from executor.fill import Fill
from executor.lifecycle import AttemptState
from executor.reasons import Reason
from executor.request import FireRequest, Uuid
from executor.service.api.agents import find_agent
from executor.service.api.operation import (
    AllowedAnswer,
    Answer,
    Digits,
    Operation,
    Queried,
    RefusedAnswer,
    Time,
    Who,
    not_found,
    read_body,
    read_query,
    refusal,
    require_uuid,
    tell_decision,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from executor.guard import Execution
    from executor.service.parts import Parts

__all__ = ["operations"]

PAGE_MAX: Final = 100
LOOKED_AT_MAX: Final = 500
"""Executions that one request looks at, however few its filter lets through."""


class ExecutionAnswer(Answer):
    """An execution in short."""

    execution_id: Uuid
    agent_id: Uuid
    state: AttemptState
    rail: str
    sell: str
    sell_amount: Digits
    buy: str
    min_received: Digits
    reason: Reason | None
    decided_at: Time
    tx_signature: str | None


class StepAnswer(Answer):
    """One entry of the ledger about it."""

    kind: str
    at: Time
    seq: int
    hash: str


class WholeExecution(ExecutionAnswer):
    """An execution with all that it was decided from, which the decision can be made again from."""

    decision: AllowedAnswer | RefusedAnswer
    evidence: dict[str, Any]
    bounds: Bounds
    fill: Fill | None
    steps: list[StepAnswer]


class Page(Answer):
    """Some executions, newest first."""

    executions: list[ExecutionAnswer]
    next_cursor: Annotated[str, Field(pattern="^[0-9]+$")] | None


class PageAsked(Queried):
    """Which executions."""

    cursor: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    status: AttemptState | None = None
    reason: Reason | None = None


class DecisionAnswer(RootModel[AllowedAnswer | RefusedAnswer]):
    """What a fire would get."""


def _fire_asked() -> dict[str, Any]:
    """Return the schema of a fire request but for the wallet: that is the caller's."""
    schema = FireRequest.model_json_schema()
    del schema["properties"]["wallet"]
    schema["required"].remove("wallet")
    return schema


def _short(story: Execution, evidence: Evidence) -> dict[str, Any]:
    request = evidence.request
    return {
        "execution_id": request.execution_id,
        "agent_id": request.agent_id,
        "state": story.state,
        "rail": request.rail,
        "sell": request.sell,
        "sell_amount": request.sell_amount,
        "buy": request.buy,
        "min_received": request.min_received,
        "reason": story.reason,
        "decided_at": story.steps[0].entry.at_ms,
        "tx_signature": story.tx_signature,
    }


def _whole(story: Execution, evidence: Evidence) -> WholeExecution:
    fill = story.steps[-1].entry.body.get("fill")
    return WholeExecution(
        **_short(story, evidence),
        decision=tell_decision(story.decision),
        evidence=evidence.to_json_object(),
        bounds=story.bounds,
        fill=None if fill is None else Fill.from_json_object(fill),
        steps=[
            StepAnswer(kind=each.entry.kind, at=each.entry.at_ms, seq=each.entry.seq, hash=each.hash)
            for each in story.steps
        ],
    )


def operations(parts: Parts) -> list[Operation]:
    """Return what can be asked of executions."""
    its = _Executions(parts)
    return [
        Operation(
            "GET",
            "/api/agents/{agentId}/executions",
            "Tell an agent's executions and refusals, newest first",
            Who.WALLET,
            its.tell_executions,
            Page,
            query=PageAsked,
            says_no=(404,),
        ),
        Operation(
            "GET",
            "/api/executions/{executionId}",
            "Tell an execution, with every check",
            Who.WALLET,
            its.tell_execution,
            WholeExecution,
            says_no=(404,),
        ),
        Operation(
            "POST",
            "/api/explain",
            "Tell what a fire would get now, and write nothing",
            Who.WALLET,
            its.explain,
            DecisionAnswer,
            body=_fire_asked(),
            says_no=(404,),
        ),
    ]


class _Executions:
    """Answers it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._guard = parts.guard

    async def tell_executions(self, request: Request, wallet: str) -> Answer:
        """Tell a page; the filter walks on until the page is full, or enough was looked at."""
        asked = read_query(request, PageAsked)
        agent_id = require_uuid(request, "agentId")
        await find_agent(self._guard, wallet, agent_id)
        found: list[ExecutionAnswer] = []
        before, looked_at = asked.cursor, 0
        while looked_at < LOOKED_AT_MAX:
            stories = await self._guard.executions(wallet, agent_id, before=before, count_max=PAGE_MAX)
            for story in stories:
                looked_at, before = looked_at + 1, story.steps[0].entry.seq
                if not isinstance(story.evidence, Evidence):
                    continue  # a funding
                told = ExecutionAnswer(**_short(story, story.evidence))
                if asked.status in {None, told.state} and asked.reason in {None, told.reason}:
                    found.append(told)
                if len(found) == asked.limit:
                    return Page(executions=found, next_cursor=str(before))
            if len(stories) < PAGE_MAX:
                return Page(executions=found, next_cursor=None)
        return Page(executions=found, next_cursor=str(before))

    async def tell_execution(self, request: Request, wallet: str) -> Answer:
        """Tell one."""
        story = await self._guard.execution(wallet, require_uuid(request, "executionId"))
        if story is None or not isinstance(story.evidence, Evidence):
            raise not_found()
        return _whole(story, story.evidence)

    async def explain(self, request: Request, wallet: str) -> DecisionAnswer:
        """Decide, and forget it."""
        fire = await read_body(request, FireRequest, wallet=wallet)
        decision = await self._guard.explain(fire)
        if isinstance(decision, Refused):
            if decision.reason is Reason.AGENT_UNKNOWN:
                raise not_found()
            if decision.reason in {Reason.LEDGER_TAMPERED, Reason.CLOCK_UNTRUSTED}:
                raise refusal(decision)
        return DecisionAnswer(tell_decision(decision))
