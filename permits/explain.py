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
from 2026-05-02T12:00:00Z until just before 2026-05-03T12:00:00Z: 1 day in all, 1 day left
its transactions are signed by session key 9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu
>>> print(*warnings(permit), sep="\n")
if the executor has the usual limit of 500 executions in any 24 hours, up to $125,250.00 may be traded in 24 hours
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from permits.model import Permit

__all__ = ["describe", "duration", "warnings"]

EXECUTIONS_PER_DAY: Final = 500
"""The executor's default for every user. Its operator may have set another, which nobody knows offline."""

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
SECOND_MS: Final = 1_000
LONG_MS: Final = 31 * DAY_MS
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
    lifetime_ms = permit.expires_at_ms - permit.issued_at_ms
    mints = [asset for asset in permit.asset_whitelist if len(asset) > SYMBOL_CHARACTERS_MAX]
    found = []
    if len(permit.asset_whitelist) > 1:
        exposure = _usd(permit.max_amount_cents * EXECUTIONS_PER_DAY)
        limit = f"the usual limit of {EXECUTIONS_PER_DAY} executions in any 24 hours"
        found.append(f"if the executor has {limit}, up to {exposure} may be traded in 24 hours")
    if permit.max_amount_cents > HIGH_CAP_CENTS:
        found.append(f"{_usd(permit.max_amount_cents)} in one trade is much")
    if lifetime_ms > LONG_MS:
        found.append(f"it holds for {duration(lifetime_ms)}; a shorter permit can be renewed before it ends")
    if len(permit.asset_whitelist) > MANY_ASSETS:
        found.append(f"it lists {len(permit.asset_whitelist)} assets")
    if len(permit.asset_whitelist) == 1:
        found.append("it lists one asset, but a trade needs two: nothing can be executed")
    found += [f"{mint} is listed by its address: make sure which token that is" for mint in mints]
    return found


def _assets(permit: Permit) -> str:
    *most, last = permit.asset_whitelist
    return f"{', '.join(most)} and {last} with each other" if most else f"{last} alone"


def duration(ms: int) -> str:
    """Return a length of time in words, exactly.

    >>> duration(DAY_MS + 90 * MINUTE_MS)
    '1 day 1 hour 30 minutes'
    >>> duration(61_500)
    '1 minute 1.5 seconds'
    """
    counts = []
    for unit, unit_ms in (("day", DAY_MS), ("hour", HOUR_MS), ("minute", MINUTE_MS)):
        count, ms = divmod(ms, unit_ms)
        counts.append((str(count), unit))
    seconds, ms = divmod(ms, SECOND_MS)
    counts.append((f"{seconds}.{ms:03}".rstrip("0") if ms else str(seconds), "second"))
    said = [f"{count} {unit}{'s' if count != '1' else ''}" for count, unit in counts if count != "0"]
    return " ".join(said) or "0 seconds"


def _time(permit: Permit, now_ms: int | None) -> str:
    whole = duration(permit.expires_at_ms - permit.issued_at_ms)
    if now_ms is None:
        return whole
    if now_ms >= permit.expires_at_ms:
        return f"{whole} in all, over"
    if now_ms < permit.issued_at_ms:
        return f"{whole} in all, not begun"
    return f"{whole} in all, {_roughly(permit.expires_at_ms - now_ms)} left"


def _roughly(ms: int) -> str:
    """Return a length of time in words, never less than it is: to the minute from an hour on, else to the second."""
    grain_ms = MINUTE_MS if ms >= HOUR_MS else SECOND_MS
    return duration(-(-ms // grain_ms) * grain_ms)


def _usd(cents: int) -> str:
    return f"${cents // 100:,}.{cents % 100:02}"
