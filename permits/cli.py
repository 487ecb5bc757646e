"""The `permits` command.

Exit status: 0 the permit is valid, 1 it was refused or can't be read, 2 the command was misused.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from permits.canonical import INPUT_BYTES_MAX
from permits.envelopes import ENVELOPES
from permits.errors import PermitError
from permits.verification import verify


def main() -> int:
    """Run the command line and return its exit status."""
    arguments = _parser().parse_args()
    try:
        data = _read(arguments.file)
        verified = verify(data, now_ms=time.time_ns() // 1_000_000, wallet=arguments.wallet, envelopes=ENVELOPES)
    except PermitError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"`{arguments.file}` can't be read: {error.strerror}")
    print(f"valid: permit {verified.permit_id}")
    print(f"signed by {verified.wallet} ({verified.envelope}), until {verified.permit.expires_at}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="permits", description="Check permits, offline.")
    commands = parser.add_subparsers(required=True)
    checking = commands.add_parser("verify", help="check a signed permit (JSON) now")
    checking.add_argument("file", nargs="?", default="-", help="the signed permit; - is standard input")
    checking.add_argument("--wallet", help="the base58 address that must have signed")
    return parser


def _read(file: str) -> bytes:
    """Read at most one byte more than a permit may have: enough to refuse it."""
    if file == "-":
        return sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    with Path(file).open("rb") as opened:
        return opened.read(INPUT_BYTES_MAX + 1)


def _fail(line: str) -> int:
    print(f"permits: {line}", file=sys.stderr)
    return 1
