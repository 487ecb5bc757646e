"""Events: what the ledger's entries mean to the user's client.

An entry that ends an attempt or changes an agent is one event; committing the entry publishes it. The payloads are
those of TrueFinance's realtime API ("Event types"); amounts are JSON numbers, written digit for digit and never
through a float.

>>> frame = Event("errored", {"agentId": "a", "executionId": "e", "reason": "PRICE_STALE"}).frame("00ff-7")
>>> print(frame.decode(), end="")
id: 00ff-7
event: errored
data: {"agentId":"a","executionId":"e","reason":"PRICE_STALE"}
<BLANKLINE>
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from executor import sse
from executor.entries import Kind

if TYPE_CHECKING:
    from executor.entries import Entry

__all__ = ["Event", "event_of"]


class Event(NamedTuple):
    """One event as the client sees it."""

    name: str
    data: dict[str, Any]

    def data_json(self) -> str:
        """Return the data as JSON, amounts digit for digit."""
        return _json(self.data)

    def frame(self, event_id: str) -> bytes:
        """Return the event as one frame of a `text/event-stream` (WHATWG HTML, section 9.2)."""
        return sse.encode(_json(self.data), event=self.name, event_id=event_id)


def event_of(entry: Entry) -> Event | None:
    """Return the event that `entry` is; None if clients aren't told of its kind."""
    if entry.funding is not None:
        return None
    if entry.kind is Kind.LANDED:
        return _executed(entry)
    if entry.kind in TOLD:
        name, member = TOLD[entry.kind]
        return Event(
            name, {"agentId": entry.agent_id, "executionId": entry.execution_id, member: entry.body.get(member)}
        )
    if entry.kind in ERRORS:
        return Event(
            "errored",
            {"agentId": entry.agent_id, "executionId": entry.execution_id, "reason": entry.body["reason"]},
        )
    return None


TOLD: Final = {
    Kind.STOPPED: ("completed", "terminalReason"),
    Kind.COMPLETED: ("completed", "terminalReason"),
    Kind.TRIGGER_ARMED: ("trigger_armed", "condition"),
    Kind.NEXT_RUN_SET: ("next_run_changed", "nextRunAt"),
}
"""Kinds whose events repeat one member of the entry. Their executionId was minted for them."""

ERRORS: Final = frozenset({Kind.REFUSED, Kind.VOIDED, Kind.FAILED, Kind.DEAD})


def _executed(entry: Entry) -> Event:
    fill = entry.body["fill"]
    fee_usd = fill.get("feeUsd")
    return Event(
        "executed",
        {
            "agentId": entry.agent_id,
            "executionId": entry.execution_id,
            "rail": entry.body["rail"],
            "txSignature": entry.body["txSignature"],
            "filledAmount": Decimal(fill["filledAmount"]),
            "filledPriceUsd": Decimal(fill["filledPriceUsd"]),
            "feeUsd": None if fee_usd is None else Decimal(fee_usd),
        },
    )


def _json(data: dict[str, Any]) -> str:
    members = (
        f"{json.dumps(key)}:{value:f}" if isinstance(value, Decimal) else f"{json.dumps(key)}:{json.dumps(value)}"
        for key, value in data.items()
    )
    return "{" + ",".join(members) + "}"
