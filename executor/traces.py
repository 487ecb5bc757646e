"""Golden traces: what the guard must answer, call after call. `vectors/README.md` says what a trace is.

A replay makes a trace's calls on a guard over a new ledger, at the trace's times, and compares every answer. With
`restarts` the guard is also closed and opened again between all steps: nothing may depend on what a process remembers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from executor.assets import Asset, KnownAssets
from executor.audit import check_ledger
from executor.decide import Allowed, Refused
from executor.errors import ExecutorError
from executor.fill import Landing
from executor.funding import FundingRequest
from executor.guard import Guard
from executor.halts import Halter, Scope
from executor.ledger import scratch
from executor.limits import Limits
from executor.prices.quote import Quote
from executor.reasons import Reason
from executor.request import FireRequest
from executor.seal import SEAL_KEY_BYTES, SealKeys
from permits import PermitError, SignedPermit, SignedRevocation
from permits.conformance import vectors_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from executor.authorization import Authorization
    from executor.decide import Decision
    from executor.funding import FundingAuthorization

__all__ = ["Difference", "load", "replay", "traces_folder"]

Json = dict[str, Any]


class Difference(NamedTuple):
    """The first answer of a trace that isn't the expected one."""

    trace_id: str
    number: int
    """The step's, from 1."""
    step: Json
    given: Json


def traces_folder() -> Path:
    """Return where the golden traces are."""
    return vectors_folder() / "traces"


def load(folder: Path) -> list[Json]:
    """Return the traces of every file in `folder`, in order.

    Raises:
        ExecutorError: there are none, two have the same id, or one has a key or call that no runner knows.

    """
    try:
        files = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
        traces: list[Json] = [trace for file in files for trace in file["traces"]]
        ids = {trace["id"] for trace in traces}
    except (ValueError, KeyError, TypeError) as error:
        raise ExecutorError(f"`{folder}` holds a file that is none of traces: {error!r}") from None
    if not traces or len(ids) != len(traces):
        raise ExecutorError(f"`{folder}` holds no traces, or two of the same id")
    for trace in traces:
        for step in trace["steps"] if trace.keys() == TRACE_KEYS else [{}]:
            known = STEP_KEYS | CALL_KEYS.get(step.get("call"), frozenset())
            if step.keys() | {"quotes"} != known:
                raise ExecutorError(f"trace `{trace['id']}` has other keys or calls than a runner knows: {step}")
    return traces


def replay(trace: Json, url: str | None = None, *, restarts: bool = False) -> Difference | None:
    """Make the calls of `trace` on a new guard; return the first answer that isn't the expected one.

    Args:
        trace: as `load` returns it.
        url: a PostgreSQL database to make a schema in meanwhile; None: a new SQLite file. See `scratch`.
        restarts: close the guard and open it again between all steps, at the latest time that the trace has seen.

    Raises:
        LedgerError: the database failed.

    """
    with scratch(url) as place:
        world = _World(trace, place)
        latest_ms = trace["start"]
        try:
            for number, step in enumerate(trace["steps"], 1):
                if restarts:
                    world.now_ms = latest_ms
                    world.restart(step)
                latest_ms = max(latest_ms, step["at"])
                given = world.answer(step)
                if given != step["expected"]:
                    return Difference(trace["id"], number, step, given)
            findings = check_ledger(world.guard.ledger).findings
        finally:
            world.guard.close()
    return Difference(trace["id"], len(trace["steps"]), {"call": "check"}, {"findings": findings}) if findings else None


class _World:
    """A guard, its clock, its quotes, and the authorizations that it gave."""

    def __init__(self, trace: Json, place: str | Path) -> None:
        self._place = place
        self._seal_keys = SealKeys.single(bytes(SEAL_KEY_BYTES))
        self._limits = Limits.from_json_object(trace["limits"])
        self._assets = KnownAssets(Asset.from_json_object(asset) for asset in trace["assets"])
        self._quotes: list[Quote] = []
        self._given: dict[tuple[str, str], Authorization | FundingAuthorization] = {}
        self.now_ms: int = trace["start"]
        self.guard = self._open()

    def quotes(self, mint: str) -> Sequence[Quote]:
        """Return what is quoted for `mint`: the guard's price source."""
        return [quote for quote in self._quotes if quote.mint == mint]

    def answer(self, step: Json) -> Json:
        """Make the step's call at its time; return the guard's answer in the words of traces."""
        self.now_ms = step["at"]
        if "quotes" in step:
            self._quotes = [Quote.from_json_object(quote) for quote in step["quotes"]]
        try:
            return {"ok": True, **CALLS[step["call"]](self, step)}
        except PermitError as error:
            return {"ok": False, "error": str(error.code)}
        except ExecutorError as fault:
            return {"ok": False, "error": type(fault).__name__}

    def _open(self) -> Guard:
        return Guard.open(
            self._place,
            seal_keys=self._seal_keys,
            prices=self,
            assets=self._assets,
            limits=self._limits,
            clock=lambda: self.now_ms,
        )

    # A method a call: each takes the step and returns what its answer has besides `ok`.

    def restart(self, _step: Json) -> Json:
        self.guard.close()
        self.guard = self._open()
        return {}

    def reserve_session_key(self, step: Json) -> Json:
        self.guard.reserve_session_key(step["wallet"], step["agent_id"], step["session_pubkey"])
        return {}

    def activate(self, step: Json) -> Json:
        bounds = self.guard.activate(SignedPermit.from_json_object(step["signed_permit"]))
        return _refusal(bounds) if isinstance(bounds, Refused) else {"permit_id": bounds.permit_id}

    def revoke(self, step: Json) -> Json:
        return {"changed": self.guard.revoke(SignedRevocation.from_json_object(step["signed_revocation"]))}

    def stop(self, step: Json) -> Json:
        return {"open": list(self.guard.stop(step["wallet"], step["agent_id"]))}

    def complete(self, step: Json) -> Json:
        return {"open": list(self.guard.complete(step["wallet"], step["agent_id"], step["reason"]))}

    def halt(self, step: Json) -> Json:
        return {"open": list(self.guard.halt(Scope(**step["scope"]), Halter(step["by"]), step["why"]))}

    def lift(self, step: Json) -> Json:
        return {"changed": self.guard.lift(Scope(**step["scope"]), Halter(step["by"]))}

    def change_limits(self, step: Json) -> Json:
        limits = Limits.from_json_object(step["limits"])
        self.guard.change_limits(limits)
        self._limits = limits
        return {}

    def set_fundable(self, step: Json) -> Json:
        return {"changed": self.guard.set_fundable(step["wallet"], fundable=step["fundable"])}

    def authorize_funding(self, step: Json) -> Json:
        request = FundingRequest.from_json_object(step["request"])
        decision = self.guard.authorize_funding(request)
        if isinstance(decision, Refused):
            return _refusal(decision)
        if decision.authorization is None:
            return {"outcome": "allowed"}
        self._given[request.wallet, request.execution_id] = decision.authorization
        return {"outcome": "allowed", "lamports": str(decision.authorization.lamports)}

    def funded(self, step: Json) -> Json:
        self.guard.mark_funded(step["wallet"], step["execution_id"], slot=1, fee_lamports=5_000)
        return {}

    def authorize(self, step: Json) -> Json:
        request = FireRequest.from_json_object(step["request"])
        decision = self.guard.authorize(request)
        if isinstance(decision, Allowed) and decision.authorization is not None:
            self._given[request.wallet, request.execution_id] = decision.authorization
        return _decision(decision)

    def sign(self, step: Json) -> Json:
        return self._mark_signed(step, alone=False)

    def sign_alone(self, step: Json) -> Json:
        return self._mark_signed(step, alone=True)

    def _mark_signed(self, step: Json, *, alone: bool) -> Json:
        refused = self.guard.mark_signed(
            self._given[step["wallet"], step["execution_id"]],
            tx_signature=step["tx_signature"],
            transaction_bytes=b"",
            last_valid_block_height=0,
            alone_since=self.guard.head_seq(step["wallet"]) if alone else None,
        )
        return {} if refused is None else _refusal(refused)

    def void(self, step: Json) -> Json:
        self.guard.void(step["wallet"], step["execution_id"], Reason(step["reason"]), "")
        return {}

    def land(self, step: Json) -> Json:
        landing = Landing.from_json_object(step["landing"])
        fill = self.guard.mark_landed(step["wallet"], step["execution_id"], landing)
        return {"filled_amount": fill.filled_amount, "filled_price_usd": fill.filled_price_usd, "fee_usd": fill.fee_usd}

    def fail(self, step: Json) -> Json:
        self.guard.mark_failed(step["wallet"], step["execution_id"], "")
        return {}

    def dead(self, step: Json) -> Json:
        self.guard.mark_dead(step["wallet"], step["execution_id"])
        return {}

    def execution(self, step: Json) -> Json:
        execution = self.guard.execution(step["wallet"], step["execution_id"])
        if execution is None:
            return {"state": None}
        reason = execution.steps[-1].entry.body.get("reason")
        return {"state": str(execution.state), **({} if reason is None else {"reason": reason})}


def _decision(decision: Decision) -> Json:
    if isinstance(decision, Refused):
        return _refusal(decision)
    answer: Json = {"outcome": "allowed", "value_micro_usd": str(decision.value_micro_usd)}
    return answer if decision.authorization is None else {**answer, "attempt": decision.authorization.attempt}


def _refusal(refused: Refused) -> Json:
    checks = [str(check.reason) for check in refused.checks]
    answer: Json = {"ok": False, "outcome": "refused", "reason": str(refused.reason), "checks": checks}
    return answer if refused.retry_at_ms is None else {**answer, "retry_at_ms": refused.retry_at_ms}


CALL_KEYS: Final = {
    "reserve_session_key": frozenset({"wallet", "agent_id", "session_pubkey"}),
    "activate": frozenset({"signed_permit"}),
    "revoke": frozenset({"signed_revocation"}),
    "stop": frozenset({"wallet", "agent_id"}),
    "complete": frozenset({"wallet", "agent_id", "reason"}),
    "halt": frozenset({"scope", "by", "why"}),
    "lift": frozenset({"scope", "by"}),
    "change_limits": frozenset({"limits"}),
    "set_fundable": frozenset({"wallet", "fundable"}),
    "authorize_funding": frozenset({"request"}),
    "funded": frozenset({"wallet", "execution_id"}),
    "authorize": frozenset({"request"}),
    "sign": frozenset({"wallet", "execution_id", "tx_signature"}),
    "sign_alone": frozenset({"wallet", "execution_id", "tx_signature"}),
    "void": frozenset({"wallet", "execution_id", "reason"}),
    "land": frozenset({"wallet", "execution_id", "landing"}),
    "fail": frozenset({"wallet", "execution_id"}),
    "dead": frozenset({"wallet", "execution_id"}),
    "execution": frozenset({"wallet", "execution_id"}),
    "restart": frozenset[str](),
}
"""What each call needs."""

CALLS: Final[dict[str, Callable[[_World, Json], Json]]] = {name: getattr(_World, name) for name in CALL_KEYS}

TRACE_KEYS: Final = frozenset({"id", "comment", "limits", "assets", "start", "steps"})
STEP_KEYS: Final = frozenset({"at", "quotes", "call", "expected"})
"""`quotes` may be left out; a runner that skipped any other key would call itself conformant while it isn't."""
