"""Halts: a user's own by their token, the operator's by theirs. A halt is lifted only by whom set it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from executor.errors import UnknownWallet
from executor.halts import Halter, Scope
from executor.operations import in_doubt
from executor.request import Uuid
from executor.service.api.agents import find_agent
from executor.service.api.operation import Answer, Asked, HaltAnswer, Operation, Wallet, Who, read_body
from executor.service.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from executor.service.parts import Parts

__all__ = ["operations"]


class ScopeAsked(Asked):
    """What is meant. With `walletAddress`, or of everything, it is the operator who speaks."""

    scope: Literal["wallet", "agent", "everything"]
    agent_id: Uuid | None = None
    wallet_address: Wallet | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.agent_id is not None) != (self.scope == "agent"):
            raise ValueError("`agentId` goes with the scope `agent`, and with no other")
        if self.scope == "everything" and self.wallet_address is not None:
            raise ValueError("`walletAddress` doesn't go with the scope `everything`")
        return self

    @property
    def by(self) -> Halter:
        """Who must speak for it to hold."""
        own = self.scope != "everything" and self.wallet_address is None
        return Halter.USER if own else Halter.OPERATOR


class HaltAsked(ScopeAsked):
    """What shall be halted, and why."""

    why: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
    """Without control characters: it is printed on terminals."""


class OneHalt(Answer):
    """A halt, and what it can't stop any more."""

    halt: HaltAnswer
    may_still_land: list[str]
    more: bool


class ManyHalts(Answer):
    """The halts that concern a wallet."""

    halts: list[HaltAnswer]


class Lifted(Answer):
    """Whether there was such a halt."""

    lifted: bool


def operations(parts: Parts) -> list[Operation]:
    """Return what can be asked of halts."""
    its = _Halts(parts)
    h, either = "/api/halts", Who.EITHER
    return [
        Operation("GET", h, "Tell the halts that concern the wallet", Who.WALLET, its.tell_halts, ManyHalts),
        Operation(
            "POST", h, "Let nothing fire there", either, its.halt, OneHalt, 201, body=HaltAsked, says_no=(404, 409)
        ),
        Operation(
            "POST", f"{h}/lift", "Lift a halt of one's own", either, its.lift, Lifted, body=ScopeAsked, says_no=(404,)
        ),
    ]


class _Halts:
    """Answers it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._guard = parts.guard

    async def _scope_of(self, request: Request, asked: ScopeAsked) -> Scope:
        """Return what `asked` means, if who asks may."""
        if asked.by is Halter.OPERATOR:
            self._parts.authentication.require_operator(request)
            return Scope(asked.wallet_address, asked.agent_id)
        wallet = (await self._parts.authentication.caller(request)).wallet
        if asked.agent_id is not None:
            await find_agent(self._guard, wallet, asked.agent_id)
        return Scope(wallet, asked.agent_id)

    async def halt(self, request: Request, _wallet: str) -> Answer:
        """Set the halt."""
        asked = await read_body(request, HaltAsked)
        scope = await self._scope_of(request, asked)
        await self._guard.halt(scope, asked.by, asked.why)
        halted = await asyncio.to_thread(in_doubt, self._guard.guard, scope.wallet, scope.agent_id)
        halts = await self._guard.halts(scope.wallet)
        held = next((each for each in halts if (each.scope, each.by) == (scope, asked.by)), None)
        if held is None:
            raise Problem(409, "HALT_LIFTED", "it was lifted again at the same moment")
        return OneHalt(halt=HaltAnswer.of(held), may_still_land=list(halted.may_still_land), more=halted.more)

    async def lift(self, request: Request, _wallet: str) -> Answer:
        """Lift the halt."""
        asked = await read_body(request, ScopeAsked)
        return Lifted(lifted=await self._guard.lift(await self._scope_of(request, asked), asked.by))

    async def tell_halts(self, _request: Request, wallet: str) -> Answer:
        """Tell those that concern the wallet."""
        try:
            halts = await self._guard.halts(wallet)
        except UnknownWallet:
            halts = await self._guard.halts()
        return ManyHalts(halts=[HaltAnswer.of(each) for each in halts])
