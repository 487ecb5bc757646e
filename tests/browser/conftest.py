"""A real browser: Debian's chromium, driven by playwright, which downloads nothing of its own.

While the fixture `chromium` lives, playwright's event loop counts as running in this thread: a test that needs
`asyncio.run` calls it in another.
"""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium")
NAME = "agents.example.org"
"""A site that the browser looks for on loopback."""
PATIENCE_MS = 60_000
"""A condition's bound, on a machine that has other things to do."""


@pytest.fixture(scope="module")  # not the session: other tests run event loops of their own
def chromium():
    """Return the browser; without one, these tests are skipped, but not where CI says that they must run."""
    if CHROMIUM is None:
        why = "no `chromium` is installed (Debian: apt-get install --no-install-recommends chromium)"
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


def launch(playwright):
    arguments = ["--disable-dev-shm-usage", f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # chromium's sandbox refuses to work for root
    return playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=PATIENCE_MS)


@pytest.fixture
def page(chromium):
    """Return a page of a browser profile of its own; an error that no script caught fails the test."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_MS)
    errors = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - playwright marks its handlers
    yield opened
    context.close()
    assert errors == []
