"""`executor keys` and `executor serve-prices`."""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from executor.errors import ExecutorError
from executor.prices.api_keys import KeyFile, is_key
from executor.prices.protocol import TIERS
from permits import timestamp
from permits.streams import StreamLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from executor.prices.protocol import Tick

__all__ = ["add_to"]

SPEED_MAX: Final = 1_000.0


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser], port: Callable[[str], int]) -> None:
    """Add both to `commands`; `port` reads a port."""
    keys = commands.add_parser("keys", help="API keys of the price stream").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = keys.add_parser("add", help="make a key, and print it alone: it is shown this once")
    add.add_argument("subject", help="whose it is; connections are counted by it")
    add.add_argument("--tier", choices=sorted(TIERS), default="free", help="what it allows (default: free)")
    add.set_defaults(run=_add)
    listing = keys.add_parser("list", help="show every key's id, tier and subject")
    listing.set_defaults(run=_list)
    revoke = keys.add_parser("revoke", help="take a key away; its streams close within 30 s")
    revoke.add_argument("key_id", metavar="ID", help="as `keys list` shows it")
    revoke.set_defaults(run=_revoke)
    serving = commands.add_parser(
        "serve-prices", help="serve the price stream alone, of a recorded or generated market"
    )
    for each in (add, listing, revoke):
        each.add_argument("--keys", type=Path, required=True, metavar="FILE", help="the file of API keys")
    believed = serving.add_mutually_exclusive_group(required=True)
    believed.add_argument("--keys", type=Path, metavar="FILE", help="the file of API keys: they alone open the stream")
    believed.add_argument(
        "--config", type=Path, metavar="FILE", help="the service's settings: its tokens open it, and its keys, if any"
    )
    market = serving.add_mutually_exclusive_group()
    market.add_argument("--replay", type=Path, metavar="FILE", help="a recording: a `price` frame a line")
    market.add_argument("--seed", type=int, default=0, help="of the generated market (default: 0)")
    serving.add_argument("--speed", type=_speed, default=1.0, help="how many times as fast (default: 1)")
    serving.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    serving.add_argument("--port", type=port, default=8788, help="the port to listen on (default: 8788)")
    serving.set_defaults(run=_serve)


def _add(arguments: argparse.Namespace) -> int:
    keys = KeyFile(arguments.keys)
    key, made = keys.add(arguments.subject, arguments.tier, secret=secrets.token_bytes(32), now_s=int(time.time()))
    try:
        print(key, flush=True)
    except StreamLost:  # nobody has seen it
        keys.revoke(made.key_id)
        raise
    line = f"id {made.key_id}, {made.tier}, {made.subject}: this is the only time that the key is shown"
    print(line, file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for each in _there(arguments.keys).list():
        print(f"{each.key_id}  {each.tier:<5}  {timestamp(each.created_at_s * 1_000)}  {each.subject}")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    if is_key(arguments.key_id):
        raise ExecutorError("that is a key: name its id, as `executor keys list` shows it")
    if not _there(arguments.keys).revoke(arguments.key_id):
        raise ExecutorError(f"there is no key `{arguments.key_id}`: `keys list` shows their ids")
    print(f"revoked {arguments.key_id}")
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    from executor.prices.callers import believing  # noqa: PLC0415 - these need an extra that the other commands don't
    from executor.prices.hub import Hub  # noqa: PLC0415 - the same
    from executor.prices.replay import generated, played, read_recording  # noqa: PLC0415 - the same
    from executor.prices.socket import app_of, server_of  # noqa: PLC0415 - the same
    from executor.service.server import bind  # noqa: PLC0415 - the same
    from executor.service.settings import Settings  # noqa: PLC0415 - the same

    settings = None if arguments.config is None else Settings.read(arguments.config)
    hub = Hub(_readable(KeyFile(arguments.keys)) if settings is None else believing(settings))
    ticks: Iterable[Tick] = generated(random.Random(arguments.seed))  # noqa: S311 - a made-up market
    if arguments.replay is not None:
        ticks = read_recording(arguments.replay)
    feed = played(ticks, hub.publish, speed=arguments.speed)
    app = app_of(hub, feed, trusted_proxies=() if settings is None else settings.trusted_proxies)
    with bind(arguments.host, arguments.port) as bound:
        host, port = bound.getsockname()[:2]
        url = f"ws://{f'[{host}]' if ':' in host else host}:{port}/v1/stream"
        server_of(app, started=lambda: print(f"listening on {url}", flush=True)).run(sockets=[bound])
    return 0


def _there(path: Path) -> KeyFile:
    """Return the key file at `path`: to a mistyped name, no keys would look like none left."""
    if not path.exists():
        raise ExecutorError(f"there is no key file `{path}`: `keys add` makes one")
    return KeyFile(path)


def _readable(keys: KeyFile) -> KeyFile:
    keys.list()  # an unusable file is told now
    return keys


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed <= SPEED_MAX:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number above 0 and at most {SPEED_MAX:.0f}")
    return speed
