"""The `permits` command: issue, read and check permits, and prove that an implementation conforms. All of it offline.

Exit status: 0 all valid, 1 some refused or unreadable, 2 the command was misused, 141 nobody reads on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
import warnings as python_warnings
from decimal import Decimal, InvalidOperation
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from permits import conformance
from permits.canonical import INPUT_BYTES_MAX
from permits.envelopes import ENVELOPES
from permits.errors import PermitError
from permits.explain import describe, warnings
from permits.many import verify_many
from permits.model import Permit, SignedPermit, utc_ms
from permits.schema import SCHEMAS
from permits.signing import LocalSigner, SignerError, draft, issue
from permits.streams import StreamLost, checked_streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

__all__ = ["main"]

DAY_MS: Final = 86_400_000
CONFORMANCE_TIMEOUT_S: Final = 300.0
SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`arguments`, else the process's) and return its exit status."""
    try:
        with checked_streams():
            return _run(arguments)
    except StreamLost as lost:
        return lost.report("permits")


def _run(arguments: Sequence[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    python_warnings.showwarning = lambda message, *_rest: print(f"permits: warning: {message}", file=sys.stderr)
    try:
        status: int = parsed.run(parsed)
    except (PermitError, SignerError, ValueError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"`{error.filename}`: {error.strerror}")
    except subprocess.TimeoutExpired:
        return _fail(f"no answer within {CONFORMANCE_TIMEOUT_S:g} s")
    except KeyboardInterrupt:
        return _fail("interrupted")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="permits", description="Issue, read and check permits, offline.")
    parser.add_argument("--version", action="version", version=version("holdfire"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    keygen = commands.add_parser("keygen", help="make a wallet's key pair in a new file, as solana-keygen does")
    keygen.add_argument("file", type=Path)
    keygen.set_defaults(run=_keygen)

    issuing = commands.add_parser("issue", help="sign a permit with a key pair, and print it as it travels")
    issuing.add_argument("--keypair", type=Path, required=True, help="the wallet's key pair file")
    issuing.add_argument("--permit", type=Path, help="sign this permit (JSON); else one made of the options below")
    issuing.add_argument("--agent-id", help="the agent's UUID")
    issuing.add_argument("--session-pubkey", help="the agent's session key, base58")
    issuing.add_argument("--asset", action="append", default=[], help="a symbol or mint it may trade; repeat it")
    issuing.add_argument("--max-usd", type=_amount, help="the most that one trade may be worth, such as 250 or 99.50")
    issuing.add_argument("--lifetime", type=_seconds, default=86_400, help="such as 90m, 12h or 7d (default: 1d)")
    issuing.add_argument("--envelope", choices=ENVELOPES, default="raw", help="what the wallet signs (default: raw)")
    issuing.set_defaults(run=_issue)

    checking = commands.add_parser("verify", help="check signed permits: one, or one a line (JSON Lines)")
    _add_files(checking)
    checking.add_argument("--wallet", help="the base58 address that must have signed")
    checking.add_argument("--envelope", action="append", choices=ENVELOPES, help="allow only this; repeat it")
    checking.add_argument("--at", type=_time, help="judge time as of then (YYYY-MM-DDTHH:MM:SSZ), not of now")
    checking.add_argument("--any-time", action="store_true", help="don't judge whether it holds now")
    checking.add_argument("--max-days", type=int, default=366, help="the longest lifetime allowed (default: 366)")
    checking.add_argument("--json", action="store_true", help="a JSON object for each permit")
    checking.set_defaults(run=_verify)

    inspecting = commands.add_parser("inspect", help="say in words what permits, signed or not, allow")
    _add_files(inspecting)
    inspecting.add_argument("--json", action="store_true", help="a JSON object for each permit")
    inspecting.set_defaults(run=_inspect)

    schema = commands.add_parser("schema", help="print the JSON Schema of a document")
    schema.add_argument("document", choices=SCHEMAS)
    schema.set_defaults(run=_schema)

    vectors = commands.add_parser("vectors", help="golden vectors").add_subparsers(required=True, metavar="COMMAND")
    running = vectors.add_parser("run", help="run every vector, against this implementation or another")
    running.add_argument("--against", type=shlex.split, metavar="COMMAND", help="a program that speaks the protocol")
    running.add_argument("--vectors", type=Path, default=conformance.vectors_folder(), help="their folder")
    running.add_argument("--expected-failures", type=Path, help="a file of vector ids, one a line, that may fail")
    running.set_defaults(run=_run_vectors)

    conforming = commands.add_parser("conformance", help="the protocol").add_subparsers(
        required=True, metavar="COMMAND"
    )
    responding = conforming.add_parser("respond", help="answer conformance requests from standard input")
    responding.set_defaults(run=_respond)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="else standard input")


def _keygen(arguments: argparse.Namespace) -> int:
    signer = LocalSigner.generate()
    signer.write_keypair_file(arguments.file)
    print(signer.wallet_address)
    return 0


def _issue(arguments: argparse.Namespace) -> int:
    signer = LocalSigner.from_keypair_file(arguments.keypair)
    if arguments.permit is not None:
        permit = Permit.from_json(arguments.permit.read_bytes())
    elif None in (arguments.agent_id, arguments.session_pubkey, arguments.max_usd) or not arguments.asset:
        return _fail("give --permit, or --agent-id, --session-pubkey, --asset and --max-usd", status=2)
    else:
        permit = draft(
            agent_id=arguments.agent_id,
            session_pubkey=arguments.session_pubkey,
            asset_whitelist=arguments.asset,
            max_amount_usd=arguments.max_usd,
            issued_at_ms=time.time_ns() // 10**9 * 1000,
            lifetime_s=arguments.lifetime,
        )
    print(json.dumps(issue(permit, signer, envelope=arguments.envelope).to_json_object()))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    at_ms = time.time_ns() // 10**6 if arguments.at is None else arguments.at
    results = verify_many(
        _progress(_documents(arguments.files)),
        now_ms=None if arguments.any_time else at_ms,
        wallet=arguments.wallet,
        envelopes=arguments.envelope or ENVELOPES,
        lifetime_ms_max=arguments.max_days * DAY_MS,
    )
    total = refused = 0
    for result in results:
        total += 1
        if isinstance(result, PermitError):
            refused += 1
            shown: dict[str, Any] = {"valid": False, **_error(result)}
            line = f"refused: {result}"
        else:
            permit = result.permit
            shown = {"valid": True, "permitId": result.permit_id, "wallet": result.wallet, "envelope": result.envelope}
            line = f"valid: {result.permit_id} signed by {result.wallet} ({result.envelope}), until {permit.expires_at}"
        print(json.dumps(shown) if arguments.json else line)
    if total != 1 and not arguments.json:
        print(f"{total} permits: {total - refused} valid, {refused} refused", file=sys.stderr)
    return 1 if refused or not total else 0


def _inspect(arguments: argparse.Namespace) -> int:
    now_ms, status = time.time_ns() // 10**6, 0
    for data in _documents(arguments.files):
        try:
            permit, signer = _read_either(data)
        except PermitError as error:
            status = 1
            print(json.dumps(_error(error)) if arguments.json else f"refused: {error}")
            continue
        allows, cautions = describe(permit, now_ms), warnings(permit)
        claimed = "not signed" if signer is None else f"said to be signed by {signer}; `permits verify` checks that"
        if arguments.json:
            print(json.dumps({"allows": allows, "warnings": cautions, "signer": signer}))
        else:
            print("\n".join([*allows, claimed, *(f"! {caution}" for caution in cautions)]))
    return status


def _read_either(data: bytes) -> tuple[Permit, str | None]:
    """Return the permit in `data`, which may be signed, and the wallet that is said to have signed it."""
    try:
        signed = SignedPermit.from_json(data)
    except PermitError as error:
        if b'"walletAddress"' in data:
            raise
        try:
            return Permit.from_json(data), None
        except PermitError as unsigned:
            raise unsigned from error
    return signed.permit, signed.wallet_address


def _schema(arguments: argparse.Namespace) -> int:
    print(json.dumps(SCHEMAS[arguments.document], indent=2))
    return 0


def _run_vectors(arguments: argparse.Namespace) -> int:
    vectors = conformance.load(arguments.vectors)
    if not vectors:
        raise ValueError(f"`{arguments.vectors}` holds no vectors")
    if arguments.against:
        results = conformance.drive(vectors, arguments.against, timeout_s=CONFORMANCE_TIMEOUT_S)
    else:
        results = list(conformance.run(vectors))
    allowed = set(arguments.expected_failures.read_text().split()) if arguments.expected_failures else set()
    failed = [result for result in results if not result.agrees]
    for result in failed:
        mark = "expected" if result.vector["id"] in allowed else "FAILED"
        print(f"{mark}: {result.vector['id']} ({result.vector['comment']})")
        print(f"    should be {json.dumps(result.vector['expected'])}, is {json.dumps(result.given)}")
    _print_table(results)
    failed_ids = {result.vector["id"] for result in failed}
    for stale in sorted(allowed - failed_ids):
        print(f"FAILED: {stale} was expected to fail, but didn't")
    return 0 if failed_ids == allowed else 1


def _print_table(results: list[conformance.Result]) -> None:
    groups: dict[str, list[bool]] = {}
    for result in results:
        groups.setdefault(result.vector["id"].partition("/")[0], []).append(result.agrees)
    for name, agreed in [*groups.items(), ("all", [result.agrees for result in results])]:
        print(f"{name:<12}{sum(agreed):>5} agree{len(agreed) - sum(agreed):>5} fail")


def _respond(_arguments: argparse.Namespace) -> int:
    for line in conformance.respond(sys.stdin):
        print(line, flush=True)
    return 0


def _documents(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield each JSON document of `files`, else of standard input."""
    if not files:
        yield from _split(sys.stdin.buffer)
    for file in files:
        with file.open("rb") as opened:
            yield from _split(opened)


def _split(stream: BinaryIO) -> Iterator[bytes]:
    """Yield one document for the whole of `stream`, or, if its first line is a whole object, one for each line.

    No more than a permit's length, and the byte that makes it too long, is ever held.
    """
    first = stream.readline(INPUT_BYTES_MAX + 1)
    if not first.rstrip().endswith(b"}"):
        yield first + stream.read(INPUT_BYTES_MAX + 1 - len(first))
        return
    for line in chain([first], iter(lambda: stream.readline(INPUT_BYTES_MAX + 1), b"")):
        if line.strip():
            yield line


def _progress(documents: Iterator[bytes]) -> Iterable[bytes]:
    """Count long input on a terminal; what needs the extra `cli` is left out where that isn't installed."""
    if not sys.stderr.isatty():
        return documents
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.progress import track  # noqa: PLC0415
    except ModuleNotFoundError:
        return documents
    return track(documents, description="verifying", total=None, transient=True, console=Console(stderr=True))


def _error(error: PermitError) -> dict[str, Any]:
    return {"code": error.code, "field": error.field, "value": error.value, "rule": error.rule}


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"`{text}` is not an amount") from None


def _seconds(text: str) -> int:
    if not (text[:-1].isascii() and text[:-1].isdigit() and text[-1:] in SECONDS_OF):
        raise argparse.ArgumentTypeError(f"`{text}` is not a duration such as 90m, 12h or 7d")
    return int(text[:-1]) * SECONDS_OF[text[-1]]


def _time(text: str) -> int:
    try:
        return utc_ms(text)
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"`{text}` is not a time such as 2026-08-01T00:00:00Z") from None


def _fail(line: str, status: int = 1) -> int:
    print(f"permits: {line}", file=sys.stderr)
    return status
