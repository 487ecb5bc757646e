"""From the request to the chain and back, on the local chain."""

import asyncio

import pytest

from executor.audit import check_ledger
from executor.demo.world import World
from executor.entries import Kind
from executor.errors import ChainError
from executor.execution import Executor
from executor.lifecycle import AttemptState
from executor.rails import Pending, earliest_slot
from executor.reasons import Reason
from executor.signing import SigningGate


class Proxy:
    """The local chain or rail, with some of its answers replaced."""

    def __init__(self, real, **replaced):
        self._real = real
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(self._real, name)


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=4) as made:
        made.guard.activate(made.sign_permit())
        yield made
        assert check_ledger(made.guard.ledger).findings == ()


def executor_with(world, *, chain=None, rail=None):
    gate = SigningGate(world.awaited, world.vault, world.chain)
    return Executor(world.awaited, gate, chain or world.chain, [rail or world.rail])


def fire(executor, request):
    return asyncio.run(executor.fire(request))


def settle(executor, request):
    return asyncio.run(executor.settlement.settle(request.wallet, request.execution_id))


def kinds(outcome):
    return [sealed.entry.kind for sealed in outcome.execution.steps]


def last(outcome):
    return outcome.execution.steps[-1].entry.body


def lost(sent):
    """Return a way to send that keeps what it is given."""

    async def send(content):
        sent.append(content)

    return send


def test_a_fire_lands_and_says_what_it_moved(world):
    outcome = fire(world.executor, world.request(200))
    assert kinds(outcome) == [Kind.AUTHORIZED, Kind.SIGNED, Kind.LANDED]
    assert last(outcome)["fill"] == {
        "slot": world.chain.block().slot,
        "sold": "200000000",
        "received": "80000000000",
        "feeLamports": "10000",
        "filledAmount": "80",
        "filledPriceUsd": "2.5",
        "feeUsd": "0.0015",
    }


def test_the_same_request_again_moves_nothing(world):
    request = world.request(200)
    fire(world.executor, request)
    balances = world.token_balances(world.session_pubkey)
    again = fire(world.executor, request)
    assert again.execution.state is AttemptState.LANDED
    assert again.decision.authorization is None
    assert world.token_balances(world.session_pubkey) == balances


def test_a_rail_that_is_not_there_authorizes_nothing(world):
    request = world.request(1).model_copy(update={"rail": "other"})
    with pytest.raises(ChainError, match="no rail"):
        fire(world.executor, request)
    assert world.guard.execution(world.wallet, request.execution_id) is None


def test_a_refusal_that_is_not_recorded_has_no_story(world):
    landed = world.request(1)
    fire(world.executor, landed)
    conflict = fire(world.executor, landed.model_copy(update={"sell_amount": 2}))
    assert (conflict.decision.reason, conflict.execution) == (Reason.EXECUTION_CONFLICT, None)
    unknown = fire(world.executor, world.request(1).model_copy(update={"agent_id": world.new_id()}))
    assert (unknown.decision.reason, unknown.execution) == (Reason.AGENT_UNKNOWN, None)


def test_a_tampered_ledger_is_a_refusal_too(world):
    with world.guard.ledger.engine.begin() as connection:
        ((seal,),) = connection.exec_driver_sql("SELECT mac FROM heads WHERE wallet <> '*'").fetchall()
        connection.exec_driver_sql("UPDATE heads SET mac = x'00' WHERE wallet <> '*'")
    outcome = fire(world.executor, world.request(1))
    assert (outcome.decision.reason, outcome.execution) == (Reason.LEDGER_TAMPERED, None)
    assert world.guard.activate(world.sign_permit()).reason is Reason.LEDGER_TAMPERED
    with world.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE heads SET mac = ? WHERE wallet <> '*'", (seal,))


def test_a_rail_that_offers_nothing_voids_the_attempt(world):
    request = world.request(100).model_copy(update={"min_received": 41 * 10**9})
    outcome = fire(world.executor, request)
    assert kinds(outcome) == [Kind.AUTHORIZED, Kind.VOIDED]
    assert last(outcome)["reason"] == "RAIL_UNAVAILABLE"
    assert "less than" in last(outcome)["detail"]


def test_a_rail_that_cheats_is_not_signed_for(world):
    async def build(authorization, blockhash):
        return await world.rail.build(authorization._replace(sell_amount=900 * 10**6), blockhash)

    outcome = fire(executor_with(world, rail=Proxy(world.rail, build=build)), world.request(100))
    assert kinds(outcome) == [Kind.AUTHORIZED, Kind.VOIDED]
    assert last(outcome)["reason"] == "TRANSACTION_REFUSED"
    assert world.token_balances(world.session_pubkey) == (1_000 * 10**6, 0)


def test_a_rail_gets_no_right_to_sign_and_can_not_change_what_was_authorized(world):
    seen = []

    async def build(authorization, blockhash):
        seen.append(authorization.claim)
        with pytest.raises(AttributeError):
            object.__setattr__(authorization, "sell_amount", 900 * 10**6)
        return await world.rail.build(authorization._replace(min_received=1, sell_amount=900 * 10**6), blockhash)

    outcome = fire(executor_with(world, rail=Proxy(world.rail, build=build)), world.request(100))
    assert seen == [""]
    assert last(outcome)["reason"] == "TRANSACTION_REFUSED"


def test_a_chain_that_can_not_be_asked_voids_the_attempt(world):
    async def latest_blockhash():
        raise ChainError("no connection")

    outcome = fire(executor_with(world, chain=Proxy(world.chain, latest_blockhash=latest_blockhash)), world.request(1))
    assert kinds(outcome) == [Kind.AUTHORIZED, Kind.VOIDED]


def test_a_transaction_that_the_chain_undoes_has_failed(world):
    for _ in range(4):
        assert fire(world.executor, world.request(250)).execution.state is AttemptState.LANDED
    outcome = fire(world.executor, world.request(1))  # nothing is left to sell
    assert kinds(outcome) == [Kind.AUTHORIZED, Kind.SIGNED, Kind.FAILED]
    assert last(outcome)["reason"] == "TRANSACTION_FAILED"


def test_a_lost_transaction_is_dead_only_when_it_can_no_longer_land(world):
    sent = []
    executor = executor_with(world, chain=Proxy(world.chain, send=lost(sent)))
    request = world.request(100)
    outcome = fire(executor, request)
    assert outcome.execution.state is AttemptState.SIGNED
    last_valid = last(outcome)["lastValidBlockHeight"]
    world.chain.advance(last_valid - world.chain.block().height)
    assert settle(executor, request) is AttemptState.SIGNED
    world.chain.advance(1)
    assert settle(executor, request) is AttemptState.DEAD
    with pytest.raises(ChainError, match="BlockhashNotFound"):
        world.chain.execute(sent[0])
    assert world.token_balances(world.session_pubkey) == (1_000 * 10**6, 0)


def test_a_late_landing_is_found(world):
    sent = []
    executor = executor_with(world, chain=Proxy(world.chain, send=lost(sent)))
    request = world.request(100)
    fire(executor, request)
    world.chain.execute(sent[0])
    assert settle(executor, request) is AttemptState.LANDED
    assert settle(executor, request) is AttemptState.LANDED


def test_an_answer_that_says_no_may_still_have_landed(world):
    async def send(content):
        await world.chain.send(content)
        raise ChainError("timed out")

    outcome = fire(executor_with(world, chain=Proxy(world.chain, send=send)), world.request(100))
    assert outcome.execution.state is AttemptState.LANDED


def test_the_same_bytes_land_once(world):
    sent = []

    async def send(content):
        sent.append(content)
        await world.chain.send(content)

    fire(executor_with(world, chain=Proxy(world.chain, send=send)), world.request(100))
    balances = world.token_balances(world.session_pubkey)
    world.chain.execute(sent[0])
    assert world.token_balances(world.session_pubkey) == balances


def test_nobody_settles_what_never_was(world):
    with pytest.raises(ChainError, match="no execution"):
        settle(world.executor, world.request(1))


def test_a_rail_that_takes_too_long_voids_the_attempt(world, monkeypatch):
    async def build(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr("executor.execution.RAIL_S_MAX", 0.01)
    outcome = fire(executor_with(world, rail=Proxy(world.rail, build=build)), world.request(1))
    assert kinds(outcome) == [Kind.AUTHORIZED, Kind.VOIDED]
    assert last(outcome)["reason"] == "RAIL_UNAVAILABLE"
    assert "within" in last(outcome)["detail"]


def test_a_rail_may_send_by_a_way_of_its_own(world):
    sent = []
    executor = executor_with(
        world, chain=Proxy(world.chain, send=lost(unused := [])), rail=Proxy(world.rail, send=lost(sent))
    )
    request = world.request(100)
    assert fire(executor, request).execution.state is AttemptState.SIGNED
    world.chain.execute(sent[0])
    assert settle(executor, request) is AttemptState.LANDED
    assert unused == []


def test_what_is_not_final_is_neither_landed_nor_dead(world):
    """Though its blockhash has expired: a look-up that found it in a block beats any height."""

    async def record(_, as_of_slot, since_slot):
        return Pending(max(as_of_slot, since_slot))

    request = world.request(100)
    executor = executor_with(world, chain=Proxy(world.chain, record=record))
    assert fire(executor, request).execution.state is AttemptState.SIGNED
    world.chain.advance(1_000)
    assert settle(executor, request) is AttemptState.SIGNED
    assert settle(world.executor, request) is AttemptState.LANDED


def test_a_chain_that_can_not_be_asked_leaves_the_attempt_signed(world):
    async def finalized_block():
        raise ChainError("no connection")

    request = world.request(100)
    executor = executor_with(world, chain=Proxy(world.chain, finalized_block=finalized_block))
    assert fire(executor, request).execution.state is AttemptState.SIGNED
    with pytest.raises(ChainError, match="no connection"):
        settle(executor, request)
    assert settle(world.executor, request) is AttemptState.LANDED
    assert world.token_balances(world.session_pubkey) == (900 * 10**6, 40 * 10**9)


def test_the_look_up_is_as_of_the_block_whose_height_decides(world):
    asked = []

    async def record(_, as_of_slot, since_slot):
        asked.append((since_slot, as_of_slot))
        world.chain.advance(1)

    executor = executor_with(world, chain=Proxy(world.chain, send=lost([]), record=record))
    request = world.request(100)
    world.chain.advance(5_000)
    last_valid = last(fire(executor, request))["lastValidBlockHeight"]
    world.chain.advance(500)
    newest = world.chain.block()
    assert settle(executor, request) is AttemptState.DEAD
    assert asked[-1] == (earliest_slot(last_valid, newest), newest.slot)
    assert asked[-1][0] > 0
    assert newest.slot != newest.height


@pytest.mark.parametrize("failure", [KeyError("price"), RuntimeError("secret"), None, 7, "text"])
def test_a_rail_that_fails_in_its_own_way_leaves_nothing_authorized(world, failure):
    async def build(*_arguments):
        if isinstance(failure, Exception):
            raise failure
        return failure

    request = world.request(100)
    executor = executor_with(world, rail=Proxy(world.rail, build=build))
    if isinstance(failure, Exception):
        with pytest.raises(type(failure)):
            fire(executor, request)
    else:
        fire(executor, request)
    execution = world.guard.execution(world.wallet, request.execution_id)
    assert execution.state is AttemptState.VOIDED
    assert "secret" not in str(execution.steps[-1].entry.body)


def test_two_that_settle_at_once_harm_nobody(world):
    """The second replica settles between the first one's look-up and its sending."""
    request = world.request(100)

    async def swallow(_transaction):
        pass

    assert fire(executor_with(world, chain=Proxy(world.chain, send=swallow)), request).execution.state == "signed"

    async def record(*arguments, **named):
        found = await world.chain.record(*arguments, **named)
        await world.executor.settlement.recover()
        return found

    first = executor_with(world, chain=Proxy(world.chain, record=record))
    assert asyncio.run(first.settlement.recover()) == 0
    assert world.guard.execution(world.wallet, request.execution_id).state is AttemptState.LANDED


@pytest.mark.parametrize("slow", ["building", "refused"])
def test_an_attempt_that_another_process_gave_up_meanwhile_is_told_as_it_stands(world, slow):
    async def build(authorization, blockhash):
        proposed = await world.rail.build(authorization, blockhash)
        world.now_ms += 60_000
        assert await world.executor.settlement.recover() == 0
        return proposed if slow == "building" else b"no transaction"

    request = world.request(100)
    outcome = fire(executor_with(world, rail=Proxy(world.rail, build=build)), request)
    assert outcome.execution.state is AttemptState.VOIDED
    assert last(outcome)["reason"] == Reason.AUTHORIZATION_EXPIRED
