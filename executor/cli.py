"""The `executor` command.

Exit status: 0 all as it should be, 1 it isn't or a fault, 2 the command was misused or an extra is missing.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from executor.audit import check_ledger
from executor.errors import ExecutorError
from executor.ledger import Ledger
from executor.seal import SEAL_KEY_BYTES, SealKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

PORT_MAX: Final = 65_535
EXTRA_OF: Final = {"rich": "cli", "solders": "solana", "starlette": "service", "uvicorn": "service"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`arguments`, else the process's) and return its exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(f"this command needs the extra `{extra}`, and more: pip install 'holdfire[all]'", status=2)
    except ExecutorError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"`{error.filename}`: {error.strerror}")
    except KeyboardInterrupt:
        return _fail("interrupted")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="executor", description="Fire only as a permit and the caps allow.")
    parser.add_argument("--version", action="version", version=version("holdfire"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="a permit, refusals and real fires in a local Solana VM")
    demo.add_argument("--dir", type=Path, help="the folder to write in, without a ledger yet (default: a new one)")
    demo.add_argument("--seed", type=int, help="make every id and key reproducible")
    demo.add_argument("--serve", action="store_true", help="keep the event stream up afterwards")
    demo.add_argument("--port", type=_port, default=8787, help="where --serve listens on 127.0.0.1 (default: 8787)")
    demo.set_defaults(run=_demo)

    database = commands.add_parser("db", help="look after a ledger").add_subparsers(required=True, metavar="COMMAND")
    check = database.add_parser("check", help="check every seal, chain and decision")
    check.add_argument("file", type=Path, help="the ledger's SQLite file; it may be in use")
    check.add_argument("--seal-key", type=Path, required=True, help="a file with the seal key's 64 hex digits")
    check.set_defaults(run=_check)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= PORT_MAX):
        raise argparse.ArgumentTypeError(f"`{text}` is not a port from 0 to {PORT_MAX}")
    return int(text)


def _demo(arguments: argparse.Namespace) -> int:
    from executor.demo import run  # noqa: PLC0415 - it needs extras that the other commands don't

    return run(folder=arguments.dir, seed=arguments.seed, port=arguments.port if arguments.serve else None)


def _check(arguments: argparse.Namespace) -> int:
    seal_keys = SealKeys.single(_key(arguments.seal_key))
    with Ledger.open(arguments.file, seal_keys=seal_keys, read_only=True) as ledger:
        report = check_ledger(ledger)
    for finding in report.findings:
        print(finding)
    print(f"entries: {report.entries}, wallets: {report.wallets}, findings: {len(report.findings)}")
    return 1 if report.findings else 0


def _key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text("ascii"))
    except ValueError:
        key = b""
    if len(key) != SEAL_KEY_BYTES:
        raise ExecutorError(f"`{path}` must hold a key of {SEAL_KEY_BYTES} bytes in hex digits")
    return key


def _fail(line: str, status: int = 1) -> int:
    print(f"executor: {line}", file=sys.stderr)
    return status
