"""Everything that the documents and docstrings show is run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import executor
import permits

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
    """A page's snippets run one after the other, in an empty folder; their assertions are the page's claims."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__snippet__"}
    for snippet in snippets(page):
        exec(compile(snippet, str(page), "exec"), namespace)  # noqa: S102 - our own pages


def test_the_readme_shows_the_library():
    (snippet,) = snippets(ROOT / "README.md")
    assert "Guard.open" in snippet
    assert len(snippet.splitlines()) <= 25


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
