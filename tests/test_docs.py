"""Everything that the documents and docstrings show is run."""

import doctest
import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import executor
import permits
from executor import cli as executor_cli
from executor.agentexchange import protocol as agentexchange
from executor.caps import WINDOW_MS
from executor.execution import RAIL_S_MAX
from executor.guard.asynchronous import THREADS
from executor.guard.fires import REFUSALS_RECORDED_MAX
from executor.ledger import turns
from executor.ledger.clock import APART_MS_MAX
from executor.ledger.pause import pause_ms
from executor.ledger.postgres import CONNECTIONS_MAX, PostgresStore
from executor.ledger.schema import metadata
from executor.limits import CLOCK_SKEW_MS, Limits
from executor.operations import LISTED_MAX
from executor.prices import bars, connection, hub, protocol, socket
from executor.service import fences, fire_socket, rates, server, sign_in, stream, tailer, tickets, tokens
from executor.service.api import agents, executions, wallets
from executor.signing.policy import Policy
from executor.traces import load as load_traces
from executor.traces import traces_folder
from permits import LocalSigner, draft, issue
from permits import cli as permits_cli
from permits.canonical import DEPTH_MAX, INPUT_BYTES_MAX, NUMBER_CHARACTERS_MAX
from permits.conformance import load as load_vectors
from permits.conformance import vectors_folder
from permits.envelopes import V0_TEXT_BYTES_MAX, enclose
from permits.model import MAX_AMOUNT_USD, SYMBOL_CHARACTERS_MAX, WHITELIST_ASSETS_MAX
from tests.mutants.test_mutants import MUTANTS
from tests.support import WALLET

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    module.name
    for package in (permits, executor)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run(page, tmp_path, monkeypatch):
    """A page's snippets run in their order, and again in the same folder; their assertions are the page's claims."""
    for _ in range(2):
        monkeypatch.chdir(tmp_path)
        namespace = {"__name__": "__snippet__"}
        for snippet in snippets(page):
            exec(compile(snippet, str(page), "exec"), namespace)  # noqa: S102 - our own pages


def test_snippets_are_typed(tmp_path):
    """Who copies one into a program that is checked strictly, as ours is, has nothing to mend, and drops no refusal."""
    files = []
    for page in filter(snippets, PAGES):
        files.append(tmp_path / f"{re.sub('[^a-z]', '_', str(page.relative_to(ROOT)).lower())}.py")
        files[-1].write_text("".join(snippets(page)))
        for number, program in enumerate(
            re.findall(r'^\w+ = """\n(.*?)^"""', files[-1].read_text(), re.DOTALL | re.MULTILINE)
        ):
            files.append(files[-1].with_stem(f"{files[-1].stem}_{number}"))
            files[-1].write_text(program)
    assert len(files) > 10
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_shows_the_library():
    (snippet,) = snippets(ROOT / "README.md")
    assert "Guard.open" in snippet
    assert len(snippet.splitlines()) <= 32


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", ["docs/explanation/exactness.md", "docs/how-to/scale-out.md"])
def test_a_page_says_how_often_a_change_is_tried(page):
    said = " ".join((ROOT / page).read_text().split())
    assert PostgresStore.attempts_max == 8
    assert (
        re.search(r"up to eight times[^.]* pauses that grow to ([0-9.]+) s", said)[1] == f"{pause_ms(7, 0) / 1_000:g}"
    )


CAPS, LIMITS, POLICY = hub.Caps(), Limits(), Policy()
TIERS = "".join(f"| {tier.name} | {tier.connections_max} | {tier.assets_max:,} | " for tier in protocol.TIERS.values())
FIGURES = [
    ("README.md", f"Authorization, good for {LIMITS.authorization_ttl_s} s"),
    ("CHANGELOG.md", f"- {len(load_vectors(vectors_folder()))} golden vectors"),
    ("CHANGELOG.md", f"- {len(load_traces(traces_folder()))} golden traces"),
    ("CHANGELOG.md", f"{LIMITS.active_agents} agents and {LIMITS.executions_per_24h} executions in 24 hours"),
    ("docs/explanation/architecture.md", f"an `Authorization` for {LIMITS.authorization_ttl_s} seconds"),
    ("docs/explanation/exactness.md", f"look, {LIMITS.executions_per_24h} numbers back"),
    ("docs/explanation/exactness.md", f"| compared | more than {APART_MS_MAX // 1000} s apart |"),
    ("docs/explanation/exactness.md", f"together, up to {turns.TOGETHER_MAX}"),
    ("docs/explanation/testing.md", f"each of the {len(MUTANTS)} must turn a named test red"),
    ("docs/explanation/testing.md", f"{CAPS.connections:,} connections at once"),
    ("docs/explanation/threat-model.md", f"a look {LIMITS.executions_per_24h} numbers back"),
    ("docs/explanation/threat-model.md", f"compare-and-swap; {LIMITS.authorization_ttl_s} s"),
    ("docs/explanation/threat-model.md", f"| {REFUSALS_RECORDED_MAX:,} a wallet and day, then"),
    ("docs/explanation/threat-model.md", f"| {RAIL_S_MAX} s, then the attempt is voided"),
    ("docs/explanation/threat-model.md", f"the allowed {LIMITS.max_slippage_bps // 100} % of each trade"),
    (
        "docs/explanation/threat-model.md",
        f"{POLICY.priority_fee_lamports_max:,} and {POLICY.rent_lamports_max:,} lamports",
    ),
    ("docs/explanation/threat-model.md", f"who has {rates.KNOWN_MAX:,} more"),
    ("docs/explanation/threat-model.md", f"a fetch every {tokens.JWKS_PAUSE_S} s at most"),
    ("docs/how-to/agentexchange.md", f"1, 2, 4 … {connection.DELAY_S_MAX:.0f} seconds"),
    ("docs/how-to/backup-and-restore.md", f"up to {LIMITS.executions_per_24h} more in the same 24 hours"),
    ("docs/how-to/backup-and-restore.md", f"heartbeat, within {stream.HEARTBEAT_S:.0f} s"),
    ("docs/how-to/follow-prices.md", f"1, 2, 4 … {connection.DELAY_S_MAX:.0f} seconds"),
    (
        "docs/how-to/scale-out.md",
        f"up to {CONNECTIONS_MAX} connections, of which at most {PostgresStore.writers_max} write",
    ),
    ("docs/how-to/scale-out.md", f"up to {turns.TOGETHER_MAX} changes in each"),
    ("docs/how-to/scale-out.md", f"`AsyncGuard` brings {THREADS}"),
    ("docs/how-to/sign-with-a-ledger.md", f"| header | {len(enclose('offchain-v0', bytes(32), b''))} bytes |"),
    ("docs/how-to/sign-with-a-ledger.md", f"| {len(enclose('offchain-v1', bytes(32), b''))} bytes | | longest permit"),
    (
        "docs/how-to/sign-with-a-ledger.md",
        f"| longest permit | {V0_TEXT_BYTES_MAX:,} bytes: 18 mints, or 50 symbols of 14 ch",
    ),
    ("docs/how-to/stream-events.md", f"every {stream.HEARTBEAT_S:.0f} seconds, however much else is told"),
    ("docs/how-to/write-a-rail.md", f"It has {RAIL_S_MAX} seconds"),
    ("docs/how-to/write-a-rail.md", f"an authorization is good for {LIMITS.authorization_ttl_s}"),
    (
        "docs/reference/permit.md",
        f"an array of 1 to {WHITELIST_ASSETS_MAX} strings. Each is a symbol, 1 to {SYMBOL_CHARACTERS_MAX}",
    ),
    ("docs/reference/permit.md", f"at most {MAX_AMOUNT_USD}, written"),
    ("docs/reference/permit.md", f"at most {INPUT_BYTES_MAX:,} bytes of strict UTF-8"),
    ("docs/reference/permit.md", f"at most {DEPTH_MAX} arrays and objects deep"),
    ("docs/reference/permit.md", f"at most {NUMBER_CHARACTERS_MAX} characters. `NaN`"),
    ("docs/reference/price-stream.md", TIERS.strip()),
    (
        "docs/reference/price-stream.md",
        f"{CAPS.connections:,} connections in all and {CAPS.per_address} from one address",
    ),
    (
        "docs/reference/price-stream.md",
        f"{protocol.MESSAGES_AT_ONCE} messages at once and {protocol.MESSAGES_PER_S} a second",
    ),
    ("docs/reference/price-stream.md", f"its cap again every {protocol.CHANGES_REFILL_S} s"),
    ("docs/reference/price-stream.md", f"| every {protocol.HEARTBEAT_MS // 1000} s |"),
    ("docs/reference/price-stream.md", f"too many messages, pieces of one ({socket.FRAGMENTS_MAX})"),
    ("docs/reference/price-stream.md", f"nothing was read for {hub.WRITE_S_MAX:.0f} s"),
    ("docs/reference/price-stream.md", f"silent for {protocol.QUIET_MS_MAX // 1000} s"),
    ("docs/reference/price-stream.md", f"or {bars.GRACE_MS // 1000} s after its end"),
    ("docs/reference/price-stream.md", f"| {', '.join(protocol.INTERVALS_MS)} |".removeprefix("| ")),
    ("docs/reference/rest.md", f"A body is at most {INPUT_BYTES_MAX // 1024} KiB"),
    ("docs/reference/rest.md", f"may hold at most {agents.RESERVED_AGENTS_MAX} that no permit"),
    ("docs/reference/rest.md", f"over {fences.HEAD_BYTES_MAX // 1024} KiB, or {fences.HEADERS_MAX} headers"),
    ("docs/reference/rest.md", f"`mayStillLand` has at most {LISTED_MAX:,}"),
    (
        "docs/reference/rest.md",
        f"`limit` is 1 to {executions.PAGE_MAX} (50). One request looks at {executions.LOOKED_AT_MAX} executions",
    ),
    ("docs/reference/rest.md", f"`limit` (1 to {wallets.ENTRIES_AT_ONCE}; 100)"),
    ("docs/reference/rest.md", f"more than {wallets.ENTRIES_MAX:,} entries"),
]


@pytest.mark.parametrize(
    ("page", "said"), FIGURES, ids=[f"{page}-{number}" for number, (page, _) in enumerate(FIGURES)]
)
def test_a_page_says_the_figure_that_holds(page, said):
    assert said in " ".join((ROOT / page).read_text().split())


def test_figures_in_words_hold():
    """What the pages say as words: changing one of these changes a page, which is named beside it."""
    assert WINDOW_MS == 24 * 3_600_000  # exactness: 24 hours back, and one second for the clocks
    assert CLOCK_SKEW_MS == 1_000
    assert LIMITS.max_permit_age_s == 3_600  # sign-in-a-browser, threat-model, backup-and-restore: within an hour
    assert (sign_in.CHALLENGE_LIFETIME_S, tickets.TICKET_LIFETIME_S) == (300, 60)  # sign-in: five minutes; a minute
    assert tokens.JWKS_FRESH_S == 300  # settings: every five minutes
    assert (stream.WRITE_S_MAX, tailer.POLL_S) == (10.0, 0.25)  # stream-events: ten seconds; a quarter of a second
    assert server.GRACE_S == 10  # run-the-service: ten seconds
    assert server.UNANSWERED_MS_MAX == 10_000  # stream-events: doesn't answer for ten seconds
    assert agentexchange.QUIET_S_MAX == 40.0  # agentexchange: forty seconds
    assert protocol.CHANGES_AT_ONCE == 4  # price-stream: four times its cap
    assert fire_socket.LISTED_MAX == 100  # the operator's socket: the first hundred


def test_the_page_of_rest_has_every_code_of_the_services_problems():
    sources = (path.read_text() for path in (ROOT / "executor" / "service").rglob("*.py"))
    raised = {each for source in sources for each in re.findall(r'Problem\(\s*(\d+, "[A-Z_]+")', source)}
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", (ROOT / "docs/reference/rest.md").read_text(), re.MULTILINE)
    said = {f'{status}, "{code}"' for status, row in rows for code in re.findall("`([A-Z_]+)`", row)}
    assert len(raised) > 20
    assert raised - said == set()


def test_a_ledger_of_hardware_takes_as_many_assets_as_its_page_says():
    """18 mints and no 19th, 50 symbols of 14 characters and none of 15; and no permit is longer than settings say."""

    def permit(assets, nonce="ab" * 16):
        return draft(
            agent_id="6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10",
            session_pubkey="9hSR6S7WPtxmTojgo6GG3k4yDPecgJY292j7xrsUGWBu",
            asset_whitelist=assets,
            max_amount_usd=250.55,
            issued_at_ms=1_777_723_200_000,
            lifetime_s=86_400,
            nonce=nonce,
        )

    mints = [LocalSigner.from_seed(bytes([number]) * 32).wallet_address for number in range(50)]
    whole = sorted(mints, key=len)[-19:]  # a mint takes 43 or 44 characters
    symbols = [[f"{number:02}".rjust(length, "A") for number in range(50)] for length in (14, 15)]
    fits = [len(permit(each).canonical_bytes()) <= V0_TEXT_BYTES_MAX for each in (whole[:18], whole, *symbols)]
    assert fits == [True, False, True, False]
    longest = issue(permit(mints, "ab" * 64), LocalSigner.from_seed(bytes(32)), envelope="offchain-v1")
    assert 2_900 < len(json.dumps(longest.to_json_object())) < 3_100


def test_the_schema_that_a_page_writes_out_is_the_one_that_is_made():
    """Tables, their columns and indexes on the page on scaling out; the types are the other database's own."""
    (page,) = re.findall(
        r"^-- Not run. The tables.*?^```", (ROOT / "docs/how-to/scale-out.md").read_text(), re.DOTALL | re.MULTILINE
    )
    tables = {
        name: set(
            re.findall(r"(?:^|, )\s*([a-z_0-9]+) (?:SMALLINT|BIGINT|BYTEA|INTEGER|TEXT|VARCHAR)", body, re.MULTILINE)
        )
        for name, body in re.findall(r"CREATE TABLE (\w+) \((.*?)\);", page, re.DOTALL)
    }
    assert tables == {table.name: {column.name for column in table.columns} for table in metadata.tables.values()}
    made = {(index.name, index.unique) for table in metadata.tables.values() for index in table.indexes}
    assert {(name, bool(unique)) for unique, name in re.findall(r"CREATE (UNIQUE )?INDEX (\w+)", page)} == made


COMMANDS = {"executor": executor_cli._parser, "permits": permits_cli._parser}
OURS = r"(?:\.venv/bin/)?(?:executor|permits)"
RUN = [page for page in [*PAGES, ROOT / "vectors" / "README.md"] if "adr" not in page.parts]


def commands(page):
    """Yield every command line of ours on the page: those of its blocks, and those in sentences that have an option."""
    blocks = re.findall(r"^```(?:sh|text)\n.*?^```|^(?: {4}\S.*\n)+", page.read_text(), re.DOTALL | re.MULTILINE)
    yield from re.findall(rf"^ *({OURS} [a-z-].*)", "".join(blocks), re.MULTILINE)
    yield from re.findall(rf"`({OURS} [a-z][^`]* --[^`]+)`", page.read_text())


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_lines_are_those_that_there_are(page):
    for line in commands(page):
        words = shlex.split(" ".join(line.split()).replace("ADDRESS", WALLET.wallet_address), comments=True)
        program, *arguments = words[: words.index(">")] if ">" in words else words
        COMMANDS[Path(program).name]().parse_args(arguments)  # else it leaves, and says why


def test_command_lines_are_found():
    assert sum(len(list(commands(page))) for page in RUN) >= 25
