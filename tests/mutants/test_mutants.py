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
    assert text.count(old) == 1, "the edit must fit one place"
    path.write_text(text.replace(old, new))
    try:
        assert run(copy, test).returncode == 1
    finally:
        path.write_text(text)
