"""Evidence: all that a decision was made from, kept so that anyone can make it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from executor.bounds import Bounds
from executor.decide import Decision, Usage, decide, read_decision
from executor.funding import FundingDecision, FundingEvidence, read_funding_decision
from executor.limits import Limits
from executor.prices.quote import Quote
from executor.request import FireRequest

if TYPE_CHECKING:
    from executor.entries import Entry

__all__ = ["Evidence", "decision_of", "evidence_of", "replay"]


class Evidence(NamedTuple):
    """What stood before the decider, but for the bounds, which the entry numbered `activation` holds."""

    activation: int
    request: FireRequest
    usage: Usage
    quotes: tuple[Quote, ...]
    limits: Limits
    everybody: int
    """The number of the newest entry on everybody's chain: it left these limits, and the halts of everything."""

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, as entries hold it."""
        return {
            "activation": self.activation,
            "everybody": self.everybody,
            "limits": self.limits.to_json_object(),
            "quotes": [quote.to_json_object() for quote in self.quotes],
            "request": self.request.to_json_object(),
            "usage": self.usage.to_json_object(),
        }

    @classmethod
    def from_json_object(cls, value: dict[str, Any]) -> Evidence:
        """Read back what `to_json_object` gave."""
        return cls(
            activation=value["activation"],
            request=FireRequest.from_json_object(value["request"]),
            usage=Usage.from_json_object(value["usage"]),
            quotes=tuple(Quote.from_json_object(quote) for quote in value["quotes"]),
            limits=Limits.from_json_object(value["limits"]),
            everybody=value["everybody"],
        )

    def decide(self, bounds: Bounds, now_ms: int) -> Decision:
        """Return what this evidence leads to under `bounds` at `now_ms` (Unix ms)."""
        return decide(bounds, self.request, self.usage, self.quotes, self.limits, now_ms)


def evidence_of(decided: Entry) -> Evidence | FundingEvidence:
    """Return what the decision in the entry `decided` was made from."""
    stored = decided.body["evidence"]
    return Evidence.from_json_object(stored) if decided.funding is None else FundingEvidence.from_json_object(stored)


def decision_of(decided: Entry) -> Decision | FundingDecision:
    """Return the decision in the entry `decided`."""
    stored = decided.body["decision"]
    return read_decision(stored) if decided.funding is None else read_funding_decision(stored)


def replay(decided: Entry, activated: Entry) -> Decision | FundingDecision:
    """Make the decision in the entry `decided` again, from what it holds and the activation that it names."""
    return evidence_of(decided).decide(Bounds.from_json_object(activated.body["bounds"]), decided.at_ms)
