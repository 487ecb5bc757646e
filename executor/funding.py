"""Funding: topping a session wallet up with lamports from the operator's own, so that it can pay fees and rent.

A funding is an attempt of its own kind, in the same ledger: decided under the user's lock, counted when it is
authorized and never credited back, signed once, and ended. It trades nothing, so no permit's cap bounds it; two rolling
caps do, one for the user and one for all users together, and the operator names the wallets it is for at all.

`decide_funding` is pure, as `executor.decide` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from executor.decide import Check, Refused, agent_checks, read_refusal
from executor.halts import Halt
from executor.lifecycle import AgentState
from executor.limits import Limits
from executor.reasons import Reason
from executor.request import Uuid, WalletAddress
from executor.value import BaseUnits, Value

if TYPE_CHECKING:
    from executor.bounds import Bounds

__all__ = [
    "FundingAllowed",
    "FundingAuthorization",
    "FundingDecision",
    "FundingEvidence",
    "FundingRequest",
    "FundingUsage",
    "Spent",
    "decide_funding",
    "read_funding_decision",
]


class FundingRequest(Value):
    """One intended top-up of an agent's session wallet. The same `execution_id` again is the same request."""

    agent_id: Uuid
    execution_id: Uuid
    """Chosen by the caller, unique among this wallet's executions and fundings."""
    lamports: BaseUnits
    wallet: WalletAddress


class Spent(NamedTuple):
    """What of one rolling cap is used up."""

    lamports: int
    """Authorized in the last 24 hours."""
    room_at_ms: int | None = None
    """When enough of that will have left the window for this funding, Unix ms; None if it has room, or never will."""


class FundingUsage(NamedTuple):
    """What the ledger says of the agent, its user, and everybody's fundings at the moment of the decision."""

    agent_state: AgentState
    fundable: bool
    """Whether the operator funds the wallet's agents at all."""
    number: int
    """The number that this funding would have among the user's, from 1 without gaps."""
    total_number: int
    """The same among everybody's."""
    user: Spent
    total: Spent
    """Everybody's."""
    halts: tuple[Halt, ...] = ()
    """Those that hold the agent: its own, its wallet's, and those of everything."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it."""
        members = {
            "agentState": self.agent_state.value,
            "fundable": self.fundable,
            "halts": [halt.to_json_object() for halt in self.halts] or None,
            "number": self.number,
            "totalLamports": str(self.total.lamports),
            "totalNumber": self.total_number,
            "totalRoomAtMs": self.total.room_at_ms,
            "userLamports": str(self.user.lamports),
            "userRoomAtMs": self.user.room_at_ms,
        }
        return {name: member for name, member in members.items() if member is not None}

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> FundingUsage:
        """Read back what `to_json_object` gave."""
        return cls(
            agent_state=AgentState(value["agentState"]),
            fundable=value["fundable"],
            number=value["number"],
            total_number=value["totalNumber"],
            user=Spent(int(value["userLamports"]), value.get("userRoomAtMs")),
            total=Spent(int(value["totalLamports"]), value.get("totalRoomAtMs")),
            halts=tuple(Halt.from_json_object(halt) for halt in value.get("halts", ())),
        )


class FundingEvidence(NamedTuple):
    """What stood before the decider, but for the bounds, which the entry numbered `activation` holds."""

    activation: int
    request: FundingRequest
    usage: FundingUsage
    limits: Limits
    everybody: int
    """The number of the newest entry on everybody's chain: it left these limits, and the halts of everything."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it."""
        return {
            "activation": self.activation,
            "everybody": self.everybody,
            "limits": self.limits.to_json_object(),
            "request": self.request.to_json_object(),
            "usage": self.usage.to_json_object(),
        }

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> FundingEvidence:
        """Read back what `to_json_object` gave."""
        return cls(
            activation=value["activation"],
            request=FundingRequest.from_json_object(value["request"]),
            usage=FundingUsage.from_json_object(value["usage"]),
            limits=Limits.from_json_object(value["limits"]),
            everybody=value["everybody"],
        )

    def decide(self, bounds: Bounds, now_ms: int) -> FundingDecision:
        """Return what this evidence leads to under `bounds` at `now_ms` (Unix ms)."""
        return decide_funding(bounds, self.request, self.usage, self.limits, now_ms)


class FundingAuthorization(NamedTuple):
    """The right to pay these lamports to this session wallet, once, soon."""

    wallet: str
    agent_id: str
    execution_id: str
    session_pubkey: str
    """Where they go, base58."""
    lamports: int
    entry_hash: str
    """Hex of the chain hash of the entry that allowed it: the transaction's memo carries it."""
    expires_at_ms: int
    """From then on (exclusive) it can only be voided, Unix ms."""
    claim: str
    """Proof that its holder is who the guard gave it to: the ledger keeps only its hash."""

    def __repr__(self) -> str:
        return f"FundingAuthorization(execution_id={self.execution_id!r}, ...)"  # no claim in any log

    @property
    def memo(self) -> bytes:
        """The memo that the transaction must carry, and by which it is traced back."""
        return b"holdfire:" + self.entry_hash.encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingAllowed:
    """The funding may happen."""

    outcome: ClassVar[Literal["allowed"]] = "allowed"
    authorization: FundingAuthorization | None = None
    """The right to sign it. None from `decide_funding`, and in a stored answer: whoever asked first holds it."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it: without the authorization."""
        return {"outcome": self.outcome}


FundingDecision = FundingAllowed | Refused


def read_funding_decision(stored: dict[str, Any]) -> FundingDecision:
    """Return the decision that `to_json_object` wrote."""
    return FundingAllowed() if stored["outcome"] == FundingAllowed.outcome else read_refusal(stored)


def decide_funding(
    bounds: Bounds, request: FundingRequest, usage: FundingUsage, limits: Limits, now_ms: int
) -> FundingDecision:
    """Hold `request` against everything that bounds it, at `now_ms` (Unix ms). Any doubt is a no."""
    checks = (
        *agent_checks(usage.agent_state, usage.halts, bounds, now_ms),
        _wallet_funded(usage),
        _user_within_cap(request, usage, limits),
        _total_within_cap(request, usage, limits),
    )
    failed = [check for check in checks if check is not None]
    return Refused.because(failed) if failed else FundingAllowed()


def _wallet_funded(usage: FundingUsage) -> Check | None:
    if usage.fundable:
        return None
    return Check(reason=Reason.FUNDING_NOT_ALLOWED, limit="a wallet that the operator funds", actual="another")


def _user_within_cap(request: FundingRequest, usage: FundingUsage, limits: Limits) -> Check | None:
    cap = limits.autofund_lamports_per_24h
    if usage.user.lamports + request.lamports <= cap:
        return None
    return Check(
        reason=Reason.FUNDING_OVER_CAP,
        limit=f"{cap} lamports in 24 h",
        actual=f"{usage.user.lamports} in 24 h already, and {request.lamports}",
        retry_at_ms=usage.user.room_at_ms,
    )


def _total_within_cap(request: FundingRequest, usage: FundingUsage, limits: Limits) -> Check | None:
    cap = limits.autofund_lamports_per_24h_in_all
    if usage.total.lamports + request.lamports <= cap:
        return None
    return Check(
        reason=Reason.FUNDING_OVER_CAP_IN_ALL,
        limit=f"{cap} lamports in 24 h for all users",
        actual=f"{usage.total.lamports} in 24 h already, and {request.lamports}",
        retry_at_ms=usage.total.room_at_ms,
    )
