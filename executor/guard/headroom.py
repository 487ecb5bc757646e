"""How much of each cap a wallet has left."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from executor.caps import count_unexpired, slot_free_at_ms
from executor.guard.window import Series, first_in_window

if TYPE_CHECKING:
    from executor.halts import Halt
    from executor.ledger import WalletView

__all__ = ["Headroom", "Room", "headroom"]


class Room(NamedTuple):
    """One cap: what is used of it, and all of it."""

    used: int
    limit: int

    @property
    def left(self) -> int:
        """What may still be used now."""
        return max(0, self.limit - self.used)


class Headroom(NamedTuple):
    """What a wallet may still do, at `at_ms`."""

    at_ms: int
    active_agents: Room
    executions: Room
    """Authorized attempts of the last 24 hours."""
    next_slot_at_ms: int | None
    """When the next of their slots comes free, Unix ms; None if there are none."""
    notional_micro_usd: Room | None
    """What they are worth, in 1e-6 USD; None where no limit asks."""
    autofund_lamports: Room | None
    """What the wallet's agents were given in the last 24 hours; None where the operator doesn't fund them."""
    halts: tuple[Halt, ...]
    """Those of everything, of the wallet, and of its agents."""


def headroom(view: WalletView) -> Headroom:
    """Return how much of each cap the wallet has left."""
    head, limits, trades, fundings = view.head, view.limits, Series.of_trades(view), Series.of_fundings(view)
    first = first_in_window(trades, view.now_ms)
    used = head.attempts - first + 1
    frees = max(first, head.attempts + 1 - limits.executions_per_24h)  # of more than a lowered cap, the oldest don't
    cap = limits.notional_micro_usd_per_24h
    return Headroom(
        at_ms=view.now_ms,
        active_agents=Room(
            count_unexpired((each.expires_at_ms for each in head.active.values()), view.now_ms), limits.active_agents
        ),
        executions=Room(used, limits.executions_per_24h),
        next_slot_at_ms=slot_free_at_ms(view.attempted_at_ms(frees)) if used else None,
        notional_micro_usd=None if cap is None else Room(trades.total - trades.total_before(first), cap),
        autofund_lamports=Room(
            fundings.total - fundings.total_before(first_in_window(fundings, view.now_ms)),
            limits.autofund_lamports_per_24h,
        )
        if head.fundable
        else None,
        halts=view.every_halt(),
    )
