"""Assets: from the name in a permit to the mint on the chain.

A whitelist entry is resolved once, at activation, and the answer is sealed with the bounds: no later edit of a symbol
table changes what the user signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

from pydantic import Field

from executor.value import Value

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NATIVE_MINT", "Asset", "AssetRegistry", "KnownAssets", "ResolvedAssets"]

NATIVE_MINT: Final = "So11111111111111111111111111111111111111112"
"""Wrapped SOL: its quote prices network fees."""


class Asset(Value):
    """What a whitelist entry stands for."""

    decimals: Annotated[int, Field(ge=0, le=19)]
    """A whole token is 10**decimals base units."""
    mint: str
    """base58 of 32 bytes."""
    symbol: str
    token_program: str
    """The program that owns the mint, base58."""


class AssetRegistry(Protocol):
    """Whoever knows assets by symbol and by mint."""

    def resolve(self, name: str) -> Asset | None:
        """Return the asset that `name` (a symbol or a mint, matched exactly) stands for, or None."""


class KnownAssets:
    """A registry of a fixed list of assets.

    Raises ValueError if two share a symbol or a mint.
    """

    def __init__(self, assets: Iterable[Asset]) -> None:
        self._by_name: dict[str, Asset] = {}
        for asset in assets:
            for name in (asset.symbol, asset.mint):
                if name in self._by_name:
                    raise ValueError(f"two assets are called `{name}`")
                self._by_name[name] = asset

    def resolve(self, name: str) -> Asset | None:
        """Return the asset called `name`, or None."""
        return self._by_name.get(name)


class ResolvedAssets:
    """What a registry said of some names, asked once: it is not asked again."""

    def __init__(self, registry: AssetRegistry, names: Iterable[str]) -> None:
        self._by_name = {name: registry.resolve(name) for name in names}

    def resolve(self, name: str) -> Asset | None:
        """Return the asset that `name` stood for, or None."""
        return self._by_name.get(name)
