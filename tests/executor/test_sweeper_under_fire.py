"""Sweeps through what strangers send and what nodes do: all that can be moved comes home, and the lamports last."""

import asyncio
import random
from contextlib import suppress

import pytest
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from executor.assets import NATIVE_MINT
from executor.audit import check_ledger
from executor.demo.world import World
from executor.errors import ChainError
from executor.rails import Account, Simulation
from executor.rails.accounts import holding
from executor.rails.rpc import RpcChain
from executor.signing import SigningGate
from executor.signing.sweep import FEE_LAMPORTS
from executor.solana import TOKEN_2022_PROGRAM, TOKEN_PROGRAM
from executor.sweeper import HOLDINGS_MAX, Sweeper
from tests.executor.signing import scene
from tests.executor.test_execution import Proxy
from tests.localnet.front import Front

TRIES = 4
SIMULATIONS_MAX = 62
"""Of a step: 13 groups of up to 4, and each of 49 alone."""

SOULBOUND = scene.extension(9, b""), scene.extension(7, b"") + scene.extension(13, b"")
HOOKED = scene.extension(14, bytes(32) + b"H" * 32), scene.extension(7, b"") + scene.extension(15, b"\0")
FEES = scene.fee_config(100, 100), scene.extension(7, b"") + scene.extension(2, (777).to_bytes(8, "little"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr("executor.signing.gate.PAUSES_S", (0,) * (TRIES - 1))


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=21) as made:
        made.guard.activate(made.sign_permit())
        made.guard.stop(made.wallet, made.agent_id)
        yield made
        assert check_ledger(made.guard.ledger).findings == ()


def session(world):
    return Pubkey.from_string(world.session_pubkey)


def home(world, mint, program):
    return get_associated_token_address(Pubkey.from_string(world.wallet), Pubkey.from_string(mint), program)


def give(world, amount, *, program=TOKEN_PROGRAM, extensions=(b"", b""), state=1, minted=True, before=None):
    """Put an account with so much of a new token into the session wallet; return its mint.

    `extensions` are those of the mint and of the account; it lies `before` that address, where a chain tells of both.
    """
    while True:
        mint = world.chain.new_keypair().pubkey()
        where = get_associated_token_address(session(world), mint, program)
        if before is None or str(where) < before:
            break
    data = scene.mint_bytes(0, extensions[0]) if minted else bytes(82)
    world.chain.put(str(mint), Account(str(program), 10**7, data))
    token = scene.asset("STRANGE", 0, program, mint=str(mint))
    content = scene.token_account_bytes(token, session(world), amount, state=state, extensions=extensions[1])
    world.chain.put(str(where), Account(str(program), scene.RENT, content))
    return str(mint)


def give_soulbound(world, **where):
    return give(world, 1, program=TOKEN_2022_PROGRAM, extensions=SOULBOUND, **where)


def arrived(world, mint, program=TOKEN_PROGRAM):
    """Return the base units of the token in the wallet's associated account."""
    (account,) = asyncio.run(world.chain.accounts([str(home(world, mint, program))]))
    return 0 if account is None else int.from_bytes(account.data[64:72], "little")


def lamports(world):
    return world.chain.lamports(session(world))


def sweeper_on(world, chain):
    return Sweeper(world.awaited, SigningGate(world.awaited, world.vault, chain), chain)


def step(world, sweeper):
    return asyncio.run(sweeper.step(world.wallet, world.agent_id))


def sweep(world, sweeper=None, steps_max=200):
    """Do step after step until it is done, or waits; return the last."""
    sweeper = sweeper or world.sweeper
    for _ in range(steps_max):
        done = step(world, sweeper)
        if done.done or done.waits_for:
            return done
    raise AssertionError(f"it goes on after {steps_max} steps")


# Strangers


@pytest.mark.parametrize("count", [39, 40, 41, 49, 50, 1_000])
def test_what_can_be_moved_comes_home_however_much_lies_before_it(world, count):
    """Another stranger's token, which the permit doesn't name: it has no place of honor in the order."""
    wanted = give(world, 7)
    lies = str(get_associated_token_address(session(world), Pubkey.from_string(wanted)))
    for _ in range(count):
        give_soulbound(world, before=lies)
    stuck = sweep(world)
    assert (arrived(world, wanted), world.token_balances(world.wallet)[0]) == (7, 1_000 * 10**6)
    assert (lamports(world), stuck.done) == (0, False)
    assert len(asyncio.run(world.chain.holdings(world.session_pubkey))) == count
    world.chain.give_lamports(session(world), 10**8)  # all is tried again, and that goes home too
    sweep(world)
    assert lamports(world) == 0


def test_a_step_asks_and_tries_no_more_however_much_there_is(world):
    asked, tried = [], []

    async def accounts(addresses, **named):
        asked.append(len(addresses))
        return await world.chain.accounts(addresses, **named)

    async def simulate(transaction):
        tried.append(transaction)
        return await world.chain.simulate(transaction)

    for _ in range(3 * HOLDINGS_MAX):
        give_soulbound(world)
    sweeper = sweeper_on(world, Proxy(world.chain, accounts=accounts, simulate=simulate))
    for _ in range(20):
        asked.clear()
        tried.clear()
        done = step(world, sweeper)
        assert max(asked) <= 2 * HOLDINGS_MAX + 1
        assert len(tried) <= SIMULATIONS_MAX
        if done.waits_for:
            break
    assert (lamports(world), world.token_balances(world.wallet)[0]) == (0, 1_000 * 10**6)


def test_what_the_permit_names_goes_first_and_what_brings_lamports_next(world):
    strange = {give(world, amount): amount for amount in (5, 0, 5, 0, 5, 0)}
    left = asyncio.run(world.chain.holdings(world.session_pubkey))
    gone = []
    while left:
        before, _ = left, step(world, world.sweeper)
        left = asyncio.run(world.chain.holdings(world.session_pubkey))
        gone += [{each.mint for each in before} - {each.mint for each in left}]
    own, empty = {world.usdc.mint, world.jto.mint}, {mint for mint, amount in strange.items() if not amount}
    assert gone[0] >= own
    assert gone[0] | gone[1] >= own | empty
    assert {mint: arrived(world, mint) for mint in strange} == strange


def poor(world, left, *, own=False):
    """Leave the session wallet so few lamports, and of the permit's tokens nothing unless told to."""
    world.chain.put(world.session_pubkey, Account("11111111111111111111111111111111", left, b""))
    for token in () if own else (world.usdc, world.jto):
        where = get_associated_token_address(session(world), Pubkey.from_string(token.mint))
        world.chain.put(str(where), Account("11111111111111111111111111111111", 0, b""))


def test_lamports_that_are_too_few_for_the_rent_at_home_stay_until_there_are_more(world):
    """A token that can be moved isn't shown not to move: sent home, the lamports would leave it behind."""
    poor(world, 10**6)
    mint = give(world, 5)
    for _ in range(3):
        assert "too few lamports for the rent" in sweep(world).waits_for
        assert lamports(world) == 10**6
    world.chain.give_lamports(session(world), 2 * 10**6)
    assert sweep(world).done
    assert arrived(world, mint) == 5


def test_an_empty_account_pays_for_the_rent_of_others(world):
    poor(world, 10**6)
    mint = give(world, 5)
    give(world, 0)
    assert sweep(world).done
    assert arrived(world, mint) == 5


def test_another_sweeper_takes_over_after_any_step(world):
    """It remembers nothing, as after a crash, so it only has to try more."""
    wanted = [give(world, 7) for _ in range(3)]
    for _ in range(2 * HOLDINGS_MAX):
        give_soulbound(world)
    for steps in range(4):
        sweeper = sweeper_on(world, world.chain)
        for _ in range(steps):
            step(world, sweeper)
    sweep(world)
    assert [arrived(world, each) for each in wanted] == [7] * 3
    assert lamports(world) == 0


def test_an_account_that_nothing_is_ever_said_of_keeps_nothing_but_the_lamports(world):
    """Whatever it is by which each try of it comes to no end: others don't wait behind it."""
    poison = give(world, 5)
    wanted = [give(world, 7) for _ in range(HOLDINGS_MAX)]
    where = get_associated_token_address(session(world), Pubkey.from_string(poison))

    async def simulate(transaction):
        if bytes(where) in transaction:
            return Simulation("AccountInUse", ())
        return await world.chain.simulate(transaction)

    sweeper = sweeper_on(world, Proxy(world.chain, simulate=simulate))
    for _ in range(80):
        done = step(world, sweeper)
    assert done.waits_for == "the chain can't try the transaction now: AccountInUse"
    assert {arrived(world, each) for each in wanted} == {7}
    assert lamports(world) > 0
    assert sweep(world).done
    assert arrived(world, poison) == 5


def test_a_mint_that_a_node_has_not_heard_of_yet_shows_nothing(world):
    """The token and its mint came in one transaction, a slot ago."""
    mint = give(world, 5)
    lagging = [True]

    async def accounts(addresses, **named):
        found = await world.chain.accounts(addresses, **named)
        return [None if lagging[0] and each == mint else held for each, held in zip(addresses, found, strict=True)]

    sweeper = sweeper_on(world, Proxy(world.chain, accounts=accounts))
    assert "doesn't tell yet" in sweep(world, sweeper).waits_for
    assert lamports(world) > 0
    lagging.clear()
    lagging.append(False)
    assert sweep(world, sweeper).done
    assert arrived(world, mint) == 5


# Nodes

PASSING = {
    "a lagging node": ("lag", 1),
    "a blockhash not found": ("change", lambda result: {**result, "value": {"err": "BlockhashNotFound", "logs": []}}),
    "a full block": ("change", lambda result: {**result, "value": {"err": "WouldExceedMaxBlockCostLimit", "logs": []}}),
    "a node that is behind": ("refuse", {"code": -32005, "message": "Node is behind by 2 slots"}),
    "a block that isn't there yet": ("refuse", {"code": -32004, "message": "Block not available for slot 9"}),
    "a limit with HTTP 200": ("refuse", {"code": -32429, "message": "rate limited"}),
    "a limit of another": ("refuse", {"code": -32007, "message": "15/second request limit reached"}),
    "a limit of public nodes": ("refuse", {"code": 429, "message": "Too many requests for a specific RPC call"}),
    "a limit with its status": ("status", 429),
    "Cloudflare": ("status", 524),
    "a broken connection": ("drop-request", None),
    "a lost answer": ("drop-answer", None),
}
"""Faults that pass. Those that change an answer are for simulations alone."""


async def on_the_front(world, front, work):
    async with front.serve() as url, RpcChain(url, timeout_s=5, pauses_s=[0] * (TRIES - 1)) as chain:
        return await work(sweeper_on(world, chain))


@pytest.mark.parametrize(("kind", "value"), PASSING.values(), ids=PASSING)
def test_a_simulation_that_passes_is_made_again_and_at_last_waited_for(world, kind, value):
    front = Front(world.chain)
    owned = lamports(world)

    async def run(sweeper):
        front.fault("simulateTransaction", kind, value, times=20 * TRIES**2)
        for _ in range(3):
            stuck = await sweeper.step(world.wallet, world.agent_id)
            assert (stuck.done, stuck.tx_signature) == (False, None)
            assert stuck.waits_for
        assert (lamports(world), world.token_balances(world.session_pubkey)[0]) == (owned, 1_000 * 10**6)
        front.faults.clear()
        front.fault("simulateTransaction", kind, value, times=TRIES - 1)
        sent = await sweeper.step(world.wallet, world.agent_id)
        assert sent.tx_signature is not None
        for _ in range(5):
            done = await sweeper.step(world.wallet, world.agent_id)
        assert done.done

    asyncio.run(on_the_front(world, front, run))
    assert "sweep-signed" in [each.entry.kind for each in world.guard.entries(world.wallet)]
    assert world.token_balances(world.wallet)[0] == 1_000 * 10**6


def strew(world, rng):
    """Give the session wallet a random mixture; return what must come home, by mint and program, and what can't."""
    kinds = {
        "plain": {},
        "of Token-2022": {"program": TOKEN_2022_PROGRAM},
        "with fees": {"program": TOKEN_2022_PROGRAM, "extensions": FEES},
        "empty": {},
        "soulbound": {"program": TOKEN_2022_PROGRAM, "extensions": SOULBOUND},
        "hooked": {"program": TOKEN_2022_PROGRAM, "extensions": HOOKED},
        "frozen": {"state": 2},
        "of no mint": {"minted": False},
    }
    stays = {"soulbound", "hooked", "frozen", "of no mint"}
    wanted, kept = {(world.usdc.mint, TOKEN_PROGRAM): 1_000 * 10**6}, 0
    drawn = rng.choices(sorted(stays), k=rng.choice([0, 1, 40, 90, 200]))
    drawn += rng.choices(sorted(kinds.keys() - stays), k=rng.randint(0, 8))
    rng.shuffle(drawn)
    for kind in drawn:
        amount = 0 if kind == "empty" else rng.randint(1, 10**6)
        mint = give(world, amount, **kinds[kind])
        kept += kind in stays
        if kind not in stays and amount:
            fee = -(-amount // 100) if kind == "with fees" else 0
            wanted[mint, kinds[kind].get("program", TOKEN_PROGRAM)] = amount - fee
    if rng.random() < 0.5:
        native = Account(str(TOKEN_PROGRAM), 10**9, scene.mint_bytes(9))
        world.chain.put(NATIVE_MINT, native)
        data = scene.token_account_bytes(scene.WSOL, session(world), 10**9)
        where = get_associated_token_address(session(world), Pubkey.from_string(NATIVE_MINT))
        world.chain.put(str(where), Account(str(TOKEN_PROGRAM), scene.RENT + 10**9, data))
    return wanted, kept


METHODS = ["simulateTransaction", "getTokenAccountsByOwner", "getMultipleAccounts", "getLatestBlockhash"]
METHODS += ["getEpochInfo", "sendTransaction"]


def disturb(front, rng):
    """Let something that passes happen to some of the next questions: sometimes to more than are asked again."""
    for _ in range(rng.randint(0, 2)):
        method = rng.choice(METHODS)
        kind, value = rng.choice([each for each in PASSING.values() if each[0] != "change" or method == METHODS[0]])
        front.fault(method, kind, value, times=rng.choice([1, 1, 2, TRIES - 1, TRIES, 3 * TRIES]))


@pytest.mark.parametrize("seed", range(6))
def test_whatever_strangers_send_and_nodes_do_nothing_is_stranded(world, seed):
    rng = random.Random(seed)
    wanted, kept = strew(world, rng)
    front = Front(world.chain)

    def check():
        """Require that what can be moved is home, or has lamports beside it that pay for its way."""
        if lamports(world) < FEE_LAMPORTS:
            assert {key: arrived_now(world, *key) for key in wanted} == wanted

    async def run(sweeper):
        calm = 0
        for number in range(300):
            disturb(front, rng) if number < 25 else front.faults.clear()
            with suppress(ChainError):
                done = await sweeper.step(world.wallet, world.agent_id)
                check()
                calm = calm + 1 if done.done or done.waits_for else 0
                if calm >= 3 and number > 30:
                    return done
        raise AssertionError("it goes on")

    done = asyncio.run(on_the_front(world, front, run))
    assert {key: arrived_now(world, *key) for key in wanted} == wanted
    assert lamports(world) == 0
    assert done.done == (kept == 0)
    assert len(asyncio.run(world.chain.holdings(world.session_pubkey))) == kept


def arrived_now(world, mint, program):
    """Return the base units that came home, read from the chain behind the front."""
    account = world.chain._account(home(world, mint, program))
    held = None if account is None else holding("", account)
    return 0 if held is None else held.amount
