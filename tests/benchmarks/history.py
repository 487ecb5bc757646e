"""A fire with millions of attempts in the ledger, against one with a thousand."""

import shutil
import sqlite3
from functools import partial
from itertools import count

from executor.ledger.sqlite import TRIGGERS
from executor.limits import Limits
from tests.benchmarks.ratios import ROUNDS, medians, row, take_next, timed
from tests.support import Setup

ATTEMPTS = 10_000_000
OF_EACH_OTHER = 10_000
"""Of each of the other users, on both sides of the measured one in the order of names."""


def growth(folder):
    """Authorize for a user with a thousand attempts, alone in the ledger, and among others' ten million.

    The others' entries are rows like any other but for their content, which is short: nobody reads it, and ten million
    whole ones take 24 GB.
    """
    fires, cap = 40, 500
    small = Setup(folder / "small.db", limits=Limits(executions_per_24h=cap))
    small.activate(lifetime_s=30 * 86_400)
    requests = map(small.request, count())
    for _ in range(1_000 // cap):
        small.guard.authorize_many(take_next(requests, cap))
        small.now_ms += 25 * 3_600_000
    small.guard.close()
    shutil.copy(small.path, folder / "large.db")
    fill(folder / "large.db", ATTEMPTS)
    guards = []
    for name in ("large.db", "small.db"):
        small.path = folder / name
        guards.append(small.open())
    pairs = []
    for _ in range(min(ROUNDS, cap // fires)):
        batch = take_next(requests, fires)
        pairs.append([timed(partial(authorize, guard, batch), 1) / fires for guard in guards])
    for guard in guards:
        guard.close()
    (folder / "large.db").unlink()
    return [row(f"authorize, {ATTEMPTS:,} attempts in the ledger", medians(pairs), "1,000 attempts", 1.3)]


def authorize(guard, batch):
    for request in batch:
        assert guard.authorize(request).outcome == "allowed"


def fill(path, attempts):
    """Add the attempts of other users, in the order of the table."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA synchronous = 0")
    for name, _, _ in TRIGGERS:
        database.execute(f"DROP TRIGGER {name}")
    database.execute("BEGIN")
    for other in range(attempts // OF_EACH_OTHER):
        database.execute(FILL, {"wallet": f"{other % 58:02}-other-{other}", "count": OF_EACH_OTHER})
    database.execute("COMMIT")
    database.close()


FILL = """
    WITH RECURSIVE numbers (number) AS (VALUES (1) UNION ALL SELECT number + 1 FROM numbers WHERE number < :count)
    INSERT INTO entries
    (wallet, seq, at_ms, kind, agent_id, execution_id, step, attempt, content, hash, key_id, mac)
    SELECT :wallet, number, number, 'authorized', 'an agent', printf('%s-%08d', :wallet, number), 0, number,
        x'00', x'00', '1', x'00'
    FROM numbers
"""

MEASURED = (growth,)
