"""Two sources: what both say is believed, what one alone says isn't."""

import asyncio
import random

import pytest
from solders.pubkey import Pubkey

from executor.errors import ChainError
from executor.rails import Block, Blockhash, Pending
from executor.rails.agreed import AgreedChain
from executor.rails.local_chain import LocalChain


class Says:
    """A chain that gives other answers to some questions than `chain`."""

    def __init__(self, chain, **answers):
        self._chain = chain
        self._answers = answers

    def __getattr__(self, name):
        if name not in self._answers:
            return getattr(self._chain, name)

        async def answer(*_, **__):
            if isinstance(self._answers[name], Exception):
                raise self._answers[name]
            return self._answers[name]

        return answer


@pytest.fixture
def chain():
    made = LocalChain(random.Random(1).randbytes)
    made.make_mint(6)
    made.advance(200)
    return made


def run(question):
    return asyncio.run(question)


def both_ways(chain, other):
    return [AgreedChain(chain, other), AgreedChain(other, chain)]


def landed(chain):
    return next(iter(chain._records))


def test_what_both_say_is_the_answer(chain):
    agreed = AgreedChain(chain, chain)
    where = chain.make_table([str(Pubkey.new_unique())])
    owner = str(Pubkey.new_unique())
    assert run(agreed.tables([where])) == run(chain.tables([where]))
    assert run(agreed.latest_blockhash()) == run(chain.latest_blockhash())
    assert run(agreed.finalized_block()) == chain.block()
    assert run(agreed.record(landed(chain), 0)) == run(chain.record(landed(chain), 0)) is not None
    assert run(agreed.record("unknown", 0)) is None
    assert run(agreed.rent(165)) == run(chain.rent(165))
    assert run(agreed.accounts([owner])) == [None]
    assert run(agreed.holdings(owner)) == []
    content = chain.transaction(landed(chain))
    assert run(agreed.simulate(content)) == run(chain.simulate(content))
    run(agreed.send(content))
    with pytest.raises(ChainError, match="can't read"):
        run(agreed.send(b""))


@pytest.mark.parametrize("lie", [None, Pending(3)])
def test_one_that_hides_a_landing_is_not_believed(chain, lie):
    for agreed in both_ways(chain, Says(chain, record=lie)):
        with pytest.raises(ChainError, match="disagree about the transaction"):
            run(agreed.record(landed(chain), 0))


def test_one_that_makes_a_landing_up_is_not_believed(chain):
    for agreed in both_ways(chain, Says(chain, record=run(chain.record(landed(chain), 0)))):
        with pytest.raises(ChainError, match="disagree about the transaction"):
            run(agreed.record("unknown", 0))


def test_what_is_pending_for_both_is_pending(chain):
    agreed = AgreedChain(Says(chain, record=Pending(3)), Says(chain, record=Pending(4)))
    assert isinstance(run(agreed.record("any", 0)), Pending)


def test_another_content_of_a_table_is_refused(chain):
    where = chain.make_table([str(Pubkey.new_unique())])
    for agreed in both_ways(chain, Says(chain, tables={where: (str(Pubkey.new_unique()),)})):
        with pytest.raises(ChainError, match="disagree about an address lookup table"):
            run(agreed.tables([where]))


def test_finality_is_where_both_have_come_to(chain):
    for agreed in both_ways(chain, Says(chain, finalized_block=Block(10**9, 10**9, 9))):
        assert run(agreed.finalized_block()) == chain.block()
    behind = Block(5, 4, 0)
    for agreed in both_ways(chain, Says(chain, finalized_block=behind)):
        assert run(agreed.finalized_block()) == behind


def test_a_life_that_the_second_does_not_bear_out_is_refused(chain, monkeypatch):
    """The first tells of a blockhash that ends a hundred blocks early, and of a finality that fits."""
    monkeypatch.setattr("executor.rails.agreed.PAUSES_S", (0, 0))
    true, newest = run(chain.latest_blockhash()), chain.block()
    lie = Says(
        chain,
        latest_blockhash=Blockhash(true.hash, true.last_valid_block_height - 100),
        finalized_block=newest._replace(height=newest.height - 100),
    )
    with pytest.raises(ChainError, match="said to live"):
        run(AgreedChain(lie, chain).latest_blockhash())


def test_a_first_that_is_a_slot_behind_the_seconds_finality_is_asked_again(chain):
    true, newest = run(chain.latest_blockhash()), chain.block()
    told = [true._replace(last_valid_block_height=true.last_valid_block_height - 1), true]

    class Behind(Says):
        async def latest_blockhash(self):
            return told.pop(0)

    first = Behind(chain, finalized_block=newest._replace(height=newest.height - 1))
    assert run(AgreedChain(first, chain).latest_blockhash()) == true
    assert told == []


@pytest.mark.parametrize("question", ["finalized_block", "record", "tables", "latest_blockhash"])
def test_one_that_can_not_be_asked_leaves_no_answer(chain, question):
    silent = Says(chain, **{name: ChainError("no connection") for name in (question, "finalized_block")})
    arguments = {"record": ("unknown", 0), "tables": ([],)}.get(question, ())
    for agreed in both_ways(chain, silent):
        with pytest.raises(ChainError, match="no connection"):
            run(getattr(agreed, question)(*arguments))


def test_a_life_that_the_first_understates_is_the_seconds(chain):
    """Within what is plausible: a transaction on it would be called dead while it can still land."""
    true = run(chain.latest_blockhash())
    short = Says(chain, latest_blockhash=Blockhash(true.hash, chain.block().height + 150))
    assert run(AgreedChain(short, chain).latest_blockhash()) == true


@pytest.mark.parametrize(("question", "lie"), [("accounts", [None]), ("holdings", [])])
def test_an_emptiness_that_is_not_final_for_both_is_not_believed(chain, question, lie):
    owner = Pubkey.new_unique()
    mint = chain.make_mint(6)
    chain.give_lamports(owner, 10**9)
    chain.give_tokens(owner, mint, 5)
    asked = [str(owner)] if question == "accounts" else str(owner)
    for agreed in both_ways(chain, Says(chain, **{question: lie})):
        with pytest.raises(ChainError, match="disagree about"):
            run(getattr(agreed, question)(asked, finalized=True))
    agreed = AgreedChain(chain, chain)
    assert run(getattr(agreed, question)(asked, finalized=True)) == run(getattr(chain, question)(asked, finalized=True))
