"""Amounts as people say them: whole tokens and dollars, digit for digit, never through a float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from executor.assets import NATIVE_MINT

if TYPE_CHECKING:
    from executor.assets import Asset
    from executor.bounds import Bounds

__all__ = ["LAMPORT_DECIMALS", "amount", "dollars", "plain", "sol", "symbol_of"]

LAMPORT_DECIMALS: Final = 9
CENT_DECIMALS: Final = 2


def plain(units: int, decimals: int) -> str:
    """Return `units` of 10**-`decimals`, of which there may be any number, as a plain decimal without trailing zeros.

    >>> plain(1_500_000, 6), plain(0, 6), plain(20_000_000, 6)
    ('1.5', '0', '20')
    """
    whole, part = divmod(units, 10**decimals)
    digits = f"{part:0{decimals}}".rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else f"{whole}"


def dollars(units: int, decimals: int) -> str:
    """Return `units` of 10**-`decimals` USD as dollars, with cents at least.

    >>> dollars(300_000_000, 6), dollars(4, 3), dollars(0, 6)
    ('$300.00', '$0.004', '$0.00')
    """
    whole, _, part = plain(units, decimals).partition(".")
    return f"${whole}.{part:0<{CENT_DECIMALS}}"


def sol(lamports: int) -> str:
    """Return lamports as SOL, and beside it as they are.

    >>> sol(40_000_000)
    '0.04 SOL (40000000 lamports)'
    """
    return f"{plain(lamports, LAMPORT_DECIMALS)} SOL ({lamports} lamports)"


def amount(units: int, name: str, bounds: Bounds) -> str:
    """Return an amount of what the whitelist of `bounds` calls `name`: whole tokens, and beside them base units."""
    asset: Asset | None = bounds.whitelist.get(name)
    if asset is None:
        return f"{units} base units of {name}"
    return f"{plain(units, asset.decimals)} {name} ({units} base units)"


def symbol_of(mint: str, bounds: Bounds) -> str:
    """Return what the whitelist of `bounds` calls the token of `mint`; its mint if it has no name there."""
    names = {asset.mint: name for name, asset in bounds.whitelist.items()}
    return names.get(mint, "SOL" if mint == NATIVE_MINT else mint)
