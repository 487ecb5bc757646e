"""The `permits` command: issue, read and check permits, and prove that an implementation conforms. All of it offline.

Exit status: 0 all valid, 1 some refused or unreadable, 2 the command was misused, 141 nobody reads on.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
import warnings as python_warnings
from decimal import Decimal
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from permits import conformance, keys
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

DAY_S: Final = 86_400
CONFORMANCE_TIMEOUT_S: Final = 300.0
SECONDS_OF: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_is_amount = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?").fullmatch
_is_lifetime = re.compile("0{0,9}[1-9][0-9]{0,9}[smhd]").fullmatch
_is_days = re.compile("[1-9][0-9]{0,9}").fullmatch


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
        where = "" if error.filename is None else f"`{error.filename}`: "
        return _fail(f"{where}{error.strerror}")
    except subprocess.TimeoutExpired:
        return _fail(f"no answer within {CONFORMANCE_TIMEOUT_S:g} s")
    except KeyboardInterrupt:
        return _fail("interrupted")
    return status


class _Once(argparse.Action):
    """Stores a value; an option that was given before is refused, since nobody knows which of two amounts was meant."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        given: set[str] = vars(namespace).setdefault("given", set())
        if option_string is not None and self.dest in given:
            parser.error(f"{option_string} was given before")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """One that takes each option once and by its whole name, and says in one line what was wrong."""

    def __init__(self, **how: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**how, allow_abbrev=False)
        self.register("action", None, _Once)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` says more)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="permits", description="Issue, read and check permits, offline.")
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
    issuing.add_argument("--lifetime", type=_seconds, help="such as 90m, 12h or 7d (default: 1d)")
    issuing.add_argument("--envelope", choices=ENVELOPES, default="raw", help="what the wallet signs (default: raw)")
    issuing.set_defaults(run=_issue)

    checking = commands.add_parser("verify", help="check signed permits: one, or one a line (JSON Lines)")
    _add_files(checking)
    checking.add_argument("--wallet", type=_wallet, help="the base58 address that must have signed")
    checking.add_argument("--envelope", action="append", choices=ENVELOPES, help="allow only this; repeat it")
    judging = checking.add_mutually_exclusive_group()
    judging.add_argument("--at", type=_time, help="judge time as of then (YYYY-MM-DDTHH:MM:SSZ), not of now")
    judging.add_argument("--any-time", action="store_true", help="don't judge whether it holds now")
    checking.add_argument("--max-days", type=_days, default=366, help="the longest lifetime allowed (default: 366)")
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
    running.add_argument("--against", type=_command, metavar="COMMAND", help="a program that speaks the protocol")
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


BOUNDS: Final = {
    "agent_id": "--agent-id",
    "session_pubkey": "--session-pubkey",
    "asset": "--asset",
    "max_usd": "--max-usd",
    "lifetime": "--lifetime",
}
"""The options that a permit is made of."""


def _issue(arguments: argparse.Namespace) -> int:
    given = {name: value for name in BOUNDS if (value := getattr(arguments, name)) not in (None, [])}
    if arguments.permit is not None and given:
        names = ", ".join(BOUNDS[name] for name in given)
        return _fail(f"--permit holds the whole permit: leave it out, or {names}", status=2)
    missing = [option for name, option in BOUNDS.items() if name not in given and name != "lifetime"]
    if arguments.permit is None and missing:
        return _fail(f"{', '.join(missing)} must be given, or all of it by --permit", status=2)
    signer = LocalSigner.from_keypair_file(arguments.keypair)
    if arguments.permit is not None:
        with arguments.permit.open("rb") as file:
            permit = Permit.from_json(file.read(INPUT_BYTES_MAX + 1))
    else:
        permit = draft(
            agent_id=arguments.agent_id,
            session_pubkey=arguments.session_pubkey,
            asset_whitelist=arguments.asset,
            max_amount_usd=arguments.max_usd,
            issued_at_ms=time.time_ns() // 10**9 * 1000,
            lifetime_s=given.get("lifetime", DAY_S),
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
        lifetime_ms_max=arguments.max_days * DAY_S * 1000,
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
    allowed = _ids(arguments.expected_failures) if arguments.expected_failures else set()
    vectors = conformance.load(arguments.vectors)
    if not vectors:
        raise ValueError(f"`{arguments.vectors}` holds no vectors")
    if arguments.against is not None:
        results = conformance.drive(vectors, arguments.against, timeout_s=CONFORMANCE_TIMEOUT_S)
    else:
        results = list(conformance.run(vectors))
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


def _ids(file: Path) -> set[str]:
    try:
        return set(file.read_text(encoding="utf-8").split())
    except UnicodeDecodeError:
        raise ValueError(f"`{file}` isn't UTF-8") from None


def _print_table(results: list[conformance.Result]) -> None:
    groups: dict[str, list[bool]] = {}
    for result in results:
        groups.setdefault(result.vector["id"].partition("/")[0], []).append(result.agrees)
    for name, agreed in [*groups.items(), ("all", [result.agrees for result in results])]:
        print(f"{name:<12}{sum(agreed):>5} agree{len(agreed) - sum(agreed):>5} fail")


def _respond(_arguments: argparse.Namespace) -> int:
    for line in conformance.respond(_standard_input()):
        print(line, flush=True)
    return 0


def _documents(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield each JSON document of `files`, else of standard input."""
    if not files:
        yield from _split(_standard_input())
    for file in files:
        with file.open("rb") as opened:
            yield from _split(opened)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # the process was started without one
        raise ValueError("standard input is closed")
    return sys.stdin.buffer


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
    if not _is_amount(text):
        raise argparse.ArgumentTypeError(f"`{text}` is not an amount such as 250 or 99.50")
    return Decimal(text)


def _seconds(text: str) -> int:
    if not _is_lifetime(text):
        raise argparse.ArgumentTypeError(f"`{text}` is not a lifetime such as 90m, 12h or 7d")
    return int(text[:-1]) * SECONDS_OF[text[-1]]


def _days(text: str) -> int:
    if not _is_days(text):
        raise argparse.ArgumentTypeError(f"`{text}` is not a number of days, at least 1")
    return int(text)


def _wallet(text: str) -> str:
    if not keys.is_key(text):
        raise argparse.ArgumentTypeError(f"`{text}` is not a wallet's address: base58 of 32 bytes")
    return text


def _command(text: str) -> list[str]:
    try:
        command = shlex.split(text)
    except ValueError:
        command = []
    if not command:
        raise argparse.ArgumentTypeError(f"`{text}` is not a command, with every quote closed")
    return command


def _time(text: str) -> int:
    try:
        return utc_ms(text)
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"`{text}` is not a time such as 2026-08-01T00:00:00Z") from None


def _fail(line: str, status: int = 1) -> int:
    print(f"permits: {line}", file=sys.stderr)
    return status
