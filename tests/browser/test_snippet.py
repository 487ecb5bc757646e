"""The client that the source documents show, unchanged, in a real browser, sees real fires."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from executor.demo.world import World
from executor.service import Settings, create_app
from tests.executor.service.served import on_a_port

SNIPPET = """\
const es = new EventSource(
`/api/agents/stream?walletAddress=${wallet}`
);
es.addEventListener('executed', (e) => {
const d = JSON.parse(e.data);
console.log('Filled', d.rail, d.filledAmount, '@', d.filledPriceUsd);
});
es.addEventListener('errored', (e) => {
console.warn(JSON.parse(e.data));
});
"""
"""TrueFinance's realtime API, "Agent Execution Stream (SSE)", letter for letter."""

PAGE = "<!doctype html><link rel=icon href=data:,><script>const wallet = '{wallet}';\n{snippet}</script>"


@pytest.fixture
def world(tmp_path):
    """Lend the demo's chain, user and executor; its loop runs in another thread, since playwright's runs in this."""
    with ThreadPoolExecutor(1) as threads:
        made = World(tmp_path, seed=7)
        made.in_thread = lambda work: threads.submit(lambda: asyncio.run(work)).result(60)
        try:
            made.guard.activate(made.sign_permit())
            made.in_thread(made.treasury.top_up(made.wallet, made.agent_id))
            yield made
        finally:
            made.in_thread(made.awaited.close())


@contextlib.contextmanager
def served(world, port=0):
    """Serve a page with the snippet, and the service, from one origin."""
    page = HTMLResponse(PAGE.format(wallet=world.wallet, snippet=SNIPPET))

    async def show(_request):
        return page

    service = create_app(world.awaited, Settings(wallet_address_streams=True))
    app = Starlette(routes=[Route("/page", show), Mount("/", service)], lifespan=service.router.lifespan_context)
    app.state.close_streams, app.state.settings = service.state.close_streams, service.state.settings
    with on_a_port(app, port) as served_at:
        yield served_at


def fire(world, usd, **fields):
    """Fire for real; return the executionId."""
    request = world.request(Decimal(usd), **fields)
    world.in_thread(world.executor.fire(request))
    return request.execution_id


def open_page(page, port):
    """Open the page; return the list that its console is written to, once the stream is open."""
    said = []
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.goto(f"http://127.0.0.1:{port}/page")
    page.wait_for_function("es.readyState === EventSource.OPEN")
    return said


def wait_for(page, said, count):
    """Wait until the console has `count` lines of the snippet's; playwright hears them while it waits."""
    for _ in range(600):
        lines = [line for line in said if line[0] in {"log", "warning"}]
        if len(lines) >= count:
            break
        page.wait_for_timeout(100)
    return lines


def test_the_snippet_sees_what_was_filled_and_what_was_refused(page, world):
    with served(world) as port:
        said = open_page(page, port)
        fire(world, 100)
        fire(world, 1, buy="BONK")
        filled, refused = wait_for(page, said, 2)
    assert filled[0] == "log"
    assert filled[1].startswith("Filled local ")
    assert " @ " in filled[1]
    assert refused[0] == "warning"
    assert "ASSET_NOT_WHITELISTED" in refused[1]


def test_after_a_restart_the_browser_comes_back_by_itself_and_misses_and_repeats_nothing(page, world):
    with served(world) as port:
        said = open_page(page, port)
        page.evaluate(
            "window.ids = []; for (const name of ['executed', 'errored'])"
            " es.addEventListener(name, (e) => ids.push(JSON.parse(e.data).executionId))"
        )
        fires = [fire(world, 10)]
        wait_for(page, said, 1)
    fires += [fire(world, 20), fire(world, 1, buy="BONK")]  # while nobody serves
    with served(world, port):
        wait_for(page, said, 3)
        fires.append(fire(world, 30))
        wait_for(page, said, 4)
        told = page.evaluate("ids")
    assert told == fires
