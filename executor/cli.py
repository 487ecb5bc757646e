"""The `executor` command.

Exit status: 0 all as it should be, 1 it isn't or a fault, 2 the command or what was given to it can't be used, or an
extra is missing, 141 nobody reads on. Of `explain`: 0 allowed, 1 refused, 2 anything else, or 141.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
import warnings
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlsplit

from pydantic import ValidationError

from executor.assets import KnownAssets
from executor.audit import check_ledger
from executor.checkpoint import find_rollbacks, write_checkpoint
from executor.credentials import redacted
from executor.decide import Refused
from executor.errors import ExecutorError, LedgerError, LedgerInUse, LedgerTampered
from executor.guard import Guard
from executor.halts import EVERYTHING, Halt, Halter, Scope
from executor.ledger import Ledger
from executor.ledger.clock import APART_MS_MAX
from executor.limits import Limits
from executor.operations import Halted, OperationsHere, in_doubt
from executor.prices import commands as price_commands
from executor.prices.quote import FixedPrices, Quote
from executor.request import FireRequest
from executor.seal import SealKeys
from executor.service.calls import operator_socket_path
from executor.service.client.operator import OperationsThere
from executor.status import show, status_of
from executor.traces import load, replay, traces_folder
from permits import LocalSigner, PermitError, SignerError, keys, timestamp
from permits.canonical import parse
from permits.model import UUID_PATTERN
from permits.streams import StreamLost, checked_streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from executor.operations import Operations
    from executor.service.settings import Settings

__all__ = ["main"]

PORT_MAX: Final = 65_535
QUOTE_AGE_MS_MAX: Final = 60_000
"""How long a price on the command line is good for: until the command has ended."""
EXTRA_OF: Final = {
    "alembic": "migrations",
    "httpx": "service",
    "jwt": "service",
    "prometheus_client": "service",
    "psycopg": "postgres",
    "pydantic_settings": "service",
    "rich": "cli",
    "solders": "solana",
    "starlette": "service",
    "uvicorn": "service",
    "websockets": "prices",
}

_is_uuid = re.compile(UUID_PATTERN).fullmatch


class _Misuse(Exception):
    """What was given can't be used; the text says why in a line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`arguments`, else the process's) and return its exit status."""
    fault, raises = 1, logging.raiseExceptions
    logging.raiseExceptions = False  # what can't be written to standard error must fail nothing that only logs there
    try:
        with checked_streams():
            parsed = _parser().parse_args(arguments)
            fault = parsed.fault
            return _run(parsed)
    except StreamLost as lost:
        return lost.report("executor", fault=fault)
    finally:
        logging.raiseExceptions = raises


def _run(parsed: argparse.Namespace) -> int:
    try:
        status: int = parsed.run(parsed)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(f"this command needs the extra `{extra}`, and more: pip install 'holdfire[all]'", status=2)
    except _Misuse as error:
        return _fail(str(error), status=2)
    except LedgerInUse as error:
        return _fail(str(error), status=2)
    except ExecutorError as error:
        return _fail(str(error), status=parsed.fault)
    except OSError as error:
        where = "" if error.filename is None else f"`{error.filename}`: "
        return _fail(f"{where}{error.strerror}", status=parsed.fault)
    except KeyboardInterrupt:
        return _fail("interrupted", status=parsed.fault)
    return status


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(prog="executor", description="Fire only as a permit and the caps allow.")
    parser.add_argument("--version", action="version", version=version("holdfire"))
    parser.set_defaults(fault=1)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="a permit, refusals and real fires in a local Solana VM")
    demo.add_argument("--dir", type=Path, help="the folder to write in, without a ledger yet (default: a new one)")
    demo.add_argument("--seed", type=int, help="make every id and key reproducible")
    demo.add_argument("--serve", action="store_true", help="keep the console and the event stream up afterwards")
    demo.add_argument("--port", type=_port, default=8787, help="where --serve listens on 127.0.0.1 (default: 8787)")
    demo.set_defaults(run=_demo)

    status = commands.add_parser("status", help="agents, what is used of each cap, and halts")
    status.add_argument("wallet", nargs="?", help="this one alone (default: all)")
    _add_ledger(status)
    status.add_argument("--json", action="store_true", help="one JSON object")
    status.set_defaults(run=_status)

    explain = commands.add_parser("explain", help="what would be decided on a request now, and why; writes nothing")
    explain.add_argument("file", type=Path, nargs="?", help="the request as JSON (default: standard input)")
    _add_ledger(explain)
    explain.add_argument(
        "--quote", type=_pair, action="append", default=[], metavar="MINT=PRICE", help="a token's price in USD"
    )
    explain.add_argument("--quotes", type=Path, metavar="FILE", help='prices as JSON: {"MINT": "PRICE", ...}')
    explain.set_defaults(run=_explain, fault=2)

    _add_halts(commands)
    _add_funding(commands)

    limits = commands.add_parser("limits", help="show what every user is held to, or change it")
    _add_operations(limits)
    limits.set_defaults(run=_show_limits)
    changing = limits.add_subparsers(metavar="COMMAND").add_parser(
        "set", help="change it for everybody, from this moment on"
    )
    changing.add_argument("changes", type=_pair, nargs="+", metavar="NAME=VALUE", help="such as executions_per_24h=100")
    _add_operations(changing)
    changing.add_argument("--yes", action="store_true", help="do it; else it is only shown")
    changing.set_defaults(run=_set_limits)
    _add_traces(commands)
    _add_db(commands)
    price_commands.add_to(commands, _port)
    tracing = commands.add_parser("trace", help="from a transaction back to the permit that allowed it")
    tracing.add_argument(
        "signature", type=_signature, metavar="TXSIGNATURE", help="as the chain names the transaction, base58"
    )
    _add_ledger(tracing)
    tracing.set_defaults(run=_trace)
    _add_service(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Repeats what was misplaced, but no password or key."""

    def error(self, message: str) -> NoReturn:
        super().error(redacted(message))


def _add_service(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serving = commands.add_parser("serve", help="serve events, state and sign-in over HTTP, until interrupted")
    serving.add_argument("--config", type=Path, required=True, metavar="FILE", help="the settings, as TOML")
    serving.set_defaults(run=_serve)
    config = commands.add_parser("config", help="look after settings").add_subparsers(required=True, metavar="COMMAND")
    checking = config.add_parser("check", help="say what is wrong with settings, or what will hold; opens no ledger")
    checking.add_argument("file", type=Path, metavar="FILE", help="the settings, as TOML")
    checking.set_defaults(run=_check_config)


def _add_db(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    database = commands.add_parser("db", help="look after a ledger").add_subparsers(required=True, metavar="COMMAND")
    check = database.add_parser("check", help="check every seal, chain and decision; the ledger may be in use")
    check.add_argument("db", metavar="LEDGER", help=LEDGER_HELP)
    _add_seal_key(check)
    check.add_argument("--against", type=Path, metavar="FILE", help="a checkpoint: find what was put back since it")
    check.add_argument("--auditor", type=_address, metavar="ADDRESS", help="whose word the checkpoint must be")
    check.set_defaults(run=_check)
    checkpoint = database.add_parser(
        "checkpoint", help="check it, and print where every chain stands, signed; keep that elsewhere"
    )
    checkpoint.add_argument("db", metavar="LEDGER", help=LEDGER_HELP)
    _add_seal_key(checkpoint)
    checkpoint.add_argument("--key", type=Path, required=True, metavar="FILE", help="the auditor's key pair file")
    checkpoint.set_defaults(run=_checkpoint)
    upgrade = database.add_parser("upgrade", help="bring its tables to this version; nobody may be using it")
    upgrade.add_argument("db", metavar="LEDGER", help=LEDGER_HELP)
    upgrade.set_defaults(run=_upgrade)
    restored = database.add_parser("restored", help="it was put back: halt everything, and begin event ids anew")
    restored.add_argument("db", metavar="LEDGER", help=LEDGER_HELP)
    _add_seal_key(restored)
    restored.set_defaults(run=_restored)


def _add_halts(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    scope_help = "everything, wallet:ADDRESS, or agent:ADDRESS/UUID"
    halt = commands.add_parser("halt", help="let nothing fire, as the operator, until that is lifted")
    halt.add_argument("scope", type=_scope, metavar="SCOPE", help=scope_help)
    halt.add_argument("--why", required=True, help="told with every refusal: 1 to 200 characters")
    _add_operations(halt)
    halt.set_defaults(run=_halt)

    lift = commands.add_parser("lift", help="lift the operator's halt of exactly this scope")
    lift.add_argument("scope", type=_scope, metavar="SCOPE", help=scope_help)
    _add_operations(lift)
    lift.set_defaults(run=_lift)


def _add_funding(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    funding = commands.add_parser("funding", help="whether the operator's lamports are for a wallet's agents")
    funding.add_argument("verb", choices=["allow", "deny"])
    funding.add_argument("wallet", type=_wallet, help="the user's wallet")
    _add_operations(funding)
    funding.set_defaults(run=_set_fundable)


def _add_traces(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    traces = commands.add_parser("traces", help="golden traces").add_subparsers(required=True, metavar="COMMAND")
    replaying = traces.add_parser("run", help="replay every trace on a guard, as it is and with restarts")
    replaying.add_argument("folder", type=Path, nargs="?", default=traces_folder(), help="their folder")
    replaying.add_argument("--url", help="a PostgreSQL database to make schemas in meanwhile (default: SQLite files)")
    replaying.set_defaults(run=_replay)


LEDGER_HELP: Final = "the path of an SQLite file, or a URL such as postgresql://user@host/database"


def _add_ledger(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--db", required=required, default=argparse.SUPPRESS, metavar="LEDGER", help=LEDGER_HELP)
    _add_seal_key(parser, required=required)


def _add_operations(parser: argparse.ArgumentParser) -> None:
    _add_ledger(parser, required=False)
    help_ = "the operator socket of a running service (default: LEDGER.operator.sock, if one holds the SQLite file)"
    parser.add_argument("--socket", type=Path, default=argparse.SUPPRESS, metavar="FILE", help=help_)


def _add_seal_key(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--seal-key",
        type=Path,
        required=required,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help='the seal key\'s 64 hex digits, or a keyring: {"current": "2", "keys": {"1": HEX, "2": HEX}}',
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= PORT_MAX):
        raise argparse.ArgumentTypeError(f"`{text}` is not a port from 0 to {PORT_MAX}")
    return int(text)


def _address(text: str) -> str:
    if keys.decode_key(text) is None:
        raise argparse.ArgumentTypeError(f"`{text}` is not base58 of 32 bytes")
    return text


def _signature(text: str) -> str:
    if keys.decode_signature(text) is None:
        raise argparse.ArgumentTypeError(f"`{text}` is not base58 of 64 bytes")
    return text


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"`{text}` is not NAME=VALUE")
    return name, value


def _scope(text: str) -> Scope:
    kind, _, name = text.partition(":")
    wallet, _, agent_id = name.partition("/")
    if text == "everything":
        return EVERYTHING
    if kind == "wallet" and keys.decode_key(name) is not None:
        return Scope(name)
    if kind == "agent" and keys.decode_key(wallet) is not None and _is_uuid(agent_id):
        return Scope(wallet, agent_id)
    raise argparse.ArgumentTypeError(f"`{text}` is not everything, wallet:ADDRESS or agent:ADDRESS/UUID")


def _wallet(text: str) -> str:
    if keys.decode_key(text) is None:
        raise argparse.ArgumentTypeError(f"`{text}` is not a wallet's address")
    return text


def _demo(arguments: argparse.Namespace) -> int:
    from executor.demo import run  # noqa: PLC0415 - it needs extras that the other commands don't

    return run(folder=arguments.dir, seed=arguments.seed, port=arguments.port if arguments.serve else None)


def _serve(arguments: argparse.Namespace) -> int:
    from executor.service import command  # noqa: PLC0415 - it needs extras that the other commands don't

    settings, wrong = _settings(arguments.config)
    if settings is None:
        raise _Misuse("; ".join(wrong))
    command.run(settings, lambda line: print(line, flush=True))
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    from executor.service import command  # noqa: PLC0415 - the same

    settings, wrong = _settings(arguments.file)
    if settings is not None:
        wrong = list(command.check(settings))
    for line in wrong:
        print(line)
    if wrong or settings is None:
        return 1
    for name, value in settings:
        print(f"{name} = {_told(_host_of(value) if name == 'jwt_jwks_url' else value)}")
    return 0


def _host_of(url: str | None) -> str | None:
    """Return as much of a URL as holds no key."""
    return None if url is None else "{0.scheme}://{0.netloc}/…".format(urlsplit(url))


def _settings(path: Path) -> tuple[Settings | None, Sequence[str]]:
    """Return the settings in the file, or why they can't be used."""
    from executor.service.settings import Settings, SettingsRefused  # noqa: PLC0415 - the same

    try:
        return Settings.read(path), ()
    except SettingsRefused as refused:
        return None, refused.lines


def _told(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else "none" if value is None else str(value)


def _status(arguments: argparse.Namespace) -> int:
    with _ledger(arguments) as ledger:
        wallets = ledger.wallets()
        if arguments.wallet not in (None, *wallets):
            raise _Misuse(f"the ledger has nothing of wallet `{arguments.wallet}`")
        guard = _guard(ledger)
        halts = guard.halts()
        statuses = [status_of(guard, wallet) for wallet in wallets if arguments.wallet in (None, wallet)]
    if arguments.json:
        everything = [halt.to_json_object() for halt in halts]
        print(json.dumps({"halts": everything, "wallets": [each.to_json_object() for each in statuses]}))
    else:
        show(halts, statuses)
    return 1 if any(each.fault is not None for each in statuses) else 0


def _explain(arguments: argparse.Namespace) -> int:
    with _given("the request"):
        request = FireRequest.from_json_object(_object(_read_json(arguments.file)))
    prices = _prices(arguments)
    with _ledger(arguments) as ledger:
        decision = _guard(ledger, prices).explain(request)
    if not isinstance(decision, Refused):
        print(f"allowed: worth ${decision.value_micro_usd // 10**6}.{decision.value_micro_usd % 10**6:06}")
        return 0
    print(f"refused: {decision.reason}")
    for check in decision.checks:
        cure = "" if check.retry_at_ms is None else f"; time cures it at {timestamp(check.retry_at_ms)}"
        print(f"  {check.reason}: limit {check.limit}, found {check.actual}{cure}")
    if decision.retry_at_ms is not None:
        print(f"time alone cures it at {timestamp(decision.retry_at_ms)}")
    return 1


def _prices(arguments: argparse.Namespace) -> FixedPrices:
    given = [] if arguments.quotes is None else list(_read_object(arguments.quotes).items())
    prices = FixedPrices()
    at_ms = time.time_ns() // 10**6 - APART_MS_MAX  # never from the future, whatever the database's host says
    for mint, price in [*given, *arguments.quote]:
        with _given(f"the quote of `{mint}`"):
            if keys.decode_key(mint) is None:
                raise ValueError("that is no mint")
            prices.set(Quote.of(mint, str(price), at_ms=at_ms, max_age_ms=QUOTE_AGE_MS_MAX, source="command line"))
    return prices


def _halt(arguments: argparse.Namespace) -> int:
    scope = arguments.scope
    if not arguments.why.isprintable():
        raise _Misuse("--why must be one line of printable text")
    with _given("--why"):
        halt = Halt(wallet=scope.wallet, agent_id=scope.agent_id, by=Halter.OPERATOR, why=arguments.why, at_ms=0)
    with _operations(arguments) as operations:
        _show_halt(halt, operations.halt(scope, halt.why))
    return 0


def _show_halt(halt: Halt, halted: Halted) -> None:
    print(f"halted: {halt}")
    for signature in halted.may_still_land:
        print(f"may still land: {signature}")
    if halted.more:
        print("may still land: more of them, which this doesn't list")


def _lift(arguments: argparse.Namespace) -> int:
    with _operations(arguments) as operations:
        lifted = operations.lift(arguments.scope)
    print("lifted" if lifted else "the operator has no halt of exactly that")
    return 0 if lifted else 1


def _set_fundable(arguments: argparse.Namespace) -> int:
    with _operations(arguments) as operations:
        if not operations.set_fundable(arguments.wallet, fundable=arguments.verb == "allow"):
            print("as it was")
    return 0


def _show_limits(arguments: argparse.Namespace) -> int:
    with _operations(arguments, writing=False) as operations:
        for name, value in operations.limits():
            print(f"{name}={_shown(value)}")
    return 0


def _set_limits(arguments: argparse.Namespace) -> int:
    changes = {name: _limit(name, value) for name, value in arguments.changes}
    with _operations(arguments, writing=arguments.yes) as operations:
        held = operations.limits()
        with _given("the limits"):
            limits = Limits.model_validate({**dict(held), **changes})
        changed = [name for name, value in limits if value != getattr(held, name)]
        for name in changed:
            print(f"{name}: {_shown(getattr(held, name))} -> {_shown(getattr(limits, name))}")
        if not arguments.yes:
            raise _Misuse("nothing was changed: add --yes to do it")
        operations.change_limits(limits)
    return 0


def _limit(name: str, text: str) -> int | None:
    if name not in Limits.model_fields:
        raise _Misuse(f"there is no limit `{name}`: there are {', '.join(Limits.model_fields)}")
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise _Misuse(f"`{text[: DIGITS_MAX + 1]}` is not a whole number of at most {DIGITS_MAX} digits, or none")
    return int(text)


DIGITS_MAX: Final = 16


def _shown(value: int | None) -> str:
    return "none" if value is None else str(value)


def _trace(arguments: argparse.Namespace) -> int:
    from executor.trace import lines_of, trace  # noqa: PLC0415 - it needs an extra that the other commands don't

    with _ledger(arguments) as ledger:
        found = trace(ledger, arguments.signature)
    if found is None:
        print("the ledger knows nothing of this transaction")
        return 1
    for line in lines_of(found):
        print(line)
    return 1 if found.findings else 0


def _replay(arguments: argparse.Namespace) -> int:
    traces = load(arguments.folder)
    differences = []
    for restarts in (False, True):
        for trace in traces:
            found = replay(trace, arguments.url, restarts=restarts)
            if found is not None:
                differences.append(found)
                print(f"FAILED: {found.trace_id}{', with restarts' if restarts else ''}, step {found.number}")
                print(f"    {json.dumps(found.step)}\n    is {json.dumps(found.given)}")
    print(f"traces: {len(traces)}, each with and without restarts, fail: {len(differences)}")
    return 1 if differences else 0


def _check(arguments: argparse.Namespace) -> int:
    against, auditor = arguments.against, arguments.auditor
    if (against is None) != (auditor is None):
        raise _Misuse("--against and --auditor go together: a checkpoint is the word of somebody whom you name")
    with _ledger(arguments) as ledger:
        found = 0 if against is None else _show_rollbacks(ledger, against, auditor)
        report = check_ledger(ledger)
    for finding in report.findings:
        print(finding)
    print(f"entries: {report.entries}, wallets: {report.wallets}, findings: {len(report.findings)}")
    return 1 if report.findings or found else 0


def _show_rollbacks(ledger: Ledger, checkpoint: Path, auditor: str) -> int:
    """Show what was put back, and return how much."""
    with checkpoint.open("rb") as file:
        if not file.seekable():
            raise _Misuse(f"`{checkpoint}` must be a file: it is read twice")
        compared = find_rollbacks(ledger, file, auditor=auditor)
    for finding in compared.findings:
        print(finding)
    print(f"against the checkpoint of {timestamp(compared.at_ms)}: findings: {len(compared.findings)}")
    return len(compared.findings)


def _checkpoint(arguments: argparse.Namespace) -> int:
    auditor = _key_pair(arguments.key)
    with _ledger(arguments) as ledger:
        try:
            write_checkpoint(ledger, auditor, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise StreamLost(sys.stdout, "standard output", error) from None
    return 0


def _key_pair(path: Path) -> LocalSigner:
    try:
        with warnings.catch_warnings(record=True, action="always") as told:
            signer = LocalSigner.from_keypair_file(path)
    except SignerError as error:
        raise _Misuse(str(error)) from None
    for each in told:
        print(f"executor: warning: {each.message}", file=sys.stderr)
    return signer


def _upgrade(arguments: argparse.Namespace) -> int:
    from executor.ledger.upgrade import upgrade  # noqa: PLC0415 - it needs an extra that the other commands don't

    _require_there(arguments.db)
    before, after = upgrade(arguments.db)
    print(f"revision {after}, as it was" if before == after else f"revision {before or 'none'} -> {after}")
    return 0


def _restored(arguments: argparse.Namespace) -> int:
    with _ledger(arguments, writing=True) as ledger:
        guard = _guard(ledger)
        print(f"event ids begin with {guard.mark_restored()}")
        _show_halt(guard.halts()[-1], in_doubt(guard))
    return 0


@contextmanager
def _operations(arguments: argparse.Namespace, *, writing: bool = True) -> Iterator[Operations]:
    """Lend the operator's hand: on the ledger itself, or through the service that is named or holds the SQLite file."""
    if "socket" in arguments:
        yield OperationsThere(arguments.socket)
        return
    try:
        ledger = _ledger(arguments, writing=writing)
    except LedgerInUse as held:
        path = operator_socket_path(Path(held.path))
        if not path.is_socket():
            what = f"{held}, which doesn't listen at `{path}`: name its operator socket with --socket FILE, or end it"
            raise _Misuse(what) from None
        yield OperationsThere(path)
        return
    with ledger:
        yield OperationsHere(_guard(ledger))


def _ledger(arguments: argparse.Namespace, *, writing: bool = False) -> Ledger:
    """Open the ledger that is named, which must be there: writing to a mistyped name must not make a new one."""
    if not {"db", "seal_key"} <= vars(arguments).keys():
        raise _Misuse("name the ledger with --db LEDGER --seal-key FILE, or a running service with --socket FILE")
    seal_keys = _seal_keys(arguments.seal_key)
    _require_there(arguments.db)
    try:
        ledger = Ledger.open(arguments.db, seal_keys=seal_keys, read_only=True)
        if not writing:
            return ledger
        ledger.close()
        return Ledger.open(arguments.db, seal_keys=seal_keys)
    except (LedgerTampered, LedgerInUse):
        raise
    except LedgerError as error:
        raise _Misuse(str(error)) from None


def _require_there(database: str) -> None:
    if "://" in database:
        return
    if Path(database).is_dir():
        raise _Misuse(f"`{database}` is a folder: name the ledger's file in it")
    if not Path(database).exists():
        raise _Misuse(f"there is no ledger `{database}`")


def _guard(ledger: Ledger, prices: FixedPrices | None = None) -> Guard:
    return Guard(ledger, prices=prices or FixedPrices(), assets=KnownAssets([]))


def _seal_keys(path: Path) -> SealKeys:
    data = _read(path)
    with _given(f"`{path}`"):
        return SealKeys.read(data)


def _read_object(path: Path) -> dict[str, Any]:
    with _given(f"`{path}`"):
        return _object(_read_json(path))


def _object(found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - a value from outside
    return found


def _read_json(path: Path | None) -> Any:  # noqa: ANN401 - JSON is any of six types
    return parse(sys.stdin.buffer.read() if path is None else _read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Misuse(f"`{path}`: {error.strerror}") from None


@contextmanager
def _given(what: str) -> Iterator[None]:
    """Tell in one line that `what` was given can't be used."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f" `{each}`" for each in first["loc"])
        raise _Misuse(f"{what}{place}: {first['msg']}") from None
    except (PermitError, ValueError) as error:
        raise _Misuse(f"{what}: {error}") from None


def _fail(line: str, status: int = 1) -> int:
    print(f"executor: {redacted(line)}", file=sys.stderr)
    return status
