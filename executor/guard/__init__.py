"""The guard: it alone lets an execution happen."""

from executor.guard.agents import Agent
from executor.guard.asynchronous import AsyncGuard
from executor.guard.attempts import Execution
from executor.guard.guard import Guard
from executor.guard.headroom import Headroom

__all__ = ["Agent", "AsyncGuard", "Execution", "Guard", "Headroom"]
