"""Fires on SQLite: whole authorizes against the very statements that they run, and `decide` alone against peers."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from executor.evidence import Evidence
from executor.ledger.statements import Cursor
from executor.limits import Limits
from tests.benchmarks import policies
from tests.benchmarks.ratios import ROUNDS, medians, paired, row, take_next, timed
from tests.support import Setup


def decision(folder):
    """`decide` alone, from the evidence to the verdict; its peers get the facts that they need worked out for them."""
    setup = Setup(folder / "decide.db")
    bounds = setup.activate()
    setup.guard.authorize(setup.request())
    entry = setup.guard.entries(setup.wallet)[-1].entry
    setup.guard.close()
    evidence, value = Evidence.from_json_object(entry.body["evidence"]), int(entry.body["decision"]["valueMicroUsd"])
    fire = policies.facts(evidence, bounds, value, entry.at_ms)
    rows = []
    for name, make, bar in (("casbin", policies.by_casbin, 1 / 3), ("cedarpy", policies.by_cedar, 1 / 10)):
        allows = make()
        assert allows(fire)
        assert not allows(fire | {"value": bounds.cap_micro_usd + 1})
        pair = paired(lambda: evidence.decide(bounds, entry.at_ms), lambda allows=allows: allows(fire))
        rows.append(row("decide", pair, f"{name}, the same rules", bar))
    return rows


def authorization(folder):
    """Whole authorizes against the very statements that they run, replayed by the bare driver on a copy of the file.

    The user has a full window of 10,000 attempts behind them, so that each fire looks as far back.
    """
    cap, fires, many = 10_000, 40, 100
    setup = Setup(folder / "authorize.db", limits=Limits(executions_per_24h=cap))
    setup.activate(lifetime_s=30 * 86_400)
    requests = map(setup.request, count())
    for _ in range(cap // 100):
        setup.guard.authorize_many(take_next(requests, 100))
    setup.now_ms += 25 * 3_600_000
    setup.reopen()
    shutil.copy(setup.path, folder / "replay.db")
    statements = recorded(setup.guard, take_next(requests, ROUNDS * (fires + many)))
    theirs = sqlite3.connect(folder / "replay.db", isolation_level=None)
    for pragma in ("synchronous = 2", "foreign_keys = 1", "recursive_triggers = 1"):
        theirs.execute(f"PRAGMA {pragma}")

    pairs = {"one caller": [], "64 threads": [], "many": []}
    with ThreadPoolExecutor(64) as threads:
        for _ in range(ROUNDS):
            batch, replayed = take_next(requests, fires), take_next(statements, fires)
            ours = timed(lambda batch=batch: consume(map(setup.guard.authorize, batch)), 1) / fires
            raw = timed(lambda replayed=replayed: replay(theirs, replayed, at_once=1), 1) / fires
            pairs["one caller"].append((ours, raw))
            batch = take_next(requests, 4 * fires)
            ours = timed(lambda batch=batch: consume(threads.map(setup.guard.authorize, batch)), 1) / (4 * fires)
            pairs["64 threads"].append((ours, raw))
            batch, replayed = take_next(requests, many), take_next(statements, many)
            ours = timed(lambda batch=batch: setup.guard.authorize_many(batch), 1) / many
            raw = timed(lambda replayed=replayed: replay(theirs, replayed, at_once=many), 1) / many
            pairs["many"].append((ours, raw))
    theirs.close()
    setup.guard.close()
    floor = "sqlite3, the same statements"
    return [
        row("authorize, SQLite, one caller", medians(pairs["one caller"]), floor, 1 / 0.65),
        row("authorize, SQLite, 64 threads", medians(pairs["64 threads"]), f"{floor}, one caller", 1 / 1.3),
        row(f"authorize_many({many}), SQLite", medians(pairs["many"]), f"{floor}, {many} a commit", 1 / 0.5),
    ]


def consume(items):
    for item in items:
        assert item.outcome == "allowed", item


def recorded(guard, requests):
    """Yield for each of `requests`, all authorized first, the statements that it ran and their values."""
    ran, execute = [], Cursor._execute

    def record(cursor, statement, values):
        text, names, constants, _ = statement.compiled(cursor._dialect)
        ran[-1].append((text, [(values | constants)[name] for name in names]))
        execute(cursor, statement, values)

    Cursor._execute = record
    for request in requests:
        ran.append([])
        guard.authorize(request)
    Cursor._execute = execute
    return iter(ran)


def replay(connection, statements, *, at_once):
    cursor = connection.cursor()
    for number, each in enumerate(statements):
        if number % at_once == 0:
            cursor.execute("BEGIN IMMEDIATE")
        for text, values in each:
            cursor.execute(text, values)
            if text.startswith("SELECT"):
                cursor.fetchall()
        if number % at_once == at_once - 1:
            cursor.execute("COMMIT")


MEASURED = (decision, authorization)
