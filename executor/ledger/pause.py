"""The pause before the next try.

It grows, so that a server has time to start again, and differs by chance, so that many processes don't come back at
once.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

__all__ = ["pause", "pause_ms"]

FIRST_MS: Final = 10
CHANCES: Final = 256


def pause(tries: int) -> None:
    """Wait after `tries` failed ones, 1 or more."""
    time.sleep(pause_ms(tries, secrets.randbelow(CHANCES)) / 1_000)


def pause_ms(tries: int, chance: int) -> float:
    """Return 10 ms, doubled with each further of `tries`, less up to half of it as `chance` (0 to 255) has it.

    >>> [pause_ms(tries, 0) for tries in (1, 2, 3)]
    [10.0, 20.0, 40.0]
    >>> pause_ms(3, 128)
    30.0
    """
    longest_ms: int = FIRST_MS * 2 ** (tries - 1)
    return longest_ms * (1 - chance / CHANCES / 2)
