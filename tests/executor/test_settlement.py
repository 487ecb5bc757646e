"""Settlement: whatever a process left is taken up once, by whoever comes, and sent only while its agent may act."""

import asyncio

import pytest

from executor.audit import check_ledger
from executor.demo.world import World
from executor.entries import Kind
from executor.errors import ChainError, ClockUntrusted
from executor.halts import Halter, Scope
from executor.lifecycle import AttemptState
from executor.rails.chain import BLOCKHASH_BLOCKS
from executor.reasons import Reason
from executor.settlement import Settlement
from permits import LocalSigner
from tests.executor.test_execution import Proxy


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=11) as made:
        made.guard.activate(made.sign_permit())
        yield made
        assert check_ledger(made.guard.ledger).findings == ()


def left(world, *, signed=True):
    """Authorize a sale of 100 USDC, sign it unless told not to, and leave it there; return its id."""

    async def leave():
        authorization = (await world.awaited.authorize(world.request(100))).authorization
        if signed:
            blockhash = await world.chain.latest_blockhash()
            proposed = await world.rail.build(authorization.without_claim(), blockhash.hash)
            await world.executor._gate.sign(authorization, proposed, blockhash, world.rail.cosigners)
        return authorization.execution_id

    return asyncio.run(leave())


def recover(world, **chain):
    proxy = Proxy(world.chain, **chain) if chain else world.chain
    return asyncio.run(Settlement(world.awaited, proxy).recover())


def send_now(world, execution_id):
    """Hand the stored transaction to the chain behind the executor's back."""
    signed = world.guard.execution(world.wallet, execution_id).steps[-1].entry
    world.chain.execute(bytes.fromhex(signed.body["transaction"]))


def state(world, execution_id):
    return world.guard.execution(world.wallet, execution_id).state


def sold(world):
    return 1_000 * 10**6 - world.token_balances(world.session_pubkey)[0]


def test_a_young_authorization_is_left_to_its_holder_and_an_old_one_given_up(world):
    execution_id = left(world, signed=False)
    world.now_ms += 59_999
    assert recover(world) == 1
    assert state(world, execution_id) is AttemptState.AUTHORIZED
    world.now_ms += 1
    assert recover(world) == 0
    execution = world.guard.execution(world.wallet, execution_id)
    assert (execution.state, execution.steps[-1].entry.body["reason"]) == (
        AttemptState.VOIDED,
        Reason.AUTHORIZATION_EXPIRED,
    )


def test_what_was_signed_and_never_sent_is_sent_and_lands_once(world):
    execution_id = left(world)
    assert sold(world) == 0
    assert [recover(world) for _ in range(3)] == [0, 0, 0]
    assert state(world, execution_id) is AttemptState.LANDED
    assert sold(world) == 100 * 10**6


def test_what_has_landed_already_is_only_recorded(world):
    execution_id = left(world)
    world.chain.execute(
        bytes.fromhex(world.guard.execution(world.wallet, execution_id).steps[-1].entry.body["transaction"])
    )

    async def send(_transaction):
        raise AssertionError("it was sent again")

    assert recover(world, send=send) == 0
    assert state(world, execution_id) is AttemptState.LANDED


def test_a_chain_that_can_not_be_asked_leaves_it_open(world):
    execution_id = left(world)

    async def finalized_block():
        raise ChainError("no connection")

    assert recover(world, finalized_block=finalized_block) == 1
    assert state(world, execution_id) is AttemptState.SIGNED


def stop(world):
    assert len(world.guard.stop(world.wallet, world.agent_id)) == 1


def halt(world):
    world.guard.halt(Scope(world.wallet), Halter.USER, "enough")


def halt_everything(world):
    world.guard.halt(Scope(), Halter.OPERATOR, "a drill")


def expire(world):
    world.now_ms += 3_600_000


@pytest.mark.parametrize("end", [stop, halt, halt_everything, expire])
def test_nothing_is_sent_for_an_agent_that_may_not_act_and_it_dies(world, end):
    execution_id = left(world)
    end(world)
    assert recover(world) == 1
    world.chain.advance(BLOCKHASH_BLOCKS)
    assert recover(world) == 1
    world.chain.advance(1)
    assert recover(world) == 0
    assert state(world, execution_id) is AttemptState.DEAD
    assert sold(world) == 0


def test_what_was_sent_before_the_stop_still_lands(world):
    execution_id = left(world)
    world.chain.execute(
        bytes.fromhex(world.guard.execution(world.wallet, execution_id).steps[-1].entry.body["transaction"])
    )
    stop(world)
    assert recover(world) == 0
    assert state(world, execution_id) is AttemptState.LANDED


def test_many_that_recover_at_once_record_each_end_once(world):
    executions = [left(world) for _ in range(3)]

    async def all_at_once():
        return await asyncio.gather(*(Settlement(world.awaited, world.chain).recover() for _ in range(4)))

    asyncio.run(all_at_once())
    assert recover(world) == 0
    assert {state(world, each) for each in executions} == {AttemptState.LANDED}
    kinds = [each.entry.kind for each in world.guard.entries(world.wallet)]
    assert kinds.count(Kind.LANDED) == 3
    assert sold(world) == 300 * 10**6


def test_a_cancelled_fire_is_taken_up(world):
    request = world.request(100)

    async def cancelled_at_the_send():
        async def send(_transaction):
            task.cancel()
            await asyncio.sleep(0)

        world.executor.settlement._chain = Proxy(world.chain, send=send)
        task = asyncio.create_task(world.executor.fire(request))
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled_at_the_send())
    assert state(world, request.execution_id) is AttemptState.SIGNED
    assert recover(world) == 0
    assert state(world, request.execution_id) is AttemptState.LANDED


def test_what_a_rail_sends_its_own_way_is_sent_so_again(world):
    """A relay that hides trades until they land would be of no use if recovery told everybody."""
    left(world)
    sent = []

    async def by_the_rail(content):
        sent.append(content)
        world.chain.execute(content)

    async def by_the_chain(_content):
        raise AssertionError("everybody was told")

    chain, rail = Proxy(world.chain, send=by_the_chain), Proxy(world.rail, send=by_the_rail)
    assert asyncio.run(Settlement(world.awaited, chain, [rail]).recover()) == 0
    assert len(sent) == 1


@pytest.mark.parametrize("way", ["it raises", "it never ends"])
def test_a_rail_that_fails_at_sending_keeps_no_other_attempt_from_being_settled(world, monkeypatch, way):
    monkeypatch.setattr("executor.settlement.SENDING_S_MAX", 0.05)
    executions = [left(world) for _ in range(2)]
    asked = []

    async def send(content):
        asked.append(content)
        if len(asked) > 1:
            await world.chain.send(content)
        elif way == "it raises":
            raise KeyError("relay")
        else:
            await asyncio.Event().wait()

    settlement = Settlement(world.awaited, world.chain, [Proxy(world.rail, send=send)])
    if way == "it raises":
        with pytest.raises(KeyError):
            asyncio.run(settlement.recover())
    else:
        assert asyncio.run(settlement.recover()) == 1
    assert sorted(state(world, each) for each in executions) == [AttemptState.LANDED, AttemptState.SIGNED]
    assert asyncio.run(settlement.recover()) == 0


def become_another_user(world):
    world.signer = LocalSigner.from_seed(b"another".ljust(32))
    world.wallet, world.agent_id = world.signer.wallet_address, world.new_id()
    world.session_pubkey = world.vault.make_session_key(world.wallet, world.agent_id)
    world.guard.activate(world.sign_permit())


def test_a_wallet_whose_time_can_not_be_trusted_keeps_no_other_from_being_settled(world):
    """Its own attempt stays as it is, and once all others are taken up, that is told."""
    users = {world.wallet: left(world)}
    become_another_user(world)
    users[world.wallet] = left(world, signed=False)
    last, first = world.wallet, next(iter(users))
    world.now_ms += 10_000
    world.guard.set_next_run(world.wallet, world.agent_id, None)  # its head has seen a later time
    world.now_ms -= 10_000
    with pytest.raises(ClockUntrusted):
        recover(world)
    assert world.guard.execution(first, users[first]).state is AttemptState.LANDED
    assert world.guard.ledger.wallets_in_doubt() == [last]
