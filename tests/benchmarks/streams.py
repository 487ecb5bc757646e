"""Streams: fan-out against a bare asyncio server and sse-starlette, memory, and the way from a commit to a client.

Every server runs in a process of its own; this one is all clients, with nothing but sockets. Both read one clock.
"""

import asyncio
import itertools
import multiprocessing
import os
import queue
import select
import socket
import statistics
import threading
import time
from contextlib import contextmanager, suppress

import base58
import uvicorn
from sse_starlette.sse import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.routing import Route

from executor.guard import AsyncGuard
from executor.service import Settings, bind, create_app
from executor.service.server import _Server
from executor.service.tailer import POLL_S
from tests.benchmarks.ratios import ROUNDS, medians, row
from tests.postgres import database, server
from tests.support import Setup, key, uuid

FANNED_OUT = 1_000
OPEN = 15_000
FROM_AN_ADDRESS = 50
EVENTS, EVENTS_A_SECOND, WALLETS = 1_000, 100, 50
ANSWER_S = 60


def fan_out(folder):
    """Tell one event to 1,000 streams: from the commit, or from the first write of those who don't commit, on."""
    path = f"/?walletAddress={key(1).wallet_address}"
    ours_path = f"/api/agents/stream{path[1:]}"
    with (
        started(serve_ours, folder / "fan-out.db") as (ours, ours_port, _),
        started(serve_bare) as (bare, bare_port, _),
        started(serve_sse_starlette) as (peer, peer_port, _),
        connected(ours_port, [ours_path] * FANNED_OUT) as of_ours,
        connected(bare_port, [path] * FANNED_OUT) as of_bare,
        connected(peer_port, [path] * FANNED_OUT) as of_peer,
    ):
        tell(ours, of_ours, None)
        frame = tell(ours, of_ours, None)[1]
        content = frame.partition(b"\r\n")[2].removesuffix(b"\r\n")
        times = [
            (
                tell(ours, of_ours, None)[0],
                tell(bare, of_bare, frame)[0],
                tell(peer, of_peer, content)[0],
            )
            for _ in range(ROUNDS)
        ]
    against_bare = medians([(mine, floor) for mine, floor, _ in times])
    against_peer = medians([(mine, its) for mine, _, its in times])
    name = f"one event to {FANNED_OUT:,} streams"
    return [
        row(name, against_bare, "bare asyncio, the same bytes", 1 / 0.7),
        row(name, against_peer, "sse-starlette", 1.0),
    ]


def tell(pipe, clients, what):
    """Have a server tell `what`; return how many µs passed until the last client had it, and what the last one got."""
    pipe.send(what)
    last = receive_one_each(clients)
    at = time.perf_counter()
    return (at - pipe.recv()) * 1e6, last


def receive_one_each(clients):
    poll, awaited = clients.poll, len(clients.sockets)
    received = b""
    while awaited:
        ready = poll.poll(ANSWER_S)
        assert ready, f"{awaited} clients got nothing"
        for descriptor, _ in ready:
            received = clients.sockets[descriptor].recv(65_536)
            assert received.endswith(b"\n\n\r\n"), received
            awaited -= 1
    return received


def memory(folder):
    """Hold 15,000 streams open, each of another wallet."""
    wallets = [base58.b58encode(os.urandom(32)).decode() for _ in range(OPEN)]
    paths = [f"/api/agents/stream?walletAddress={wallet}" for wallet in wallets]
    with started(serve_ours, folder / "memory.db") as (_, port, pid):
        with connected(port, paths[:100]):
            pass  # what the first ones cost is no stream's
        before = resident_bytes(pid)
        with connected(port, paths):
            each = (resident_bytes(pid) - before) / OPEN
    limit = 15 * 1024
    made = row(f"memory of one of {OPEN:,} open streams", (each, limit, each / limit), "the limit", 1.0)
    return [{**made, "unit": "bytes", "floor or peer": f"the limit: {limit:,} bytes"}]


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:  # noqa: PTH123 - a file of the kernel's
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def latency(folder):
    """Commit 100 events a second for 50 wallets with a stream each; see how long each takes to its client."""
    rows = []
    with started(serve_ours, folder / "latency.db", WALLETS) as (pipe, port, _):
        rows += latency_rows("SQLite, one process", pipe, port)
    with (
        server() as dsn,
        database(dsn) as url,
        started(serve_ours, url, WALLETS) as (committer, _, _),
        started(serve_ours, url, 0) as (_, port, _),
    ):
        rows += latency_rows("PostgreSQL, another process", committer, port)
    return rows


def latency_rows(how, committer, port):
    """Return the rows for the median and the 99th of 100; what hints are good for shows against the poll alone."""
    paths = [f"/api/agents/stream?walletAddress={key(number + 1).wallet_address}" for number in range(WALLETS)]
    arrived = {}
    with connected(port, paths) as clients:
        committer.send("steadily")
        while len(arrived) < EVENTS:
            ready = clients.poll.poll(ANSWER_S)
            assert ready
            at = time.perf_counter()
            for descriptor, _ in ready:
                for part in clients.sockets[descriptor].recv(65_536).split(b'"condition":"')[1:]:
                    arrived[int(part.partition(b'"')[0])] = at
    committed = committer.recv()
    took_us = sorted((arrived[number] - at) * 1e6 for number, at in enumerate(committed))
    poll_us = POLL_S * 1e6
    return [
        row(f"commit to client, {how}, {name}", (each, poll_us, each / poll_us), "a poll's pause", 1.0)
        for name, each in (("median", statistics.median(took_us)), ("p99", took_us[len(took_us) * 99 // 100]))
    ]


class Clients:
    """Connections that have read their answer's head and first frame."""

    def __init__(self):
        self.sockets = {}
        self.poll = select.epoll()


@contextmanager
def connected(port, paths):
    """Open a stream for each path, at most 50 from one address, and as many at a time."""
    clients = Clients()
    try:
        left = list(enumerate(paths))
        while left:
            some, left = left[:FROM_AN_ADDRESS], left[FROM_AN_ADDRESS:]
            opened = [opened_stream(port, number, path) for number, path in some]
            for each in opened:
                received = b""
                while b"\r\n\r\n" not in received or not received.endswith(b"\n\n\r\n"):
                    more = each.recv(65_536)
                    assert more, received
                    received += more
                assert received.startswith(b"HTTP/1.1 200"), received
                each.setblocking(False)
                clients.sockets[each.fileno()] = each
                clients.poll.register(each, select.EPOLLIN)
        yield clients
    finally:
        clients.poll.close()
        for each in clients.sockets.values():
            each.close()


def opened_stream(port, number, path):
    group = number // FROM_AN_ADDRESS
    source = (f"127.0.{1 + group // 250}.{1 + group % 250}", 0)
    each = socket.create_connection(("127.0.0.1", port), ANSWER_S, source)
    each.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    return each


@contextmanager
def started(serve, *arguments):
    """Run `serve(pipe, …)` in a process; yield our end of the pipe, its port, and its id."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, ours.recv(), process.pid
    finally:
        process.terminate()
        process.join(ANSWER_S)


def serve_ours(pipe, ledger, agents=1):
    setup = Setup(ledger)
    for number in range(agents):
        setup.signer = key(number + 1)
        setup.wallet = setup.signer.wallet_address
        setup.activate()
    bound = bind("127.0.0.1", 0)

    def commit():
        for count in itertools.count():
            if pipe.recv() == "steadily":
                pipe.send(steadily(setup))
            else:
                setup.guard.arm_trigger(setup.wallet, uuid(1), str(count))
                pipe.send(time.perf_counter())

    threading.Thread(target=commit, daemon=True).start()
    pipe.send(bound.getsockname()[1])
    _Server(create_app(AsyncGuard(setup.guard), Settings(wallet_address_streams=True))).run(sockets=[bound])


def steadily(setup):
    """Commit the events in a steady rhythm, wallet by wallet; return when each was committed."""
    begun, committed = time.perf_counter(), []
    for number in range(EVENTS):
        time.sleep(max(0, begun + number / EVENTS_A_SECOND - time.perf_counter()))
        setup.guard.arm_trigger(key(number % WALLETS + 1).wallet_address, uuid(1), str(number))
        committed.append(time.perf_counter())
    return committed


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\n:\n\n\r\n"


def serve_bare(pipe):
    """Write to each of many connections, and do nothing else."""
    writers = []

    async def accept(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        writers.append(writer)

    def write_all(frame, begun):
        begun.put(time.perf_counter())
        for writer in writers:
            writer.write(frame)

    async def main():
        listening = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=2_048)
        serve_told(pipe, asyncio.get_running_loop(), write_all)
        pipe.send(listening.sockets[0].getsockname()[1])
        await listening.serve_forever()

    asyncio.run(main())


def serve_sse_starlette(pipe):
    """Give each stream a queue, as its documentation shows."""
    queues = []

    def put_all(content, begun):
        begun.put(time.perf_counter())
        fields = dict(line.split(": ", 1) for line in content.decode().splitlines() if line)
        for each in queues:
            each.put_nowait(fields)

    async def events(mine):
        yield ServerSentEvent(comment="open", sep="\n")
        while True:
            fields = await mine.get()
            yield ServerSentEvent(data=fields["data"], event=fields["event"], id=fields["id"], sep="\n")

    async def stream(_request):
        mine = asyncio.Queue()
        queues.append(mine)
        return EventSourceResponse(events(mine), ping=3_600)

    async def main():
        bound = bind("127.0.0.1", 0)
        serve_told(pipe, asyncio.get_running_loop(), put_all)
        pipe.send(bound.getsockname()[1])
        config = uvicorn.Config(Starlette(routes=[Route("/", stream)]), log_level="error")
        await uvicorn.Server(config).serve(sockets=[bound])

    asyncio.run(main())


def serve_told(pipe, loop, tell_all):
    """Have the loop call `tell_all` with whatever comes by the pipe, and answer when it began."""

    def listen():
        with suppress(EOFError):
            while True:
                begun = queue.SimpleQueue()
                loop.call_soon_threadsafe(tell_all, pipe.recv(), begun)
                pipe.send(begun.get())

    threading.Thread(target=listen, daemon=True).start()


MEASURED = (fan_out, memory, latency)
