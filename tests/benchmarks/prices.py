"""The price stream: memory a connection, a tick to 1,000 against a bare asyncio server, and how late ticks come.

Servers run in processes of their own (`python -m tests.benchmarks.prices SCENE`), and so do their clients
(`tests.benchmarks.crowd`). Conformance of the WebSocket layer: the Autobahn cases, by `kosoku`.
"""

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from executor.prices import socket as sockets
from executor.prices.hub import Hub, Subject, framed
from executor.prices.protocol import TIERS, Tick
from executor.prices.socket import WEBSOCKET, app_of, server_of
from executor.service.server import bind
from tests.benchmarks.ratios import row

MANY = 15_000
ROUNDS = 60


class Anybody:
    async def authenticate(self, credential):
        return Subject(credential, TIERS["quant"])


@asynccontextmanager
async def serving(app):
    server = server_of(app)
    with bind("127.0.0.1", 0) as bound:
        task = asyncio.create_task(server.serve(sockets=[bound]))
        await until(lambda: server.started)
        yield bound.getsockname()[1]
        server.should_exit = True
        await task


async def until(holds):
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110 - what it waits for knows nothing of it
            await asyncio.sleep(0.02)


class Crowd:
    """Clients in another process."""

    def __init__(self, process, answers):
        self._process = process
        self.answers = answers

    async def report(self):
        self._process.stdin.write(b"report\n")
        return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def crowd(port, count, *, first=0, symbols=0):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.crowd", *map(str, (port, first, count, symbols))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Crowd(process, json.loads(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


def resident_kb():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_024


def tick_now(symbol):
    return Tick(symbol, Decimal(time.time_ns()), time.time_ns() // 1_000_000, "bench", stale=False)


async def crowded():
    """15,000 connections, what each costs, and 100 ticks a second that each go to 100 of them."""
    hub, symbols = Hub(Anybody()), MANY // 100
    async with serving(app_of(hub)) as port:
        async with crowd(port, 100, first=MANY):
            pass
        before = resident_kb()
        async with crowd(port, MANY, symbols=symbols) as clients:
            await until(lambda: sum(map(len, hub._subscribers.values())) == MANY)
            kb = (resident_kb() - before) / MANY
            start, sent = time.monotonic(), 0
            while sent < 1_500:
                hub.publish(tick_now(f"S{sent % symbols}"))
                sent += 1
                await asyncio.sleep(max(0, start + sent / 100 - time.monotonic()))
            await asyncio.sleep(1)
            return {"kb": kb, "answers": clients.answers, "expected": sent * 100, **await clients.report()}


async def fanned_out():
    """Return the microseconds of a tick to 1,000, in turns with a bare asyncio server that writes the same bytes."""
    hub, bare, pairs = Hub(Anybody()), set(), []

    class Bare(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            if data.endswith(b"\r\n\r\n"):
                self.transport.write(b"HTTP/1.1 101 Switching\r\n\r\n" + framed('{"type":"hello"}'))
                bare.add(self.transport)

        def connection_lost(self, _error):
            bare.discard(self.transport)

    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0, backlog=2_048)
    bare_port = server.sockets[0].getsockname()[1]
    async with (
        serving(app_of(hub)) as port,
        crowd(port, 1_000, symbols=1) as ours,
        crowd(bare_port, 1_000, first=2_000) as theirs,
    ):
        await until(lambda: len(hub._subscribers.get("S0", ())) == len(bare) == 1_000)
        for _ in range(ROUNDS):
            tick = tick_now("S0")
            start = time.perf_counter()
            hub.publish(tick)
            took = (time.perf_counter() - start) * 1e6
            await asyncio.sleep(0.05)
            data = framed(tick.encode())
            start = time.perf_counter()
            for transport in bare:
                transport.write(data)
            pairs.append((took, (time.perf_counter() - start) * 1e6))
            await asyncio.sleep(0.05)
        received = [(await each.report())["received"] for each in (ours, theirs)]
        assert received == [ROUNDS * 1_000] * 2, received
    server.close()
    return pairs


async def conforming():
    """Run the Autobahn cases against an endpoint that says everything back, in the stream's own sockets.

    Only their bounds are other ones: the cases' messages are larger, and in more pieces, than a stream's may be.
    """
    import kosoku  # noqa: PLC0415 - of the extra `bench`
    import uvicorn  # noqa: PLC0415

    async def echo(_scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})

    sockets.FRAGMENTS_MAX = 2**20
    config = uvicorn.Config(echo, log_level="critical", lifespan="off", **{**WEBSOCKET, "ws_max_size": 2**24 + 2**20})
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as bound:
        task = asyncio.create_task(server.serve(sockets=[bound]))
        await until(lambda: server.started)
        url = f"ws://127.0.0.1:{bound.getsockname()[1]}"
        try:
            cases = await kosoku.run_fuzzingclient(url, exclude_cases=["12.*", "13.*"])  # compression, which is off
        except kosoku.FailureError as failed:
            cases = failed.results
        server.should_exit = True
        await task
    return {
        "cases": len(cases),
        "failed": [
            f"{each.case_id} {each.behavior.value}/{each.behavior_close.value}"
            for each in cases
            if each.behavior.value not in {"OK", "NON-STRICT", "INFORMATIONAL"}
            or each.behavior_close.value not in {"OK", "INFORMATIONAL"}
        ],
    }


SCENES = {"crowded": crowded, "fanned_out": fanned_out, "conforming": conforming}


def scene(name):
    """Run it in a process of its own, whose memory nothing else has touched."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.prices", name], check=True, stdout=subprocess.PIPE, timeout=600
    )
    return json.loads(found.stdout)


def stream(_folder):
    found = scene("crowded")
    pairs = scene("fanned_out")
    ours, theirs, ratio = (
        statistics.median(each[0] for each in pairs),
        statistics.median(each[1] for each in pairs),
        statistics.median(each[0] / each[1] for each in pairs),
    )
    return [
        bounded("price stream, a connection of 15,000", found["kb"], "KB", 25),
        bounded("price stream, p99 of 100 ticks/s to 100 each", found["p99_ms"], "ms", 50),
        row("price stream, a tick to 1,000", (ours, theirs, ratio), "bare asyncio, the same bytes", 1 / 0.6),
    ]


def conformance(_folder):
    found = scene("conforming")
    return [bounded(f"WebSocket, Autobahn cases failed of {found['cases']}", len(found["failed"]), "cases", 1)]


def bounded(name, value, unit, bar):
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "floor or peer": f"at most {bar} {unit}",
        "ratio": round(value / bar, 3),
        "bar": 1.0,
        "holds": value <= bar,
    }


MEASURED = (stream, conformance)

if __name__ == "__main__":
    print(json.dumps(asyncio.run(SCENES[sys.argv[1]]())))
