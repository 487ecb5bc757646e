"""A process that is killed at marked points: `python -m tests.crash.victim`, a job a line, an answer a line.

Each job runs in a child forked from this one, which has imported all that it needs. Points stand before and after each
commit of the ledger, each use of a key, and each call of the rail and the chain that changes or decides anything; the
`kill_at`th of them kills the child as a power cut would. Production code knows nothing of this.
"""

import asyncio
import json
import os
import signal
import sys
from contextlib import contextmanager
from uuid import UUID

from solders.keypair import Keypair

from executor.assets import Asset, KnownAssets
from executor.execution import Executor
from executor.guard import AsyncGuard, Guard
from executor.halts import Halter, Scope
from executor.ledger.postgres import PostgresStore
from executor.ledger.sqlite import SqliteStore
from executor.limits import Limits
from executor.prices.quote import FixedPrices, Quote
from executor.rails.local import LocalRail
from executor.rails.rpc import RpcChain
from executor.request import FireRequest
from executor.seal import SealKeys
from executor.settlement import Settlement
from executor.signing import SessionVault, SigningGate
from executor.signing.gate import SigningGate as Gate
from executor.sweeper import Sweeper
from executor.treasury import Treasury
from permits import SignedPermit

FLOOR_LAMPORTS = 50_000_000
CAPS = Limits(executions_per_24h=5_000, autofund_lamports_per_24h=10**15, autofund_lamports_per_24h_in_all=10**15)
SWEEP_STEPS_MAX = 10


class Points:
    """Counts the points that are passed, and ends the process at one of them."""

    def __init__(self, kill_at):
        self.passed = 0
        self._kill_at = kill_at

    def mark(self):
        self.passed += 1
        if self.passed == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner, name):
        """Mark points before and after each call of `owner`'s method."""
        method = getattr(owner, name)
        if asyncio.iscoroutinefunction(method):

            async def marked(*arguments, **named):
                self.mark()
                answer = await method(*arguments, **named)
                self.mark()
                return answer

        else:

            def marked(*arguments, **named):
                self.mark()
                answer = method(*arguments, **named)
                self.mark()
                return answer

        setattr(owner, name, marked)

    def around_commits(self, store):
        writing = store.writing

        @contextmanager
        def marked(this):
            with writing(this) as cursor:
                yield cursor
                self.mark()
            self.mark()

        store.writing = marked


class Stage:
    """An executor over the ledger and the chain that the job names."""

    def __init__(self, job, chain):
        self.now_ms = job["now_ms"]
        assets = [Asset.from_json_object(each) for each in job["assets"]]
        prices = FixedPrices(
            Quote.of(asset.mint, price, at_ms=self.now_ms, max_age_ms=60_000, source="test")
            for asset, price in zip(assets, ("1", "2.5"), strict=True)
        )
        self.guard = Guard.open(
            job["ledger"],
            seal_keys=SealKeys.single(b"s" * 32),
            prices=prices,
            assets=KnownAssets(assets),
            clock=lambda: self.now_ms,
        )
        self.guard.change_limits(CAPS)
        self.awaited = AsyncGuard(self.guard)
        self.vault = SessionVault(self.guard, b"m" * 32)
        self.chain = chain
        gate = SigningGate(self.awaited, self.vault, chain)
        rail = LocalRail(Keypair.from_seed(bytes.fromhex(job["maker"])), prices)
        self.executor = Executor(self.awaited, gate, chain, [rail])
        self.sweeper = Sweeper(self.awaited, gate, chain)
        self.treasury = Treasury(
            self.awaited,
            chain,
            self.executor.settlement,
            Keypair.from_seed(bytes.fromhex(job["operator"])),
            floor_lamports=FLOOR_LAMPORTS,
            new_id=lambda: str(UUID(bytes=os.urandom(16), version=4)),
        )


# What a job may ask for: each takes the stage and the job, and returns what the answer says of it.


async def reserve(stage, job):
    stage.guard.set_fundable(job["wallet"], fundable=True)
    return stage.vault.make_session_key(job["wallet"], job["agent_id"])


async def activate(stage, job):
    return stage.guard.activate(SignedPermit.from_json_object(job["permit"])).permit_id


async def fire(stage, job):
    return (await stage.executor.fire(FireRequest.from_json_object(job["request"]))).decision.outcome


async def fund(stage, job):
    decision = await stage.treasury.top_up(job["wallet"], job["agent_id"])
    return None if decision is None else decision.outcome


async def recover(stage, _job):
    return await stage.executor.settlement.recover()


async def stop(stage, job):
    return list(stage.guard.stop(job["wallet"], job["agent_id"]))


async def halt(stage, job):
    return list(stage.guard.halt(Scope(job["wallet"]), Halter.USER, "enough"))


async def lift(stage, job):
    return stage.guard.lift(Scope(job["wallet"]), Halter.USER)


async def sweep(stage, job):
    for _ in range(SWEEP_STEPS_MAX):
        step = await stage.sweeper.step(job["wallet"], job["agent_id"])
        if step.done or step.waits_for:
            return step.waits_for
    return "more steps"


JOBS = {each.__name__: each for each in (reserve, activate, fire, fund, recover, stop, halt, lift, sweep)}


def send_first(points):
    """Send before the commit, as a wrong executor would: the suite must notice."""
    sign_with = AsyncGuard.sign_with

    async def wrong(guard, make, authorization, **named):
        with guard.guard.ledger.view(authorization.wallet) as view:
            _, content = make(view)
        await RpcChain(CHAIN_URL[0]).send(content)
        points.mark()
        return await sign_with(guard, make, authorization, **named)

    AsyncGuard.sign_with = wrong


CHAIN_URL = [""]


async def play(job):
    points = Points(job.get("kill_at"))
    CHAIN_URL[0] = job["chain"]
    async with RpcChain(job["chain"], timeout_s=20) as chain:
        stage = Stage(job, chain)
        if job.get("wrong"):
            send_first(points)
        for store in (SqliteStore, PostgresStore):
            points.around_commits(store)
        points.around(SessionVault, "sign")
        points.around(Gate, "sign")
        points.around(LocalRail, "build")
        points.around(Settlement, "settle")
        for name in ("send", "record"):
            points.around(RpcChain, name)
        result = await JOBS[job["what"]](stage, job)
        await stage.awaited.close()
    return {"result": result, "points": points.passed}


def main():
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            answer = asyncio.run(play(json.loads(line)))
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answers:
            answer = answers.read()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(answer if answer and not killed else json.dumps({"killed": killed, "status": status}), flush=True)


if __name__ == "__main__":
    main()
