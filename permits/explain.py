r"""A permit in words: what a user would want to read before signing it, and what to think about twice.

>>> from permits import Permit
>>> permit = Permit.from_json(b'''{"agentId": "6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10",
...   "sessionPubkey": "9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu", "assetWhitelist": ["SOL", "USDC"],
...   "maxAmountPerExecutionUsd": 250.5, "expiresAt": "2026-05-03T12:00:00Z", "issuedAt": "2026-05-02T12:00:00Z",
...   "nonce": "a1b2c3d4e5f60718293a4b5c6d7e8f90"}''')
>>> for line in describe(permit, now_ms=permit.issued_at_ms):
...     print(line)
agent 6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10 may trade SOL and USDC with each other
for at most $250.50 a time
from 2026-05-02T12:00:00Z until just before 2026-05-03T12:00:00Z: 1 day, 1 day left
its transactions are signed by session key 9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu
>>> print(*warnings(permit), sep="\n")
up to 500 trades a day are allowed, so up to $125250.00 may be traded within 24 hours
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from permits.model import Permit

__all__ = ["describe", "warnings"]

EXECUTIONS_PER_DAY: Final = 500
"""The cap that holds for every user, as the source documents it."""

LONG_DAYS: Final = 31
HIGH_CAP_CENTS: Final = 10_000 * 100
MANY_ASSETS: Final = 10
SYMBOL_CHARACTERS_MAX: Final = 16


def describe(permit: Permit, now_ms: int | None = None) -> list[str]:
    """Return what `permit` allows, a line each; with `now_ms` (Unix ms) also how much of its time is left."""
    return [
        f"agent {permit.agent_id} may trade {_assets(permit)}",
        f"for at most {_usd(permit.max_amount_cents)} a time",
        f"from {permit.issued_at} until just before {permit.expires_at}: {_time(permit, now_ms)}",
        f"its transactions are signed by session key {permit.session_pubkey}",
    ]


def warnings(permit: Permit) -> list[str]:
    """Return what a careful user would think about twice, a line each."""
    days = (permit.expires_at_ms - permit.issued_at_ms) / 86_400_000
    mints = [asset for asset in permit.asset_whitelist if len(asset) > SYMBOL_CHARACTERS_MAX]
    exposure = permit.max_amount_cents * EXECUTIONS_PER_DAY
    found = [
        f"up to {EXECUTIONS_PER_DAY} trades a day are allowed, so up to {_usd(exposure)} may be traded within 24 hours"
    ]
    if permit.max_amount_cents > HIGH_CAP_CENTS:
        found.append(f"{_usd(permit.max_amount_cents)} in one trade is much")
    if days > LONG_DAYS:
        found.append(f"it holds for {days:.0f} days; a shorter permit can be renewed before it ends")
    if len(permit.asset_whitelist) > MANY_ASSETS:
        found.append(f"it lists {len(permit.asset_whitelist)} assets")
    if len(permit.asset_whitelist) == 1:
        found.append("it lists one asset, but a trade needs two: nothing can be executed")
    found += [f"{mint} is listed by its address: make sure which token that is" for mint in mints]
    return found


def _assets(permit: Permit) -> str:
    *most, last = permit.asset_whitelist
    return f"{', '.join(most)} and {last} with each other" if most else f"{last} alone"


def _time(permit: Permit, now_ms: int | None) -> str:
    whole = _duration(permit.expires_at_ms - permit.issued_at_ms)
    if now_ms is None:
        return whole
    if now_ms >= permit.expires_at_ms:
        return f"{whole}, over"
    if now_ms < permit.issued_at_ms:
        return f"{whole}, not begun"
    return f"{whole}, {_duration(permit.expires_at_ms - now_ms)} left"


def _duration(ms: int) -> str:
    for unit, unit_ms in (("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000)):
        if ms >= unit_ms:
            return f"{ms // unit_ms} {unit}{'s' if ms // unit_ms != 1 else ''}"
    return "less than a minute"


def _usd(cents: int) -> str:
    return f"${cents // 100}.{cents % 100:02}"
