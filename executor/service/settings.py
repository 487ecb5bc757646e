"""What the operator sets."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Nothing in it grants authority to trade."""

    model_config = SettingsConfigDict(env_prefix="HOLDFIRE_", extra="forbid", frozen=True)

    wallet_address_streams: bool = False
    """Let anyone read a wallet's events who names it: the address is public, and so are they then."""
