"""`make bench`: ratios, each measured in one run against its floor or peer; a table, and build/bench.json.

The two sides of a ratio take turns in short rounds, and the ratio is the median over the rounds: what else happens on
the machine slows both alike.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from nacl.bindings import crypto_sign_open

from executor.evidence import Evidence
from executor.guard import _bounds
from executor.limits import Limits
from permits import keys, verify
from tests.support import Setup, as_json

ROUNDS = 15


def paired(ours, theirs, seconds=0.05):
    """Return (our µs, their µs, median of ours / theirs) for one call of each."""
    calls_ours, calls_theirs = calibrate(ours, seconds), calibrate(theirs, seconds)
    pairs = [(timed(ours, calls_ours), timed(theirs, calls_theirs)) for _ in range(ROUNDS)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


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


def row(name, pair, floor, bar):
    """One row: our time over the floor's may be at most `bar`; None: only shown."""
    ours, theirs, ratio = pair
    return {
        "name": name,
        "value": round(ours, 2),
        "unit": "µs",
        "floor or peer": f"{floor}: {theirs:.2f} µs",
        "ratio": round(ratio, 3),
        "bar": bar,
        "holds": None if bar is None else ratio <= bar,
    }


def verification(setup):
    """From transport JSON to VerifiedPermit, three assets, a wallet seen before."""
    signed = setup.permit(assets=("SOL", "USDC", "JTO"))
    data = as_json(signed.to_json_object())
    message = keys.decode_signature(signed.signature) + verify(signed).canonical
    wallet = keys.decode_key(signed.wallet_address)
    pair = paired(lambda: verify(data), lambda: crypto_sign_open(message, wallet))
    return row("verify a signed permit", pair, "libsodium alone", None)


def decision(setup):
    activated = setup.guard.entries(setup.wallet)[1]
    authorized = setup.guard.authorize(setup.request(10**6))
    entry = setup.guard.entries(setup.wallet)[-1].entry
    assert authorized.authorization.entry_hash
    evidence, bounds = Evidence.from_json_object(entry.body["evidence"]), _bounds(activated)
    pair = paired(lambda: evidence.decide(bounds, entry.at_ms), lambda: json.dumps(entry.body))
    return row("decide", pair, "json.dumps of its evidence", None)


def authorization(setup, folder):
    """Time a whole authorize against its statements alone: lock, three reads, insert, update, commit with fsync."""
    floor = sqlite3.connect(folder / "floor.db", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = wal",
        "PRAGMA synchronous = 2",
        "CREATE TABLE heads (wallet TEXT PRIMARY KEY, seq INTEGER, content BLOB, mac BLOB)",
        "CREATE TABLE entries (wallet TEXT, seq INTEGER, execution_id TEXT, content BLOB, PRIMARY KEY (wallet, seq))",
        "CREATE UNIQUE INDEX once ON entries (wallet, execution_id)",
        "INSERT INTO heads VALUES ('w', 0, x'00', x'00')",
    ):
        floor.execute(statement)
    content, head, count = bytes(2_000), bytes(500), iter(range(10**9))

    def raw():
        number = next(count)
        floor.execute("BEGIN IMMEDIATE")
        floor.execute("SELECT content, mac FROM heads WHERE wallet = 'w'").fetchone()
        floor.execute("SELECT content FROM entries WHERE wallet = 'w' AND execution_id = ?", (str(number),)).fetchone()
        floor.execute("SELECT content FROM entries WHERE wallet = 'w' AND seq = 1").fetchone()
        floor.execute("INSERT INTO entries VALUES ('w', ?, ?, ?)", (number, str(number), content))
        floor.execute("UPDATE heads SET seq = ?, content = ? WHERE wallet = 'w'", (number, head))
        floor.execute("COMMIT")

    numbers = iter(range(10**9))
    pair = paired(lambda: setup.guard.authorize(setup.request(next(numbers))), raw)
    floor.close()
    return row("authorize, SQLite", pair, "raw sqlite3, the same statements", None)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup = Setup(folder / "ledger.db", limits=Limits(executions_per_24h=10**6))
        setup.activate()
        rows = [verification(setup), decision(setup), authorization(setup, folder)]
        setup.guard.close()
    for each in rows:
        verdict = {None: "", True: f"bar {each['bar']} holds", False: f"bar {each['bar']} BROKEN"}[each["holds"]]
        value = f"{each['value']:>10} {each['unit']}  × {each['ratio']:<8}"
        print(f"{each['name']:<28}{value}{each['floor or peer']}  {verdict}")
    target = Path("build/bench.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
