"""Crashes: the executor dies at every marked point, the chain lives on, and no trade is lost or made twice.

What is checked is money: what the session wallet really holds is what the ledger says, to the unit, whatever happened.
"""

import json
import random
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from executor.assets import Asset
from executor.audit import check_ledger
from executor.entries import Kind
from executor.ledger import Ledger
from executor.rails.chain import BLOCKHASH_BLOCKS
from executor.seal import SealKeys
from permits import LocalSigner, draft, issue
from tests.crash.victim import FLOOR_LAMPORTS
from tests.localnet.process import ChainProcess
from tests.support import T0, TOKEN

ROOT = Path(__file__).parents[2]
RECOVERIES_MAX = 6
START_USDC = 100_000 * 10**6


class Theater:
    """A chain that lives, a ledger that lives, and executors that die."""

    def __init__(self, chain, ledger, seed):
        self.random = random.Random(seed)
        self.chain = chain
        self.ledger = str(ledger)
        self.now_ms = T0
        self.signer = LocalSigner.from_seed(self.random.randbytes(32))
        self.wallet = self.signer.wallet_address
        self.agent_id = self.new_id()
        self.maker, self.operator = (Keypair.from_seed(self.random.randbytes(32)) for _ in range(2))
        self.mints = [chain.make_mint(6), chain.make_mint(9)]
        self.assets = [
            Asset(symbol=symbol, mint=str(mint), decimals=decimals, token_program=TOKEN).to_json_object()
            for symbol, mint, decimals in zip(("USDC", "JTO"), self.mints, (6, 9), strict=True)
        ]
        for owner in (self.maker, self.operator):
            chain.give_lamports(owner.pubkey(), 10**12)
        self._victims = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.victim"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.session = self.do("reserve")["result"]
        for mint in self.mints:
            chain.give_tokens(self.maker.pubkey(), mint, 10**15)
        chain.give_tokens(Pubkey.from_string(self.session), self.mints[0], START_USDC)
        chain.give_tokens(Pubkey.from_string(self.session), self.mints[1], 0)
        chain.give_lamports(Pubkey.from_string(self.session), FLOOR_LAMPORTS)
        permit = draft(
            agent_id=self.agent_id,
            session_pubkey=self.session,
            asset_whitelist=["USDC", "JTO"],
            max_amount_usd=250,
            issued_at_ms=self.now_ms,
            lifetime_s=30 * 86_400,
            nonce=self.random.randbytes(16).hex(),
        )
        self.do("activate", permit=issue(permit, self.signer).to_json_object())

    def close(self):
        self._victims.communicate(timeout=60)

    def new_id(self):
        return str(UUID(bytes=self.random.randbytes(16), version=4))

    def do(self, what, **more):
        """Have a new process do it; return its answer, which says `killed` if it died on the way."""
        job = {
            "what": what,
            "ledger": self.ledger,
            "chain": self.chain.url,
            "now_ms": self.now_ms,
            "assets": self.assets,
            "maker": bytes(self.maker)[:32].hex(),
            "operator": bytes(self.operator)[:32].hex(),
            "wallet": self.wallet,
            "agent_id": self.agent_id,
            **more,
        }
        print(json.dumps(job), file=self._victims.stdin, flush=True)
        answer = json.loads(self._victims.stdout.readline())
        assert answer.get("killed", True), answer
        return answer

    def fire(self, **more):
        request = {
            "wallet": self.wallet,
            "agentId": self.agent_id,
            "executionId": self.new_id(),
            "rail": "local",
            "sell": "USDC",
            "sellAmount": "10000000",
            "buy": "JTO",
            "minReceived": "3960000000",
        }
        return self.do("fire", request=request, **more)

    def recover(self, *, kill=False):
        """Recover until nothing is open, time and blocks going by; first in processes that are killed, with `kill`."""
        if kill:
            self.do("recover", kill_at=self.random.randint(1, 12))
        for _ in range(RECOVERIES_MAX):
            if self.do("recover")["result"] == 0:
                return
            self.now_ms += 61_000
            self.chain.advance(BLOCKHASH_BLOCKS + 1)
        raise AssertionError("something stays in doubt for ever")

    def sold(self):
        return START_USDC - self.chain.token_balance(Pubkey.from_string(self.session), self.mints[0])

    def check(self):
        """Hold what the session wallet really has against the ledger, to the unit, and the ledger against itself."""
        with Ledger.open(
            self.ledger,
            seal_keys=SealKeys.single(b"s" * 32),
            read_only=True,
        ) as ledger:
            report = check_ledger(ledger)
            with ledger.view(self.wallet) as view:
                entries = [each.entry for each in view.after(0, 10**6)]
                assert view.head.open_attempts == 0
        assert report.findings == ()
        session = Pubkey.from_string(self.session)
        fills = [each.body["fill"] for each in entries if each.kind is Kind.LANDED and each.funding is None]
        received = sum(int(fill["received"]) for fill in fills)
        assert (self.sold(), self.chain.token_balance(session, self.mints[1])) == (
            sum(int(fill["sold"]) for fill in fills),
            received,
        )
        lamports = {
            each.funding: int(each.body["evidence"]["request"]["lamports"])
            for each in entries
            if each.kind is Kind.AUTHORIZED and each.funding is not None
        }
        given = sum(lamports[each.funding] for each in entries if each.kind is Kind.LANDED and each.funding is not None)
        fees = sum(int(fill["feeLamports"]) for fill in fills)
        assert self.chain.lamports(session) == FLOOR_LAMPORTS + given - fees
        ends = [
            each.execution_id for each in entries if each.kind in {Kind.LANDED, Kind.DEAD, Kind.VOIDED, Kind.FAILED}
        ]
        assert len(ends) == len(set(ends))
        return len(fills)


@pytest.fixture(scope="module")
def chain():
    with ChainProcess(23) as running:
        yield running


@pytest.fixture
def theater(chain, tmp_path):
    made = Theater(chain, tmp_path / "ledger.db", seed=1)
    yield made
    made.close()


@pytest.fixture
def on_postgres(chain, postgres_ledger):
    made = Theater(chain, postgres_ledger, seed=2)
    yield made
    made.close()


def at_every_point(theater, attempt, step=1):
    """Let `attempt` die at every `step`th of its points, and recover each time; return how many there are."""
    points = attempt()["points"]
    theater.check()
    for number in range(1, points + 1, step):
        assert attempt(kill_at=number).get("killed")
        theater.recover()
        theater.check()
    return points


def test_a_fire_that_dies_at_any_point_lands_at_most_once(theater):
    assert at_every_point(theater, theater.fire) >= 16
    assert theater.check() >= 3


def test_a_fire_that_dies_on_postgresql_lands_at_most_once(on_postgres):
    assert at_every_point(on_postgres, on_postgres.fire, step=4) >= 16


def test_a_funding_that_dies_at_any_point_is_given_at_most_once(theater):
    def fund(**more):
        for _ in range(2):
            theater.fire()  # fees, so that something is missing
        return theater.do("fund", **more)

    assert at_every_point(theater, fund, step=2) >= 8


@pytest.mark.parametrize("kill_at", [9, 10, 11, 12])
def test_nothing_is_sent_after_a_halt_was_recorded(theater, kill_at):
    theater.fire(kill_at=kill_at)
    theater.do("halt")
    before = theater.sold()
    theater.recover()
    assert theater.sold() == before
    theater.check()
    theater.do("lift")
    assert theater.fire()["result"] == "allowed"
    theater.check()


def test_a_sweep_that_dies_at_any_point_goes_on_and_pays_all_back(theater):
    theater.fire()
    theater.do("stop")
    number = 1
    while "killed" in theater.do("sweep", kill_at=number):
        number += 1
    assert number > 4
    assert theater.do("sweep")["result"] is None
    home, session = Pubkey.from_string(theater.wallet), Pubkey.from_string(theater.session)
    assert [theater.chain.token_balance(home, mint) for mint in theater.mints] == [START_USDC - 10**7, 4 * 10**9]
    assert theater.chain.lamports(session) == 0


def test_an_executor_that_sends_before_it_commits_is_found_out(theater):
    """The control: the same suite, and a wrong order."""
    found = False
    for number in range(1, theater.fire()["points"]):
        theater.fire(kill_at=number, wrong=True)
        theater.recover()
        try:
            theater.check()
        except AssertionError:
            found = True
            break
    assert found


ROUNDS = 200


def die_at_random(theater):
    points = theater.fire()["points"]
    for _ in range(ROUNDS):
        act = theater.random.choice(["fire"] * 4 + ["fund"])
        kill_at = theater.random.randint(1, points)
        (theater.fire if act == "fire" else lambda **more: theater.do("fund", **more))(kill_at=kill_at)
        if theater.random.random() < 0.2:
            theater.do("halt")
            before = theater.sold()
            theater.recover(kill=True)
            assert theater.sold() == before
            theater.do("lift")
        theater.recover(kill=theater.random.random() < 0.5)
        theater.check()
    assert theater.check() > ROUNDS // 10


@pytest.mark.campaign
@pytest.mark.timeout(1_200)
def test_two_hundred_random_deaths(theater):
    die_at_random(theater)


@pytest.mark.campaign
@pytest.mark.timeout(1_200)
def test_two_hundred_random_deaths_on_postgresql(on_postgres):
    die_at_random(on_postgres)
