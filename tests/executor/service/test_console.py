"""What the console is served as; what it does is tried in a browser, in tests/browser."""

import re

import pytest

from executor.service import Settings
from executor.service.console import IMPLEMENTATION, PAGE
from permits.conformance import vectors_folder
from tests.executor.service.serving import serving


@pytest.fixture
def client(sqlite_setup):
    with serving(sqlite_setup.guard, Settings()) as client:
        yield client


FILES = sorted(path.name for path in PAGE.iterdir())


@pytest.mark.parametrize("path", ["/", *(f"/console/{name}" for name in FILES), f"/console/{IMPLEMENTATION}"])
def test_each_file_is_served_under_the_policy_and_asked_for_anew(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_inspector_is_the_vectors_implementation_byte_for_byte(client):
    assert client.get(f"/console/{IMPLEMENTATION}").content == (vectors_folder() / IMPLEMENTATION).read_bytes()


@pytest.mark.parametrize("name", ["schema.json", "../__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py", "", "no"])
def test_nothing_else_is(client, name):
    answer = client.get(f"/console/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "NOT_FOUND"


def test_each_name_that_a_module_imports_or_exports_is_used():
    texts = {path.name: path.read_text() for path in PAGE.glob("*.js")}
    for name, text in texts.items():
        for names in re.findall(r"^import \{ (.*) \} from", text, re.MULTILINE):
            assert [each for each in names.split(", ") if len(re.findall(rf"\b{each}\b", text)) < 2] == [], name
        for exported in re.findall(r"^export (?:async )?(?:const|function|class) (\w+)", text, re.MULTILINE):
            assert any(exported in other for its_name, other in texts.items() if its_name != name), exported


def test_no_file_names_another_host_or_makes_markup_of_text():
    for path in PAGE.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        for forbidden in ("://", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="):
            assert forbidden not in text, f"{path.name}: {forbidden}"
