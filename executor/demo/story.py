"""What happens in the demo, step by step, and what each step must lead to."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.table import Table

import executor
from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.decide import Allowed, Refused
from executor.demo.world import FLOOR_LAMPORTS, PERMIT_LIFETIME_S, PRICES_USD, QUOTE_AGE_S_MAX, START_USDC, USDC_UNITS
from executor.entries import Kind
from executor.funding import FundingAllowed
from executor.halts import Scope
from executor.lifecycle import AgentState, AttemptState
from executor.rails import TransactionRecord
from executor.reasons import Reason
from executor.service import FireSocket, Settings, create_app, serve
from executor.service.calls import Fired
from executor.service.tokens import Issuer
from permits import keys, permit_id, timestamp

if TYPE_CHECKING:
    from socket import socket

    from rich.console import Console

    from executor.demo.world import World
    from executor.guard import Execution
    from executor.request import FireRequest

__all__ = ["Story"]

SILENCE_S: Final = QUOTE_AGE_S_MAX + 1
LASTS_S: Final = SILENCE_S + PERMIT_LIFETIME_S
"""How much time the story lets pass."""
LANDINGS: Final = 2
STRATEGY: Final = Path(__file__).with_name("strategy.py")
SWEEP_STEPS_MAX: Final = 10


class Story:
    """The steps, what each must lead to, and what didn't."""

    def __init__(self, world: World, console: Console) -> None:
        self._world = world
        self._console = console
        self.surprises: list[str] = []
        """What didn't happen as said."""

    async def tell(self) -> None:
        """Tell the whole story."""
        world, say = self._world, self._console.print
        say(f"Holdfire demo. Everything that it writes lies in {world.folder}\n", markup=False)
        say(f"wallet      {world.wallet}\nagent       {world.agent_id}\nsession key {world.session_pubkey}\n")
        self._activate("The wallet signs this permit, and the agent is activated:", show=True)
        await self._is_funded()

        first = world.request(Decimal(200))
        await self._fires("sell 200 USDC for JTO", first)
        await self._same_again("the same executionId again", first)
        await self._refused(
            "buy an asset off the whitelist", world.request(Decimal(10), buy="BONK"), Reason.ASSET_NOT_WHITELISTED
        )
        await self._refused("one cent over the cap", world.request(Decimal("250.01")), Reason.AMOUNT_OVER_CAP)
        world.let_pass(seconds=SILENCE_S, quotes=False)
        await self._refused(
            f"the price stream was silent for {SILENCE_S} s", world.request(Decimal(100)), Reason.PRICE_STALE
        )
        world.let_pass(seconds=PERMIT_LIFETIME_S)
        await self._refused("an hour later", world.request(Decimal(100)), Reason.PERMIT_EXPIRED)
        self._expect("the agent is paused", self._is_paused())
        await self._refused("a fire while paused", world.request(Decimal(100)), Reason.AGENT_PAUSED)
        self._activate("The wallet signs a new permit of the same scope, and the agent resumes:")
        await self._fires(
            "a strategy in a process of its own sells 250 USDC, exactly the cap",
            world.request(Decimal(250)),
            elsewhere=True,
        )
        await self._trace_back()
        world.guard.stop(world.wallet, world.agent_id)
        await self._refused("the user has stopped the agent", world.request(Decimal(1)), Reason.AGENT_STOPPED)
        await self._goes_home()
        self._sum_up()

    def serve(self, bound: socket) -> None:
        """Activate an agent for the user to stop; keep the console and the event stream up until SIGINT or SIGTERM."""
        world, say = self._world, self._console.print
        say()
        world.run_clock()
        world.begin_agent()
        self._activate(f"The wallet signs a permit for another agent, {world.agent_id}, which you may stop:")
        settings = Settings(
            wallet_address_streams=True,
            jwt_secret_file=world.write_secret("jwt.secret"),
            secret_file=world.write_secret("service.secret"),
        )
        token, expires_at_s = Issuer(settings).token(world.wallet, int(time.time()))
        address, port = bound.getsockname()
        url = f"http://{address}:{port}/"
        say("The console stays up; Ctrl-C ends it.")
        say(f"Open {url} and sign in with this token, good until {timestamp(expires_at_s * 1000)}:\n  {token}")
        self._say_commands(
            "The event stream:", ["curl", "-N", f"{url}api/agents/stream?walletAddress={world.wallet}&from=start"]
        )
        serve(create_app(world.awaited, settings), bound)

    def _activate(self, title: str, *, show: bool = False) -> None:
        signed = self._world.sign_permit()
        self._console.print(f"[bold]{title}[/]")
        if show:
            self._console.print_json(json.dumps(signed.to_json_object()))
        bounds = self._world.guard.activate(signed)
        self._expect("the permit is activated", isinstance(bounds, Bounds))
        self._write("permit.json", signed.to_json_object())
        self._write("request.json", self._world.request(Decimal(100)).to_json_object())
        if isinstance(bounds, Bounds):
            self._console.print(f"  permit {bounds.permit_id}\n  until  {bounds.terms.expires_at}\n")

    async def _is_funded(self) -> None:
        world = self._world
        decision = await world.treasury.top_up(world.wallet, world.agent_id)
        self._expect("the operator funds the session wallet", isinstance(decision, FundingAllowed))
        self._expect("not twice", await world.treasury.top_up(world.wallet, world.agent_id) is None)
        sol = world.balances(world.session_pubkey)["SOL"]
        self._expect("up to the floor", sol == Decimal(FLOOR_LAMPORTS).scaleb(-9))
        self._console.print(f"  the operator tops the session wallet up to {sol:f} SOL, for fees\n")

    async def _fires(self, title: str, request: FireRequest, *, elsewhere: bool = False) -> None:
        before = self._world.balances(self._world.session_pubkey)
        outcome = await self._fire(title, request, elsewhere=elsewhere)
        after = self._world.balances(self._world.session_pubkey)
        execution = outcome.execution
        landed = execution is not None and execution.state is AttemptState.LANDED
        self._expect(f"it lands: {title}", landed)
        if execution is not None and landed:
            self._console.print(f"    [green]landed[/] {execution.tx_signature}")
            for symbol in after:
                self._console.print(f"    {symbol:<5}{before[symbol]:>16f} -> {after[symbol]:f}")

    async def _same_again(self, title: str, request: FireRequest) -> None:
        height = self._world.chain.block().height
        outcome = await self._fire(title, request)
        stored = isinstance(outcome.decision, Allowed) and outcome.decision.authorization is None
        self._expect("the stored answer comes back", stored)
        self._expect("nothing is sent", self._world.chain.block().height == height)
        self._console.print("    the stored answer; nothing sent")

    async def _refused(self, title: str, request: FireRequest, reason: Reason) -> None:
        height = self._world.chain.block().height
        decision = (await self._fire(title, request)).decision
        self._expect(f"{reason}: {title}", isinstance(decision, Refused) and decision.reason is reason)
        self._expect("nothing is sent", self._world.chain.block().height == height)
        if isinstance(decision, Refused):
            for check in decision.checks:
                self._console.print(f"    [red]{check.reason}[/] limit {check.limit}, found {check.actual}")

    async def _fire(self, title: str, request: FireRequest, *, elsewhere: bool = False) -> Fired:
        self._console.print(f"  [bold]{title}[/] ({request.execution_id})")
        if elsewhere:
            return await self._fire_elsewhere(request)
        return Fired.of(*await self._world.executor.fire(request))

    async def _fire_elsewhere(self, request: FireRequest) -> Fired:
        """Have another process fire. It is given the request and a socket's path, no key and no ledger."""
        world, path = self._world, self._world.folder / "fire.sock"
        scopes = [Scope(world.wallet, world.agent_id)]
        async with FireSocket(path, world.awaited, world.executor, scopes=scopes):
            strategy = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", STRATEGY, path),
                env={**os.environ, "PYTHONPATH": str(Path(executor.__file__).parent.parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            told, _ = await strategy.communicate(json.dumps(request.to_json_object()).encode())
        return Fired.from_json_object(json.loads(told))

    async def _goes_home(self) -> None:
        """Sweep the session wallet, until its key is gone and all that it held is the user's."""
        world, before = self._world, self._world.balances(self._world.session_pubkey)
        self._console.print("[bold]The session wallet pays back to the user's, and its key is destroyed:[/]")
        steps = 0
        while not (swept := await world.sweeper.step(world.wallet, world.agent_id)).done and steps < SWEEP_STEPS_MAX:
            steps += 1
            self._console.print(f"    swept  {swept.tx_signature}")
        self._expect("the sweep is done", swept.done)
        left, home = world.balances(world.session_pubkey), world.balances(world.wallet)
        self._expect("the session wallet is empty", not any(left.values()))
        for symbol in ("USDC", "JTO"):
            self._expect(f"all {symbol} is the user's", home[symbol] == before[symbol])
        for symbol, amount in home.items():
            self._console.print(f"    {symbol:<5}{amount:>16f} in the user's wallet")

    def _sum_up(self) -> None:
        """Check the ledger, tell whether all happened as said, and how to look into what was written."""
        world, folder = self._world, self._world.folder
        report = check_ledger(world.guard.ledger)
        self._expect("the ledger is intact", not report.findings)
        self._console.print(f"ledger: {report.entries} entries, each sealed and chained; every decision made again")
        self._write("quotes.json", {each.mint: str(PRICES_USD[each.symbol]) for each in (world.usdc, world.jto)})
        program, ledger, seal_key = _program("executor"), f"{folder}/ledger.db", ["--seal-key", f"{folder}/seal.key"]
        where, quotes = ["--db", ledger, *seal_key], ["--quotes", f"{folder}/quotes.json"]
        lasting = world.now_ms + PERMIT_LIFETIME_S * 1000 > time.time_ns() // 1_000_000
        at = [] if lasting else ["--at", timestamp(world.now_ms)]  # a story with a seed is of long ago
        self._say_commands(
            "Look into it: how all stand, what would be decided now, where the last trade comes from, and the proofs:",
            [program, "status", *where],
            [program, "explain", f"{folder}/request.json", *quotes, *where],
            *([program, "trace", landed.tx_signature or "", *where] for landed in self._landed()[-1:]),
            [program, "db", "check", ledger, *seal_key],
            [_program("permits"), "verify", f"{folder}/permit.json", *at],
        )
        for surprise in self.surprises:
            self._console.print(f"[red]not as said:[/] {surprise}")
        if not self.surprises:
            self._console.print("[green]everything happened as said[/]")

    async def _trace_back(self) -> None:
        """Check every landed transaction against the VM, the ledger's chain and the permit's id."""
        table = Table("transaction", "landed in the VM", "memo names its decision", "permit id recomputed")
        landed = self._landed()
        for execution in landed:
            tx_signature = execution.steps[-1].entry.body["txSignature"]
            proofs = await self._proofs(tx_signature, execution)
            self._expect(f"{tx_signature} traces back to its permit", all(proofs))
            table.add_row(tx_signature[:16] + "...", *("yes" if proof else "NO" for proof in proofs))
        self._console.print("[bold]Every landed transaction, traced back:[/]", table)
        self._expect(f"{LANDINGS} transactions landed", len(landed) == LANDINGS)
        self._expect("the VM's balances are the ledger's", self._balances_fit(landed))

    async def _proofs(self, tx_signature: str, execution: Execution) -> tuple[bool, bool, bool]:
        chain = self._world.chain
        record = await chain.record(tx_signature, chain.block().slot)
        memo = f"holdfire:{execution.steps[0].hash}"
        bounds = execution.bounds
        wallet = keys.decode_key(self._world.wallet) or b""
        return (
            isinstance(record, TransactionRecord) and record.error is None,
            any(memo in line for line in chain.logs(tx_signature)),
            permit_id(wallet, bounds.terms.canonical_bytes()) == bounds.permit_id,
        )

    def _balances_fit(self, landed: list[Execution]) -> bool:
        """Tell whether the session wallet holds what it began with, less all sold, plus all received."""
        fills = [execution.steps[-1].entry.body["fill"] for execution in landed]
        usdc = START_USDC * USDC_UNITS - sum(int(fill["sold"]) for fill in fills)
        jto = sum(int(fill["received"]) for fill in fills)
        return self._world.token_balances(self._world.session_pubkey) == (usdc, jto)

    def _landed(self) -> list[Execution]:
        world = self._world
        ids = (
            sealed.entry.execution_id
            for sealed in world.guard.entries(world.wallet)
            if sealed.entry.kind is Kind.LANDED and sealed.entry.funding is None
        )
        found = (world.guard.execution(world.wallet, execution_id) for execution_id in ids if execution_id)
        return [execution for execution in found if execution is not None]

    def _write(self, name: str, content: object) -> None:
        (self._world.folder / name).write_text(json.dumps(content) + "\n", "utf-8")

    def _say_commands(self, title: str, *commands: list[str]) -> None:
        self._console.print(f"[bold]{title}[/]")
        for command in commands:
            self._console.print(f"  {shlex.join(command)}", markup=False)

    def _is_paused(self) -> bool:
        agent = self._world.guard.agent(self._world.wallet, self._world.agent_id)
        return agent is not None and agent.state is AgentState.PAUSED

    def _expect(self, what: str, happened: bool) -> None:  # noqa: FBT001 - what, and whether
        if not happened:
            self.surprises.append(what)


def _program(name: str) -> str:
    """Return what a shell in any folder calls the program by that was installed with this one."""
    beside = Path(sys.executable).with_name(name)
    return name if not beside.exists() or shutil.which(name) == str(beside) else str(beside)
