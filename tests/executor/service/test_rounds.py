"""Many streams, few tasks."""

import asyncio

from executor.service.rounds import IN_A_ROW_MAX, Rounds


class Told:
    def __init__(self, wait=None, *, takes_it=False):
        self.wait, self.times, self.is_late, self.takes_it, self.at_once = wait, 0, False, takes_it, 0

    def tell_at_once(self):
        self.at_once += self.takes_it
        return self.takes_it

    async def tell(self):
        if self.wait:
            await self.wait.wait()
        self.times += 1

    def end_if_late(self, now_s):
        self.is_late = now_s


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what holds has no event
            await asyncio.sleep(0)


def test_streams_that_take_it_at_once_are_told_by_one_task():
    async def told():
        rounds, streams = Rounds(), [Told() for _ in range(IN_A_ROW_MAX)]
        before = len(asyncio.all_tasks())
        for stream in streams:
            rounds.put(stream)
        assert len(asyncio.all_tasks()) == before + 1
        await until(lambda: all(stream.times == 1 for stream in streams))

    asyncio.run(told())


def test_streams_that_can_be_told_at_once_are_told_nothing_else():
    async def told():
        rounds, streams = Rounds(), [Told(takes_it=number % 2 == 0) for number in range(2 * IN_A_ROW_MAX)]
        for stream in streams:
            rounds.put(stream)
        await until(lambda: all(stream.times + stream.at_once for stream in streams))
        assert all((stream.at_once, stream.times) == (stream.takes_it, not stream.takes_it) for stream in streams)

    asyncio.run(told())


def test_streams_that_let_their_task_wait_let_nobody_else_wait():
    async def told():
        rounds, gate = Rounds(), asyncio.Event()
        slow, quick = [Told(gate) for _ in range(20)], [Told() for _ in range(2 * IN_A_ROW_MAX)]
        for stream in (*slow, *quick):
            rounds.put(stream)
        await until(lambda: all(stream.times == 1 for stream in quick))
        late = Told()
        rounds.put(late)  # while all those wait
        await until(lambda: late.times == 1)
        assert [stream.times for stream in slow] == [0] * 20
        gate.set()
        await until(lambda: all(stream.times == 1 for stream in slow))
        assert late.times == 1

    asyncio.run(told())


def test_who_leaves_is_told_nothing_more_and_the_others_are():
    async def told():
        rounds, gate = Rounds(), asyncio.Event()
        slow, waiting, other = Told(gate), Told(), Told()
        rounds.put(slow)
        await asyncio.sleep(0)
        rounds.put(waiting)
        rounds.put(other)
        await rounds.leave(waiting)
        await rounds.leave(slow)
        gate.set()
        await until(lambda: other.times == 1)
        assert (slow.times, waiting.times) == (0, 0)

    asyncio.run(told())


def test_who_lets_a_task_wait_is_asked_whether_it_is_late(monkeypatch):
    monkeypatch.setattr("executor.service.rounds.SWEEP_S", 0.001)

    async def told():
        rounds, gate, quick = Rounds(), asyncio.Event(), Told()
        slow = Told(gate)
        rounds.put(slow)
        rounds.put(quick)
        await until(lambda: slow.is_late)
        assert not quick.is_late
        gate.set()
        await until(lambda: slow.times == 1)

    asyncio.run(told())
