"""Everything that the documents and docstrings show is run."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import executor
import permits
from executor.ledger.pause import pause_ms
from executor.ledger.postgres import PostgresStore

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
