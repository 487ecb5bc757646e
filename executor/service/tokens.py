"""Tokens (JWT): whose word is believed, and what the service itself gives out.

The algorithm is the key's and never the token's: what a token says of itself chooses at most one key, by its `kid`,
among those that the operator lists. Audience and expiry are required.

What the service gives out to itself, tickets and challenges, are tokens too: each purpose under a key of its own.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from executor.credentials import unlogged
from executor.service.files import SecretRefused, name_of, read_private, read_secret
from permits import keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from executor.service.files import Source
    from executor.service.settings import Settings

__all__ = ["Caller", "Issuer", "JwksUnavailable", "KeySet", "Purpose", "TokenRefused", "Tokens", "spent_as"]

log = logging.getLogger("executor.service")

LEEWAY_S: Final = 30
"""How far the clock of whoever issues tokens may be off."""
TOKEN_CHARACTERS_MAX: Final = 8_192
JWKS_FRESH_S: Final = 300
JWKS_STALE_S: Final = 3_600
"""How long keys are believed that can't be fetched again: a key that was withdrawn is no longer believed after it."""
JWKS_PAUSE_S: Final = 10
"""Between two fetches, whatever keys tokens name."""
JWKS_TIMEOUT_S: Final = 5
JWKS_BYTES_MAX: Final = 65_536
JWKS_KEYS_MAX: Final = 64
JWKS_ALGORITHMS: Final = frozenset({"EdDSA", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}) | {
    "RS256",
    "RS384",
    "RS512",
}
"""All of public keys: a set that anybody can read must not hold a secret."""

MALFORMED: Final = (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError)
"""What a hostile token makes its readers raise: an `exp` without end, a head nested without end."""


class TokenRefused(Exception):
    """It isn't believed. Whoever sent it isn't told more."""


class JwksUnavailable(Exception):
    """The keys that tokens are checked with can't be fetched; nobody is believed meanwhile."""


class Caller(NamedTuple):
    """Who asks, and for how long that is known."""

    wallet: str
    expires_at_s: int | None = None
    """When their token ends, Unix seconds, exclusive; None: never, for what needs none."""
    tier: str | None = None
    """What the token's `tier` says, whatever that is: how many price streams it is good for."""


class Key(NamedTuple):
    """A key, and the one algorithm that it is for."""

    key: Any
    algorithm: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.algorithm})"  # no key in any log


class Tokens:
    """Whose tokens are believed."""

    def __init__(self, settings: Settings, now_s: Callable[[], float]) -> None:
        """Read the keys that `settings` name. Raises SecretRefused."""
        self._settings = settings
        self._now_s = now_s
        self._keys: list[Key] = []
        if settings.jwt_secret_file is not None:
            self._keys.append(Key(read_secret(settings.jwt_secret_file), "HS256"))
        if settings.jwt_public_key_file is not None:
            self._keys.append(Key(_public_key(settings.jwt_public_key_file), "EdDSA"))
        if settings.jwt_private_key_file is not None:
            self._keys.append(Key(_private_key(settings.jwt_private_key_file).public_key(), "EdDSA"))
        self._sets: list[KeySet] = []
        if settings.jwt_jwks_file is not None:
            self._sets.append(KeySet.of_file(settings.jwt_jwks_file))
        if settings.jwt_jwks_url is not None:
            self._sets.append(KeySet(settings.jwt_jwks_url))

    async def caller(self, token: str) -> Caller:
        """Return whom `token` is of.

        Raises:
            TokenRefused: no key of ours has signed it, or it isn't for us, of no wallet, over, or not yet.
            JwksUnavailable: that can't be known now.

        """
        try:
            return self._caller(await self._verified(token))
        except MALFORMED:
            raise TokenRefused from None

    def _caller(self, claims: dict[str, Any]) -> Caller:
        now_s = self._now_s()
        expires_at_s = int(claims["exp"])
        if now_s >= expires_at_s + LEEWAY_S or int(claims.get("nbf", 0)) > now_s + LEEWAY_S:
            raise TokenRefused
        wallet = claims[self._settings.jwt_wallet_claim]
        if not isinstance(wallet, str) or keys.decode_key(wallet) is None:
            raise TokenRefused
        tier = claims.get("tier")
        return Caller(wallet, expires_at_s, tier if isinstance(tier, str) else None)

    async def _verified(self, token: str) -> dict[str, Any]:
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise TokenRefused
        for key in self._keys:
            try:
                return self._claims(token, key)
            except jwt.InvalidTokenError:
                continue
        kid = jwt.get_unverified_header(token).get("kid")
        for keyset in self._sets:
            key_of_set = await keyset.key(kid) if isinstance(kid, str) else None
            if key_of_set is not None:
                return self._claims(token, key_of_set)
        raise TokenRefused

    def _claims(self, token: str, key: Key) -> dict[str, Any]:
        issuer = self._settings.jwt_issuer
        return _decode(token, key, self._settings.jwt_audience, issuer=issuer)


def _decode(token: str, key: Key, audience: str, *, issuer: str | None = None) -> dict[str, Any]:
    """Return the claims of `token` if `key` signed it for `audience`; its times are the caller's to judge."""
    claims: dict[str, Any] = jwt.decode(
        token,
        key.key,
        algorithms=[key.algorithm],
        audience=audience,
        issuer=issuer,
        options={"require": ["exp", "aud"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    return claims


class Issuer:
    """Gives tokens to wallets that have signed in."""

    def __init__(self, settings: Settings) -> None:
        """Take the private key that `settings` name, else the secret. Raises SecretRefused if there is neither."""
        self._settings = settings
        if settings.jwt_private_key_file is not None:
            self._key = Key(_private_key(settings.jwt_private_key_file), "EdDSA")
        elif settings.jwt_secret_file is not None:
            self._key = Key(read_secret(settings.jwt_secret_file), "HS256")
        else:
            raise SecretRefused("sign-in needs `jwt_private_key_file` or `jwt_secret_file`, to sign tokens with")

    def token(self, wallet: str, now_s: int) -> tuple[str, int]:
        """Return a token for `wallet`, and when it ends."""
        settings = self._settings
        expires_at_s = now_s + settings.token_lifetime_s
        claims: dict[str, Any] = {"aud": settings.jwt_audience, "iat": now_s, "exp": expires_at_s}
        claims[settings.jwt_wallet_claim] = wallet
        if settings.jwt_issuer is not None:
            claims["iss"] = settings.jwt_issuer
        return jwt.encode(claims, self._key.key, self._key.algorithm), expires_at_s


class Purpose:
    """Tokens of the service to itself, which nobody else can make and no other purpose takes. They end by our clock."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._purpose = purpose
        self._key = Key(hmac.digest(secret, f"holdfire/service/v1 {purpose}".encode(), "sha256"), "HS256")

    def seal(self, claims: dict[str, Any], expires_at_s: int) -> str:
        """Return a token that says `claims` until `expires_at_s`."""
        return jwt.encode({**claims, "aud": self._purpose, "exp": expires_at_s}, self._key.key, self._key.algorithm)

    def open(self, token: str, now_s: float) -> dict[str, Any]:
        """Return what `token` says. Raises TokenRefused if it isn't of this purpose, or over."""
        try:
            if len(token) > TOKEN_CHARACTERS_MAX:
                raise TokenRefused
            claims = _decode(token, self._key, self._purpose)
            if now_s >= claims["exp"]:
                raise TokenRefused
        except MALFORMED:
            raise TokenRefused from None
        return claims


def spent_as(token: str) -> str:
    """Return under which name a token of a `Purpose` is spent.

    Of what its MAC covers alone: base64 has more than one spelling for the bytes of the MAC itself.
    """
    return sha256(token.rpartition(".")[0].encode()).hexdigest()


class KeySet:
    """A JSON Web Key Set (RFC 7517): read once from a file, or fetched and kept for a while."""

    def __init__(self, url: str | None = None, keys_by_id: dict[str, Key] | None = None) -> None:
        self._url = url
        self._keys = keys_by_id or {}
        self._fetching = asyncio.Lock()
        self._tried_at_s = self._fetched_at_s = float("-inf")

    @classmethod
    def of_file(cls, path: Path) -> KeySet:
        """Return the set in the file at `path`. Raises SecretRefused."""
        try:
            return cls(None, _keys_by_id(path.read_bytes()))
        except OSError as error:
            raise SecretRefused(f"`{path}`: {error.strerror}") from None
        except MALFORMED:
            raise SecretRefused(f"`{path}` must hold a JSON Web Key Set") from None

    async def key(self, kid: str) -> Key | None:
        """Return the key named `kid`; None if the set has none. Raises JwksUnavailable."""
        if self._url is None:
            return self._keys.get(kid)
        now_s = asyncio.get_running_loop().time()
        if kid not in self._keys or now_s - self._fetched_at_s >= JWKS_FRESH_S:
            await self._refresh(self._url, now_s)
        if now_s - self._fetched_at_s >= JWKS_STALE_S:
            raise JwksUnavailable
        return self._keys.get(kid)

    async def _refresh(self, url: str, asked_at_s: float) -> None:
        """Fetch the set, unless that was done or tried a moment ago: strangers choose the names of keys."""
        async with self._fetching:
            if self._tried_at_s > asked_at_s - JWKS_PAUSE_S:
                return
            self._tried_at_s = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(JWKS_TIMEOUT_S):
                    self._keys = _keys_by_id(await _fetched(url))
                self._fetched_at_s = asyncio.get_running_loop().time()
            except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, *MALFORMED) as error:
                host = urlsplit(url).hostname  # the rest may hold a key
                log.error("the keys of `%s` can't be fetched: %s", host, type(error).__name__)  # noqa: TRY400 - one line


async def _fetched(url: str) -> bytes:
    with unlogged():
        return await _fetched_unlogged(url)


async def _fetched_unlogged(url: str) -> bytes:
    body = b""
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError("not the set")
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > JWKS_BYTES_MAX:
                raise ValueError("too long for a set")
    return body


def _keys_by_id(text: bytes) -> dict[str, Key]:
    """Return the keys that can be used, by name; others, such as those for encryption, are passed over."""
    found = json.loads(text)["keys"]
    if not isinstance(found, list) or len(found) > JWKS_KEYS_MAX:
        raise ValueError("too many keys")
    usable: dict[str, Key] = {}
    for each in found:
        if each.get("use", "sig") != "sig" or not isinstance(each.get("kid"), str):
            continue
        try:
            key = jwt.PyJWK.from_dict(each)
        except MALFORMED:
            continue
        if key.algorithm_name in JWKS_ALGORITHMS:
            usable[each["kid"]] = Key(key.key, key.algorithm_name)
    return usable


def _private_key(source: Source) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(read_private(source), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SecretRefused(f"{name_of(source)} must hold an Ed25519 private key, PEM, without a password")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SecretRefused(f"`{path}`: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SecretRefused(f"`{path}` must hold an Ed25519 public key, PEM")
    return key
