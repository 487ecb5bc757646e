"""Who may import whom, and what may stand at the top of the repository."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CORE = {
    "executor.errors",
    "executor.reasons",
    "executor.value",
    "executor.assets",
    "executor.amounts",
    "executor.limits",
    "executor.caps",
    "executor.halts",
    "executor.lifecycle",
    "executor.bounds",
    "executor.request",
    "executor.authorization",
    "executor.decide",
    "executor.activation",
    "executor.evidence",
    "executor.fill",
    "executor.funding",
    "executor.entries",
    "executor.seal",
    "executor.agentexchange.protocol",
    "executor.events",
    "executor.prices.protocol",
    "executor.prices.quote",
    "executor.sse",
}
"""What takes values and returns values. Everything else in `executor` is a shell."""

CORE_LIBRARIES = {"pydantic", "pydantic_core"}
CORE_FORBIDDEN = {"asyncio", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "subprocess", "threading"} | {
    "time"
}
"""Of the standard library: what reads the world, or changes it."""

EXTRAS = {"alembic", "httpx", "jwt", "prometheus_client", "psycopg", "pydantic_settings", "rich", "solders"}
EXTRAS |= {"starlette", "uvicorn", "websockets"}
SHELLS = "demo execution rails service settlement signing solana sweeper trace treasury"
NEEDS_EXTRAS = tuple(f"executor.{name}" for name in SHELLS.split())
NEEDS_EXTRAS += tuple(f"executor.ledger.{name}" for name in ("migrations", "pipeline", "session", "upgrade"))
NEEDS_EXTRAS += ("executor.agentexchange",)
NEEDS_EXTRAS += tuple(f"executor.prices.{name}" for name in ("client", "connection", "fleet", "hub", "socket"))


def modules():
    for package in ("permits", "executor"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path):
    """Every module that the file imports, wherever in it, type checking or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = dict(modules())


def test_every_core_module_is_there():
    assert set(MODULES) >= CORE


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("permits")])
def test_permits_never_imports_executor(module):
    assert [name for name in imported(MODULES[module]) if name.partition(".")[0] == "executor"] == []


@pytest.mark.parametrize("module", sorted(CORE))
def test_core_imports_only_core(module):
    allowed_first = {"permits", "executor", *CORE_LIBRARIES, *(sys.stdlib_module_names - CORE_FORBIDDEN)}
    names = list(imported(MODULES[module]))
    assert [name for name in names if name.partition(".")[0] not in allowed_first] == []
    own = {name for name in names if name in MODULES and name.startswith("executor.")}
    assert own <= CORE


@pytest.mark.parametrize("module", sorted(MODULES))
def test_extras_are_imported_only_where_they_belong(module):
    needed = {name.partition(".")[0] for name in imported(MODULES[module])} & EXTRAS
    does_without = module in {"permits.cli", "executor.status"}  # no progress bar then, no colors
    assert not needed or module.startswith(NEEDS_EXTRAS) or does_without


@pytest.mark.parametrize("module", sorted(MODULES))
def test_sql_stands_in_the_ledger_alone(module):
    uses = {name.partition(".")[0] for name in imported(MODULES[module])} & {"sqlalchemy", "sqlite3"}
    typing_only = module == "executor.signing.vault"
    assert not uses or module.startswith("executor.ledger") or typing_only


def test_the_core_install_is_enough_for_guard_and_audit():
    script = (
        "import sys\n"
        f"for name in {sorted(EXTRAS)}: sys.modules[name] = None\n"
        "import permits.cli, executor.cli, executor.guard, executor.audit\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_nothing_else_stands_at_the_top():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.partition("/")[0] for line in tracked.splitlines()} <= {
        ".ci",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "docs",
        "executor",
        "permits",
        "pyproject.toml",
        "tests",
        "vectors",
    }
