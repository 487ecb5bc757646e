"""The treasury: up to the floor, within the caps, never twice while one is open."""

import asyncio

import pytest
from solders.pubkey import Pubkey

from executor.audit import check_ledger
from executor.demo.world import CAPS, FLOOR_LAMPORTS, START_LAMPORTS, World
from executor.errors import ChainError
from executor.funding import FundingAllowed
from executor.halts import EVERYTHING, Halter
from executor.lifecycle import AttemptState
from executor.rails.chain import BLOCKHASH_BLOCKS
from executor.reasons import Reason
from executor.trace import trace
from executor.treasury import Treasury
from tests.executor.test_execution import Proxy

MISSING = FLOOR_LAMPORTS - START_LAMPORTS


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=12) as made:
        made.guard.activate(made.sign_permit())
        yield made
        assert check_ledger(made.guard.ledger).findings == ()


def top_up(world, **chain):
    treasury = world.treasury
    if chain:
        proxy = Proxy(world.chain, **chain)
        treasury = Treasury(
            world.awaited,
            proxy,
            world.executor.settlement,
            treasury._keypair,
            floor_lamports=FLOOR_LAMPORTS,
            new_id=world.new_id,
        )
        world.executor.settlement._chain = proxy
    try:
        return asyncio.run(treasury.top_up(world.wallet, world.agent_id))
    finally:
        world.executor.settlement._chain = world.chain


def lamports(world):
    return world.chain.lamports(Pubkey.from_string(world.session_pubkey))


def fundings(world):
    steps = [each.entry for each in world.guard.entries(world.wallet) if each.entry.funding is not None]
    return [(each.funding, str(each.kind)) for each in steps]


async def refuses(*_arguments, **_named):
    raise ChainError("no connection")


def test_it_tops_up_to_the_floor_and_no_further(world):
    assert isinstance(top_up(world), FundingAllowed)
    assert lamports(world) == FLOOR_LAMPORTS
    assert top_up(world) is None
    assert fundings(world) == [(1, "authorized"), (1, "signed"), (1, "landed")]
    assert world.guard.events(world.wallet) == []
    signed = world.guard.entries(world.wallet)[-2].entry.body["txSignature"]
    assert trace(world.guard.ledger, signed).findings == ()


@pytest.mark.parametrize("question", ["accounts", "latest_blockhash"])
def test_a_chain_that_can_not_be_asked_gives_nothing_and_uses_nothing_up(world, question):
    """What is authorized counts for a day, whatever becomes of it: a node that is out would use the cap up."""
    for _ in range(9):
        with pytest.raises(ChainError):
            top_up(world, **{question: refuses})
    assert fundings(world) == []
    assert isinstance(top_up(world), FundingAllowed)
    assert lamports(world) == FLOOR_LAMPORTS


def test_nothing_is_given_while_one_is_open_and_what_was_given_is_never_credited_back(world):
    decision = top_up(world, send=refuses)
    assert isinstance(decision, FundingAllowed)
    assert lamports(world) == START_LAMPORTS
    assert top_up(world, send=refuses, record=refuses) is None
    world.chain.advance(BLOCKHASH_BLOCKS + 1)
    assert asyncio.run(world.executor.settlement.recover()) == 0
    assert fundings(world) == [(1, "authorized"), (1, "signed"), (1, "dead")]
    cap = CAPS.autofund_lamports_per_24h
    assert world.guard.headroom(world.wallet).autofund_lamports == (MISSING, cap)
    assert isinstance(top_up(world), FundingAllowed)
    assert world.guard.headroom(world.wallet).autofund_lamports == (2 * MISSING, cap)


def test_what_is_open_is_settled_before_more_is_asked_for(world):
    top_up(world, send=refuses)
    top_up(world)
    assert lamports(world) == FLOOR_LAMPORTS
    assert [state for _, state in fundings(world)].count("landed") == 1


def test_the_cap_holds_whatever_is_missing(world):
    for _ in range(2):
        top_up(world, send=refuses)
        world.chain.advance(BLOCKHASH_BLOCKS + 1)
        asyncio.run(world.executor.settlement.recover())
    refused = top_up(world)
    assert refused.reason is Reason.FUNDING_OVER_CAP
    assert lamports(world) == START_LAMPORTS


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda world: world.guard.stop(world.wallet, world.agent_id), Reason.AGENT_STOPPED),
        (lambda world: world.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill"), Reason.HALTED),
        (lambda world: world.let_pass(3_600), Reason.PERMIT_EXPIRED),
        (lambda world: world.guard.set_fundable(world.wallet, fundable=False), Reason.FUNDING_NOT_ALLOWED),
    ],
)
def test_an_agent_that_may_not_act_is_not_funded(world, end, reason):
    end(world)
    assert top_up(world).reason is reason
    assert lamports(world) == START_LAMPORTS


def test_a_funding_that_was_signed_before_the_stop_is_not_sent_after_it(world):
    top_up(world, send=refuses)
    world.guard.stop(world.wallet, world.agent_id)
    assert asyncio.run(world.executor.settlement.recover()) == 1
    assert lamports(world) == START_LAMPORTS
    world.chain.advance(BLOCKHASH_BLOCKS + 1)
    assert asyncio.run(world.executor.settlement.recover()) == 0
    assert [state for _, state in fundings(world)][-1] == AttemptState.DEAD


def test_an_unknown_agent_is_not_asked_for(world):
    with pytest.raises(ChainError, match="there is no agent"):
        asyncio.run(world.treasury.top_up(world.wallet, world.new_id()))


def test_a_funding_that_another_process_gave_up_meanwhile_gives_nothing(world):
    mark_signed = world.awaited.mark_signed

    async def late(*arguments, **named):
        world.now_ms += 60_000
        assert await world.executor.settlement.recover() == 0
        return await mark_signed(*arguments, **named)

    world.awaited.mark_signed = late
    assert isinstance(top_up(world), FundingAllowed)
    assert fundings(world) == [(1, "authorized"), (1, "voided")]
    assert lamports(world) == START_LAMPORTS


def test_of_two_replicas_at_once_one_pays(world):
    """Both have seen the same empty wallet; the second one's look is out of date once the first was authorized."""
    treasury = world.treasury
    both_looked = asyncio.Event()
    waiting = []

    async def accounts(addresses, **named):
        found = await world.chain.accounts(addresses, **named)
        waiting.append(found)
        if len(waiting) == 2:
            both_looked.set()
        await both_looked.wait()
        return found

    replicas = [
        Treasury(
            world.awaited,
            Proxy(world.chain, accounts=accounts),
            world.executor.settlement,
            treasury._keypair,
            floor_lamports=FLOOR_LAMPORTS,
            new_id=world.new_id,
        )
        for _ in range(2)
    ]

    async def at_once():
        return await asyncio.gather(*(each.top_up(world.wallet, world.agent_id) for each in replicas))

    first, second = sorted(asyncio.run(at_once()), key=lambda decision: decision.outcome)
    assert isinstance(first, FundingAllowed)
    assert second.reason is Reason.SESSION_BUSY
    assert lamports(world) == FLOOR_LAMPORTS
