"""Evidence: all that a decision was made from, kept so that anyone can make it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from executor.bounds import Bounds
from executor.decide import Decision, Usage, decide
from executor.limits import Limits
from executor.prices.quote import Quote
from executor.request import FireRequest
from executor.value import Value

if TYPE_CHECKING:
    from executor.entries import Entry

__all__ = ["Evidence", "replay"]


class Evidence(Value):
    """What stood before the decider, but for the bounds, which the entry numbered `activation` holds."""

    activation: int
    request: FireRequest
    usage: Usage
    quotes: Annotated[tuple[Quote, ...], Field(strict=False)]
    limits: Limits

    def decide(self, bounds: Bounds, now_ms: int) -> Decision:
        """Return what this evidence leads to under `bounds` at `now_ms` (Unix ms)."""
        by_mint: dict[str, list[Quote]] = {}
        for quote in self.quotes:
            by_mint.setdefault(quote.mint, []).append(quote)
        return decide(bounds, self.request, self.usage, by_mint, self.limits, now_ms)


def replay(decided: Entry, activated: Entry) -> Decision:
    """Make the decision in the entry `decided` again, from what it holds and the activation that it names."""
    evidence = Evidence.from_json_object(decided.body["evidence"])
    return evidence.decide(Bounds.from_json_object(activated.body["bounds"]), decided.at_ms)
