"""A fire whose chain is behind a socket: whatever fails on the way, it lands at most once and can be settled."""

import asyncio
from contextlib import suppress

import pytest

from executor.audit import check_ledger
from executor.demo.world import World
from executor.errors import ChainError
from executor.execution import Executor
from executor.lifecycle import AttemptState
from executor.rails.rpc import RpcChain
from executor.signing import SigningGate
from tests.localnet.front import Front
from tests.localnet.process import ChainProcess

TRIES = 2
TIMEOUT_S = 0.3
BEFORE, AFTER = (1_000 * 10**6, 0), (900 * 10**6, 40 * 10**9)


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=5) as made:
        made.guard.activate(made.sign_permit())
        yield made
        assert check_ledger(made.guard.ledger).findings == ()


def over_rpc(world, front, work):
    """Run `work` with an executor whose chain is behind `front`."""

    async def run():
        async with front.serve() as url, RpcChain(url, timeout_s=TIMEOUT_S, pauses_s=[0] * (TRIES - 1)) as chain:
            gate = SigningGate(world.awaited, world.vault, chain)
            return await work(Executor(world.awaited, gate, chain, [world.rail]))

    return asyncio.run(run())


def fire(world, front, request):
    return over_rpc(world, front, lambda executor: executor.fire(request)).execution


def settle(world, front, request):
    return over_rpc(world, front, lambda executor: executor.settlement.settle(request.wallet, request.execution_id))


def test_a_fire_lands_and_what_it_moved_is_the_chains_word(world):
    request = world.request(100)
    execution = fire(world, Front(world.chain), request)
    assert execution.state is AttemptState.LANDED
    fill = execution.steps[-1].entry.body["fill"]
    assert (fill["sold"], fill["received"], fill["feeLamports"]) == ("100000000", "40000000000", "10000")
    assert fill["slot"] == world.chain.block().slot
    assert world.token_balances(world.session_pubkey) == AFTER


FAULTS = {
    "the request is lost": ("drop-request", None),
    "the answer is lost": ("drop-answer", None),
    "the request comes late": ("hold-request", None),
    "the answer comes late": ("hold-answer", None),
    "the answer drips": ("drip", None),
    "it comes twice": ("twice", None),
    "the answer comes twice": ("repeat", None),
    "another's answer": ("id", "another"),
    "garbage": ("body", "{garbage"),
    "null": ("result", None),
    "too many requests": ("status", 429),
    "the server's fault": ("status", 500),
    "moved": ("status", 302),
    "declined": ("error", {"code": -32603, "message": "Internal error"}),
}
METHODS = ["getEpochInfo", "getLatestBlockhash", "sendTransaction", "getSignatureStatuses", "getTransaction"]


@pytest.mark.parametrize("times", [1, 9], ids=["once", "always"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kind", "value"), FAULTS.values(), ids=FAULTS)
def test_a_fault_anywhere_leaves_it_to_be_settled_and_it_lands_at_most_once(world, method, kind, value, times):
    front, request = Front(world.chain), world.request(100)
    front.fault(method, kind, value, times)
    state = fire(world, front, request).state
    assert state in {AttemptState.VOIDED, AttemptState.SIGNED, AttemptState.LANDED}
    front.faults.clear()
    if state is AttemptState.SIGNED:
        world.chain.advance(151)
        state = settle(world, front, request)
    moved = {AttemptState.LANDED: AFTER, AttemptState.DEAD: BEFORE, AttemptState.VOIDED: BEFORE}
    assert world.token_balances(world.session_pubkey) == moved[state]
    again = fire(world, front, request)
    assert again.state is state
    assert world.token_balances(world.session_pubkey) == moved[state]


def lost(world, front):
    """Fire with every way to send broken, and return the request: signed, and never landed."""
    request = world.request(100)
    front.fault("sendTransaction", "drop-request", times=TRIES)
    assert fire(world, front, request).state is AttemptState.SIGNED
    return request


def test_what_never_landed_is_dead_one_block_after_its_last(world):
    front = Front(world.chain)
    request = lost(world, front)
    world.chain.advance(150)
    assert settle(world, front, request) is AttemptState.SIGNED
    world.chain.advance(1)
    assert settle(world, front, request) is AttemptState.DEAD
    assert world.token_balances(world.session_pubkey) == BEFORE


LIES = {
    "a height that goes back": ("getEpochInfo", lambda info: {**info, "blockHeight": 1, "absoluteSlot": 1}),
    "a slot that nobody has reached": (
        "getEpochInfo",
        lambda info: {**info, "blockHeight": 10**9, "absoluteSlot": 10**9},
    ),
    "a landing that never was": (
        "getSignatureStatuses",
        lambda result: {
            **result,
            "value": [{"confirmationStatus": "finalized", "confirmations": None, "err": None, "slot": 8}],
        },
    ),
    "a block that isn't final": (
        "getSignatureStatuses",
        lambda result: {
            **result,
            "value": [{"confirmationStatus": "confirmed", "confirmations": 1, "err": None, "slot": 8}],
        },
    ),
    "an answer that is too old": ("getSignatureStatuses", lambda result: {**result, "context": {"slot": 1}}),
    "a history that is too short": ("getFirstAvailableBlock", lambda _: 10**6),
}


@pytest.mark.parametrize(("method", "lie"), LIES.values(), ids=LIES)
def test_a_lie_kills_nothing_before_its_time(world, method, lie):
    front = Front(world.chain)
    request = lost(world, front)
    if method != "getEpochInfo":
        world.chain.advance(151)
    front.fault(method, "change", lie, times=9)
    assert _settled_or_refused(world, front, request) is AttemptState.SIGNED
    front.faults.clear()
    world.chain.advance(151)
    assert settle(world, front, request) is AttemptState.DEAD


def test_a_landing_that_is_hidden_is_not_called_dead(world):
    front, request = Front(world.chain), world.request(100)
    front.fault("getSignatureStatuses", "change", lambda result: {**result, "value": [None]}, times=9)
    assert fire(world, front, request).state is AttemptState.SIGNED
    world.chain.advance(151)
    assert _settled_or_refused(world, front, request) is AttemptState.SIGNED
    front.faults.clear()
    assert settle(world, front, request) is AttemptState.LANDED
    assert world.token_balances(world.session_pubkey) == AFTER


def _settled_or_refused(world, front, request):
    """Settle, and return the state that the ledger holds afterwards, believed or not."""
    before = world.guard.execution(request.wallet, request.execution_id).steps
    with suppress(ChainError):
        settle(world, front, request)
    found = world.guard.execution(request.wallet, request.execution_id)
    assert found.steps == before
    return found.state


def test_a_blockhash_with_an_absurd_end_is_not_built_on(world):
    front, request = Front(world.chain), world.request(100)

    def change(result):
        result["value"]["lastValidBlockHeight"] = 1
        return result

    front.fault("getLatestBlockhash", "change", change, times=TRIES)
    execution = fire(world, front, request)
    assert execution.state is AttemptState.VOIDED
    assert execution.steps[-1].entry.body["reason"] == "RAIL_UNAVAILABLE"
    assert "sendTransaction" not in front.asked


def test_the_chain_lives_on_in_a_process_of_its_own():
    with ChainProcess(seed=1) as process:
        owner = process.new_keypair().pubkey()
        mint = process.make_mint(6)
        process.give_lamports(owner, 10**9)
        process.give_tokens(owner, mint, 7)

        async def look():
            async with RpcChain(process.url) as chain:
                return (
                    await chain.finalized_block(),
                    await chain.holdings(str(owner)),
                    await chain.accounts([str(owner)]),
                )

        block, (held,), (account,) = asyncio.run(look())
        assert (held.mint, held.amount, account.lamports) == (str(mint), 7, process.lamports(owner))
        assert (process.token_balance(owner, mint), block.height) == (7, process.height())
        process.advance(5)
        process.fault("getEpochInfo", "drop-request")
        again, _, _ = asyncio.run(look())
        assert again.height == block.height + 5
