"""Whose a credential of the price stream is: an API key's, or a token's (JWT) that the service believes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from executor.prices.api_keys import KeyFile, is_key
from executor.prices.hub import AuthenticationUnavailable, Subject
from executor.prices.protocol import TIERS
from executor.service.tokens import JwksUnavailable, TokenRefused, Tokens

if TYPE_CHECKING:
    from executor.service.settings import Settings

__all__ = ["KeysAndTokens", "believing"]

TIER_OF_NONE: Final = TIERS["free"]
"""Of a token whose `tier` is missing, or is none of ours: a typing error must not give more."""


def believing(settings: Settings) -> KeysAndTokens:
    """Return who is believed by `settings`. Raises SecretRefused, KeyFileError if a file can't be used."""
    keys = None if settings.price_keys_file is None else KeyFile(settings.price_keys_file)
    if keys is not None:
        keys.list()  # an unusable file is told now
    return KeysAndTokens(keys, Tokens(settings, time.time))


class KeysAndTokens:
    """Takes both. A wallet's tokens are counted together, and so are a subject's keys; the two never."""

    def __init__(self, keys: KeyFile | None, tokens: Tokens) -> None:
        """Believe `keys`, if there are any, and `tokens`."""
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, credential: str) -> Subject | None:
        """Return whose `credential` is, as `hub.Authenticator`."""
        if is_key(credential):
            return None if self._keys is None else await self._keys.authenticate(credential)
        try:
            caller = await self._tokens.caller(credential)
        except TokenRefused:
            return None
        except JwksUnavailable:
            raise AuthenticationUnavailable("the keys of tokens can't be fetched") from None
        tier = TIERS.get(caller.tier or "", TIER_OF_NONE)
        return Subject(f"wallet:{caller.wallet}", tier, caller.expires_at_s)
