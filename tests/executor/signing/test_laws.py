"""Whatever a transaction is made into: it is refused, or it does in the VM no more than what was authorized.

Good transactions are changed at random, instruction by instruction and byte by byte, by somebody who has the keys of
all cosigners and may sign anew. What passes the inspection is executed.
"""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import Message, MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.transaction import VersionedTransaction

from executor.errors import TransactionRefused
from executor.signing import Policy
from executor.solana import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    MEMO_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)
from tests.executor.signing.scene import (
    ASSETS,
    FEE,
    FRIEND,
    JTO,
    MAKER,
    OTHER,
    SESSION,
    SOL,
    STRANGER,
    USDC,
    WSOL,
    Scene,
    address,
    ata,
    budget,
    close,
    give,
    mint_of,
    open_account,
    sync,
    token_call,
)

WALLET = SESSION.pubkey()
SIGNERS = {each.pubkey() for each in (SESSION, MAKER, STRANGER, FRIEND)}
COSIGNERS = frozenset(str(each) for each in SIGNERS - {WALLET})
SECOND = address("second account")
DELEGATED = address("delegated account")

TRADES = (
    {},
    {"sell": WSOL, "sell_amount": SOL, "buy": USDC, "min_received": 100 * 10**6},
    {"sell": USDC, "sell_amount": 100 * 10**6, "buy": WSOL, "min_received": SOL},
    {"sell": USDC, "sell_amount": 100 * 10**6, "buy": FEE, "min_received": 99 * 10**6},
    {"sell": FEE, "sell_amount": 100 * 10**6, "buy": JTO, "min_received": 40 * 10**9},
)


def make_scene(trade):
    """Open a scene in which the session wallet has two more accounts, one that a cosigner may take from."""
    scene = Scene(**trade, policy=Policy())
    scene.cosigners = COSIGNERS
    scene.fund(WALLET, JTO, 10**12, account=SECOND)
    scene.fund(WALLET, JTO, 10**12, account=DELEGATED, delegate=MAKER.pubkey())
    return scene


def good(scene):
    """Return the instructions of a good transaction: it pays a tenth more, so that changed amounts may pass."""
    sell, buy = scene.authorization.sell, scene.authorization.buy
    made = [scene.sell(), scene.pay(scene.authorization.min_received * 11 // 10), scene.memo()]
    if sell == WSOL:
        made[:0] = [give(SESSION, ata(SESSION, WSOL), SOL), sync(ata(SESSION, WSOL))]
    if buy == WSOL:
        made.append(close(ata(SESSION, WSOL), WALLET, SESSION))
    return [budget(2, 200_000), budget(3, 1_000), open_account(SESSION, SESSION, buy), *made]


def parts(scene):
    """Return instructions that may be put in, most of them hostile."""
    amounts = (0, 1, 10**6, 10**8)
    tokens = (USDC, JTO, OTHER, WSOL, FEE)
    people = (SESSION, MAKER, STRANGER)
    return [
        *(
            scene.move(token, source, to, amount, authority=authority)
            for token in tokens
            for source in people
            for to in people
            for authority in people
            for amount in amounts
        ),
        *(scene.move(JTO, MAKER, SESSION, 10**9, account=key) for key in (SECOND, DELEGATED)),
        *(give(source, to, amount) for source in people for to in people for amount in amounts),
        *(give(SESSION, ata(SESSION, token), 10**6) for token in tokens),
        *(open_account(payer, owner, token) for payer in people for owner in people for token in tokens),
        *(sync(ata(owner, WSOL)) for owner in people),
        *(close(ata(owner, WSOL), to.pubkey(), by) for owner in people for to in people for by in people),
        *(
            token_call(token, data, ata(SESSION, token), MAKER.pubkey(), by)
            for token in tokens
            for by in people
            for data in (b"\x04" + bytes(7) + b"\1", b"\x05", b"\x06\x02\x01" + bytes(MAKER.pubkey()), b"\x09")
        ),
        *(token_call(token, b"\x08\1" + bytes(7), ata(SESSION, token), mint_of(token), SESSION) for token in tokens),
        *(budget(kind, value) for kind in (1, 2, 3, 4) for value in (0, 65_536, 10**6)),
        scene.memo(),
        scene.memo(b"hello"),
    ]


class World:
    """A scene, what good transactions are made of, and all that may be named."""

    def __init__(self, trade):
        self.scene = make_scene(trade)
        self.good = good(self.scene)
        self.parts = parts(self.scene)
        self.keys = [
            *SIGNERS,
            SECOND,
            DELEGATED,
            *(ata(owner, token) for owner in (SESSION, MAKER, STRANGER) for token in ASSETS),
            *map(mint_of, ASSETS),
            *(SYSTEM_PROGRAM, TOKEN_PROGRAM, TOKEN_2022_PROGRAM, MEMO_PROGRAM),
        ]
        self.programs = [SYSTEM_PROGRAM, TOKEN_PROGRAM, TOKEN_2022_PROGRAM, MEMO_PROGRAM, ASSOCIATED_TOKEN_PROGRAM]
        self.programs.append(COMPUTE_BUDGET_PROGRAM)


def changed(world, choose):
    """Return the instructions of a good transaction after a few changes."""
    instructions = list(world.good)
    for _ in range(choose.randint(0, 3)):
        at = choose.randrange(len(instructions) or 1)
        match choose.choice(("insert", "insert", "insert", "delete", "repeat", "swap", "account", "data", "program")):
            case "insert":
                instructions.insert(choose.randint(0, len(instructions)), choose.choice(world.parts))
            case _ if not instructions:
                continue
            case "delete":
                del instructions[at]
            case "repeat":
                instructions.insert(choose.randint(0, len(instructions)), instructions[at])
            case "swap":
                other = choose.randrange(len(instructions))
                instructions[at], instructions[other] = instructions[other], instructions[at]
            case "account":
                instructions[at] = with_other_account(world, instructions[at], choose)
            case "data":
                instructions[at] = with_other_data(instructions[at], choose)
            case "program":
                each = instructions[at]
                instructions[at] = Instruction(choose.choice(world.programs), bytes(each.data), each.accounts)
    return instructions


def with_other_account(world, instruction, choose):
    accounts = list(instruction.accounts)
    key = choose.choice(world.keys)
    meta = AccountMeta(key, is_signer=key in SIGNERS, is_writable=key not in world.programs)
    if accounts and choose.random() < 0.8:
        accounts[choose.randrange(len(accounts))] = meta
    else:
        accounts.append(meta)
    return Instruction(instruction.program_id, bytes(instruction.data), accounts)


def with_other_data(instruction, choose):
    data = bytearray(instruction.data) or bytearray(1)
    at = choose.randrange(len(data))
    data[at] = choose.choice((data[at] ^ 1 << choose.randrange(8), choose.randrange(40)))
    return Instruction(instruction.program_id, bytes(data), instruction.accounts)


def with_other_bytes(transaction, choose, scene):
    """Change bytes of the message, and let the cosigners sign that if it can be read; else change any bytes."""
    parsed = VersionedTransaction.from_bytes(transaction)
    message = bytearray(to_bytes_versioned(parsed.message))
    for _ in range(choose.randint(1, 2)):
        at = choose.randrange(len(message))
        match choose.choice(("flip", "insert", "delete", "copy")):
            case "flip":
                message[at] ^= 1 << choose.randrange(8)
            case "insert":
                message.insert(at, choose.randrange(256))
            case "delete":
                del message[at]
            case "copy":
                message[at] = message[choose.randrange(len(message))]
    try:
        return bytes(scene.cosign(from_bytes_versioned(bytes(message))))
    except (ValueError, IndexError):
        return transaction[: -len(message)] + bytes(message)


def owned(accounts):
    """Return lamports, owner and data of the wallet, and of each token account that is the wallet's."""
    return {WALLET: accounts[WALLET]} | {
        key: account
        for key, account in accounts.items()
        if account.owner in {TOKEN_PROGRAM, TOKEN_2022_PROGRAM} and bytes(account.data)[32:64] == bytes(WALLET)
    }


def units(accounts, key):
    return int.from_bytes(bytes(accounts[key].data)[64:72], "little") if key in accounts else 0


def lamports(accounts):
    return sum(account.lamports for account in accounts.values())


def check_outcome(world, inspected, change):
    """Hold what happened against what was authorized."""
    authorization, before, after = world.scene.authorization, owned(change.before), owned(change.after)
    sell, buy = (ata(SESSION, each) for each in (authorization.sell, authorization.buy))
    wrapped = ata(SESSION, WSOL)
    assert (after[WALLET].owner, bytes(after[WALLET].data)) == (SYSTEM_PROGRAM, b"")
    assert inspected.fee_lamports <= 5_000 * 4 + Policy().priority_fee_lamports_max
    for key in before:
        if key in {WALLET, sell, buy} or (key == wrapped and WSOL in (authorization.sell, authorization.buy)):
            continue
        assert units(after, key) >= units(before, key), f"{key} lost something"
    for key in before.keys() - {WALLET, wrapped}:
        assert key in after, f"{key} is gone"
    for key in after.keys() - {WALLET}:
        held, was = bytes(after[key].data), bytes(before[key].data) if key in before else bytes(165)
        assert (held[72:76], held[129:133]) == (was[72:76], was[129:133]), f"{key} has a new delegate or closer"
    assert before[WALLET].lamports - after[WALLET].lamports <= inspected.lamports_max
    may_leave = inspected.fee_lamports  # rent stays in the wallet's accounts, and so does what is wrapped
    may_leave += authorization.sell_amount if authorization.sell == WSOL else 0
    may_leave -= authorization.min_received if authorization.buy == WSOL else 0
    assert lamports(before) - lamports(after) <= may_leave
    if authorization.sell != WSOL:
        assert units(after, sell) >= units(before, sell) - authorization.sell_amount
    if authorization.buy != WSOL:
        assert units(after, buy) >= units(before, buy) + authorization.min_received


WORLDS = {}


def attempt(number, seed):
    """Make one transaction, and return what became of it."""
    if number not in WORLDS:
        WORLDS[number] = World(TRADES[number])
    world, choose = WORLDS[number], random.Random(seed)
    scene = world.scene
    instructions = changed(world, choose)
    blockhash = Hash.from_string(scene.blockhash)
    if choose.random() < 0.3:
        message = Message.new_with_blockhash(instructions, WALLET, blockhash)
    else:
        message = MessageV0.try_compile(WALLET, instructions, [], blockhash)
    transaction = bytes(scene.cosign(message))
    if choose.random() < 0.3:
        transaction = with_other_bytes(transaction, choose, scene)
    try:
        inspected = scene.inspect(transaction)
    except TransactionRefused:
        return "refused"
    change = scene.run(transaction)
    if change.error is not None:
        return "failed"
    check_outcome(world, inspected, change)
    return "landed"


@settings(max_examples=200)
@given(number=st.integers(0, len(TRADES) - 1), seed=st.integers(0, 2**64))
def test_what_passes_does_no_more_than_was_authorized(number, seed):
    attempt(number, seed)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_what_passes_does_no_more_than_was_authorized_at_length():
    outcomes = Counter(attempt(seed % len(TRADES), seed) for seed in range(200_000))
    print(outcomes)
    assert outcomes["landed"] > 20_000


def test_enough_passes_for_the_law_to_mean_something():
    outcomes = Counter(attempt(seed % len(TRADES), seed) for seed in range(300))
    assert min(outcomes["landed"], outcomes["refused"]) > 30


def check_that_it_notices(number, *instructions):
    """Execute what the inspection would refuse, as if it had passed."""
    world = World(TRADES[number])
    honest = world.scene.build(*world.good)
    inspected = world.scene.inspect(honest)
    change = world.scene.run(world.scene.build(*world.good, *(each(world.scene) for each in instructions)))
    assert change.error is None
    check_outcome(world, inspected, change)


@pytest.mark.parametrize(
    ("number", "instruction"),
    [
        (0, lambda s: s.sell(1)),
        (0, lambda s: s.move(OTHER, SESSION, MAKER, 1)),
        (0, lambda s: s.move(JTO, SESSION, MAKER, 10**10)),
        (0, lambda s: s.move(JTO, MAKER, MAKER, 1, account=DELEGATED)),
        (0, lambda _: give(SESSION, MAKER, 10**6)),
        (0, lambda _: token_call(USDC, b"\x04" + bytes(7) + b"\1", ata(SESSION, USDC), MAKER.pubkey(), SESSION)),
        (0, lambda _: token_call(USDC, b"\x06\x02\x01" + bytes(MAKER.pubkey()), ata(SESSION, USDC), SESSION)),
        (0, lambda _: token_call(USDC, b"\x06\x03\x01" + bytes(MAKER.pubkey()), ata(SESSION, USDC), SESSION)),
        (0, lambda _: close(ata(SESSION, WSOL), MAKER.pubkey(), SESSION)),
        (1, lambda s: s.sell(SOL)),
        (1, lambda _: close(ata(SESSION, WSOL), MAKER.pubkey(), SESSION)),
        (1, lambda _: give(SESSION, MAKER, 10**6)),
        (2, lambda _: give(SESSION, MAKER, 2 * 10**8)),
        (3, lambda s: s.move(FEE, SESSION, MAKER, 10**7)),
    ],
)
def test_the_law_notices_what_it_should(number, instruction):
    with pytest.raises(AssertionError):
        check_that_it_notices(number, instruction)


@pytest.mark.parametrize("number", range(len(TRADES)))
def test_the_law_holds_of_the_good_ones(number):
    check_that_it_notices(number)
