"""The guard on an event loop: the same answers, and a loop that never waits."""

import asyncio
import inspect
import sqlite3
import threading
from types import SimpleNamespace

import pytest

from executor.audit import check_ledger
from executor.errors import LedgerError
from executor.guard import AsyncGuard, Guard
from executor.guard.asynchronous import URGENT_THREADS
from executor.halts import EVERYTHING, Halter, Scope
from executor.reasons import Reason
from tests.support import Setup, in_fork, key, until, uuid


def test_it_has_every_method_of_the_guard_with_the_same_parameters():
    def methods(kind):
        return {
            name: list(inspect.signature(getattr(kind, name)).parameters)
            for name in vars(kind)
            if not name.startswith("_")
        }

    assert methods(AsyncGuard) == methods(Guard)


def test_each_method_hands_on_what_it_gets_and_returns_what_it_is_given():
    class Recorder:
        ledger = SimpleNamespace(require_usable=lambda: None)

        def __getattr__(self, name):
            return lambda *arguments, **named: (name, arguments, named)

    async def call_each():
        guard = AsyncGuard(Recorder())
        for name, method in inspect.getmembers(AsyncGuard, inspect.iscoroutinefunction):
            if name.startswith("_") or name in {"open", "close"}:
                continue
            parameters = list(inspect.signature(method).parameters.values())[1:]
            given = {each.name: [each.name] for each in parameters}
            answer = await getattr(guard, name)(**given)
            called, arguments, named = answer or (name, tuple(given.values()), {})  # some return nothing
            assert called == name
            assert dict(zip(given, arguments, strict=False)) | named == given
        await asyncio.to_thread(guard._threads.shutdown)

    asyncio.run(call_each())


def test_in_a_fork_each_call_is_refused_at_once(setup):
    """The threads of the guard that was opened before the fork are not there: nobody would ever answer."""
    guard = AsyncGuard(setup.guard)
    setup.activate()
    assert asyncio.run(guard.authorize(setup.request(1))).outcome == "allowed"
    assert "open it in each process, after the fork" in in_fork(lambda: asyncio.run(guard.agents(setup.wallet)))
    assert in_fork(lambda: asyncio.run(guard.close())) == "None"
    assert asyncio.run(guard.authorize(setup.request(2))).outcome == "allowed"


def test_many_tasks_share_it_and_no_cap_is_passed(setup):
    async def fire_all():
        guard = AsyncGuard(setup.guard)
        return await asyncio.gather(*(guard.authorize(setup.request(number)) for number in range(64)))

    setup.activate()
    answers = asyncio.run(fire_all())
    assert [answer.outcome for answer in answers] == ["allowed"] * 64
    assert sorted(answer.authorization.attempt for answer in answers) == list(range(1, 65))
    assert check_ledger(setup.guard.ledger).findings == ()


def test_the_loop_goes_on_while_the_database_makes_a_call_wait(sqlite_setup):
    """Another connection holds the file; meanwhile the loop turns, and the call ends once the file is free."""
    sqlite_setup.activate()
    other = sqlite3.connect(sqlite_setup.path, isolation_level=None, check_same_thread=False)

    async def fire_while_it_is_held():
        guard = AsyncGuard(sqlite_setup.guard)
        other.execute("BEGIN IMMEDIATE")
        firing = asyncio.create_task(guard.authorize(sqlite_setup.request(1)))
        turns = 0
        while turns < 1_000:
            await asyncio.sleep(0)
            turns += 1
        held = not firing.done()
        other.execute("ROLLBACK")
        return held, await firing

    held, answer = asyncio.run(fire_while_it_is_held())
    other.close()
    assert (held, answer.outcome) == (True, "allowed")


def test_it_opens_walks_a_whole_story_and_closes(tmp_path):
    made = Setup(tmp_path / "ledger.db")
    made.guard.close()

    async def story():
        async with await AsyncGuard.open(
            made.path,
            seal_keys=made.seal_keys,
            prices=made.prices,
            assets=made.guard._assets,
            clock=lambda: made.now_ms,
        ) as guard:
            await guard.reserve_session_key(made.wallet, uuid(1), key(1).wallet_address)
            await guard.activate(made.permit())
            first, second, third = await guard.authorize_many(made.request(number) for number in range(3))
            assert (await guard.explain(made.request(0))).outcome == "allowed"
            await guard.check(first.authorization)
            marks = {"transaction_bytes": b"signed", "last_valid_block_height": 1}
            assert await guard.mark_signed(first.authorization, tx_signature="a", **marks) is None
            await guard.mark_signed(third.authorization, tx_signature="b", **marks)
            await guard.mark_failed(made.wallet, third.authorization.execution_id, "no")
            await guard.void(made.wallet, second.authorization.execution_id, Reason.RAIL_UNAVAILABLE, "")
            in_doubt = [each.state async for _, each in guard.in_doubt()]
            await guard.mark_dead(made.wallet, first.authorization.execution_id)
            await guard.arm_trigger(made.wallet, uuid(1), "SOL < 100")
            await guard.set_next_run(made.wallet, uuid(1), None)
            assert [each.agent_id for each in await guard.agents(made.wallet)] == [uuid(1)]
            assert (await guard.agent(made.wallet, uuid(1))).state == "active"
            assert len(await guard.executions(made.wallet, uuid(1))) == 3
            assert (await guard.execution(made.wallet, uuid(10_000))).state == "dead"
            assert (await guard.headroom(made.wallet)).executions.used == 3
            assert list(await guard.halts()) == []
            assert await guard.stop(made.wallet, uuid(1)) == []
            names = [event.name for _, event in await guard.events(made.wallet)]
            return in_doubt, names, len(await guard.entries(made.wallet))

    assert asyncio.run(story()) == (
        ["signed"],
        ["errored", "errored", "errored", "trigger_armed", "next_run_changed", "completed"],
        13,
    )


class Held:
    """A clock, asked under the lock, that tells nobody the time before it is `released`."""

    def __init__(self, clock):
        self._clock = clock
        self.asked = threading.Event()
        self.released = threading.Event()

    def __call__(self):
        self.asked.set()
        assert self.released.wait(60)
        return self._clock()


def test_a_halt_goes_before_all_fires_that_wait(sqlite_setup):
    """Every thread is busy, and what is under way takes its time: it ends, and then nothing fires."""
    setup = sqlite_setup
    setup.activate()
    setup.guard.ledger._clock = held = Held(lambda: setup.now_ms)
    waiting = setup.guard.ledger._turns

    async def fire_and_halt():
        guard = AsyncGuard(setup.guard)
        fires = [asyncio.create_task(guard.authorize(setup.request(0)))]
        await asyncio.to_thread(held.asked.wait, 60)  # it is alone in the transaction under way
        fires += [asyncio.create_task(guard.authorize(setup.request(number))) for number in range(1, 64)]
        await asyncio.to_thread(until, lambda: len(waiting) == 63)
        halt = asyncio.create_task(guard.halt(EVERYTHING, Halter.OPERATOR, "a drill"))
        await asyncio.to_thread(until, lambda: len(waiting) == 64)
        held.released.set()
        await halt
        return await asyncio.gather(*fires)

    first, *others = asyncio.run(fire_and_halt())
    assert first.outcome == "allowed"
    assert {each.reason for each in others} == {Reason.HALTED}


def test_a_halt_that_was_cancelled_before_it_began_is_made(sqlite_setup):
    setup = sqlite_setup
    setup.activate()
    setup.guard.ledger._clock = held = Held(lambda: setup.now_ms)
    waiting = setup.guard.ledger._turns

    async def cancel():
        guard = AsyncGuard(setup.guard)
        fires = [asyncio.create_task(guard.authorize(setup.request(number))) for number in range(64)]
        await asyncio.to_thread(held.asked.wait, 60)
        scopes = [Scope(setup.wallet, uuid(number)) for number in range(URGENT_THREADS)]
        halts = [asyncio.create_task(guard.halt(scope, Halter.USER, "a drill")) for scope in scopes]
        await asyncio.to_thread(until, lambda: len(waiting) >= len(halts))
        last = asyncio.create_task(guard.halt(EVERYTHING, Halter.OPERATOR, "a drill"))
        await asyncio.sleep(0)  # it has been handed to the threads, which are busy
        last.cancel()
        held.released.set()
        await asyncio.gather(*fires, *halts)
        await asyncio.to_thread(until, lambda: setup.guard.halts() != ())
        assert last.cancelled()
        await guard.close()

    asyncio.run(cancel())
    setup.guard = setup.open()
    assert [halt.why for halt in setup.guard.halts()] == ["a drill"]


def test_a_halt_is_taken_while_the_guard_closes(sqlite_setup):
    """For as long as a fire that waits may be allowed; after that, it is told that the guard was closed."""
    setup = sqlite_setup
    setup.activate()
    setup.guard.ledger._clock = held = Held(lambda: setup.now_ms)
    waiting = setup.guard.ledger._turns

    async def close_and_halt():
        guard = AsyncGuard(setup.guard)
        fires = [asyncio.create_task(guard.authorize(setup.request(0)))]
        await asyncio.to_thread(held.asked.wait, 60)
        fires += [asyncio.create_task(guard.authorize(setup.request(number))) for number in range(1, 40)]
        await asyncio.to_thread(until, lambda: len(waiting) == 39)
        closing = asyncio.create_task(guard.close())
        await asyncio.to_thread(until, lambda: guard._threads._shutdown)
        halt = asyncio.create_task(guard.halt(EVERYTHING, Halter.OPERATOR, "a drill"))
        await asyncio.to_thread(until, lambda: len(waiting) == 40)
        held.released.set()
        assert await halt == ()
        outcomes = await asyncio.gather(*fires)
        await closing
        with pytest.raises(LedgerError, match="was closed"):
            await guard.halts()
        return [each.outcome for each in outcomes]

    assert asyncio.run(close_and_halt()).count("allowed") == 1
    setup.guard = setup.open()
    assert len(setup.guard.halts()) == 1
