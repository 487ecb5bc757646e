"""What time it is, or that nobody knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from executor.errors import ClockUntrusted

__all__ = ["APART_MS_MAX", "Clock", "SystemClock"]

APART_MS_MAX: Final = 2_000
"""Two clocks that tell the same time may differ by this much; by more, and neither is believed."""

Clock = Callable[[], int]
"""Returns Unix time in ms."""


class SystemClock:
    """The host's clock, held against the time since boot: one that was set while we ran is no longer believed."""

    def __init__(self) -> None:
        self._boot_ms = _wall_ms() - _since_boot_ms()

    def __call__(self) -> int:
        """Return Unix time in ms. Raises ClockUntrusted if the clock was moved by more than 2 s since we began."""
        now_ms = _wall_ms()
        moved_ms = now_ms - _since_boot_ms() - self._boot_ms
        if abs(moved_ms) > APART_MS_MAX:
            raise ClockUntrusted(f"the clock was moved by {moved_ms} ms while this process ran; start it again")
        return now_ms


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _since_boot_ms() -> int:
    """Return a time that nobody can set, and that goes on while the host sleeps, where it offers one."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000
