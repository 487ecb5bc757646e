"""Whose turn it is to commit: nobody is forgotten, and nobody's work is done twice."""

import threading
from queue import SimpleQueue

import pytest

from executor.ledger.turns import TOGETHER_MAX, Turns, Waiting

DEADLINE_S = 30


class Interrupted(BaseException):
    pass


def waiting(count):
    return [Waiting() for _ in range(count)]


def test_whoever_comes_first_takes_all_that_waits_and_no_more_than_fits():
    turns = Turns(writers_max=1)
    changes = waiting(TOGETHER_MAX + 1)
    turns.enter(changes)
    assert turns.take(changes[0]) == changes[:-1]
    assert len(turns) == 1
    turns.end(changes[:-1])
    assert turns.take(changes[0]) == ()
    assert turns.take(changes[-1]) == changes[-1:]
    turns.end(changes[-1:])
    assert all(change.ended for change in changes)


def test_what_is_urgent_goes_first_and_alone():
    turns = Turns(writers_max=1)
    ordinary, urgent = waiting(3), [Waiting(urgent=True) for _ in range(2)]
    turns.enter(ordinary)
    turns.enter(urgent)
    assert len(turns) == 5
    assert turns.take(ordinary[0]) == urgent
    turns.end(urgent)
    assert turns.take(urgent[0]) == ()
    assert turns.take(ordinary[0]) == ordinary
    turns.end(ordinary)
    (late,) = [Waiting(urgent=True)]
    turns.enter([late])
    turns.give_up([late])
    assert len(turns) == 0


def test_as_many_take_turns_at_once_as_there_are_writers():
    turns = Turns(writers_max=2)
    first, second, third = waiting(3)
    for change in (first, second):
        turns.enter([change])
        assert turns.take(change) == [change]
    turns.enter([third])
    taken = []
    thread = threading.Thread(target=lambda: taken.append(turns.take(third)), daemon=True)
    thread.start()
    turns.end([first])
    thread.join(DEADLINE_S)
    assert taken == [[third]]


class Signal(SimpleQueue):
    """A signal that tells when somebody waits for it, or interrupts them."""

    def __init__(self, *, interrupts=False):
        self.interrupts = interrupts
        self.awaited = threading.Event()

    def get(self):
        if self.interrupts:
            raise Interrupted
        self.awaited.set()
        return super().get()


def test_one_who_is_interrupted_gives_up_the_place_and_the_next_is_woken():
    turns = Turns(writers_max=1)
    writing, interrupted, last = waiting(3)
    interrupted.signal, last.signal = Signal(interrupts=True), Signal()
    turns.enter([writing])
    assert turns.take(writing) == [writing]
    turns.enter([interrupted])
    with pytest.raises(Interrupted):
        turns.take(interrupted)
    turns.enter([last])
    taken = []
    thread = threading.Thread(target=lambda: taken.append(turns.take(last)), daemon=True)
    thread.start()
    assert last.signal.awaited.wait(DEADLINE_S)
    turns.end([writing])  # wakes the one who stands first, but nobody waits there any more
    turns.give_up([writing, interrupted])
    thread.join(DEADLINE_S)
    assert taken == [[last]]
    assert not interrupted.ended


def test_a_change_that_another_took_is_not_given_up():
    turns = Turns(writers_max=1)
    change = Waiting()
    turns.enter([change])
    taken = turns.take(change)
    turns.give_up([change])
    turns.end(taken)
    assert change.ended
