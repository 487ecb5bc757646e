"""Every reason for a no, in the order of precedence: the first that applies is the decision's reason.

Names are `CATEGORY_CONDITION` and stable; events and stored entries carry them.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


class Reason(StrEnum):
    """Why a fire, an activation or an attempt ended with a no."""

    LEDGER_TAMPERED = "LEDGER_TAMPERED"
    """What the ledger holds of this wallet was changed by somebody without the seal key."""
    CLOCK_UNTRUSTED = "CLOCK_UNTRUSTED"
    """Nobody knows the time: a clock was set, or it is more than 2 s behind the ledger or off the database's host."""

    EXECUTION_CONFLICT = "EXECUTION_CONFLICT"
    """The executionId was used before, with other content."""
    AUTHORIZATION_EXPIRED = "AUTHORIZATION_EXPIRED"
    """The authorization wasn't used within its life of 60 s."""

    AGENT_UNKNOWN = "AGENT_UNKNOWN"
    """The wallet has no agent of this id, or none that a permit was ever activated for."""
    HALTED = "HALTED"
    """The user or the operator halted the agent, the wallet or everything, and hasn't lifted that."""

    SESSION_KEY_NOT_RESERVED = "SESSION_KEY_NOT_RESERVED"
    """The permit names a session key that this wallet didn't reserve for this agent."""
    PERMIT_NOT_YET_VALID = "PERMIT_NOT_YET_VALID"
    """The permit's time has not begun."""
    PERMIT_TOO_OLD = "PERMIT_TOO_OLD"
    """The permit was signed too long ago to be activated now."""
    PERMIT_NOT_NEWER = "PERMIT_NOT_NEWER"
    """The agent has a permit that was issued at the same time or later."""
    NONCE_SPENT = "NONCE_SPENT"
    """The wallet used the permit's nonce before."""
    SCOPE_CHANGED = "SCOPE_CHANGED"
    """The permit has other bounds than the agent's; only a stopped agent may get a new scope."""
    ASSET_UNKNOWN = "ASSET_UNKNOWN"
    """The whitelist names an asset that the executor can't resolve to a mint."""

    AGENT_COMPLETED = "AGENT_COMPLETED"
    """The agent's work is over, for ever."""
    AGENT_STOPPED = "AGENT_STOPPED"
    """The user stopped the agent and has signed no permit since."""
    AGENT_PAUSED = "AGENT_PAUSED"
    """The agent waits for a new permit."""
    PERMIT_EXPIRED = "PERMIT_EXPIRED"
    """The permit's time is over; this pauses the agent."""
    PERMIT_EXPIRING = "PERMIT_EXPIRING"
    """The permit ends too soon for a transaction to land before."""
    INTENT_TAKEN = "INTENT_TAKEN"
    """Another execution of the agent for the same intent_key is under way or landed."""
    ASSET_NOT_WHITELISTED = "ASSET_NOT_WHITELISTED"
    """The permit doesn't list what would be sold or bought."""
    ASSETS_IDENTICAL = "ASSETS_IDENTICAL"
    """Both legs are the same mint."""
    PRICE_MISSING = "PRICE_MISSING"
    """There is no quote for a leg, so its value is unknown."""
    PRICE_STALE = "PRICE_STALE"
    """Every quote for a leg is flagged stale, too old, or from the future."""
    AMOUNT_OVER_CAP = "AMOUNT_OVER_CAP"
    """The trade is worth more than the permit allows for one execution."""
    MIN_RECEIVED_TOO_LOW = "MIN_RECEIVED_TOO_LOW"
    """The least that the fire would accept lies too far below the quotes."""
    AGENTS_OVER_CAP = "AGENTS_OVER_CAP"
    """The user has too many active agents."""
    EXECUTIONS_OVER_CAP = "EXECUTIONS_OVER_CAP"
    """The user's executions of the last 24 hours use up the cap."""
    NOTIONAL_OVER_CAP = "NOTIONAL_OVER_CAP"
    """The user's trades of the last 24 hours, and this one, are worth more than the operator allows."""
    INTERVAL_TOO_SHORT = "INTERVAL_TOO_SHORT"
    """The agent fired too short a time ago."""
    FUNDING_NOT_ALLOWED = "FUNDING_NOT_ALLOWED"
    """The operator doesn't fund this wallet's agents."""
    FUNDING_OVER_CAP = "FUNDING_OVER_CAP"
    """The user's fundings of the last 24 hours, and this one, are more lamports than the operator gives."""
    FUNDING_OVER_CAP_IN_ALL = "FUNDING_OVER_CAP_IN_ALL"
    """All users' fundings of the last 24 hours, and this one, are more lamports than the operator gives."""

    SESSION_BUSY = "SESSION_BUSY"
    """Another transaction of the session key may still land, and one of the two must be alone."""
    TRANSACTION_REFUSED = "TRANSACTION_REFUSED"
    """The rail built a transaction that is not what was authorized; it was not signed."""
    RAIL_UNAVAILABLE = "RAIL_UNAVAILABLE"
    """The rail built no transaction, or the chain couldn't be asked what its signing needs."""
    TRANSACTION_FAILED = "TRANSACTION_FAILED"
    """The chain executed the transaction and it failed; only its fee was spent."""
    TRANSACTION_DEAD = "TRANSACTION_DEAD"
    """The transaction never landed and no longer can."""
