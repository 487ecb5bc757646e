"""`make bench`: ratios, each measured in one run against its floor or peer; a table, and build/bench.json.

The two sides of a ratio take turns in short rounds, and the ratio is the median over the rounds: what else happens on
the machine slows both alike.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import biscuit_auth
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign_open

from executor.evidence import Evidence
from executor.ledger.statements import Cursor
from executor.limits import Limits
from permits import Permit, PermitError, VerifiedPermit, keys, timestamp, utc_ms, verify, verify_many
from tests.support import PERMIT, WALLET, Setup, as_json

ROUNDS = 15


def paired(ours, theirs, seconds=0.05):
    """Return (our µs, their µs, median of ours / theirs) for one call of each."""
    calls_ours, calls_theirs = calibrate(ours, seconds), calibrate(theirs, seconds)
    pairs = [(timed(ours, calls_ours), timed(theirs, calls_theirs)) for _ in range(ROUNDS)]
    return medians(pairs)


def calibrate(call, seconds):
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls


def timed(call, calls):
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def medians(pairs):
    """Return (our µs, their µs, median of ours / theirs)."""
    return (
        statistics.median(ours for ours, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(ours / theirs for ours, theirs in pairs),
    )


def row(name, pair, floor, bar):
    """One row: our time over the floor's may be at most `bar`; None: only shown."""
    ours, theirs, ratio = pair
    return {
        "name": name,
        "value": round(ours, 2),
        "unit": "µs",
        "floor or peer": f"{floor}: {theirs:.2f} µs",
        "ratio": round(ratio, 3),
        "bar": None if bar is None else round(bar, 3),
        "holds": None if bar is None else ratio <= bar,
    }


def distinct_permits(count):
    """Return transport JSON and signed message of `count` permits of one wallet, three assets each, no two alike."""
    random = Random(1)
    documents, messages = [], []
    for number in range(count):
        permit = Permit.from_json_object(
            {
                **PERMIT,
                "sessionPubkey": keys.encode(random.randbytes(31) + b"\1"),
                "issuedAt": timestamp(utc_ms(PERMIT["issuedAt"]) + number * 1000),
                "nonce": random.randbytes(16).hex(),
            }
        )
        message = permit.canonical_bytes()
        signature = WALLET.sign(message)
        signed = {"walletAddress": WALLET.wallet_address, "signature": keys.encode(signature)}
        documents.append(as_json({"permit": permit.to_json_object(), **signed}))
        messages.append(signature + message)
    return documents, messages


def as_biscuit(permit, private_key):
    """Return a biscuit that says what `permit` says: the peers' tokens carry the same bounds."""
    assets = "".join(f'asset("{asset}");' for asset in permit["assetWhitelist"])
    source = f"""
        agent({{agentId}}); session_key({{sessionPubkey}}); nonce({{nonce}}); issued({{issuedAt}}); {assets}
        max_cents({permit["maxAmountPerExecutionUsd"] * 100}); check if time($time), $time < {{expiresAt}}"""
    values = {name: permit[name] for name in ("agentId", "sessionPubkey", "nonce")}
    times = {name: datetime.fromisoformat(permit[name]) for name in ("issuedAt", "expiresAt")}
    return biscuit_auth.BiscuitBuilder(source, values | times).build(private_key).to_bytes()


def each_in_turn(call, items):
    """Return a function that calls `call` on the next of `items` each time: nothing is seen twice in a row."""
    following = itertools.cycle(items)
    return lambda: call(next(following))


def verification():
    """From transport JSON to VerifiedPermit, a wallet seen before: against the signature alone, and against peers."""
    documents, messages = distinct_permits(20_000)
    wallet = keys.decode_key(WALLET.wallet_address)
    now_ms = utc_ms(PERMIT["issuedAt"]) + len(documents) * 1000
    ours = each_in_turn(lambda document: verify(document, now_ms=now_ms), documents)
    floor = each_in_turn(lambda message: crypto_sign_open(message, wallet), messages)

    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key()
    tokens = [jwt.encode(json.loads(each)["permit"], private, algorithm="EdDSA") for each in documents]
    decode_jwt = each_in_turn(lambda token: jwt.decode(token, public, ["EdDSA"]), tokens)

    pair = biscuit_auth.KeyPair()
    biscuits = [as_biscuit(json.loads(each)["permit"], pair.private_key) for each in documents]
    policy = biscuit_auth.AuthorizerBuilder('allow if asset("SOL"), max_cents($max), $max >= 10000')
    now = datetime.fromtimestamp(now_ms / 1000, UTC)

    def authorize_biscuit(biscuit):
        request = biscuit_auth.AuthorizerBuilder()
        request.merge(policy)
        request.add_fact(biscuit_auth.Fact("time({now})", {"now": now}))
        request.build(biscuit_auth.Biscuit.from_bytes(biscuit, pair.public_key)).authorize()

    authorize = each_in_turn(authorize_biscuit, biscuits)

    return [
        row("verify", paired(ours, floor), "libsodium alone", 1.5),
        row("verify", paired(ours, decode_jwt), "PyJWT, EdDSA", 1.0),
        row("verify", paired(ours, authorize), "biscuit, verify and authorize", 1.0),
    ]


def verification_of_many():
    """Two processes against one, and the memory for a million permits against that for ten thousand."""
    count = 60_000
    documents, _ = distinct_permits(5_000)

    def seconds(processes):
        start = time.perf_counter()
        results = verify_many(take(documents, count), processes=processes)
        assert sum(isinstance(each, VerifiedPermit) for each in results) == count
        return (time.perf_counter() - start) * 1e6 / count

    pairs = [(seconds(2), seconds(1)) for _ in range(3)]
    ratio = statistics.median(two / one for two, one in pairs)
    medians = (statistics.median(side) for side in zip(*pairs, strict=True))
    speed = row("verify_many, 2 processes", (*medians, ratio), "1 process", 1 / 1.6)
    small, large = (peak_memory_kb(number) for number in (10_000, 1_000_000))
    memory = row("verify_many, 1,000,000 permits", (large, small, large / small), "10,000 permits", 1.1)
    return [speed, {**memory, "unit": "KB", "floor or peer": f"10,000 permits: {small} KB"}]


def take(documents, count):
    return itertools.islice(itertools.cycle(documents), count)


def peak_memory_kb(count):
    """Return the most memory that a fresh process took to have `count` permits verified (ru_maxrss is inherited)."""
    script = f"""
import re
from pathlib import Path
from tests.benchmarks.__main__ import distinct_permits, take, verify_many
if __name__ == "__main__":
    documents, _ = distinct_permits(500)
    assert sum(1 for _ in verify_many(take(documents, {count}))) == {count}
    print(re.search("VmHWM:\\s*([0-9]+) kB", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(done.stdout)


def parsing():
    """Time for a byte at the size limit against time for a byte at an eighth of it, for the worst of many shapes."""
    shapes = {
        "white space": lambda size: b" " * (size - 2) + b"{}",
        "one string": lambda size: b'"' + b"a" * (size - 2) + b'"',
        "escapes": lambda size: b'"' + b"\\u0061" * ((size - 2) // 6) + b'"',
        "surrogate pairs": lambda size: b'"' + b"\\ud83d\\ude00" * ((size - 2) // 12) + b'"',
        "digits": lambda size: b"1" * size,
        "digits after a point": lambda size: b"0." + b"1" * (size - 2),
        "brackets": lambda size: b"[" * size,
        "keys": lambda size: b"{" + b",".join(b'"%d":1' % number for number in range(size // 10)) + b"}",
        "one key again and again": lambda size: b"{" + b",".join([b'"a":1'] * (size // 6)) + b"}",
        "numbers": lambda size: b"[" + b",".join([b"1.5"] * (size // 4)) + b"]",
        "strings": lambda size: b"[" + b",".join([b'"a"'] * (size // 4)) + b"]",
        "quotes": lambda size: b'"[[[[[[[[[' * (size // 10),
        "no UTF-8": lambda size: b"a" * (size - 1) + b"\xff",
        "an asset list": lambda size: as_json({**PERMIT, "assetWhitelist": ["z" * 44] * (size // 48)}),
        "a long key": lambda size: as_json({**PERMIT, "sessionPubkey": "z" * (size - 400)}),
    }

    def attempt(data):
        with contextlib.suppress(PermitError):
            Permit.from_json(data)

    ratios = {}
    for name, shape in shapes.items():
        small, large = shape(2_048), shape(16_384)
        pair = paired(lambda large=large: attempt(large), lambda small=small: attempt(small), seconds=0.01)
        ratios[name] = (pair[0] / len(large), pair[1] / len(small), pair[2] * len(small) / len(large))
    worst = max(ratios, key=lambda name: ratios[name][2])
    return [{**row(f"read a byte of 16 KiB ({worst})", ratios[worst], "a byte of 2 KiB", 1.25)}]


def decision(setup):
    activated = setup.guard.entries(setup.wallet)[1]
    authorized = setup.guard.authorize(setup.request(10**6))
    entry = setup.guard.entries(setup.wallet)[-1].entry
    assert authorized.authorization.entry_hash
    evidence, bounds = Evidence.from_json_object(entry.body["evidence"]), activated.bounds
    pair = paired(lambda: evidence.decide(bounds, entry.at_ms), lambda: json.dumps(entry.body))
    return [row("decide", pair, "json.dumps of its evidence", None)]


def authorization(folder):
    """Whole authorizes against the very statements that they run, replayed by the bare driver on a copy of the file.

    The user has a full window of 10,000 attempts behind them, so that each fire looks as far back.
    """
    cap, fires = 10_000, 40
    setup = Setup(folder / "authorize.db", limits=Limits(executions_per_24h=cap))
    setup.activate(lifetime_s=30 * 86_400)
    requests = map(setup.request, itertools.count())
    for _ in range(cap // 100):
        setup.guard.authorize_many(take_next(requests, 100))
    setup.now_ms += 25 * 3_600_000
    setup.reopen()
    shutil.copy(setup.path, folder / "replay.db")
    statements = recorded(setup.guard, take_next(requests, 2 * ROUNDS * fires))
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
            batch, replayed = take_next(requests, fires), take_next(statements, fires)
            ours = timed(lambda batch=batch: setup.guard.authorize_many(batch), 1) / fires
            raw = timed(lambda replayed=replayed: replay(theirs, replayed, at_once=fires), 1) / fires
            pairs["many"].append((ours, raw))
    theirs.close()
    setup.guard.close()
    floor = "sqlite3, the same statements"
    return [
        row("authorize, SQLite, one caller", medians(pairs["one caller"]), floor, 1 / 0.65),
        row("authorize, SQLite, 64 threads", medians(pairs["64 threads"]), f"{floor}, one caller", 1 / 1.3),
        row(f"authorize_many({fires}), SQLite", medians(pairs["many"]), f"{floor}, {fires} a commit", 1 / 0.5),
    ]


def take_next(items, count):
    return list(itertools.islice(items, count))


def consume(items):
    for item in items:
        assert item.outcome == "allowed", item


def recorded(guard, requests):
    """Yield for each of `requests`, all authorized first, the statements that it ran and their values."""
    ran, execute = [], Cursor._execute

    def record(cursor, statement, values):
        text, names, constants = statement.compiled(cursor._dialect)
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


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup = Setup(folder / "ledger.db", limits=Limits(executions_per_24h=10**6))
        setup.activate()
        rows = [*verification(), *verification_of_many(), *parsing(), *decision(setup), *authorization(folder)]
        setup.guard.close()
    for each in rows:
        verdict = {None: "", True: f"bar {each['bar']} holds", False: f"bar {each['bar']} BROKEN"}[each["holds"]]
        value = f"{each['value']:>10} {each['unit']}  × {each['ratio']:<8}"
        print(f"{each['name']:<44}{value}{each['floor or peer']}  {verdict}")
    target = Path("build/bench.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
