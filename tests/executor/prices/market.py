"""A hub for tests, served by uvicorn on loopback, in the test's own event loop; and a client that sees bytes."""

import asyncio
import time
from contextlib import asynccontextmanager
from decimal import Decimal

from websockets.asyncio.client import connect

from executor.prices.hub import Caps, Hub, Subject
from executor.prices.protocol import TIERS, Subscribe, Tick, decode_from_server
from executor.prices.socket import app_of, server_of
from executor.service.server import bind

WITHIN_S = 20.0


class Credentials:
    """Believes `<tier>-<name>`; what is in `gone` no longer."""

    def __init__(self):
        self.gone = set()
        self.expires_at_s = None

    async def authenticate(self, credential):
        tier = TIERS.get(credential.partition("-")[0])
        return None if tier is None or credential in self.gone else Subject(credential, tier, self.expires_at_s)


class Market:
    def __init__(self, hub, credentials, port):
        self.hub = hub
        self.credentials = credentials
        self.port = port

    def connect(self, credential="quant-ann", *, query=None, host="127.0.0.1", **other):
        """Open a stream, with `credential` or with another `query`; `host` is the client's own address."""
        query = f"?api_key={credential}" if query is None else query
        return connect(
            f"ws://127.0.0.1:{self.port}/v1/stream{query}",
            compression=None,
            ping_interval=None,
            proxy=None,
            **(other if "sock" in other else {"local_addr": (host, 0), **other}),
        )

    async def subscribe(self, socket, *symbols):
        """Subscribe, and return once the hub has it: the protocol has no answer."""
        before = self.count(symbols)
        await socket.send(Subscribe(symbols).encode())
        await until(lambda: self.count(symbols) == before + len(symbols))

    def count(self, symbols):
        return sum(len(self.hub._subscribers.get(each, ())) for each in symbols)

    async def beat(self, times=1):
        """Let each connection have its heartbeat now."""
        for _ in range(times):
            for each in range(30):
                await self.hub.heartbeat(each)


@asynccontextmanager
async def market(caps=None, **how):
    credentials = Credentials()
    hub = Hub(credentials, caps or Caps())
    server = server_of(app_of(hub, **how))
    with bind("127.0.0.1", 0) as bound:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        await until(lambda: server.started)
        try:
            yield Market(hub, credentials, bound.getsockname()[1])
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, WITHIN_S)


async def until(holds):
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what it waits for knows nothing of it
            await asyncio.sleep(0.005)


def tick(symbol="SOL", price="1.5", **other):
    return Tick(symbol, Decimal(price), time.time_ns() // 1_000_000, "test", **{"stale": False, **other})


def next_tick(opened):
    """Return the next price that a blocking client is told; a ping may come before it."""
    return next(frame for _ in range(10) if isinstance(frame := decode_from_server(opened.recv(10)), Tick))
