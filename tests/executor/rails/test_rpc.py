"""The client of a node, against the wire format and against every way in which a node, or the way to it, can fail."""

import asyncio
import base64
import logging
import random

import pytest
from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from executor.errors import ChainError
from executor.rails import Account, Pending, TransactionRecord, earliest_slot
from executor.rails.jsonrpc import ANSWER_BYTES_MAX, Declined, Unanswered
from executor.rails.local_chain import LocalChain
from executor.rails.rpc import RpcChain
from executor.solana import TOKEN_2022_PROGRAM, TOKEN_PROGRAM, transfer_checked
from tests.localnet.front import Front

TRIES = 3
TIMEOUT_S = 0.3
"""Long for a loopback socket, short for a test that waits for it."""

SYSTEM = "11111111111111111111111111111111"


@pytest.fixture
def chain():
    return LocalChain(random.Random(1).randbytes)


@pytest.fixture
def front(chain):
    return Front(chain)


def ask(front, question, *, timeout_s=10, path="/"):
    """Run `question` on a client of `front`, and return its answer."""

    async def run():
        async with (
            front.serve(path) as url,
            RpcChain(url, timeout_s=timeout_s, pauses_s=[0] * (TRIES - 1)) as client,
        ):
            return await question(client)

    return asyncio.run(run())


def local(question):
    return asyncio.run(question)


def funded(chain, lamports=10**9):
    made = chain.new_keypair()
    chain.give_lamports(made.pubkey(), lamports)
    return made


def payment(chain, payer, lamports=10**6, tables=(), to=None):
    """Return a signed transfer, and its signature."""
    to = to or chain.new_keypair().pubkey()
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
    blockhash = Hash.from_string(local(chain.latest_blockhash()).hash)
    message = MessageV0.try_compile(payer.pubkey(), [instruction], list(tables), blockhash)
    transaction = VersionedTransaction(message, [payer])
    return bytes(transaction), str(transaction.signatures[0])


def landed(chain):
    """Return the signature of a transaction that landed, and the slot."""
    content, tx_signature = payment(chain, funded(chain))
    chain.execute(content)
    return tx_signature, chain.block().slot


# What it says where nothing fails


def test_it_says_what_the_chain_says(chain, front):
    owner = funded(chain)
    mint = chain.make_mint(6)
    chain.give_tokens(owner.pubkey(), mint, 5)
    addresses = [str(owner.pubkey()), str(Pubkey.new_unique()), str(get_associated_token_address(owner.pubkey(), mint))]
    chain.advance(40)

    async def compare(client):
        assert await client.latest_blockhash() == await chain.latest_blockhash()
        assert await client.finalized_block() == await chain.finalized_block()
        for finalized in (False, True):
            assert await client.accounts(addresses, finalized=finalized) == await chain.accounts(addresses)
            assert await client.holdings(addresses[0], finalized=finalized) == await chain.holdings(addresses[0])
        assert await client.rent(165) == await chain.rent(165)
        return await client.holdings(addresses[0]), await client.accounts(addresses)

    (held,), (wallet, nothing, _) = ask(front, compare)
    assert (held.mint, held.amount, held.token_program, held.frozen) == (str(mint), 5, str(TOKEN_PROGRAM), False)
    assert (wallet, nothing) == (Account(SYSTEM, 10**9, b""), None)


def test_a_sent_transaction_lands_and_its_record_is_the_chains(chain, front):
    owner, maker = funded(chain), funded(chain)
    mint = chain.make_mint(6)
    for each, amount in ((owner, 50), (maker, 7)):
        chain.give_tokens(each.pubkey(), mint, amount)
    source, destination = (get_associated_token_address(each.pubkey(), mint) for each in (owner, maker))
    move = transfer_checked(source, mint, destination, owner.pubkey(), 20, 6, TOKEN_PROGRAM)
    blockhash = Hash.from_string(local(chain.latest_blockhash()).hash)
    transaction = VersionedTransaction(MessageV0.try_compile(owner.pubkey(), [move], [], blockhash), [owner])
    tx_signature = str(transaction.signatures[0])

    async def send(client):
        await client.send(bytes(transaction))
        newest = await client.finalized_block()
        return await client.record(tx_signature, newest.slot)

    record = ask(front, send)
    assert record == local(chain.record(tx_signature, 0))
    assert (record.error, record.fee_lamports) == (None, 5_000)
    wallets = [str(each.pubkey()) for each in (owner, maker)]
    assert [record.before.of(each, str(mint)) for each in wallets] == [50, 7]
    assert [record.after.of(each, str(mint)) for each in wallets] == [30, 27]
    assert record.before.lamports[wallets[0]] - record.after.lamports[wallets[0]] == 5_000


def test_a_record_names_accounts_from_lookup_tables(chain, front):
    from solders.address_lookup_table_account import AddressLookupTableAccount  # noqa: PLC0415 - one test's

    to = str(funded(chain).pubkey())
    where = chain.make_table([str(Pubkey.new_unique()), to])
    assert ask(front, lambda client: client.tables([where])) == local(chain.tables([where]))
    content = local(chain.tables([where]))[where]
    known = AddressLookupTableAccount(Pubkey.from_string(where), [Pubkey.from_string(each) for each in content])
    sent, tx_signature = payment(chain, funded(chain), 7, [known], Pubkey.from_string(to))
    chain.execute(sent)
    record = ask(front, lambda client: client.record(tx_signature, 0))
    assert record == local(chain.record(tx_signature, 0))
    assert record.after.lamports[to] - record.before.lamports[to] == 7


def test_a_failed_transaction_tells_why(chain, front):
    content, tx_signature = payment(chain, funded(chain), lamports=10**12)
    chain.execute(content)
    record = ask(front, lambda client: client.record(tx_signature, 0))
    assert record.error == '{"InstructionError": [0, {"Custom": 1}]}'
    assert record == local(chain.record(tx_signature, 0))


def test_a_transaction_that_would_fail_is_simulated_and_not_sent(chain, front):
    content, tx_signature = payment(chain, funded(chain), lamports=10**12)
    assert "Custom" in ask(front, lambda client: client.simulate(content)).error
    with pytest.raises(ChainError, match="simulation failed"):
        ask(front, lambda client: client.send(content))
    assert ask(front, lambda client: client.record(tx_signature, 0)) is None


def test_an_unsigned_transaction_can_be_simulated(chain, front):
    parsed = VersionedTransaction.from_bytes(payment(chain, funded(chain))[0])
    unsigned = bytes(VersionedTransaction.populate(parsed.message, [Signature.default()]))
    simulation = ask(front, lambda client: client.simulate(unsigned))
    assert simulation.error is None
    assert any("success" in line for line in simulation.logs)
    chain.advance(151)
    assert ask(front, lambda client: client.simulate(unsigned)).error == "BlockhashNotFound"


def test_holdings_of_both_token_programs(chain, front):
    """Token-2022's accounts are longer, and a multisig of the program is none."""
    owner, mint = str(Pubkey.new_unique()), bytes(Pubkey.new_unique())
    base = mint + bytes(Pubkey.from_string(owner)) + (9).to_bytes(8, "little") + bytes(36) + b"\x02" + bytes(56)
    for data in (base + b"\x02" + bytes(30), base, base + b"\x01", base + b"\x02" + bytes(189)):
        chain.put(str(Pubkey.new_unique()), Account(str(TOKEN_2022_PROGRAM), 10**7, data))
    chain.put(str(Pubkey.new_unique()), Account(str(TOKEN_PROGRAM), 10**7, base[:108] + b"\0" + base[109:]))
    held = ask(front, lambda client: client.holdings(owner))
    assert [(each.amount, each.frozen, each.token_program) for each in held] == [(9, True, str(TOKEN_2022_PROGRAM))] * 2


TABLES = {
    "nothing there": None,
    "another program's": Account(SYSTEM, 1, bytes(56)),
    "no table yet": Account("AddressLookupTab1e1111111111111111111111111", 1, bytes(56)),
    "cut short": Account("AddressLookupTab1e1111111111111111111111111", 1, b"\1\0\0\0" + b"\xff" * 8),
    "half an address": Account(
        "AddressLookupTab1e1111111111111111111111111", 1, b"\1\0\0\0" + b"\xff" * 8 + bytes(44 + 31)
    ),
    "being deactivated": Account(
        "AddressLookupTab1e1111111111111111111111111", 1, b"\1\0\0\0" + (5).to_bytes(8, "little") + bytes(44 + 32)
    ),
}


@pytest.mark.parametrize("account", TABLES.values(), ids=TABLES)
def test_what_is_no_table_in_use_is_refused(chain, front, account):
    where = str(Pubkey.new_unique())
    if account is not None:
        chain.put(where, account)
    with pytest.raises(ChainError, match="lookup table"):
        ask(front, lambda client: client.tables([where]))


def test_more_accounts_than_one_answer_holds_are_not_asked_for(front):
    with pytest.raises(ValueError, match="101"):
        ask(front, lambda client: client.accounts([SYSTEM] * 101))
    assert front.asked == []


# What it answers where something fails

PASSING = {
    "the request is lost": ("drop-request", None),
    "the answer is lost": ("drop-answer", None),
    "too many requests": ("status", 429),
    "the server's fault": ("status", 500),
    "the gateway's fault": ("status", 503),
    "no JSON": ("body", "<html>busy</html>"),
    "half of it": ("body", '{"jsonrpc": "2.0", "id": '),
    "nothing": ("body", ""),
    "a list": ("body", "[]"),
    "nested without end": ("body", "[" * 100_000),
    "a number without end": ("body", "1" * 5_000),
    "another question's": ("id", 1),
    "nobody's": ("id", None),
    "neither result nor error": ("body", "{}"),
    "an error without a code": ("error", {"message": "?"}),
    "a node that lags": ("error", {"code": -32005, "message": "Node is behind by 42 slots"}),
    "a slot not reached": ("error", {"code": -32016, "message": "Minimum context slot has not been reached"}),
    "no block yet": ("error", {"code": -32004, "message": "Block not available for slot 9"}),
    "no status of it yet": ("error", {"code": -32014, "message": "Block status not yet available for slot 9"}),
    "a limit of Helius": ("error", {"code": -32429, "message": "rate limited"}),
    "a limit of QuickNode": ("error", {"code": -32007, "message": "50/second request limit reached"}),
    "a limit of public nodes": ("error", {"code": 429, "message": "Too many requests for a specific RPC call"}),
    **{f"Cloudflare's {status}": ("status", status) for status in range(520, 525)},
}


@pytest.mark.parametrize(("kind", "value"), PASSING.values(), ids=PASSING)
def test_what_may_pass_is_asked_again(chain, front, kind, value):
    front.fault("getEpochInfo", kind, value, times=TRIES - 1)
    assert ask(front, lambda client: client.finalized_block()) == chain.block()


@pytest.mark.parametrize(("kind", "value"), PASSING.values(), ids=PASSING)
def test_and_given_up_after_the_last_try(front, kind, value):
    front.fault("getEpochInfo", kind, value, times=TRIES)
    with pytest.raises(Unanswered, match=r"^127\.0\.0\.1 "):
        ask(front, lambda client: client.finalized_block())
    assert front.faults == []


@pytest.mark.parametrize("kind", ["hold-request", "hold-answer", "drip"])
def test_a_slow_answer_is_none(chain, front, kind):
    front.fault("getEpochInfo", kind)
    assert ask(front, lambda client: client.finalized_block(), timeout_s=TIMEOUT_S) == chain.block()
    front.fault("getEpochInfo", kind, times=TRIES)
    with pytest.raises(Unanswered, match="TimeoutError"):
        ask(front, lambda client: client.finalized_block(), timeout_s=TIMEOUT_S)


def test_an_answer_that_is_written_twice_is_not_taken_for_the_next(chain, front):
    tx_signature, slot = landed(chain)
    front.fault("*", "repeat", times=6)

    async def both(client):
        return [await client.finalized_block(), await client.record(tx_signature, slot), await client.rent(0)]

    assert ask(front, both) == [chain.block(), local(chain.record(tx_signature, 0)), local(chain.rent(0))]


def test_answers_that_change_places_are_not_taken(chain, front):
    front.fault("*", "swap", times=2)

    async def both(client):
        return await asyncio.gather(client.rent(0), client.rent(165))

    assert ask(front, both) == [local(chain.rent(0)), local(chain.rent(165))]
    assert len(front.asked) == 4


FINAL = {
    "a redirect": ("status", 302),
    "a key that isn't known": ("status", 401),
    "no such place": ("status", 404),
    "no content": ("status", 204),
    "packed": ("header", "Content-Encoding: gzip"),
    "too long": ("flood", ANSWER_BYTES_MAX + 2**16),
    "no such method": ("error", {"code": -32601, "message": "Method not found"}),
    "no history": ("error", {"code": -32011, "message": "Transaction history is not available from this node"}),
    "a certificate": ("status", 526),
    "null": ("result", None),
    "a list": ("result", []),
    "a missing field": ("result", {"absoluteSlot": 5, "epoch": 0}),
    "a text for a number": ("result", {"absoluteSlot": "5", "blockHeight": 4, "epoch": 0}),
    "a truth for a number": ("result", {"absoluteSlot": 5, "blockHeight": True, "epoch": 0}),
    "a fraction": ("result", {"absoluteSlot": 5, "blockHeight": 4.0, "epoch": 0}),
    "not a number": ("result", {"absoluteSlot": 5, "blockHeight": float("nan"), "epoch": 0}),
    "below zero": ("result", {"absoluteSlot": 5, "blockHeight": -1, "epoch": 0}),
    "more than 64 bits": ("result", {"absoluteSlot": 2**64, "blockHeight": 4, "epoch": 0}),
    "more blocks than slots": ("result", {"absoluteSlot": 5, "blockHeight": 6, "epoch": 0}),
}


@pytest.mark.parametrize(("kind", "value"), FINAL.values(), ids=FINAL)
def test_what_is_not_documented_is_an_error_at_once(front, kind, value):
    front.fault("getEpochInfo", kind, value)
    with pytest.raises(ChainError) as caught:
        ask(front, lambda client: client.finalized_block())
    assert not isinstance(caught.value, Unanswered)
    assert front.asked == ["getEpochInfo"]


def test_a_server_that_is_not_there(front):
    async def run():
        async with front.serve() as url:
            pass
        async with RpcChain(url, pauses_s=[0]) as client:
            await client.finalized_block()

    with pytest.raises(Unanswered, match="ConnectError"):
        asyncio.run(run())


ACCOUNTS = {
    "one too few": [],
    "one too many": [None, None],
    "base58": [{"lamports": 1, "owner": SYSTEM, "data": ["", "base58"]}],
    "no base64": [{"lamports": 1, "owner": SYSTEM, "data": ["A", "base64"]}],
    "parsed": [{"lamports": 1, "owner": SYSTEM, "data": {"program": "spl-token"}}],
    "no owner": [{"lamports": 1, "data": ["", "base64"]}],
    "an owner who is none": [{"lamports": 1, "owner": "me", "data": ["", "base64"]}],
}


@pytest.mark.parametrize("value", ACCOUNTS.values(), ids=ACCOUNTS)
def test_accounts_that_do_not_fit_are_refused(front, value):
    front.fault("getMultipleAccounts", "change", lambda result: {**result, "value": value})
    with pytest.raises(ChainError):
        ask(front, lambda client: client.accounts([SYSTEM]))


def test_somebody_elses_holdings_are_refused(chain, front):
    owner, other = funded(chain), funded(chain)
    chain.give_tokens(other.pubkey(), chain.make_mint(6), 5)
    theirs = ask(front, lambda client: client._ask("getTokenAccountsByOwner", _by_owner(other), lambda result: result))
    assert len(theirs["value"]) == 1
    front.fault("getTokenAccountsByOwner", "result", theirs)
    with pytest.raises(ChainError, match="no token account of"):
        ask(front, lambda client: client.holdings(str(owner.pubkey())))


def _by_owner(owner):
    return [str(owner.pubkey()), {"programId": str(TOKEN_PROGRAM)}, {"encoding": "base64"}]


# How long a blockhash lives


@pytest.mark.parametrize("off", [-(10**9), -151, -1, 151, 2**62])
def test_a_blockhash_that_can_not_live_so_long_is_refused(chain, front, off):
    chain.advance(1_000)

    def change(result):
        result["value"]["lastValidBlockHeight"] = max(0, result["value"]["lastValidBlockHeight"] + off)
        return result

    front.fault("getLatestBlockhash", "change", change, times=TRIES)
    with pytest.raises(ChainError, match="said to live"):
        ask(front, lambda client: client.latest_blockhash())


def test_a_node_that_has_not_come_to_anothers_finalized_block_is_asked_again(chain, front):
    """As where nodes are a slot apart, and a block is final within a slot."""
    chain.advance(1_000)

    def change(result):
        result["value"]["lastValidBlockHeight"] -= 1
        return result

    front.fault("getLatestBlockhash", "change", change, times=TRIES - 1)
    assert ask(front, lambda client: client.latest_blockhash()) == local(chain.latest_blockhash())


def test_finality_is_read_before_the_blockhash_that_is_held_against_it(front):
    """Read after it, it could go past: a block may be final within a slot."""
    front.fault("getEpochInfo", "drop-request", times=TRIES)
    with pytest.raises(Unanswered):
        ask(front, lambda client: client.latest_blockhash())
    assert front.asked == []
    ask(front, lambda client: client.latest_blockhash())
    assert front.asked == ["getEpochInfo", "getLatestBlockhash"]


def test_a_blockhash_may_be_as_far_ahead_of_finality_as_blocks_are(chain, front):
    chain.advance(1_000)
    front.fault("getEpochInfo", "change", lambda info: {**info, "blockHeight": info["blockHeight"] - 32})
    assert ask(front, lambda client: client.latest_blockhash()) == local(chain.latest_blockhash())


@pytest.mark.parametrize("blockhash", ["", "1", 7, None, "0" * 44])
def test_what_is_no_hash_is_refused(front, blockhash):
    front.fault(
        "getLatestBlockhash",
        "change",
        lambda result: {**result, "value": {**result["value"], "blockhash": blockhash}},
    )
    with pytest.raises(ChainError, match="documented"):
        ask(front, lambda client: client.latest_blockhash())


# What became of a transaction


def test_nothing_is_known_of_it_only_if_both_look_ups_say_so(chain, front):
    tx_signature, slot = landed(chain)
    unknown = str(Signature.new_unique())
    assert ask(front, lambda client: client.record(unknown, slot)) is None
    asked = ["getSignatureStatuses", "getTransaction", "getFirstAvailableBlock"]
    assert front.asked == asked
    chain.advance(1_000)  # out of the recent blocks
    assert isinstance(ask(front, lambda client: client.record(tx_signature, slot)), TransactionRecord)


def test_a_node_that_hides_it_from_one_look_up_is_caught(chain, front):
    tx_signature, slot = landed(chain)
    front.fault("getSignatureStatuses", "change", lambda result: {**result, "value": [None]})
    with pytest.raises(ChainError, match="contradicts itself"):
        ask(front, lambda client: client.record(tx_signature, slot))
    front.fault("getTransaction", "result", None, times=TRIES)
    with pytest.raises(Unanswered, match="which it calls final"):
        ask(front, lambda client: client.record(tx_signature, slot))


def test_a_node_that_has_not_heard_of_a_landing_yet_is_asked_again(chain, front):
    """The status is from one node, the transaction from another behind the same address."""
    tx_signature, slot = landed(chain)
    front.fault("getTransaction", "result", None, times=TRIES - 1)
    assert ask(front, lambda client: client.record(tx_signature, slot)) == local(chain.record(tx_signature, 0))


def test_a_node_that_makes_a_landing_up_is_caught(chain, front):
    unknown, (other, slot) = str(Signature.new_unique()), landed(chain)
    status = {"confirmationStatus": "finalized", "confirmations": None, "err": None, "slot": slot}
    true = ask(front, lambda client: client._ask("getTransaction", [other, _HOW], lambda result: result))
    front.fault("getSignatureStatuses", "change", lambda result: {**result, "value": [status]}, times=2)
    with pytest.raises(Unanswered, match="which it calls final"):
        ask(front, lambda client: client.record(unknown, slot))
    front.fault("getTransaction", "result", true)
    with pytest.raises(ChainError, match="not the transaction"):
        ask(front, lambda client: client.record(unknown, slot))


_HOW = {"encoding": "base64", "maxSupportedTransactionVersion": 0}


def test_an_answer_from_before_the_finalized_block_is_none(chain, front):
    """A node that lags knows of nothing: not that there is nothing."""
    chain.advance(100)
    slot, unknown = chain.block().slot, str(Signature.new_unique())

    def lag(_):
        return {"context": {"slot": slot - 1}, "value": [None]}

    front.fault("getSignatureStatuses", "change", lag, times=TRIES - 1)
    assert ask(front, lambda client: client.record(unknown, slot)) is None
    front.fault("getSignatureStatuses", "change", lag, times=TRIES)
    with pytest.raises(Unanswered, match=f"hasn't come to slot {slot}"):
        ask(front, lambda client: client.record(unknown, slot))


def test_a_node_that_forgets_does_not_know_that_there_is_nothing(chain, front):
    chain.advance(100)
    unknown, slot = str(Signature.new_unique()), chain.block().slot
    front.fault("getFirstAvailableBlock", "result", 50, times=2)
    assert ask(front, lambda client: client.record(unknown, slot, since_slot=50)) is None
    with pytest.raises(ChainError, match="forgotten"):
        ask(front, lambda client: client.record(unknown, slot, since_slot=49))


def test_a_node_without_a_history_does_not_know_either(front):
    front.fault(
        "getSignatureStatuses",
        "error",
        {"code": -32011, "message": "Transaction history is not available from this node"},
    )
    with pytest.raises(Declined, match="history is not available"):
        ask(front, lambda client: client.record(str(Signature.new_unique()), 0))


def test_the_earliest_slot_leaves_room_for_skipped_ones(chain):
    last_valid = local(chain.latest_blockhash()).last_valid_block_height
    _, slot = landed(chain)
    chain.advance(10_000)
    assert earliest_slot(last_valid, chain.block()) <= slot
    assert earliest_slot(2**40, chain.block()) == chain.block().slot


@pytest.mark.parametrize("commitment", ["processed", "confirmed"])
def test_what_is_not_final_is_pending(chain, front, commitment):
    tx_signature, slot = landed(chain)

    def change(result):
        result["value"][0] |= {"confirmationStatus": commitment, "confirmations": 3}
        return result

    front.fault("getSignatureStatuses", "change", change)
    assert ask(front, lambda client: client.record(tx_signature, slot)) == Pending(slot)


STATUSES = {
    "no commitment": {"confirmationStatus": None},
    "another commitment": {"confirmationStatus": "rooted"},
    "no slot": {"slot": None},
    "another error": {"err": {"InstructionError": [0, {"Custom": 1}]}},
    "another slot": {"slot": 1},
}


@pytest.mark.parametrize("changes", STATUSES.values(), ids=STATUSES)
def test_a_status_that_does_not_fit_is_refused(chain, front, changes):
    tx_signature, slot = landed(chain)

    def change(result):
        result["value"][0] |= changes
        return result

    front.fault("getSignatureStatuses", "change", change)
    with pytest.raises(ChainError):
        ask(front, lambda client: client.record(tx_signature, slot))


@pytest.mark.parametrize("value", [[], [None, None], None, {}, [{}]])
def test_statuses_of_another_number_are_refused(front, value):
    front.fault("getSignatureStatuses", "change", lambda result: {**result, "value": value})
    with pytest.raises(ChainError):
        ask(front, lambda client: client.record(str(Signature.new_unique()), 0))


TRANSACTIONS = {
    "no meta": lambda result: {**result, "meta": None},
    "no bytes": lambda result: {**result, "transaction": ["", "base64"]},
    "half of them": lambda result: {**result, "transaction": [result["transaction"][0][:100], "base64"]},
    "parsed": lambda result: {**result, "transaction": {"message": {}}},
    "one byte changed": lambda result: {**result, "transaction": _flipped(result["transaction"])},
    "a fee of a text": lambda result: _with_meta(result, fee="5000"),
    "no error field": lambda result: {**result, "meta": {k: v for k, v in result["meta"].items() if k != "err"}},
    "too few balances": lambda result: _with_meta(result, preBalances=result["meta"]["preBalances"][1:]),
    "too many balances": lambda result: _with_meta(result, postBalances=[*result["meta"]["postBalances"], 1]),
    "no token balances": lambda result: _with_meta(result, preTokenBalances=None),
    "an account too many": lambda result: _with_meta(result, loadedAddresses={"writable": [SYSTEM], "readonly": []}),
    "a token balance of nobody": lambda result: _with_meta(result, postTokenBalances=[_token(9)]),
    "two for one account": lambda result: _with_meta(result, postTokenBalances=[_token(0), _token(0)]),
    "an amount with a point": lambda result: _with_meta(result, postTokenBalances=[_token(0, amount="1.5")]),
    "an amount that is a number": lambda result: _with_meta(result, postTokenBalances=[_token(0, amount=1)]),
    "an amount below zero": lambda result: _with_meta(result, postTokenBalances=[_token(0, amount="-1")]),
    "an amount of 65 bits": lambda result: _with_meta(result, postTokenBalances=[_token(0, amount=str(2**64))]),
    "a balance without an owner": lambda result: _with_meta(result, postTokenBalances=[_token(0, owner=None)]),
}


def _with_meta(result, **changes):
    return {**result, "meta": {**result["meta"], **changes}}


def _token(index, amount="1", owner=SYSTEM):
    return {"accountIndex": index, "mint": SYSTEM, "owner": owner, "uiTokenAmount": {"amount": amount, "decimals": 0}}


def _flipped(transaction):
    content = bytearray(base64.b64decode(transaction[0]))
    content[-5] ^= 1  # of the amount
    return [base64.b64encode(content).decode(), "base64"]


@pytest.mark.parametrize("change", TRANSACTIONS.values(), ids=TRANSACTIONS)
def test_a_transaction_that_does_not_fit_is_refused(chain, front, change):
    tx_signature, slot = landed(chain)
    front.fault("getTransaction", "change", change)
    with pytest.raises(ChainError):
        ask(front, lambda client: client.record(tx_signature, slot))
    assert isinstance(ask(front, lambda client: client.record(tx_signature, slot)), TransactionRecord)


# Sending


@pytest.mark.parametrize("kind", ["drop-request", "drop-answer", "hold-request", "hold-answer", "twice", "repeat"])
def test_whatever_happens_on_the_way_the_same_bytes_land_once(chain, front, kind):
    payer = funded(chain)
    content, tx_signature = payment(chain, payer)
    front.fault("sendTransaction", kind)
    ask(front, lambda client: client.send(content), timeout_s=TIMEOUT_S)
    assert chain.lamports(payer.pubkey()) == 10**9 - 10**6 - 5_000
    assert local(chain.record(tx_signature, 0)).error is None


def test_an_answer_that_is_always_lost_is_told_though_it_landed(chain, front):
    payer = funded(chain)
    content, tx_signature = payment(chain, payer)
    front.fault("sendTransaction", "drop-answer", times=TRIES)
    with pytest.raises(Unanswered):
        ask(front, lambda client: client.send(content))
    assert isinstance(ask(front, lambda client: client.record(tx_signature, 0)), TransactionRecord)
    assert chain.lamports(payer.pubkey()) == 10**9 - 10**6 - 5_000


def test_it_is_sent_as_the_executor_decides(chain, front):
    seen = []

    async def ask_once(method, parameters, read):
        seen.append((method, parameters[1]))
        return read(VersionedTransaction.from_bytes(content).signatures[0])

    content, _ = payment(chain, funded(chain))

    async def send(client):
        client._rpc.ask = ask_once
        await client.send(content)

    ask(front, send)
    how = {"encoding": "base64", "preflightCommitment": "confirmed", "skipPreflight": False, "maxRetries": 0}
    how["minContextSlot"] = 0  # it has told of nothing yet
    assert seen == [("sendTransaction", how)]


@pytest.mark.parametrize("answer", [None, "", "5" * 88, 7, {}])
def test_a_node_that_took_another_transaction_is_not_believed(chain, front, answer):
    content, _ = payment(chain, funded(chain))
    front.fault("sendTransaction", "result", answer)
    with pytest.raises(ChainError, match="another transaction"):
        ask(front, lambda client: client.send(content))


def test_what_is_turned_away_did_not_land(chain, front):
    payer = funded(chain)
    content, tx_signature = payment(chain, payer)
    chain.advance(151)
    with pytest.raises(Unanswered, match="BlockhashNotFound"):
        ask(front, lambda client: client.send(content))
    assert local(chain.record(tx_signature, 0)) is None
    assert front.asked == ["sendTransaction"] * TRIES
    with pytest.raises(ChainError, match="no transaction"):
        ask(front, lambda client: client.send(b"\0"))


def failed(err):
    data = {"accounts": None, "err": err, "logs": [], "unitsConsumed": 0}
    return {"code": -32002, "message": "Transaction simulation failed", "data": data}


MOMENTARY = ["BlockhashNotFound", "AccountInUse", "WouldExceedMaxBlockCostLimit", "ClusterMaintenance"]
MOMENTARY += [{"ProgramExecutionTemporarilyRestricted": {"account_index": 2}}]
LASTING = ["InsufficientFundsForFee", "AccountNotFound", "SignatureFailure", "AnErrorOfNextYear", {}, [], None, 7]
LASTING += [{"InstructionError": [0, {"Custom": 1}]}, {"InsufficientFundsForRent": {"account_index": 0}}]


@pytest.mark.parametrize("err", MOMENTARY, ids=str)
def test_a_preflight_that_failed_by_what_passes_is_made_again(chain, front, err):
    payer = funded(chain)
    content, tx_signature = payment(chain, payer)
    front.fault("sendTransaction", "refuse", failed(err), times=TRIES - 1)
    ask(front, lambda client: client.send(content))
    assert local(chain.record(tx_signature, 0)).error is None
    front.fault("sendTransaction", "refuse", failed(err), times=TRIES)
    another, _ = payment(chain, payer)
    with pytest.raises(Unanswered, match="-32002"):
        ask(front, lambda client: client.send(another))


@pytest.mark.parametrize("err", LASTING, ids=str)
def test_a_preflight_that_failed_for_good_is_not(chain, front, err):
    content, tx_signature = payment(chain, funded(chain))
    front.fault("sendTransaction", "refuse", failed(err))
    with pytest.raises(Declined, match="-32002"):
        ask(front, lambda client: client.send(content))
    assert (front.asked, local(chain.record(tx_signature, 0))) == ([], None)


@pytest.mark.parametrize("err", [*MOMENTARY, *LASTING], ids=str)
def test_a_simulation_says_whether_its_error_passes(chain, front, err):
    content, _ = payment(chain, funded(chain))
    front.fault("simulateTransaction", "change", lambda result: {**result, "value": {"err": err, "logs": None}})
    assert ask(front, lambda client: client.simulate(content)).passes == (err in MOMENTARY)


def test_a_node_behind_what_was_told_tries_nothing(chain, front):
    """What landed a slot ago would seem not to be there: an account to be gone, a wallet to be empty."""
    payer = funded(chain)
    content, _ = payment(chain, payer)

    async def look_and_try(client):
        await client.accounts([str(payer.pubkey())])
        front.fault("simulateTransaction", "lag", 1, times=TRIES - 1)
        assert (await client.simulate(content)).error is None
        front.fault("getTokenAccountsByOwner", "lag", 1, times=TRIES - 1)
        assert await client.holdings(str(payer.pubkey())) == []
        front.fault("sendTransaction", "lag", 1, times=TRIES - 1)
        await client.send(content)

    ask(front, look_and_try)
    assert front.faults == []


def test_a_landing_that_was_told_is_known_to_whoever_says_what_a_wallet_holds(chain, front):
    tx_signature, slot = landed(chain)

    async def look(client):
        assert isinstance(await client.record(tx_signature, slot), TransactionRecord)
        front.fault("getTokenAccountsByOwner", "lag", 1, times=TRIES)
        with pytest.raises(Unanswered, match="-32016"):
            await client.holdings(SYSTEM)

    ask(front, look)


def test_a_slot_that_nobody_else_ever_reaches_is_not_waited_for_for_ever(chain, front):
    content, _ = payment(chain, funded(chain))
    front.fault("getMultipleAccounts", "change", lambda result: {**result, "context": {"slot": 2**60}})

    async def look_and_try(client):
        await client.accounts([SYSTEM])
        with pytest.raises(Unanswered, match="-32016"):
            await client.simulate(content)
        assert (await client.simulate(content)).error is None

    ask(front, look_and_try)


# The key in the URL

KEY = "k3y-0f-an-acc0unt"


@pytest.mark.parametrize("path", [f"/?api-key={KEY}", f"/{KEY}/", f"/v2/{KEY}?x={KEY}"])
def test_the_key_in_the_url_is_told_to_nobody(front, caplog, path):
    caplog.set_level(logging.DEBUG)
    told = []
    for fault in ("drop-request", "hold-request"):
        front.fault("getEpochInfo", fault, times=TRIES)
    front.fault("getEpochInfo", "status", 401)
    front.fault("getEpochInfo", "error", {"code": -32000, "message": f"the key {KEY} is over its quota ?api-key={KEY}"})

    async def fail(client):
        told.extend([repr(client), repr(client._rpc), str(client)])
        for _ in range(4):
            with pytest.raises(ChainError) as caught:
                await client.finalized_block()
            told.extend([repr(caught.value), str(caught.getrepr(style="native"))])
        await client.finalized_block()

    ask(front, fail, path=path, timeout_s=TIMEOUT_S)
    assert told[0] == "RpcChain('127.0.0.1')"
    assert "over its quota" in "".join(told)
    assert KEY not in "".join(told)
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "url",
    ["", "ftp://host/", "host/path", "http:///path", f"https://user:{KEY}@host/", f"https://host:{KEY}/", f"//{KEY}"],
)
def test_a_url_that_is_none_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match="the URL of the chain's server") as caught:
        RpcChain(url)
    assert KEY not in str(caught.value)


def test_a_question_is_what_the_protocol_says(front):
    seen = []
    respond = front._respond

    async def listen(question, writer):
        seen.append(question)
        return await respond(question, writer)

    front._respond = listen
    ask(front, lambda client: client.rent(165))
    ask(front, lambda client: client.rent(165))
    assert [each | {"id": ""} for each in seen] == [
        {"jsonrpc": "2.0", "id": "", "method": "getMinimumBalanceForRentExemption", "params": [165]}
    ] * 2
    assert seen[0]["id"] != seen[1]["id"]
