"""The executor: it re-validates a permit and every cap before each fire, and tells and proves what happened.

What a service imports. The rails, the signing gate and the event stream need extras and have packages of their own:
`executor.rails`, `executor.signing`, `executor.service`, and `executor.execution`, which joins them.
"""

from executor.assets import Asset, AssetRegistry, KnownAssets
from executor.audit import Report, check_ledger
from executor.authorization import Authorization
from executor.bounds import Bounds
from executor.checkpoint import Compared, find_rollbacks, write_checkpoint
from executor.decide import Allowed, Check, Refused
from executor.errors import ExecutorError
from executor.events import Event, event_of
from executor.fill import Fill, Landing
from executor.funding import FundingAllowed, FundingAuthorization, FundingRequest
from executor.guard import Agent, AsyncGuard, Execution, Guard
from executor.ledger import Ledger
from executor.lifecycle import AgentState, AttemptState
from executor.limits import Limits
from executor.prices.quote import FixedPrices, PriceSource, Quote
from executor.reasons import Reason
from executor.request import FireRequest
from executor.seal import SealKeys

__all__ = [
    "Agent",
    "AgentState",
    "Allowed",
    "Asset",
    "AssetRegistry",
    "AsyncGuard",
    "AttemptState",
    "Authorization",
    "Bounds",
    "Check",
    "Compared",
    "Event",
    "Execution",
    "ExecutorError",
    "Fill",
    "FireRequest",
    "FixedPrices",
    "FundingAllowed",
    "FundingAuthorization",
    "FundingRequest",
    "Guard",
    "KnownAssets",
    "Landing",
    "Ledger",
    "Limits",
    "PriceSource",
    "Quote",
    "Reason",
    "Refused",
    "Report",
    "SealKeys",
    "check_ledger",
    "event_of",
    "find_rollbacks",
    "write_checkpoint",
]
