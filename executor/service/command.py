"""`executor serve` and `executor config check`: the service as its settings describe it, opened, run, and closed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from executor.assets import Asset, KnownAssets
from executor.errors import ExecutorError, LedgerError
from executor.guard import AsyncGuard, Guard
from executor.prices.quote import FixedPrices, Quote
from executor.seal import SealKeys
from executor.service.app import create_app
from executor.service.calls import operator_socket_path
from executor.service.door import require_usable
from executor.service.files import read_private
from executor.service.fire_socket import LINUX_ONLY, OperatorSocket, tells_who_connects
from executor.service.server import bind, serving
from executor.service.settings import AUTOFUND_VARIABLE
from executor.signing import SessionVault
from executor.signing.vault import read_master_key
from permits import PermitError
from permits.canonical import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from socket import socket

    from executor.prices.recorded import RecordedPrices
    from executor.service.settings import Settings

__all__ = ["Unusable", "check", "run"]

FOR_EVER_MS: Final = 10**15


class Unusable(ExecutorError):
    """What the settings name can't be used; the text says why in a line."""


class _Opened(NamedTuple):
    """What the settings' files hold, but for the door's."""

    seal_keys: SealKeys
    master_key: bytes | None
    assets: KnownAssets
    prices: FixedPrices
    price_stream: RecordedPrices | None


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve as `settings` describe until SIGTERM or SIGINT, then close all; `say` is told the address in a line.

    Raises:
        ExecutorError: something that the settings name can't be used, or the ledger holds another limit.
        OSError: the port is taken; its `filename` is the address.

    """
    _require_operator_socket(settings)
    opened = _open(settings)
    ledger = settings.ledger
    if ledger is None:
        raise Unusable("`ledger` must be set")

    async def main(bound: socket) -> None:
        async with AsyncExitStack() as beside:
            guard = await beside.enter_async_context(AsyncGuard(_guard(settings, ledger, opened)))
            file = guard.guard.ledger.file
            if file is not None:  # no other process can halt what is in a file that this one holds
                await beside.enter_async_context(OperatorSocket(operator_socket_path(file), guard))
            stream = opened.price_stream
            if stream is not None:
                await beside.enter_async_context(stream.running())
            vault = None if opened.master_key is None else SessionVault(guard.guard, opened.master_key)
            app = create_app(guard, settings, vault=vault, prices=() if stream is None else stream.routes)
            address, port = bound.getsockname()[:2]
            url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
            websocket = {} if stream is None else stream.websocket
            await serving(app, bound, started=lambda: say(f"listening on {url}"), **websocket)

    with bind(settings.host, settings.port) as bound:
        asyncio.run(main(bound))


def check(settings: Settings) -> Iterator[str]:
    """Yield a line for each thing that keeps a service from being opened by `settings`. No ledger is opened."""
    if settings.ledger is None:
        yield "`ledger` must be set"
    for opening in (_require_operator_socket, _seal_keys, _master_key, _assets, _prices, _price_stream, require_usable):
        try:
            opening(settings)
        except ExecutorError as error:
            yield str(error)


def _open(settings: Settings) -> _Opened:
    return _Opened(
        _seal_keys(settings), _master_key(settings), _assets(settings), _prices(settings), _price_stream(settings)
    )


def _guard(settings: Settings, ledger: str, opened: _Opened) -> Guard:
    """Open the guard, if its ledger holds the limit that the environment says."""
    guard = Guard.open(ledger, seal_keys=opened.seal_keys, prices=opened.prices, assets=opened.assets)
    held, told = guard.ledger.limits, settings.max_autofund_lamports_per_user_per_day
    if held.autofund_lamports_per_24h != told:
        guard.close()
        raise LedgerError(
            f"the ledger lets a user be given {held.autofund_lamports_per_24h} lamports a day, {AUTOFUND_VARIABLE} "
            f"says {told}: set that to {held.autofund_lamports_per_24h}, or change the ledger on purpose with "
            f"`executor limits set autofund_lamports_per_24h={told} --yes`"
        )
    return guard


def _require_operator_socket(settings: Settings) -> None:
    """Raise Unusable where a ledger in a file could not be halted: while this process holds it, no other can."""
    if settings.ledger is not None and not settings.ledger.startswith("postgresql") and not tells_who_connects():
        raise Unusable(f"`{settings.ledger}`: {LINUX_ONLY}; a ledger on PostgreSQL needs none")


def _seal_keys(settings: Settings) -> SealKeys:
    if settings.seal_key_file is None:
        raise Unusable("`seal_key_file` must be set")
    try:
        return SealKeys.read(read_private(settings.seal_key_file))
    except (PermitError, ValueError) as error:
        raise Unusable(f"`{settings.seal_key_file}`: {error}") from None


def _master_key(settings: Settings) -> bytes | None:
    path = settings.vault_key_file
    try:
        return None if path is None else read_master_key(path)
    except OSError as error:
        raise Unusable(f"`{path}`: {error.strerror}") from None


def _assets(settings: Settings) -> KnownAssets:
    path = settings.assets_file
    if path is None:
        return KnownAssets([])
    try:
        return KnownAssets(map(Asset.from_json_object, _json(path, list)))
    except ValidationError as error:
        first = error.errors()[0]
        raise Unusable(f"`{path}`: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:
        raise Unusable(f"`{path}`: {error}") from None


def _prices(settings: Settings) -> FixedPrices:
    path = settings.quotes_file
    if path is None:
        return FixedPrices()
    try:
        return FixedPrices(
            Quote.of(mint, str(price), at_ms=0, max_age_ms=FOR_EVER_MS, source="file")
            for mint, price in _json(path, dict).items()
        )
    except ValueError as error:
        raise Unusable(f"`{path}`: {error}") from None


def _price_stream(settings: Settings) -> RecordedPrices | None:
    path = settings.price_recording_file
    if path is None:
        return None
    from executor.prices.recorded import RecordedPrices  # noqa: PLC0415 - it needs an extra that the service doesn't

    try:
        return RecordedPrices(path, settings)
    except OSError as error:
        raise Unusable(f"`{error.filename}`: {error.strerror}") from None


def _json(path: Path, kind: type[Any]) -> Any:  # noqa: ANN401 - of that type
    try:
        found = parse(path.read_bytes())
    except OSError as error:
        raise Unusable(f"`{path}`: {error.strerror}") from None
    except PermitError as error:
        raise Unusable(f"`{path}`: {error}") from None
    if not isinstance(found, kind):
        raise Unusable(f"`{path}` must hold a JSON {'array' if kind is list else 'object'}")
    return found
