"""Honest transactions of many shapes: the inspection passes them, and they land in the VM with what they promise."""

import struct

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount

from executor.errors import TransactionRefused
from executor.rails import Account
from executor.signing import Policy
from executor.signing.tokens import ANY_LENGTH, LISTED_ONLY, SAFE
from executor.solana import RENT_SYSVAR, SYSTEM_PROGRAM, TOKEN_2022_PROGRAM
from tests.executor.signing.scene import (
    FEE,
    FRIEND,
    JTO,
    MAKER,
    OTHER,
    PLAIN,
    RENT,
    SESSION,
    SOL,
    STRANGER,
    USDC,
    WSOL,
    Scene,
    ata,
    budget,
    close,
    extension,
    give,
    mint_bytes,
    mint_of,
    open_account,
    plain_transfer,
    sync,
    transfer_with_fee,
)

SELL_SOL = {"sell": WSOL, "sell_amount": SOL, "buy": USDC, "min_received": 100 * 10**6}
BUY_SOL = {"sell": USDC, "sell_amount": 100 * 10**6, "buy": WSOL, "min_received": SOL}
BUY_FEE = {"buy": FEE, "min_received": 99 * 10**6}
FEE_2022 = {"sell": FEE, "sell_amount": 100 * 10**6, "buy": JTO, "min_received": 40 * 10**9}
MANY_SIGN = Policy(cosigners_max=3)


def by_table(scene, *instructions):
    tables = [
        AddressLookupTableAccount(scene.make_table(keys, name), keys)
        for name, keys in (
            ("first table", [ata(MAKER, USDC), mint_of(USDC), ata(SESSION, JTO)]),
            ("second table", [mint_of(JTO), ata(MAKER, JTO), ata(SESSION, USDC)]),
        )
    ]
    return scene.build(*instructions, tables=tables)


def without_account(scene, token, *instructions, **how):
    scene.remove(ata(SESSION, token))
    return scene.build(*instructions, **how)


def lamports_ahead(scene):
    """Open an account where a stranger has sent lamports."""
    scene.put(ata(SESSION, JTO), SYSTEM_PROGRAM, b"", lamports=900_000)
    return scene.build(open_account(SESSION, SESSION, JTO), *scene.swap())


def unsynced(scene):
    """Lamports wait at the account of wrapped SOL."""
    scene.put(ata(SESSION, WSOL), *_padded(scene, SOL))
    return scene.build(sync(ata(SESSION, WSOL)), scene.sell(), scene.pay(), scene.memo())


def _padded(scene, extra):
    found = scene.vm.get_account(ata(SESSION, WSOL))
    return found.owner, bytes(found.data), found.lamports + extra


def declared(scene, *signers):
    scene.cosigners = frozenset(str(each.pubkey()) for each in signers)
    return scene


# name: what is traded, the transaction, and what changes: lamports of the session wallet, sold, bought
SHAPES = {
    "a swap": ({}, lambda s: s.build(*s.swap()), (-10_000, -100 * 10**6, 40 * 10**9)),
    "a legacy message": ({}, lambda s: s.build(*s.swap(), legacy=True), (-10_000, -100 * 10**6, 40 * 10**9)),
    "memo first": (
        {},
        lambda s: s.build(s.memo(), s.pay(), s.sell()),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "less out, more in": (
        {},
        lambda s: s.build(s.sell(60 * 10**6), s.pay(41 * 10**9), s.memo()),
        (-10_000, -60 * 10**6, 41 * 10**9),
    ),
    "several recipients and payments": (
        {},
        lambda s: s.build(
            s.sell(99 * 10**6),
            s.move(USDC, SESSION, STRANGER, 10**6),
            s.pay(39 * 10**9),
            s.pay(10**9),
            s.memo(),
        ),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "a compute budget": (
        {},
        lambda s: s.build(budget(2, 200_000), budget(3, 10_000), budget(4, 65_536), budget(1, 65_536), *s.swap()),
        (-10_000 - 2_000, -100 * 10**6, 40 * 10**9),
    ),
    "a price without a limit": (
        {},
        lambda s: s.build(budget(3, 100), *s.swap()),
        (None, -100 * 10**6, 40 * 10**9),
    ),
    "the bought token's account is opened": (
        {},
        lambda s: without_account(s, JTO, open_account(SESSION, SESSION, JTO), *s.swap()),
        (-10_000 - RENT, -100 * 10**6, 40 * 10**9),
    ),
    "it is opened by the older instruction": (
        {},
        lambda s: without_account(s, JTO, open_account(SESSION, SESSION, JTO, b""), *s.swap(), legacy=True),
        (-10_000 - RENT, -100 * 10**6, 40 * 10**9),
    ),
    "the maker opens it": (
        {},
        lambda s: without_account(s, JTO, open_account(MAKER, SESSION, JTO, b"\0"), *s.swap()),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "it is there already": (
        {},
        lambda s: s.build(open_account(SESSION, SESSION, JTO), *s.swap()),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "SOL is wrapped and sold": (
        SELL_SOL,
        lambda s: without_account(
            s,
            WSOL,
            open_account(SESSION, SESSION, WSOL),
            give(SESSION, ata(SESSION, WSOL), SOL),
            sync(ata(SESSION, WSOL)),
            *s.swap(),
        ),
        (-10_000 - RENT - SOL, 0, 100 * 10**6),
    ),
    "SOL is wrapped and sold, and the rest unwrapped": (
        SELL_SOL,
        lambda s: without_account(
            s,
            WSOL,
            open_account(SESSION, SESSION, WSOL),
            give(SESSION, ata(SESSION, WSOL), SOL),
            sync(ata(SESSION, WSOL)),
            s.sell(SOL // 2),
            s.pay(),
            close(ata(SESSION, WSOL), SESSION.pubkey(), SESSION),
            s.memo(),
        ),
        (-10_000 - SOL // 2, 0, 100 * 10**6),
    ),
    "wrapped SOL is sold": (SELL_SOL, lambda s: s.build(*s.swap()), (-10_000, -SOL, 100 * 10**6)),
    "lamports are counted before": (SELL_SOL, unsynced, (-10_000, 0, 100 * 10**6)),
    "lamports lie where the account is opened": ({}, lamports_ahead, (-10_000 - RENT + 900_000, -(10**8), 40 * 10**9)),
    "SOL is bought": (BUY_SOL, lambda s: s.build(*s.swap()), (-10_000, -100 * 10**6, SOL)),
    "SOL is bought and unwrapped": (
        BUY_SOL,
        lambda s: without_account(
            s,
            WSOL,
            open_account(SESSION, SESSION, WSOL),
            *s.swap(),
            close(ata(SESSION, WSOL), SESSION.pubkey(), SESSION),
        ),
        (-10_000 + SOL, -100 * 10**6, 0),
    ),
    "the maker wraps what it pays": (
        BUY_SOL,
        lambda s: s.build(give(MAKER, ata(MAKER, WSOL), SOL), sync(ata(MAKER, WSOL)), *s.swap()),
        (-10_000, -100 * 10**6, SOL),
    ),
    "Token-2022 with a fee is bought": (
        BUY_FEE,
        lambda s: s.build(s.sell(), s.pay(100 * 10**6), s.memo()),
        (-10_000, -100 * 10**6, 99 * 10**6),
    ),
    "Token-2022 with the fee told is bought": (
        BUY_FEE,
        lambda s: s.build(
            s.sell(), transfer_with_fee(FEE, ata(MAKER, FEE), ata(SESSION, FEE), MAKER, 10**8, 10**6), s.memo()
        ),
        (-10_000, -100 * 10**6, 99 * 10**6),
    ),
    "Token-2022 with a fee is bought, and its account opened": (
        BUY_FEE,
        lambda s: without_account(s, FEE, open_account(SESSION, SESSION, FEE), s.sell(), s.pay(10**8), s.memo()),
        (-10_000 - (128 + 182) * 6_960, -100 * 10**6, 99 * 10**6),
    ),
    "Token-2022 with a fee is sold": (FEE_2022, lambda s: s.build(*s.swap()), (-10_000, -100 * 10**6, 40 * 10**9)),
    "Token-2022 without extensions is sold": (
        {"sell": PLAIN},
        lambda s: s.build(*s.swap()),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "accounts from two lookup tables": (
        {},
        lambda s: by_table(s, *s.swap()),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "three cosigners": (
        {"policy": MANY_SIGN},
        lambda s: declared(s, MAKER, STRANGER, FRIEND).build(
            s.sell(),
            s.pay(20 * 10**9),
            s.move(JTO, STRANGER, SESSION, 20 * 10**9),
            give(FRIEND, MAKER, 1),
            s.memo(),
        ),
        (-20_000, -100 * 10**6, 40 * 10**9),
    ),
    "plain transfers": (
        {},
        lambda s: s.build(
            plain_transfer(USDC, ata(SESSION, USDC), ata(MAKER, USDC), SESSION, 100 * 10**6),
            plain_transfer(JTO, ata(MAKER, JTO), ata(SESSION, JTO), MAKER, 40 * 10**9),
            s.memo(),
        ),
        (-10_000, -100 * 10**6, 40 * 10**9),
    ),
    "strangers settle among themselves": (
        {},
        lambda s: declared(s, MAKER, STRANGER).build(
            *s.swap(),
            s.move(OTHER, MAKER, STRANGER, 5),
            give(STRANGER, MAKER, 5),
            close(ata(STRANGER, WSOL), STRANGER.pubkey(), STRANGER),
        ),
        (-15_000, -100 * 10**6, 40 * 10**9),
    ),
}


def units(accounts, token):
    held = accounts.get(ata(SESSION, token))
    return int.from_bytes(bytes(held.data)[64:72], "little") if held is not None and held.data else 0


@pytest.mark.parametrize(("trade", "make", "moved"), SHAPES.values(), ids=SHAPES)
def test_an_honest_shape_passes_and_lands(trade, make, moved):
    scene = Scene(**trade)
    transaction = make(scene)
    inspected = scene.inspect(transaction)
    change = scene.run(transaction)
    assert change.error is None
    lamports, sold, bought = moved
    sell, buy = scene.authorization.sell, scene.authorization.buy
    before, after = change.before, change.after
    wallet = SESSION.pubkey()
    spent = before[wallet].lamports - after[wallet].lamports
    assert spent == -lamports if lamports is not None else spent > 10_000
    assert spent <= inspected.lamports_max
    assert units(after, sell) - units(before, sell) == sold
    assert units(after, buy) - units(before, buy) == bought
    assert inspected.sold_max <= scene.authorization.sell_amount
    assert inspected.received_min >= scene.authorization.min_received
    assert inspected.programs == ()


RENT_RATES = {
    "of today": (3_480, 2.0),
    "in the form to come": (6_960, 1.0),
    "a tenth": (348, 2.0),
}


@pytest.mark.parametrize(("lamports", "factor"), RENT_RATES.values(), ids=RENT_RATES)
def test_rent_is_what_the_chain_says(lamports, factor):
    scene = Scene()
    scene.put(RENT_SYSVAR, SYSTEM_PROGRAM, struct.pack("<QdB", lamports, factor, 50))
    inspected = scene.inspect(scene.build(open_account(SESSION, SESSION, JTO), *scene.swap()))
    assert inspected.rents == {str(ata(SESSION, JTO)): int((128 + 165) * lamports * factor)}


NO_RENTS = {
    "nothing": None,
    "too short": b"",
    "no number": struct.pack("<Qd", 1, float("nan")),
    "a fortune": struct.pack("<Qd", 2**40, 1.0),
    "less than nothing": struct.pack("<Qd", 1, -1.0),
}


@pytest.mark.parametrize("rate", NO_RENTS.values(), ids=NO_RENTS)
def test_a_rent_that_no_chain_takes_is_not_believed(rate):
    scene = Scene()
    transaction = scene.build(open_account(SESSION, SESSION, JTO), *scene.swap())
    facts = scene.facts(transaction)
    told = {str(RENT_SYSVAR): None if rate is None else Account("", 1, rate)}
    with pytest.raises(TransactionRefused, match=r"what an account costs was not read|byte can't cost"):
        scene.inspect_with(transaction, facts._replace(accounts={**facts.accounts, **told}))


LENGTHS = SAFE | {kind: length for kind, (length, _) in LISTED_ONLY.items()}


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_new_account_has_the_size_that_its_rent_is_for(kind):
    """Of each of a mint's extensions, the account that the real program makes."""
    scene = Scene(buy=PLAIN, min_received=1, policy=Policy(mints=frozenset({PLAIN.mint})))
    value = bytes(80 if LENGTHS[kind] == ANY_LENGTH else LENGTHS[kind])
    scene.put(mint_of(PLAIN), TOKEN_2022_PROGRAM, mint_bytes(6, extension(kind, value)))
    scene.remove(ata(SESSION, PLAIN))
    opening = open_account(SESSION, SESSION, PLAIN)
    opened = scene.vm.simulate_transaction(scene.complete(scene.build(opening)))
    made = dict(opened.post_accounts())[ata(SESSION, PLAIN)]
    assert scene.inspect(scene.build(opening, *scene.swap())).rents == {str(ata(SESSION, PLAIN)): made.lamports}


def test_what_it_costs_is_told():
    scene = Scene()
    scene.remove(ata(SESSION, JTO))
    inspected = scene.inspect(
        scene.build(budget(2, 300_000), budget(3, 1_000_001), open_account(SESSION, SESSION, JTO), *scene.swap())
    )
    assert (inspected.fee_lamports, inspected.rents) == (10_000 + 300_001, {str(ata(SESSION, JTO)): RENT})
    assert inspected.lamports_max == 10_000 + 300_001 + RENT
    assert (inspected.sold_max, inspected.received_min) == (100 * 10**6, 40 * 10**9)
    assert (inspected.selling, inspected.buying) == (str(ata(SESSION, USDC)), str(ata(SESSION, JTO)))
