"""Edits to constants, tables, patterns and fields, each of which must turn a test red.

Tools for mutation testing change expressions, but none of these. A mutant that nothing notices is a rule without a
test. Each runs in a copy of the packages and the tests, against the named file alone.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

VECTORS, MODEL, KEYS = "permits/test_conformance.py", "permits/test_model.py", "permits/test_keys.py"
CANONICAL, VERIFICATION = "permits/test_canonical.py", "permits/test_verification.py"

MUTANTS = [
    ("permits/canonical.py", "INPUT_BYTES_MAX: Final = 16 * 1024", "INPUT_BYTES_MAX: Final = 16 * 1024 + 1", VECTORS),
    ("permits/canonical.py", "INPUT_BYTES_MAX: Final = 16 * 1024", "INPUT_BYTES_MAX: Final = 16 * 1024 - 1", VECTORS),
    ("permits/canonical.py", "NUMBER_CHARACTERS_MAX: Final = 32", "NUMBER_CHARACTERS_MAX: Final = 33", CANONICAL),
    ("permits/canonical.py", "NUMBER_CHARACTERS_MAX: Final = 32", "NUMBER_CHARACTERS_MAX: Final = 12", VECTORS),
    ("permits/canonical.py", "DEPTH_MAX: Final = 8", "DEPTH_MAX: Final = 9", CANONICAL),
    ("permits/canonical.py", "DEPTH_MAX: Final = 8", "DEPTH_MAX: Final = 7", CANONICAL),
    ("permits/canonical.py", r"\xef\xbb\xbf", r"\xef\xbb\xbe", CANONICAL),
    ("permits/canonical.py", r"""'"(?:[^"\\]|\\.)*+"|[\[\]{}]'""", r"""'[\[\]{}]'""", CANONICAL),
    ("permits/canonical.py", "object_pairs_hook=_unique_keys, ", "", CANONICAL),
    ("permits/canonical.py", "parse_float=_fraction, ", "", VECTORS),
    ("permits/canonical.py", "parse_int=_whole, ", "", CANONICAL),
    ("permits/canonical.py", ", parse_constant=_constant", "", CANONICAL),
    ("permits/keys.py", "[1-9A-HJ-NP-Za-km-z]{32,44}", "[0-9A-HJ-NP-Za-km-z]{32,44}", VECTORS),
    ("permits/keys.py", "[1-9A-HJ-NP-Za-km-z]{32,44}", "[1-9A-HJ-NP-Za-km-z]{32,43}", KEYS),
    ("permits/keys.py", "[1-9A-HJ-NP-Za-km-z]{32,44}", "[1-9A-HJ-NP-Za-km-z]{33,44}", KEYS),
    ("permits/keys.py", "[1-9A-HJ-NP-Za-km-z]{64,88}", "[1-9A-HJ-NP-Za-km-z]{64,87}", KEYS),
    ("permits/keys.py", "ijkmnop", "ijmknop", KEYS),
    ("permits/keys.py", "P: Final = 2**255 - 19", "P: Final = 2**255 - 18", KEYS),
    ("permits/keys.py", "SIGN_BIT: Final = 1 << 255", "SIGN_BIT: Final = 1 << 254", KEYS),
    ("permits/keys.py", "    1,  # order 1\n", "", KEYS),
    ("permits/keys.py", "6A17C7,", "6A17C8,", KEYS),
    ("permits/keys.py", "\nDIGITS_MAX: Final = 128", "\nDIGITS_MAX: Final = 64", KEYS),
    ("permits/keys.py", "KEY_DIGITS_MAX: Final = 44", "KEY_DIGITS_MAX: Final = 43", KEYS),
    ("permits/model.py", "SYMBOL_CHARACTERS_MAX: Final = 16", "SYMBOL_CHARACTERS_MAX: Final = 44", VECTORS),
    ("permits/model.py", "SYMBOL_CHARACTERS_MAX: Final = 16", "SYMBOL_CHARACTERS_MAX: Final = 15", VECTORS),
    ("permits/model.py", "SYMBOL_CHARACTERS_MAX: Final = 16", "SYMBOL_CHARACTERS_MAX: Final = 17", VECTORS),
    ("permits/model.py", r"(?:\.[0-9]{3})?Z", r"(?:\.[0-9]{1,3})?Z", VECTORS),
    ("permits/model.py", r"(?:\.[0-9]{3})?Z", "Z", VECTORS),
    ("permits/model.py", "WHITELIST_ASSETS_MAX: Final = 50", "WHITELIST_ASSETS_MAX: Final = 51", VECTORS),
    ("permits/model.py", "WHITELIST_ASSETS_MAX: Final = 50", "WHITELIST_ASSETS_MAX: Final = 49", VECTORS),
    ("permits/model.py", "not 1 <= len(assets)", "not 0 <= len(assets)", VECTORS),
    ("permits/model.py", "MAX_AMOUNT_USD: Final = 10**9", "MAX_AMOUNT_USD: Final = 10**9 + 1", VECTORS),
    ("permits/model.py", "MAX_AMOUNT_USD: Final = 10**9", "MAX_AMOUNT_USD: Final = 10**9 - 1", VECTORS),
    ("permits/model.py", 'UUID_PATTERN: Final = "[0-9a-f]{8}-', 'UUID_PATTERN: Final = "[0-9a-fA-F]{8}-', VECTORS),
    ("permits/model.py", "{32,128}", "{30,128}", VECTORS),
    ("permits/model.py", "{32,128}", "{34,128}", VECTORS),
    ("permits/model.py", "{32,128}", "{32,130}", VECTORS),
    ("permits/model.py", "{32,128}", "{32,126}", VECTORS),
    ("permits/model.py", '"[0-9a-f]{32,128}"', '"[0-9a-fA-F]{32,128}"', VECTORS),
    ("permits/model.py", "@dataclass(frozen=True, init=False)\nclass Permit:", "@dataclass\nclass Permit:", MODEL),
    ("permits/model.py", 'document.get("envelope", "raw")', 'document.get("envelope", "offchain-v0")', VECTORS),
    ("permits/model.py", ' = ("envelope",)', " = ()", VECTORS),
    ("permits/envelopes.py", r'b"\xffsolana', r'b"\xfesolana', VECTORS),
    ("permits/envelopes.py", "V0_TEXT_BYTES_MAX: Final = 1_147", "V0_TEXT_BYTES_MAX: Final = 1_148", VECTORS),
    ("permits/envelopes.py", "V0_TEXT_BYTES_MAX: Final = 1_147", "V0_TEXT_BYTES_MAX: Final = 1_146", VECTORS),
    ("permits/envelopes.py", '"raw", "offchain-v0", "offchain-v1")', '"raw", "offchain-v0")', VECTORS),
    ("permits/verification.py", "holdfire/permit/v1", "holdfire/permit/v2", VECTORS),
    ("permits/verification.py", "366 * 86_400_000", "367 * 86_400_000", VECTORS),
    ("permits/verification.py", "366 * 86_400_000", "365 * 86_400_000", VECTORS),
    ("permits/verification.py", '= ("raw",)', '= ("raw", "offchain-v1")', VERIFICATION),
]


CHECKS, DECIDE, REASONS, VALUES = (f"executor/test_{name}.py" for name in ("checks", "decide", "reasons", "values"))
BAD, USAGE, GUARD = (f"executor/test_{name}.py" for name in ("bad_values", "usage", "guard"))
LEDGER, STORE, BROKEN = (f"executor/test_{name}.py" for name in ("ledger", "store", "broken_storage"))
HALTS, HELD, SESSION = (f"executor/test_{name}.py" for name in ("halts", "held_file", "session"))
RACES = "races/test_races.py"

MUTANTS += [
    ("executor/caps.py", "24 * 3_600_000", "23 * 3_600_000", CHECKS),
    ("executor/limits.py", "CLOCK_SKEW_MS: Final = 1_000", "CLOCK_SKEW_MS: Final = 999", CHECKS),
    ("executor/limits.py", "] = 20", "] = 21", CHECKS),
    ("executor/limits.py", "] = 60", "] = 61", GUARD),
    ("executor/limits.py", "] = 500", "] = 501", CHECKS),
    ("executor/limits.py", "] = 90", "] = 89", CHECKS),
    ("executor/limits.py", "] = 3_600", "] = 3_601", CHECKS),
    ("executor/limits.py", "] = 300", "] = 301", CHECKS),
    ("executor/limits.py", "le=10_000", "le=10_001", BAD),
    ("executor/limits.py", "COUNT_MAX: Final = 2**53 - 1", "COUNT_MAX: Final = 2**53", BAD),
    (
        "executor/limits.py",
        "executions_per_24h: Annotated[int, Field(ge=1",
        "executions_per_24h: Annotated[int, Field(ge=0",
        BAD,
    ),
    ("executor/value.py", "U64_MAX: Final = 2**64 - 1", "U64_MAX: Final = 2**64", BAD),
    ("executor/value.py", "BigInt, Field(ge=1", "BigInt, Field(ge=0", BAD),
    ("executor/value.py", "        strict=True,\n", "", BAD),
    ("executor/value.py", '        extra="forbid",\n', "", GUARD),
    ("executor/value.py", "        frozen=True,\n", "", VALUES),
    ("executor/value.py", "value.isascii() and ", "", BAD),
    ("executor/prices/quote.py", "10**12 * PICO", "10**12 * PICO + 1", BAD),
    ("executor/prices/quote.py", "ROUND_CEILING)", '"ROUND_FLOOR")', VALUES),
    ("executor/request.py", "{1,44}", "{1,45}", BAD),
    ("executor/request.py", "^[a-z0-9-]{1,32}$", "^[a-zA-Z0-9-]{1,32}$", BAD),
    ("executor/request.py", "{1,64}", "{1,65}", BAD),
    (
        "executor/lifecycle.py",
        "    None: frozenset({AgentState.RESERVED}),",
        "    None: frozenset({AgentState.RESERVED, AgentState.ACTIVE}),",
        CHECKS,
    ),
    (
        "executor/lifecycle.py",
        "AgentState.COMPLETED: frozenset()",
        "AgentState.COMPLETED: frozenset({AgentState.ACTIVE})",
        CHECKS,
    ),
    (
        "executor/lifecycle.py",
        "AgentState.PAUSED: frozenset({AgentState.ACTIVE, AgentState.STOPPED, ",
        "AgentState.PAUSED: frozenset({AgentState.ACTIVE, ",
        CHECKS,
    ),
    (
        "executor/lifecycle.py",
        "AttemptState.REFUSED: frozenset()",
        "AttemptState.REFUSED: frozenset({AttemptState.AUTHORIZED})",
        CHECKS,
    ),
    (
        "executor/lifecycle.py",
        "frozenset({AttemptState.VOIDED, AttemptState.SIGNED})",
        "frozenset({AttemptState.VOIDED, AttemptState.SIGNED, AttemptState.LANDED})",
        CHECKS,
    ),
    (
        "executor/lifecycle.py",
        "frozenset({AttemptState.LANDED, AttemptState.FAILED, AttemptState.DEAD})",
        "frozenset({AttemptState.LANDED, AttemptState.FAILED})",
        CHECKS,
    ),
    (
        "executor/lifecycle.py",
        "AttemptState.VOIDED: frozenset()",
        "AttemptState.VOIDED: frozenset({AttemptState.SIGNED})",
        CHECKS,
    ),
    ("executor/lifecycle.py", "AttemptState.SIGNED: 1", "AttemptState.SIGNED: 2", VALUES),
    (
        "executor/decide.py",
        "        _agent_known(state),\n        *_halted(halts),",
        "        *_halted(halts),\n        _agent_known(state),",
        REASONS,
    ),
    ("executor/decide.py", "enumerate(Reason)", "enumerate(reversed(Reason))", DECIDE),
    (
        "executor/decide.py",
        "AgentState.STOPPED: Reason.AGENT_STOPPED",
        "AgentState.STOPPED: Reason.AGENT_PAUSED",
        CHECKS,
    ),
    ("executor/decide.py", "        _whitelisted(buy, bounds),\n", "", CHECKS),
    ("executor/decide.py", "        _price_fresh(buy),\n", "", CHECKS),
    ("executor/decide.py", "        _interval_kept(usage, limits, now_ms),\n", "", CHECKS),
    ("executor/activation.py", "        _nonce_unspent(permit, standing),\n", "", CHECKS),
    ("executor/activation.py", "        _agents_within_cap(standing, limits),\n", "", CHECKS),
    ("executor/reasons.py", '    AGENT_COMPLETED = "AGENT_COMPLETED"', '    AGENT_COMPLETED = "AGENT_DONE"', REASONS),
    ("executor/guard/fires.py", "REFUSALS_RECORDED_MAX: Final = 1_000", "REFUSALS_RECORDED_MAX: Final = 1_001", USAGE),
    (
        "executor/guard/fires.py",
        "AttemptState.AUTHORIZED, AttemptState.SIGNED, AttemptState.LANDED",
        "AttemptState.AUTHORIZED, AttemptState.LANDED",
        USAGE,
    ),
    ("executor/guard/guard.py", "CLAIM_BYTES: Final = 16", "CLAIM_BYTES: Final = 8", GUARD),
    (
        "executor/entries.py",
        "frozenset({Kind.VOIDED, Kind.LANDED, Kind.FAILED, Kind.DEAD})",
        "frozenset({Kind.VOIDED, Kind.LANDED, Kind.FAILED})",
        USAGE,
    ),
    ("executor/entries.py", r"holdfire/chain/v1\x00", r"holdfire/chain/v2\x00", VALUES),
    ("executor/entries.py", r"holdfire/entry/v1\x00", r"holdfire/entry/v2\x00", VALUES),
    ("executor/ledger/clock.py", "APART_MS_MAX: Final = 2_000", "APART_MS_MAX: Final = 2_001", GUARD),
    ("executor/ledger/pause.py", "FIRST_MS: Final = 10", "FIRST_MS: Final = 11", BROKEN),
    (
        "executor/ledger/sqlite.py",
        '"INSERT ON entries WHEN NEW.attempt > 1"',
        '"INSERT ON entries WHEN NEW.attempt > 2"',
        STORE,
    ),
    ("executor/ledger/sqlite.py", "at_ms > NEW.at_ms - 86400000", "at_ms >= NEW.at_ms - 86400000", STORE),
    ("executor/ledger/sqlite.py", "at_ms > NEW.at_ms - 86400000", "at_ms > NEW.at_ms - 86399999", STORE),
    ("executor/ledger/sqlite.py", "NEW.attempt - (SELECT", "NEW.attempt - 1 - (SELECT", STORE),
    ("executor/ledger/sqlite.py", '"DELETE ON entries"', '"DELETE ON entries WHEN 0"', LEDGER),
    ("executor/ledger/sqlite.py", '"recursive_triggers": 1', '"recursive_triggers": 0', LEDGER),
    ("executor/ledger/sqlite.py", '"synchronous": 2', '"synchronous": 1', LEDGER),
    ("executor/ledger/held_file.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", LEDGER),
    ("executor/ledger/held_file.py", "if links > 1", "if links > 2", HELD),
    ("executor/ledger/held_file.py", "_lock(self._file, path", "(lambda *_: None)(self._file, path", HELD),
    ("executor/ledger/held_file.py", "MOUNT_POINT: Final = 4", "MOUNT_POINT: Final = 3", HELD),
    ("executor/ledger/held_file.py", "        held.let_go_in_child()\n", "        pass\n", HELD),
    ("executor/ledger/held_file.py", "            _keep(self._file)\n", "            os.close(self._file)\n", HELD),
    ("executor/ledger/pipeline.py", "BEGIN ISOLATION LEVEL READ COMMITTED", "BEGIN", STORE),
    ("executor/ledger/postgres.py", '"57P01", ', "", STORE),
    ("executor/ledger/store.py", "            transaction.require_time()\n", "            pass\n", HALTS),
    ("executor/guard/guard.py", "            any_clock=True,\n", "", HALTS),
    ("executor/ledger/sqlite.py", "            self._held.require_in_place()\n", "            pass\n", BROKEN),
    ("executor/ledger/sqlite.py", '"mode": "rw"', '"mode": "rwc"', BROKEN),
    ("executor/ledger/postgres.py", "NEW.attempt > 1 AND", "NEW.attempt > 2 AND", STORE),
    ("executor/ledger/postgres.py", "at_ms > NEW.at_ms - 86400000", "at_ms >= NEW.at_ms - 86400000", STORE),
    ("executor/ledger/postgres.py", "at_ms > NEW.at_ms - 86400000", "at_ms > NEW.at_ms - 86399999", STORE),
    ("executor/ledger/postgres.py", "BEFORE UPDATE OR DELETE", "BEFORE UPDATE", STORE),
    ("executor/ledger/session.py", '"fsync": ("on",)', '"fsync": ("on", "off")', BROKEN),
    ("executor/ledger/session.py", '("origin",)', '("origin", "replica")', STORE),
    ("executor/ledger/session.py", "        if others == before or after != before", "        if False", SESSION),
    ("executor/ledger/session.py", ', pg_temp"', '"', SESSION),
    ("executor/ledger/session.py", "        if self.warnings", "        if not self", SESSION),
    ("executor/ledger/postgres.py", "            if process !=", "            if not", SESSION),
    ("executor/ledger/postgres.py", "            if loaded_us != cursor", "            if not cursor", SESSION),
    (
        "executor/ledger/session.py",
        '"transaction_read_only": ("off",)',
        '"transaction_read_only": ("off", "on")',
        STORE,
    ),
    ("executor/ledger/postgres.py", "attempts_max: Final = 8", "attempts_max: Final = 9", BROKEN),
    (
        "executor/ledger/postgres.py",
        "            self.engine.dispose()\n        return lost",
        "            pass\n        return lost",
        BROKEN,
    ),
    ("executor/ledger/ahead.py", "wallet = its_wallet FOR UPDATE", "wallet = its_wallet", RACES),
]


def test_every_edit_fits_one_place():
    """Here, and not only where all of them are tried: else one that no longer fits is noticed late."""
    misfits = [(file, old) for file, old, *_ in MUTANTS if (ROOT / file).read_text().count(old) != 1]
    assert misfits == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Copy everything that the tests of `permits` need."""
    folder = tmp_path_factory.mktemp("mutants")
    for name in ("permits", "executor", "tests", "vectors", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(copy, test):
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.parametrize("test", sorted({test for *_, test in MUTANTS}))
def test_without_an_edit_all_is_green(copy, test):
    assert run(copy, test).returncode == 0


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("file", "old", "new", "test"), MUTANTS)
def test_an_edit_is_noticed(copy, file, old, new, test):
    path = copy / file
    text = path.read_text()
    path.write_text(text.replace(old, new))
    try:
        assert run(copy, test).returncode == 1
    finally:
        path.write_text(text)
