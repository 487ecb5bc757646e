"""A ledger that was put back to an earlier state, on each database: it is halted, and its events have new ids."""

import sqlite3

import pytest

from executor.audit import check_ledger
from executor.entries import Kind
from executor.halts import EVERYTHING, Halter
from executor.ledger import EVERYBODY
from tests.support import Setup


def test_a_restored_ledger_is_itself_but_halted_and_of_a_new_epoch(setup):
    setup.activate()
    ledger = setup.guard.ledger
    made = ledger.id
    assert ledger.stream_epoch == made
    epoch = setup.guard.mark_restored()
    assert (ledger.id, ledger.stream_epoch) == (made, epoch)
    assert epoch != made
    restored, halted = (each.entry for each in setup.guard.entries(EVERYBODY))
    assert (restored.kind, restored.body) == (Kind.RESTORED, {"before": made, "epoch": epoch})
    assert (halted.kind, halted.at_ms) == (Kind.HALTED, restored.at_ms)
    (halt,) = setup.guard.halts()
    assert (halt.scope, halt.by, halt.why) == (EVERYTHING, Halter.OPERATOR, "restored from a backup")
    assert setup.guard.authorize(setup.request(1)).reason == "HALTED"
    setup.reopen()
    assert (setup.guard.ledger.id, setup.guard.ledger.stream_epoch) == (made, epoch)
    assert setup.guard.lift(EVERYTHING, Halter.OPERATOR)
    assert setup.guard.authorize(setup.request(2)).outcome == "allowed"
    assert check_ledger(setup.guard.ledger).findings == ()


def test_each_restore_gives_another_epoch_and_keeps_one_halt(setup):
    setup.guard.halt(EVERYTHING, Halter.OPERATOR, "maintenance")
    setup.guard.halt(EVERYTHING, Halter.USER, "on holiday")
    epochs = [setup.guard.ledger.id, setup.guard.mark_restored(), setup.guard.mark_restored("again")]
    assert len(set(epochs)) == 3
    assert [(halt.by, halt.why) for halt in setup.guard.halts()] == [("user", "on holiday"), ("operator", "again")]
    bodies = [each.entry.body for each in setup.guard.entries(EVERYBODY) if each.entry.kind is Kind.RESTORED]
    assert [(each["before"], each["epoch"]) for each in bodies] == [(epochs[0], epochs[1]), (epochs[1], epochs[2])]
    assert check_ledger(setup.guard.ledger).findings == ()


@pytest.mark.parametrize("why", ["", "x" * 201])
def test_a_restore_without_a_usable_reason_changes_nothing(setup, why):
    before = setup.guard.ledger.stream_epoch
    with pytest.raises(ValueError, match="why"):
        setup.guard.mark_restored(why)
    assert setup.guard.ledger.stream_epoch == before
    assert (setup.guard.entries(EVERYBODY), setup.guard.halts()) == ([], ())


def test_two_copies_that_go_on_have_streams_of_their_own(sqlite_setup):
    sqlite_setup.activate()
    epochs = {sqlite_setup.guard.ledger.stream_epoch}
    for name in ("one.db", "two.db"):
        with sqlite3.connect(sqlite_setup.path) as original:
            original.execute("VACUUM INTO ?", [str(sqlite_setup.path.with_name(name))])
        original.close()
        copy = Setup.__new__(Setup)
        copy.__dict__ = {**sqlite_setup.__dict__, "path": sqlite_setup.path.with_name(name)}
        with copy.open() as guard:
            epochs.add(guard.mark_restored())
            assert guard.ledger.id == sqlite_setup.guard.ledger.id
            assert check_ledger(guard.ledger).findings == ()
    assert len(epochs) == 3
