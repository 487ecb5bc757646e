"""The blocks around the VM: how long a blockhash lives, and what is executed once."""

import asyncio
import random

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from executor.errors import ChainError
from executor.rails.local_chain import LocalChain


@pytest.fixture
def chain():
    return LocalChain(random.Random(2).randbytes)


@pytest.fixture
def payer(chain):
    made = chain.new_keypair()
    chain.give_lamports(made.pubkey(), 10**9)
    return made


def run(question):
    return asyncio.run(question)


def pay(chain, payer, to, tables=()):
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=10**6))
    blockhash = Hash.from_string(run(chain.latest_blockhash()).hash)
    return bytes(VersionedTransaction(MessageV0.try_compile(payer.pubkey(), [instruction], tables, blockhash), [payer]))


def test_each_block_has_a_hash_that_lives_for_150_more(chain, payer):
    first, first_payment = run(chain.latest_blockhash()), pay(chain, payer, Pubkey.new_unique())
    chain.advance(1)
    second, second_payment = run(chain.latest_blockhash()), pay(chain, payer, Pubkey.new_unique())
    assert first.hash != second.hash
    assert second.last_valid_block_height == first.last_valid_block_height + 1
    chain.advance(first.last_valid_block_height - chain.block().height)
    with pytest.raises(ChainError, match="BlockhashNotFound"):  # it would stand in the block after its last
        chain.execute(first_payment)
    chain.execute(second_payment)
    assert chain.block().height == second.last_valid_block_height


def test_the_same_bytes_are_executed_once(chain, payer):
    to = Pubkey.new_unique()
    content = pay(chain, payer, to)
    for _ in range(3):
        run(chain.send(content))
    assert chain.lamports(to) == 10**6
    forged = bytearray(content)
    forged[-5] ^= 1  # of the amount
    with pytest.raises(ChainError, match="SignatureFailure"):
        chain.execute(bytes(forged))
    assert chain.lamports(to) == 10**6


def test_what_it_has_not_come_to_it_does_not_know(chain):
    slot = chain.block().slot
    assert run(chain.record("unknown", slot)) is None
    with pytest.raises(ChainError, match="hasn't come to slot"):
        run(chain.record("unknown", slot + 1))


def test_an_index_beyond_a_tables_end_is_turned_away(chain, payer):
    to = Pubkey.new_unique()
    where = chain.make_table([str(Pubkey.new_unique())])
    longer = AddressLookupTableAccount(Pubkey.from_string(where), [Pubkey.new_unique(), to])
    with pytest.raises(ChainError, match="InvalidAddressLookupTableIndex"):
        chain.execute(pay(chain, payer, to, [longer]))


def test_trying_a_transaction_changes_nothing_and_looks_at_no_signature(chain, payer):
    content = bytearray(pay(chain, payer, Pubkey.new_unique()))
    content[10] ^= 1
    assert run(chain.simulate(bytes(content))).error is None
    with pytest.raises(ChainError, match="SignatureFailure"):
        chain.execute(bytes(content))
    assert chain.lamports(payer.pubkey()) == 10**9
