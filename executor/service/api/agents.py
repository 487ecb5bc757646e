"""Agents: their keys are set aside, permits are put into force, and they are stopped.

A signed document needs no token: its signature says whose it is. What strangers could write without bound isn't
written: a revocation is taken from wallets that the ledger knows, and a wallet holds few keys that it never used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from executor.bounds import Bounds
from executor.decide import Refused
from executor.lifecycle import AgentState
from executor.operations import in_doubt
from executor.request import Uuid
from executor.service.api.operation import (
    Answer,
    Asked,
    Operation,
    Who,
    body_of,
    not_found,
    read_body,
    refusal,
    require_uuid,
)
from executor.service.problems import Problem
from permits import ENVELOPES, SignedPermit, SignedRevocation, verify_revocation
from permits.canonical import parse
from permits.schema import SCHEMAS

if TYPE_CHECKING:
    from starlette.requests import Request

    from executor.guard import Agent, AsyncGuard
    from executor.service.parts import Parts

__all__ = ["AgentAnswer", "find_agent", "operations"]

RESERVED_AGENTS_MAX: Final = 20
"""As many as may be active by default. It bounds what a wallet leaves behind that never signs a permit; requests at
the same moment may pass it by as many as there are."""


class AgentAnswer(Answer):
    """An agent as the ledger knows it."""

    agent_id: Uuid
    wallet_address: str
    state: AgentState
    session_pubkey: str
    bounds: Bounds | None

    @classmethod
    def of(cls, wallet: str, agent: Agent) -> AgentAnswer:
        """Tell the wallet's `agent`."""
        return cls(
            agent_id=agent.agent_id,
            wallet_address=wallet,
            state=agent.state,
            session_pubkey=agent.session_pubkey,
            bounds=agent.bounds,
        )


class OneAgent(Answer):
    """An agent."""

    agent: AgentAnswer


class ManyAgents(Answer):
    """A wallet's agents, in the order in which their keys were set aside."""

    agents: list[AgentAnswer]


class StoppedAgent(Answer):
    """An agent that was stopped."""

    agent: AgentAnswer
    may_still_land: list[str]
    more: bool


class SessionKeyAsked(Asked):
    """For which agent a key shall be made."""

    agent_id: Uuid


class SessionKeyAnswer(Answer):
    """An agent's session key."""

    agent_id: Uuid
    session_pubkey: str


class Revoked(Answer):
    """Whether a revocation changed anything."""

    revoked: bool


async def find_agent(guard: AsyncGuard, wallet: str, agent_id: str) -> Agent:
    """Return the wallet's agent. Raises Problem: 404."""
    agent = await guard.agent(wallet, agent_id)
    if agent is None:
        raise not_found()
    return agent


def operations(parts: Parts) -> list[Operation]:
    """Return what can be asked of agents."""
    its = _Agents(parts)
    permit, revocation = SCHEMAS["signed-permit"], SCHEMAS["signed-revocation"]
    a, w = "/api/agents", Who.WALLET
    return [
        Operation(
            "POST",
            "/api/session-keys",
            "Make an agent's session key, or tell it again",
            w,
            its.make_session_key,
            SessionKeyAnswer,
            201,
            body=SessionKeyAsked,
            says_no=(409,),
        ),
        Operation(
            "POST",
            a,
            "Put a signed permit into force: activation, renewal, resumption",
            Who.ANYONE,
            its.activate,
            OneAgent,
            201,
            body=permit,
            says_no=(404, 409),
        ),
        Operation("GET", a, "Tell all of the wallet's agents", w, its.tell_agents, ManyAgents),
        Operation("GET", f"{a}/{{agentId}}", "Tell an agent", w, its.tell_agent, OneAgent, says_no=(404,)),
        Operation(
            "POST",
            f"{a}/{{agentId}}/stop",
            "Stop an agent, by token, or by the signed revocation of its permit",
            Who.EITHER,
            its.stop,
            StoppedAgent,
            body={"anyOf": [{"type": "object", "maxProperties": 0}, revocation]},
            body_required=False,
            says_no=(404, 409),
        ),
        Operation(
            "POST",
            "/api/revocations",
            "Spend a permit's nonce for ever",
            Who.EITHER,
            its.revoke,
            Revoked,
            body=revocation,
            says_no=(409,),
        ),
    ]


class _Agents:
    """Answers it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._guard = parts.guard

    async def make_session_key(self, request: Request, wallet: str) -> Answer:
        """Make the key, unless the wallet holds too many that it never used."""
        asked = await read_body(request, SessionKeyAsked)
        if self._parts.vault is None:
            raise Problem(503, "SESSION_KEYS_NOT_MADE_HERE", "this service makes no session keys")
        agents = await self._guard.agents(wallet)
        reserved = [each.agent_id for each in agents if each.state is AgentState.RESERVED]
        known = any(each.agent_id == asked.agent_id for each in agents)
        if not known and len(reserved) >= RESERVED_AGENTS_MAX:
            detail = f"{len(reserved)} agents wait for their first permit, allowed are {RESERVED_AGENTS_MAX}"
            raise Problem(409, "SESSION_KEYS_OVER_CAP", detail)
        made = await asyncio.to_thread(self._parts.vault.make_session_key, wallet, asked.agent_id)
        return SessionKeyAnswer(agent_id=asked.agent_id, session_pubkey=made)

    async def activate(self, request: Request, _wallet: str) -> Answer:
        """Put the permit into force."""
        signed = SignedPermit.from_json(await body_of(request))
        outcome = await self._guard.activate(signed)
        if isinstance(outcome, Refused):
            raise refusal(outcome)
        agent = await find_agent(self._guard, outcome.wallet, outcome.terms.agent_id)
        return OneAgent(agent=AgentAnswer.of(outcome.wallet, agent))

    async def tell_agents(self, _request: Request, wallet: str) -> Answer:
        """Tell all."""
        return ManyAgents(agents=[AgentAnswer.of(wallet, each) for each in await self._guard.agents(wallet)])

    async def tell_agent(self, request: Request, wallet: str) -> Answer:
        """Tell one."""
        agent = await find_agent(self._guard, wallet, require_uuid(request, "agentId"))
        return OneAgent(agent=AgentAnswer.of(wallet, agent))

    async def stop(self, request: Request, _wallet: str) -> Answer:
        """Stop it, for its wallet's token or for a revocation that the wallet signed."""
        agent_id = require_uuid(request, "agentId")
        body = await body_of(request)
        if "authorization" in request.headers or not body:
            wallet = (await self._parts.authentication.caller(request)).wallet
            if body and parse(body) != {}:
                raise Problem(422, "REQUEST_MALFORMED", "with a token, the body must be empty, or `{}`")
            await find_agent(self._guard, wallet, agent_id)
            await self._guard.stop(wallet, agent_id)
        else:
            wallet = await self._stop_as_signed(SignedRevocation.from_json(body), agent_id)
        stopped = await asyncio.to_thread(in_doubt, self._guard.guard, wallet, agent_id)
        agent = await find_agent(self._guard, wallet, agent_id)
        return StoppedAgent(
            agent=AgentAnswer.of(wallet, agent), may_still_land=list(stopped.may_still_land), more=stopped.more
        )

    async def _stop_as_signed(self, signed: SignedRevocation, agent_id: str) -> str:
        """Stop the agent by the revocation of the permit that it is held to; return whose it is."""
        wallet, revocation = verify_revocation(signed, envelopes=ENVELOPES)
        agent = await find_agent(self._guard, wallet, agent_id)
        if agent.bounds is None or agent.bounds.terms.nonce != revocation.nonce:
            raise Problem(409, "PERMIT_NOT_IN_FORCE", "the agent is held to another permit, or to none")
        # A nonce is never used twice: whatever happens meanwhile, this stops the agent under that permit or not at all.
        if not await self._guard.revoke(signed):
            raise Problem(409, "ILLEGAL_TRANSITION", "the agent isn't active by that permit any more")
        return wallet

    async def revoke(self, request: Request, _wallet: str) -> Answer:
        """Spend the nonce."""
        signed = SignedRevocation.from_json(await body_of(request))
        wallet, _ = verify_revocation(signed, envelopes=ENVELOPES)
        if "authorization" in request.headers:
            if (await self._parts.authentication.caller(request)).wallet != wallet:
                raise Problem(409, "WALLET_UNKNOWN", "the token is of another wallet than the revocation")
        elif not await asyncio.to_thread(self._guard.guard.ledger.head_seqs, {wallet}):
            # Anyone can make keys without end, and each would get a chain of its own.
            raise Problem(409, "WALLET_UNKNOWN", "this wallet has nothing here: sign in, and send its token along")
        return Revoked(revoked=await self._guard.revoke(signed))
