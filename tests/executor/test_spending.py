"""What may be used once is used once, on each database, by whoever asks at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from executor.audit import check_ledger
from executor.ledger import store
from tests.support import Setup

HASH = "a" * 64


def spent(setup):
    with setup.guard.ledger.engine.connect() as connection:
        return [row[0] for row in connection.execute(text("SELECT token_hash FROM spent ORDER BY token_hash"))]


def test_it_is_spent_once_and_each_wallets_own(setup):
    ledger, later = setup.guard.ledger, setup.now_ms + 60_000
    assert ledger.spend(setup.wallet, HASH, expires_at_ms=later)
    assert not ledger.spend(setup.wallet, HASH, expires_at_ms=later)
    assert ledger.spend("another", HASH, expires_at_ms=later)
    setup.reopen()
    assert not setup.guard.ledger.spend(setup.wallet, HASH, expires_at_ms=later)


def test_of_many_that_spend_it_at_once_beside_fires_one_does(setup):
    setup.activate()
    together = threading.Barrier(16)

    def spend(number):
        together.wait(60)
        if number >= 12:
            return setup.guard.authorize(setup.request(number)).outcome == "allowed"
        return setup.guard.ledger.spend(setup.wallet, HASH, expires_at_ms=setup.now_ms)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(spend, range(16)))
    assert sum(answers[:12]) == 1
    assert all(answers[12:])


def test_of_two_replicas_one_spends_it(postgres_setup):
    other = Setup(postgres_setup.path)
    with ThreadPoolExecutor(2) as threads:
        for number in range(50):
            both = [
                threads.submit(each.guard.ledger.spend, "w", f"{number}", expires_at_ms=each.now_ms)
                for each in (postgres_setup, other)
            ]
            assert sorted(each.result(60) for each in both) == [False, True]
    other.guard.close()


def test_what_is_long_over_is_forgotten_little_by_little(setup, monkeypatch):
    monkeypatch.setattr(store, "FORGOTTEN_AT_ONCE_MAX", 2)
    ledger = setup.guard.ledger
    for number in range(5):
        ledger.spend(setup.wallet, f"{number}", expires_at_ms=setup.now_ms + number)
    setup.now_ms += store.FORGOTTEN_AFTER_MS + 4
    for left in (["2", "3", "4", "x"], ["4", "x", "y"], ["4", "x", "y", "z"]):
        ledger.spend(setup.wallet, left[-1], expires_at_ms=setup.now_ms)
        assert spent(setup) == left
    assert not ledger.spend(setup.wallet, "4", expires_at_ms=setup.now_ms), "it isn't over for every clock"


def test_it_is_no_part_of_any_chain(setup):
    setup.activate()
    setup.guard.ledger.spend("a wallet that the ledger knows nothing of", HASH, expires_at_ms=setup.now_ms)
    assert setup.guard.ledger.wallets() == [setup.wallet]
    assert not check_ledger(setup.guard.ledger).findings
