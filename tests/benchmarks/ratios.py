"""Ratios, each measured in one run against its floor or peer.

The two sides of a ratio take turns in short rounds, and the ratio is the median over the rounds: what else happens on
the machine slows both alike.
"""

import itertools
import statistics
import time

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


def each_in_turn(call, items):
    """Return a function that calls `call` on the next of `items` each time: nothing is seen twice in a row."""
    following = itertools.cycle(items)
    return lambda: call(next(following))


def take_next(items, count):
    return list(itertools.islice(items, count))
