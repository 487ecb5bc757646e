"""What a strategy asks for: sell this much of one asset for at least that much of another."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from executor.value import BaseUnits, Value
from permits.model import UUID_PATTERN

__all__ = ["FireRequest", "Uuid", "WalletAddress"]

Uuid = Annotated[str, Field(pattern=f"^{UUID_PATTERN}$")]
"""A UUID in lowercase, with hyphens."""

WalletAddress = Annotated[str, Field(pattern="^[1-9A-HJ-NP-Za-km-z]{32,44}$")]
"""A user's wallet, base58."""

AssetName = Annotated[str, Field(pattern="^[A-Za-z0-9]{1,44}$")]


class FireRequest(Value):
    """One intended execution. The same `execution_id` again is the same request, never a second one.

    Raises pydantic's ValidationError (a ValueError) naming the field, if a value isn't of its form: amounts are whole
    numbers of base units from 1 to 2**64 - 1, never floats.
    """

    agent_id: Uuid
    buy: AssetName
    """The asset to buy, as the permit's whitelist spells it."""
    execution_id: Uuid
    """Chosen by the caller, unique among this wallet's executions."""
    intent_key: Annotated[str | None, Field(pattern="^[ -~]{1,64}$")] = None
    """What the fire is for, in the strategy's words: no other is made while an attempt for it is open or landed."""
    min_received: BaseUnits
    """The least that must come back in the same transaction, in base units of `buy`."""
    rail: Annotated[str, Field(pattern="^[a-z0-9-]{1,32}$")]
    """The name of the rail that shall execute it."""
    sell: AssetName
    """The asset to sell, as the permit's whitelist spells it."""
    sell_amount: BaseUnits
    """The most that may leave, in base units of `sell`."""
    wallet: WalletAddress

    def to_json_object(self) -> dict[str, Any]:
        """Return its JSON form, written out since every fire stores it."""
        members = {
            "agentId": self.agent_id,
            "buy": self.buy,
            "executionId": self.execution_id,
            "intentKey": self.intent_key,
            "minReceived": str(self.min_received),
            "rail": self.rail,
            "sell": self.sell,
            "sellAmount": str(self.sell_amount),
            "wallet": self.wallet,
        }
        if self.intent_key is None:
            del members["intentKey"]
        return members
