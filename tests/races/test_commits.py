"""What changes that come at the same moment do to each other: each meeting is arranged, none is left to luck."""

import threading

from executor.audit import check_ledger
from executor.decide import Allowed, Refused
from executor.errors import LedgerError
from executor.halts import EVERYTHING, Halter
from executor.ledger import Ledger
from executor.reasons import Reason
from executor.seal import SealKeys
from tests.support import until

DEADLINE_S = 30


def run(calls):
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)


def together(ledger, *calls):
    """Return what `calls` return, made in threads of their own, so that all ride in one commit."""
    results = {}

    def record(place, call):
        results[place] = call()

    threads = [threading.Thread(target=record, args=each) for each in enumerate(calls)]
    turns = ledger._turns
    turns._writing = ledger._store.writers_max  # as if every writer were at work
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: len(turns) == number)
    turns._writing = 1
    turns.end(())
    for thread in threads:
        thread.join(DEADLINE_S)
    return [results[place] for place in range(len(calls))]


def test_a_fire_in_one_commit_with_a_halt_of_everything_is_halted(setup):
    setup.activate()
    guard = setup.guard
    decision, _signatures = together(
        guard.ledger,
        lambda: guard.authorize(setup.request()),
        lambda: guard.halt(EVERYTHING, Halter.OPERATOR, "a drill"),
    )
    assert isinstance(decision, Refused)
    assert decision.reason is Reason.HALTED
    lifted, decision = together(
        guard.ledger,
        lambda: guard.lift(EVERYTHING, Halter.OPERATOR),
        lambda: guard.authorize(setup.request(2)),
    )
    assert lifted
    assert isinstance(decision, Allowed)
    assert check_ledger(guard.ledger).findings == ()


def test_processes_that_make_a_ledger_at_the_same_moment_share_it(postgres_ledger):
    both, opened, faults = threading.Barrier(2), [], []

    def open_one():
        both.wait(DEADLINE_S)
        try:
            opened.append(Ledger.open(postgres_ledger, seal_keys=SealKeys.single(bytes(32))))
        except LedgerError as fault:
            faults.append(fault)

    run([open_one] * 2)
    ids = [ledger.id for ledger in opened]
    for ledger in opened:
        ledger.close()
    assert faults == []
    assert ids == [ids[0]] * 2
