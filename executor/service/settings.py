"""What the operator sets: a TOML file, and above it the environment (`HOLDFIRE_` and a setting's name in capitals).

Nothing in it grants authority to trade: permits do, and the limits lie sealed in the ledger. No secret stands in it
either: settings name the files that hold them, and each must be private, as `executor.private_files` has it. A program
that makes its own `Settings` may name functions instead, which fetch secrets from wherever it keeps them.
"""

from __future__ import annotations

import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PlainValidator, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from executor.errors import ExecutorError, LedgerError
from executor.ledger.url import has_password, read_url
from executor.limits import COUNT_MAX
from executor.service.files import Source  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_settings import PydanticBaseSettingsSource

__all__ = ["AUTOFUND_VARIABLE", "Settings", "SettingsRefused"]

PREFIX: Final = "HOLDFIRE_"
AUTOFUND_VARIABLE: Final = "MAX_AUTOFUND_LAMPORTS_PER_USER_PER_DAY"

_is_origin = re.compile(r"https?://[a-z0-9.\-\[\]:]{1,253}", re.ASCII).fullmatch
_is_host = re.compile(r"[a-z0-9.\-]{1,253}|\[[0-9a-f:.]{2,45}\]", re.ASCII).fullmatch


class SettingsRefused(ExecutorError):
    """The settings can't be used: `lines` say why, one for each thing that is wrong."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


def _origin(text: str) -> str:
    if not _is_origin(text):
        raise ValueError("must be like `https://app.example.org`, in lowercase, with nothing behind the port")
    return text


def _host(text: str) -> str:
    if not _is_host(text):
        raise ValueError("must be a name or an address, in lowercase and without a port; IPv6 in brackets")
    return text


def _ledger(text: str) -> str:
    if "://" in text:
        try:
            url = read_url(text)
        except LedgerError as error:
            raise ValueError(str(error)) from None
        if has_password(url):
            raise ValueError("must hold no password: that belongs in a PostgreSQL password file (`PGPASSFILE`)")
    return text


def _https(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("must be a URL") from None
    if "@" in text:
        raise ValueError("must name a host alone, without a user")
    local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise ValueError("must begin with `https://`: who changes keys on their way signs tokens")
    return text


class Settings(BaseSettings):
    """One service's settings. Where a path may be left out, what needs it is off."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # a password in the wrong place is in no log
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    # Where it listens, and to whom
    host: str = "127.0.0.1"
    """The address to listen on. TLS is the proxy's before it."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8787
    """0: any free one."""
    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ("localhost", "127.0.0.1", "[::1]")
    """The names that a request may be addressed to (its `Host`, without the port); others are answered 421."""
    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """Other sites whose pages may call: their browsers are told so (CORS), and their writes pass. None by default."""
    trusted_proxies: tuple[Annotated[IPv4Network | IPv6Network, PlainValidator(ip_network)], ...] = ()
    """Whose `X-Forwarded-For` is believed: networks such as `10.0.0.0/8`."""

    # Limits to what strangers can use up
    requests_per_minute_per_ip: Annotated[int, Field(ge=1, le=10**6)] = 6_000
    """As many may come at once, too. An IPv6 client is its /64."""
    requests_per_minute_per_wallet: Annotated[int, Field(ge=1, le=10**6)] = 1_200
    """Of requests that a token names the wallet of, on one replica."""
    body_bytes_max: Annotated[int, Field(ge=1_024, le=2**20)] = 16_384
    """A signed permit with 50 assets, as many as there may be, takes some 3 KB."""
    header_deadline_s: Annotated[int, Field(ge=1, le=60)] = 10
    """How long a connection may take to send the head of a request, and then its body."""
    connections_max: Annotated[int, Field(ge=16, le=10**6)] = 20_000
    """Above it, answers are 503."""

    # Who asks
    wallet_address_streams: bool = False
    """Let anyone read a wallet's events who names it: the address is public, and so are they then."""
    jwt_audience: Annotated[str, Field(min_length=1)] = "holdfire"
    """What a token's `aud` must hold."""
    jwt_issuer: str | None = None
    """What a token's `iss` must be, if it is looked at."""
    jwt_wallet_claim: Annotated[str, Field(min_length=1)] = "wallet"
    """The claim that holds the wallet's address."""
    jwt_secret_file: Source | None = None
    """A secret of at least 32 bytes: HS256 tokens under it are believed."""
    jwt_public_key_file: Path | None = None
    """An Ed25519 public key (PEM): EdDSA tokens under it are believed. It is no secret."""
    jwt_private_key_file: Source | None = None
    """An Ed25519 private key (PEM): signs the tokens of sign-in; they are believed."""
    jwt_jwks_file: Path | None = None
    """A JSON Web Key Set: tokens under its keys are believed, each with the one algorithm of its key."""
    jwt_jwks_url: Annotated[str, AfterValidator(_https)] | None = Field(default=None, repr=False)
    """The same, fetched, and again every five minutes, or when a token names a key that isn't in it."""
    secret_file: Source | None = None
    """A secret of at least 32 bytes, the same for all replicas: makes stream tickets and sign-in challenges."""
    sign_in_domain: str | None = None
    """Whom the wallet signs in to, such as `app.example.org`: what the wallet shows to its user. None: no sign-in."""
    sign_in_uri: str | None = None
    """None: `https://` and the domain."""
    token_lifetime_s: Annotated[int, Field(ge=60, le=86_400)] = 3_600
    """Of the tokens that sign-in gives."""
    operator_token_file: Source | None = None
    """At least 32 characters. It halts, and lifts the operator's halts; it can't trade, fund or read a wallet."""

    # What `executor serve` opens
    ledger: Annotated[str, AfterValidator(_ledger)] | None = None
    """The path of an SQLite file, or a URL such as `postgresql://user@host/database`."""
    seal_key_file: Path | None = None
    """64 hex digits, or a keyring as JSON."""
    vault_key_file: Path | None = None
    """64 hex digits: the vault's master key. None: this service makes no session keys."""
    assets_file: Path | None = None
    """The assets that permits may name, as a JSON array. None: none, so no permit is activated."""
    quotes_file: Path | None = None
    """Prices that never age, as JSON: `{"MINT": "PRICE", ...}`. For trials alone. None: no prices, so nothing fires."""
    price_recording_file: Path | None = None
    """A recording that `GET /v1/stream` plays, once: a `price` frame a line. For trials alone: a service of your own
    publishes to a hub. None: no price stream."""
    price_keys_file: Path | None = None
    """API keys of the price stream (`executor keys`). None: tokens alone open it."""
    max_autofund_lamports_per_user_per_day: Annotated[
        int, Field(ge=0, le=COUNT_MAX, validation_alias=AUTOFUND_VARIABLE)
    ] = 0
    """Must be what the ledger holds as `autofund_lamports_per_24h`. Only the environment sets it, without prefix."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes all of them by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment overrule the file, but for what Kubernetes put there."""
        if isinstance(env_settings, EnvSettingsSource):
            links = {name.lower() for name in _service_links()}
            env_settings.env_vars = {name: told for name, told in env_settings.env_vars.items() if name not in links}
        return env_settings, init_settings

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the settings in the TOML file at `path`, overruled by the environment.

        Raises:
            SettingsRefused: something in it can't be used, or nobody knows it.
            OSError: the file can't be read.

        """
        try:
            given = tomllib.loads(path.read_text("utf-8"))
        except UnicodeDecodeError as error:
            raise SettingsRefused((f"`{path}` must be UTF-8, but byte {error.start} is not",)) from None
        except ValueError as error:
            raise SettingsRefused((f"`{path}`: {' '.join(str(error).split())}",)) from None
        wrong = [*_misplaced(given), *_unknown_variables(cls)]
        try:
            settings = cls(**given)
        except ValidationError as error:
            wrong += map(_line, error.errors())
        else:
            if not wrong:
                return settings
        raise SettingsRefused(tuple(wrong))


def _misplaced(given: dict[str, Any]) -> Iterator[str]:
    for name in (AUTOFUND_VARIABLE, AUTOFUND_VARIABLE.lower()):
        if name in given:
            yield f"`{name}`: only the environment sets this limit, as `{AUTOFUND_VARIABLE}`"


def _unknown_variables(model: type[Settings]) -> Iterator[str]:
    """Name what is set for us and would be ignored: a mistyped limit must not go unnoticed."""
    known = {f"{PREFIX}{name.upper()}" for name, field in model.model_fields.items() if field.validation_alias is None}
    for name in sorted(os.environ.keys() - _service_links()):
        if name.startswith(PREFIX) and name not in known:
            yield f"`{name}`: there is no such setting"


ADDRESS: Final = "[0-9a-f:.]{2,45}"
_is_service_link = re.compile(
    rf"SERVICE_HOST={ADDRESS}|SERVICE_PORT(_[A-Z0-9_]+)?=[0-9]{{1,5}}"
    rf"|PORT(_[0-9]{{1,5}}_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://({ADDRESS}|\[{ADDRESS}\]):[0-9]{{1,5}}"
    rf"|PORT_(?P<n>[0-9]{{1,5}})_(?P<by>TCP|UDP|SCTP)_(PROTO=(?i:(?P=by))|PORT=(?P=n)|ADDR={ADDRESS})",
    re.ASCII,
).fullmatch
"""Kubernetes: "Accessing the Service", environment variables. Of a variable, what follows the Service's name."""


def _service_links() -> set[str]:
    """Return the variables that Kubernetes sets in each pod beside a Service `holdfire`, or `holdfire-…`.

    They are told by their names and by what they hold, and only with the `…_SERVICE_HOST` that each Service has: so
    `HOLDFIRE_PORT` is one if it holds an address, and the setting if it holds a number.
    """
    host = "SERVICE_HOST"
    services = [
        name.removesuffix(host)
        for name, told in os.environ.items()
        if name.startswith(PREFIX) and name.endswith(host) and _is_service_link(f"{host}={told}")
    ]
    return {
        name
        for name, told in os.environ.items()
        for service in services
        if name.startswith(service) and _is_service_link(f"{name.removeprefix(service)}={told}")
    }


def _line(error: Any) -> str:  # noqa: ANN401 - pydantic's
    place = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] == "extra_forbidden":
        return f"`{place}`: there is no such setting"
    return f"`{place}`: {error['msg'].removeprefix('Value error, ')}"
