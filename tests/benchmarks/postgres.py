"""Whole authorizes on PostgreSQL, against the very statements that they run by bare psycopg, one round trip each.

The statements are recorded on one copy of the database and replayed on another, each user's in their order.
"""

import itertools
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import psycopg
from sqlalchemy import make_url

from executor.assets import KnownAssets
from executor.guard import Guard
from executor.ledger.statements import Cursor
from executor.limits import Limits
from executor.prices.quote import FixedPrices, Quote
from executor.request import FireRequest
from executor.seal import SealKeys
from tests.benchmarks.ratios import ROUNDS, medians, row
from tests.postgres import database, server
from tests.support import HOUR_MS, JTO, USDC, Setup, key, uuid

SEAL_KEYS = {"1": b"s" * 32}


def rounds(users, processes, threads, fires, count):
    """Return `count` times our µs for a fire and bare psycopg's, of `fires` of each user by `threads` in each process.

    Every user has used up their cap two days ago, so that each fire looks as far back.
    """
    shares = [range(first, users, processes * threads) for first in range(processes * threads)]
    with server() as dsn, database(dsn) as ours:
        grow(ours, users, cap=fires * count)
        with copied(dsn, ours) as scratch, copied(dsn, ours) as theirs:
            guard = opened(scratch)
            recorded = [[record(guard, share, fires) for _ in range(count)] for share in shares]
            guard.close()
            with (
                started(firing, ours, shares, processes, fires) as fire,
                started(replaying, theirs, recorded, processes) as replay,
            ):
                pairs = [(fire(), replay()) for _ in range(count)]
    return [(mine * 1e6 / (users * fires), its * 1e6 / (users * fires)) for mine, its in pairs]


def grow(url, users, cap):
    setup = Setup(url, limits=Limits(executions_per_24h=cap), seal_key=SEAL_KEYS["1"])
    setup.now_ms = int(time.time() * 1000) - 48 * HOUR_MS
    for number in range(users):
        setup.signer = key(number + 1)
        setup.wallet = setup.signer.wallet_address
        setup.activate(lifetime_s=30 * 86_400)
        setup.guard.authorize_many([setup.request(fire) for fire in range(cap)])
    setup.guard.close()


@contextmanager
def copied(dsn, url):
    """Yield the URL of a copy of a database that nobody is connected to."""
    name = make_url(url).database
    with database(dsn) as copy, psycopg.connect(dsn, autocommit=True) as connection:
        its = make_url(copy).database
        connection.execute(f"DROP DATABASE {its}")
        connection.execute(f"CREATE DATABASE {its} TEMPLATE {name}")
        yield copy


def opened(url):
    """Open a guard by the database's own clock."""
    now_ms = int(time.time() * 1000)
    quotes = [
        Quote.of(asset.mint, price, at_ms=now_ms, max_age_ms=HOUR_MS, source="fixed")
        for asset, price in ((USDC, "1"), (JTO, "2.5"))
    ]
    keys = SealKeys(SEAL_KEYS, "1")
    return Guard.open(url, seal_keys=keys, prices=FixedPrices(quotes), assets=KnownAssets([USDC, JTO]))


numbers = itertools.count(10**6)


def requests(share, fires):
    for _ in range(fires):
        for number in share:
            yield FireRequest(
                wallet=key(number + 1).wallet_address,
                agent_id=uuid(1),
                execution_id=str(UUID(int=next(numbers), version=4)),
                rail="local",
                sell="USDC",
                sell_amount=10**8,
                buy="JTO",
                min_received=396 * 10**8,
            )


def record(guard, share, fires):
    """Authorize, and return what each fire runs without reading ahead: a list of statements with their values."""
    ran, execute = [], Cursor._execute

    def recording(cursor, statement, values):
        text, names, constants, _ = statement.compiled(cursor._dialect)
        ran[-1].append((text, [(values | constants)[name] for name in names]))
        execute(cursor, statement, values)

    Cursor._execute = recording
    guard.ledger._store.read_ahead = lambda cursor, _wallet, _ahead: guard.ledger._store.share_halts(cursor)
    for request in requests(share, fires):
        ran.append([])
        assert guard.authorize(request).outcome == "allowed"
    Cursor._execute = execute
    return ran


def firing(url, shares, fires):
    """Yield, again and again, a function that fires for each share of the users in a thread of its own."""
    guard = opened(url)

    def fire_all(batch):
        for request in batch:
            assert guard.authorize(request).outcome == "allowed"

    with ThreadPoolExecutor(len(shares)) as threads:
        while True:
            batches = [list(requests(share, fires)) for share in shares]
            yield lambda batches=batches: list(threads.map(fire_all, batches))


def replaying(url, recorded):
    """Yield, again and again, a function that replays the next of each list, by a connection of its own."""
    dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    connections = [psycopg.connect(dsn) for _ in recorded]

    def replay_all(connection, fires):
        cursor = connection.cursor()
        for statements in fires:
            for text, values in statements:
                cursor.execute(text, values)
                if cursor.description:
                    cursor.fetchall()
            connection.commit()

    with ThreadPoolExecutor(len(recorded)) as threads:
        for batches in zip(*recorded, strict=True):
            yield lambda batches=batches: list(threads.map(replay_all, connections, batches))


@contextmanager
def started(runs, url, jobs, processes, *more):
    """Yield a function that makes all processes do their next run, and returns how many seconds the slowest took."""
    spawn = multiprocessing.get_context("spawn")
    pipes, started = [], []
    for number in range(processes):
        ours, theirs = spawn.Pipe()
        each = spawn.Process(target=serve, args=(theirs, runs, url, jobs[number::processes], *more), daemon=True)
        each.start()
        pipes.append(ours)
        started.append(each)

    def run():
        for pipe in pipes:
            assert pipe.recv() == "ready"
        for pipe in pipes:
            pipe.send("go")
        return max(pipe.recv() for pipe in pipes)

    yield run
    for pipe, each in zip(pipes, started, strict=True):
        pipe.send("end")
        each.join()


def serve(pipe, runs, *arguments):
    for run in runs(*arguments):
        pipe.send("ready")
        if pipe.recv() == "end":
            return
        start = time.perf_counter()
        run()
        pipe.send(time.perf_counter() - start)


def authorization(_folder):
    """One user by one connection, and 200 by eight in two processes."""
    rows = []
    floor = "psycopg, the same statements"
    for name, bar, shape in (
        ("one connection", 1 / 1.3, {"users": 1, "processes": 1, "threads": 1, "fires": 40, "count": ROUNDS}),
        ("2 processes of 4", 1.0, {"users": 200, "processes": 2, "threads": 4, "fires": 3, "count": 5}),
    ):
        rows.append(row(f"authorize, PostgreSQL, {name}", medians(rounds(**shape)), floor, bar))
    return rows


MEASURED = (authorization,)
