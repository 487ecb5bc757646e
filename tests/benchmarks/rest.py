"""REST on kept connections: how long an answer takes to httpx, against bare uvicorn that gives the same answer.

Each server runs in a process of its own, and they take turns, request by request. Half of bare uvicorn's time is
httpx's: the row shows what a client notices, such as a connection that holds an answer back, not what routing costs.
"""

import asyncio
import statistics
import time

import httpx
import uvicorn

from executor.guard import AsyncGuard
from executor.service import Settings, bind, create_app
from executor.service.server import _Server
from tests.benchmarks.ratios import ROUNDS, medians, row
from tests.benchmarks.streams import ANSWER_S, started
from tests.support import Setup

ANSWERS_A_ROUND = 300
PATH = "/healthz/live"


def kept(folder):
    """Ask both in rounds of 300, each on one connection; the first round only warms up."""
    with started(serve_ours, folder / "rest.db") as (_, ours_port, _), connection(ours_port) as ours:
        wanted = ours.get(PATH)
        with started(serve_bare, told(wanted), wanted.content) as (_, bare_port, _), connection(bare_port) as bare:
            same = bare.get(PATH)
            assert (told(same), same.content) == (told(wanted), wanted.content)
            rounds = [[(took_us(ours), took_us(bare)) for _ in range(ANSWERS_A_ROUND)] for _ in range(1 + ROUNDS)]
    return [
        row(
            f"REST on a kept connection, {name}",
            medians([[of(sorted(side)) for side in zip(*each, strict=True)] for each in rounds[1:]]),
            "bare uvicorn",
            1.5,
        )
        for name, of in (("p50", statistics.median), ("p99", lambda took: took[len(took) * 99 // 100]))
    ]


def connection(port):
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_S, trust_env=False)


def told(answer):
    """Return the head, but for the date, which uvicorn writes."""
    return [(name, value) for name, value in answer.headers.raw if name != b"date"]


def took_us(client):
    begun = time.perf_counter()
    answer = client.get(PATH)
    took = (time.perf_counter() - begun) * 1e6
    assert answer.status_code == 200, answer
    return took


def serve_ours(pipe, ledger):
    bound = bind("127.0.0.1", 0)
    pipe.send(bound.getsockname()[1])
    settings = Settings(requests_per_minute_per_ip=10**6)
    _Server(create_app(AsyncGuard(Setup(ledger).guard), settings)).run(sockets=[bound])


def serve_bare(pipe, head, body):
    """Give one answer, and do nothing else, on a socket of uvicorn's own."""

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def main():
        config = uvicorn.Config(
            app, port=0, http="h11", lifespan="off", server_header=False, log_level="error", access_log=False
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.01)
        pipe.send(server.servers[0].sockets[0].getsockname()[1])
        await serving

    asyncio.run(main())


MEASURED = (kept,)
