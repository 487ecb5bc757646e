"""Many streams over a long time, with two replicas that die in turn: every client has each of its events once."""

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from executor.service.client import AgentStream, Reset
from executor.service.client.stream import delays_s
from tests.postgres import free_port
from tests.support import Setup, key, until

ROOT = Path(__file__).parents[2]
WALLETS, STREAMS = 50, 200
ROUNDS, BATCH = 40, 50
"""So many batches of refusals for each wallet: 100,000 in all, over two days of the ledger's clock."""

REFUSALS_A_DAY = 1_000
"""As many as the ledger records for a wallet."""

DAY_MS = 25 * 3_600_000
RESTART_EVERY_S = 20
LEAVES, IS_SLOW = 0.002, 0.1
"""How probable it is that a client leaves after an event, and that it reads slowly."""

MEMORY_GROWTH_KB_MAX = 48 * 1024
CATCH_UP_S_MAX = 400


class Replica:
    """A process of the service, on the same port each time."""

    def __init__(self, url):
        self.url, self.port = url, free_port()
        self.growths_kb = []
        self.start()

    def start(self):
        command = [sys.executable, ROOT / "tests" / "soak" / "replica.py", self.url, str(self.port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.began_s, self.settled_kb = time.monotonic(), None

    def rss_kb(self):
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def look(self):
        """Measure the memory once its clients are back, and how much it has grown since."""
        assert self.process.poll() is None
        if time.monotonic() - self.began_s > RESTART_EVERY_S / 2:
            self.settled_kb = self.settled_kb or self.rss_kb()
            self.growths_kb.append(self.rss_kb() - self.settled_kb)

    def kill(self):
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()


class Clients:
    """Every stream, on an event loop in a thread: `received` holds what each was told."""

    def __init__(self, wallets, ports):
        self.received = [[] for _ in range(STREAMS)]
        self.resets, self.left = [], 0
        self._stop = threading.Event()
        self._wallets, self._ports = wallets, ports
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self):
        tasks = [asyncio.create_task(self._follow(number)) for number in range(STREAMS)]
        while not self._stop.is_set():
            await asyncio.sleep(0.1)
            for task in tasks:
                if task.done():
                    task.result()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, number):
        chance, last_event_id = random.Random(number), None
        is_slow, told = chance.random() < IS_SLOW, self.received[number]
        wallet = self._wallets[number % WALLETS]
        while True:
            at = f"http://127.0.0.1:{chance.choice(self._ports)}"
            async with AgentStream(
                at, wallet=wallet, from_start=True, last_event_id=last_event_id, delays_s=lambda _s: delays_s(0.2)
            ) as stream:
                async for item in stream:
                    if isinstance(item, Reset):
                        self.resets.append(item)
                        continue
                    told.append(item.execution_id)
                    last_event_id = item.id
                    if is_slow:
                        await asyncio.sleep(0.01)
                    if chance.random() < LEAVES:
                        self.left += 1
                        break


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_hundred_thousand_events_reach_every_client_once_and_in_order(postgres_setup, capsys):
    setups = [wallet_of(postgres_setup, number) for number in range(WALLETS)]
    for setup in setups:
        setup.activate()
    began_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        replicas = [Replica(postgres_setup.path) for _ in range(2)]
        for replica in replicas:
            stack.callback(replica.kill)
        clients = Clients([setup.wallet for setup in setups], [replica.port for replica in replicas])
        stack.callback(clients.stop)
        written, failed = threading.Event(), []
        writer = threading.Thread(target=write, args=(postgres_setup, setups, written, failed))
        writer.start()
        stack.callback(writer.join)
        restarts, restart_at_s = itertools.count(), time.monotonic() + RESTART_EVERY_S
        restarted = 0
        while not written.wait(1):
            for replica in replicas:
                replica.look()
            if time.monotonic() >= restart_at_s:
                replica = replicas[next(restarts) % 2]
                replica.kill()
                replica.start()
                restarted, restart_at_s = restarted + 1, time.monotonic() + RESTART_EVERY_S
        assert failed == []
        wrote_s = time.monotonic() - began_s
        expected = {setup.wallet: list(execution_ids(postgres_setup.guard, setup.wallet)) for setup in setups}
        assert sum(map(len, expected.values())) == WALLETS * ROUNDS * BATCH
        all_told = sum(len(expected[setups[number % WALLETS].wallet]) for number in range(STREAMS))
        until(lambda: sum(map(len, clients.received)) >= all_told, within_s=CATCH_UP_S_MAX)
        for replica in replicas:
            replica.look()
        for number, told in enumerate(clients.received):
            assert told == expected[setups[number % WALLETS].wallet], f"stream {number}"
        assert clients.resets == []
        assert restarted >= 2
        growths_kb = [growth for replica in replicas for growth in replica.growths_kb]
        assert max(growths_kb) < MEMORY_GROWTH_KB_MAX
    with capsys.disabled():
        print(
            f"\nwritten in {wrote_s:.0f} s, told in {time.monotonic() - began_s:.0f} s, {restarted} restarts,"
            f" {clients.left} clients left, memory grew by at most {max(growths_kb)} KB"
        )


def wallet_of(setup, number):
    """Return the same guard for another user."""
    made = Setup.__new__(Setup)
    made.__dict__ = {**setup.__dict__, "signer": key(500 + number), "wallet": key(500 + number).wallet_address}
    return made


def write(setup, setups, written, failed):
    try:
        numbers = itertools.count(1)
        for turn in range(ROUNDS):
            if turn and turn * BATCH % REFUSALS_A_DAY == 0:
                setup.now_ms += DAY_MS
            for each in setups:
                setup.guard.authorize_many([each.request(next(numbers), sell="BONK") for _ in range(BATCH)])
    except Exception as error:  # noqa: BLE001 - the test tells it
        failed.append(error)
    finally:
        written.set()


def execution_ids(guard, wallet):
    after = 0
    while page := guard.entries(wallet, after):
        after = page[-1].entry.seq
        yield from (event.data["executionId"] for _seq, event in guard.events(wallet, page[0].entry.seq - 1, len(page)))
