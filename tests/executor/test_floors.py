"""Floors against a program that does whatever it likes with the session key's signature, in the real VM."""

import itertools
import random
import struct

import pytest
from solders.account import Account as VmAccount
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import (
    AllocateParams,
    AssignParams,
    CreateAccountWithSeedParams,
    allocate,
    assign,
    create_account_with_seed,
)
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from executor.assets import NATIVE_MINT
from executor.errors import TransactionRefused
from executor.rails import Account
from executor.signing.floors import (
    TokenFloor,
    floor_instructions,
    lamport_floor,
    mints_of,
    named_accounts,
    token_floors,
    with_floors,
)
from executor.solana import (
    MEMO_PROGRAM,
    RENT_SYSVAR,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    create_associated_account,
    memo,
)
from tests.executor.floors_lab import (
    CLOSE,
    CLOSER,
    FEE,
    KEEP,
    KINDS,
    OWNER,
    REVOKE,
    SPENDABLE_LAMPORTS,
    Holding,
    Lab,
)


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def lab(request):
    return Lab(request.param)


def test_the_puppet_does_what_it_is_told(lab):
    assert lab.send(lab.message(lab.call([lab.pay(lab.thief, 10**9), lab.pay(lab.thief, 1)]))) is None
    assert lab.vm.get_balance(lab.thief) == 10**9 + 1


ATTACKS = {
    "one unit more of what is sold": lambda lab: [*lab.swap(), lab.give(lab.sold, 1)],
    "one unit less for it": lambda lab: [lab.give(lab.sold, 100), lab.get(lab.bought, 39)],
    "nothing for it": lambda lab: [lab.give(lab.sold, 100)],
    "what was bought goes back": lambda lab: [*lab.swap(), lab.give(lab.bought, 1)],
    "everything is taken, and less returned": lambda lab: [
        lab.give(lab.sold, 1_000),
        lab.get(lab.sold, 899),
        lab.get(lab.bought, 40),
    ],
    "another token": lambda lab: [*lab.swap(), lab.give(lab.third, 1, source=lab.seeded)],
    "another token is burnt": lambda lab: [
        *lab.swap(),
        lab.token(b"\x08" + (1).to_bytes(8, "little"), lab.seeded, lab.third, signer=lab.session),
    ],
    "lamports": lambda lab: [*lab.swap(), lab.pay(lab.thief, SPENDABLE_LAMPORTS + 1)],
    "the wallet is given to the program": lambda lab: [
        *lab.swap(),
        assign(AssignParams(pubkey=lab.session, owner=lab.puppet)),
    ],
    "the wallet gets data": lambda lab: [*lab.swap(), allocate(AllocateParams(pubkey=lab.session, space=80))],
    "an account is given away": lambda lab: [*lab.swap(), lab.set_authority(lab.seeded, OWNER, lab.taker)],
    "an account is given away, the session its delegate and close authority": lambda lab: [
        *lab.swap(),
        lab.set_authority(lab.seeded, OWNER, lab.taker),
        lab.approve(lab.seeded, lab.session, signer=lab.taker),
        lab.set_authority(lab.seeded, CLOSER, lab.session, signer=lab.taker),
    ],
    "a delegate of what is sold": lambda lab: [*lab.swap(), lab.approve(lab.at(lab.session, lab.sold), lab.taker)],
    "a delegate of what is bought": lambda lab: [*lab.swap(), lab.approve(lab.at(lab.session, lab.bought), lab.taker)],
    "a delegate of another token": lambda lab: [*lab.swap(), lab.approve(lab.seeded, lab.taker)],
    "a close authority": lambda lab: [
        *lab.swap(),
        lab.set_authority(lab.at(lab.session, lab.bought), CLOSER, lab.taker),
    ],
    "an account is closed for its rent": lambda lab: [*lab.swap(), lab.close(lab.at(lab.session, lab.fourth))],
    "an account is closed and made anew for another token": lambda lab: [
        *lab.swap(),
        lab.give(lab.third, 500, source=lab.seeded),
        lab.close(lab.seeded),
        create_account_with_seed(
            CreateAccountWithSeedParams(
                from_pubkey=lab.taker,
                to_pubkey=lab.seeded,
                base=lab.taker,
                seed="third",
                lamports=10**8,
                space=lab.kind.account_bytes,
                owner=lab.program,
            )
        ),
        lab.token(b"\x12" + bytes(lab.session), lab.seeded, lab.fourth),
        lab.get(lab.fourth, 500, destination=lab.seeded),
    ],
    "an account is opened for what may come one day, with a delegate": lambda lab: [
        *lab.swap(),
        lab.open_fifth(),
        lab.approve(lab.at(lab.session, lab.fifth), lab.taker),
    ],
    "an account is opened for what may come one day, with a close authority": lambda lab: [
        *lab.swap(),
        lab.open_fifth(),
        lab.set_authority(lab.at(lab.session, lab.fifth), CLOSER, lab.taker),
    ],
}

UNDONE_BY = {
    "one unit more of what is sold": ("sold", KEEP),
    "one unit less for it": ("bought", KEEP),
    "nothing for it": ("bought", KEEP),
    "what was bought goes back": ("bought", KEEP),
    "everything is taken, and less returned": ("sold", KEEP),
    "another token": ("third", KEEP),
    "another token is burnt": ("third", KEEP),
    "lamports": ("the wallet", 0),
    "the wallet is given to the program": ("the wallet", 0),
    "the wallet gets data": ("the wallet", 0),
    "an account is given away": ("third", REVOKE),
    "an account is given away, the session its delegate and close authority": ("third", KEEP),
    "a close authority": ("bought", CLOSE),
    "an account is closed for its rent": ("fourth", REVOKE),
    "an account is closed and made anew for another token": ("third", KEEP),
    "an account is opened for what may come one day, with a close authority": ("fifth", CLOSE),
}
"""Which account's floor undoes the attack, and by which instruction. The others land, and leave no harm."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_harms_without_floors_and_never_with_them(lab, attack):
    script = ATTACKS[attack](lab)
    unprotected = lab.message(lab.call(script))
    protected = lab.floored(unprotected)
    before = lab.snapshot()
    undone = lab.send(protected)
    if attack in UNDONE_BY:
        assert lab.floor_of(protected, undone) == UNDONE_BY[attack]
        assert lab.snapshot() == before
    else:
        assert undone is None
        assert lab.harms() == []
        return
    assert lab.send(unprotected) is None
    assert lab.harms()


@pytest.mark.parametrize("attack", sorted(ATTACKS.keys() - UNDONE_BY.keys()))
def test_an_attack_that_floors_mend_harms_without_them(lab, attack):
    assert lab.send(lab.message(lab.call(ATTACKS[attack](lab)))) is None
    assert lab.harms()


def test_lamports_sent_ahead_do_not_hide_that_an_account_can_be_opened(lab):
    account = lab.at(lab.session, lab.fifth)
    lab.vm.airdrop(account, 10**7)
    protected = lab.floored(
        lab.message(lab.call([*lab.swap(), lab.open_fifth(), lab.set_authority(account, CLOSER, lab.taker)]))
    )
    assert lab.floor_of(protected, lab.send(protected)) == ("fifth", CLOSE)


def test_no_mixture_of_attacks_harms(lab):
    """Whatever of all that the attacks do, and in whatever order: it is undone, or there is no harm."""
    choose = random.Random(23)
    landed = 0
    for _ in range(40):
        lab = Lab(lab.kind)
        moves = list(itertools.chain.from_iterable(attack(lab)[2:] for attack in ATTACKS.values()))
        moves += [lab.get(lab.sold, 1_000), lab.get(lab.third, 500, lab.seeded), lab.give(lab.sold, 900)]
        script = [*lab.swap(), *choose.sample(moves, choose.randint(1, 3))]
        if lab.send(lab.floored(lab.message(lab.call(script)))) is None:
            landed += 1
            assert lab.harms() == []
    assert landed


UNWRAPPED_ATTACKS = {
    "a part of it is unwrapped for somebody else": lambda lab: [*lab.swap(), lab.unwrap_for_taker(1)],
    "it is closed for somebody else": lambda lab: [*lab.swap(), lab.close(lab.native())],
    "it is closed for somebody else, and opened again": lambda lab: [
        *lab.swap(),
        lab.close(lab.native()),
        create_associated_account(lab.taker, lab.session, Pubkey.from_string(NATIVE_MINT)),
    ],
    "it is given away": lambda lab: [*lab.swap(), lab.set_authority(lab.native(), OWNER, lab.taker)],
    "it is given away, and the session may close it": lambda lab: [
        *lab.swap(),
        lab.set_authority(lab.native(), OWNER, lab.taker),
        lab.set_authority(lab.native(), CLOSER, lab.session, signer=lab.taker),
    ],
}
"""What may be tried with an account of wrapped SOL that is closed into the wallet afterwards."""

CANT_BE_CLOSED = {
    ("sold", "it is closed for somebody else"),
    ("sold", "it is given away"),
    ("bought", "it is closed for somebody else"),
    ("bought", "it is given away"),
    ("bought", "a close authority"),
}
"""Undone by the closing itself, floors or not."""

NO_HARM_ONCE_CLOSED = {
    "a delegate of what is sold",
    "a delegate of what is bought",
    "a delegate of another token",
    "it is given away, and the session may close it",
}


@pytest.mark.parametrize("side", ["sold", "bought"])
@pytest.mark.parametrize("attack", ATTACKS | UNWRAPPED_ATTACKS)
def test_an_attack_never_harms_where_sol_is_unwrapped_at_the_end(side, attack):
    lab = Lab(KINDS[f"wrapped SOL is {side}"], spendable=0)
    unprotected = lab.message(lab.call((ATTACKS | UNWRAPPED_ATTACKS)[attack](lab)), lab.unwrap())
    protected = lab.floored(unprotected)
    undone = lab.send(protected)
    if attack in NO_HARM_ONCE_CLOSED:
        assert undone is None
        assert lab.harms() == []
    elif (side, attack) in CANT_BE_CLOSED:
        assert undone == 1
    else:
        whose, which = UNDONE_BY.get(attack, (side, KEEP))
        assert lab.floor_of(protected, undone) == (("the wallet", 0) if whose == side else (whose, which))
        assert lab.send(unprotected) is None
        assert lab.harms()


@pytest.mark.parametrize("side", ["sold", "bought"])
def test_no_mixture_of_attacks_harms_where_sol_is_unwrapped_at_the_end(side):
    choose = random.Random(29)
    landed = 0
    for _ in range(40):
        lab = Lab(KINDS[f"wrapped SOL is {side}"], spendable=0)
        attacks = [attack(lab)[2:] for attack in (ATTACKS | UNWRAPPED_ATTACKS).values()]
        moves = [*itertools.chain.from_iterable(attacks), lab.get(lab.sold, 1_000), lab.give(lab.sold, 900)]
        script = [*lab.swap(), *choose.sample(moves, choose.randint(1, 3))]
        if lab.send(lab.floored(lab.message(lab.call(script), lab.unwrap()))) is None:
            landed += 1
            assert lab.harms() == []
    assert landed


@pytest.mark.parametrize("unwraps", [False, True])
@pytest.mark.parametrize(("more", "undone_by"), [(0, None), (1, ("sold", KEEP))])
def test_what_is_wrapped_may_be_sold_and_nothing_beyond(unwraps, more, undone_by):
    lab = Lab(KINDS["wrapped SOL is sold"], spendable=0)
    wrap = lab.wrap(60)
    script = [lab.give(lab.sold, 100 + more), lab.get(lab.bought, 40)]
    protected = lab.floored(lab.message(*wrap, lab.call(script), *([lab.unwrap()] if unwraps else [])))
    undone = lab.send(protected)
    if undone_by is None:
        assert undone is None
        assert lab.harms() == []
    else:
        assert lab.floor_of(protected, undone) == (("the wallet", 0) if unwraps else undone_by)


@pytest.mark.parametrize("there", [True, False], ids=["unsynced", "sent ahead"])
@pytest.mark.parametrize("side", ["sold", "bought"])
def test_lamports_that_were_only_sent_are_neither_taken_nor_taken_for_what_is_bought(side, there):
    """They lie in the account of wrapped SOL, uncounted as yet, or where it is opened."""
    ahead = 10**9
    for stolen in (0, 1):
        lab = Lab(KINDS[f"wrapped SOL is {side}"], spendable=0)
        rent = lab.vm.minimum_balance_for_rent_exemption(165)
        if there:
            lab.vm.airdrop(lab.native(), ahead)
        else:
            lab.vm.set_account(lab.native(), VmAccount(rent + ahead, b"", SYSTEM_PROGRAM))
        synced = lab.token(b"\x11", lab.native())
        opened = create_associated_account(lab.session, lab.session, Pubkey.from_string(NATIVE_MINT))
        script = [
            lab.give(lab.sold, 100 + (side == "sold") * stolen),
            lab.get(lab.bought, 40 - (side == "bought") * stolen),
        ]
        protected = lab.floored(lab.message(opened, *[synced] * stolen, lab.call(script)))
        undone = lab.send(protected)
        if stolen:
            assert lab.floor_of(protected, undone) == (side, KEEP)
        else:
            assert undone is None


@pytest.mark.parametrize("stolen", [0, 1])
def test_an_account_of_wrapped_sol_is_opened_filled_traded_and_closed_in_one_transaction(stolen):
    """As swap APIs sell SOL: the account isn't there before, nor afterwards."""
    lab = Lab(KINDS["wrapped SOL is sold"], spendable=0)
    lab.vm.set_account(lab.native(), VmAccount(0, b"", SYSTEM_PROGRAM))
    opened = create_associated_account(lab.session, lab.session, lab.sold)
    script = [*lab.swap(), lab.pay(lab.thief, stolen)]
    protected = lab.floored(lab.message(opened, *lab.wrap(100), lab.call(script), lab.unwrap()))
    undone = lab.send(protected)
    if stolen:
        assert lab.floor_of(protected, undone) == ("the wallet", 0)
    else:
        assert undone is None
        assert lab.harms() == []


@pytest.mark.parametrize("how", ["closed", "unwrapped"])
def test_wrapped_sol_is_not_unwrapped_beyond_its_floor(how):
    lab = Lab(KINDS["wrapped SOL is sold"])
    taken = lab.close(lab.native()) if how == "closed" else lab.unwrap_for_taker(101)
    unprotected = lab.message(lab.call([taken, lab.get(lab.bought, 40)]))
    protected = lab.floored(unprotected)
    assert lab.floor_of(protected, lab.send(protected)) == ("sold", REVOKE if how == "closed" else KEEP)
    assert lab.send(unprotected) is None
    assert lab.harms()


def test_an_associated_account_of_the_token_program_is_not_given_away():
    lab = Lab(KINDS["the token program"])
    given = lab.set_authority(lab.at(lab.session, lab.sold), OWNER, lab.taker)
    back = lab.approve(lab.at(lab.session, lab.sold), lab.session, signer=lab.taker)
    protected = lab.floored(lab.message(lab.call([*lab.swap(), given, back])))
    assert lab.floor_of(protected, lab.send(protected)) == ("sold", CLOSE)


@pytest.mark.parametrize("order", list(itertools.permutations((REVOKE, CLOSE, KEEP))))
def test_only_a_transfer_after_revoke_proves_who_owns_the_account(lab, order):
    given = ATTACKS["an account is given away, the session its delegate and close authority"](lab)
    unprotected = lab.message(lab.call(given))
    third = [each for each in lab.floors(unprotected) if each.mint == lab.third]
    *for_account, for_wallet = floor_instructions(str(lab.session), third, lab.lamport_floor)
    reordered = with_floors(unprotected, {}, [*(for_account[each] for each in order), for_wallet])
    proved = order.index(REVOKE) < order.index(KEEP)
    assert (lab.send(reordered) is not None) == proved


def test_a_lamport_floor_of_nothing_would_let_the_wallet_be_given_away(lab):
    given = lab.message(assign(AssignParams(pubkey=lab.session, owner=lab.puppet)), lab.pay(lab.session, 0))
    assert lab.send(given) is None
    for lamports in (0, 2**64):
        with pytest.raises(TransactionRefused, match=f"would have to keep {lamports} lamports"):
            floor_instructions(str(lab.session), [], lamports)


def test_a_simulation_of_a_program_that_can_tell_proves_nothing(lab):
    """The program reads an account that its author writes after the simulation: any program can do the like."""
    message = lab.message(lab.call([*lab.swap(), lab.give(lab.third, 0, source=lab.seeded)]))
    transaction = VersionedTransaction(message, [lab.keypair])
    simulated = lab.vm.simulate_transaction(transaction)
    assert not isinstance(simulated, FailedTransactionMetadata)
    protected = lab.floored(message)
    lab.write([*lab.swap(), lab.give(lab.third, 500, source=lab.seeded)])
    assert lab.floor_of(protected, lab.send(protected)) == ("third", KEEP)
    assert lab.send(message) is None
    assert lab.harms()


HONEST = {
    "a swap": lambda lab: lab.swap(),
    "more for less": lambda lab: [lab.give(lab.sold, 99), lab.get(lab.bought, 41)],
    "everything is taken, and enough returned": lambda lab: [
        lab.give(lab.sold, 1_000),
        lab.get(lab.sold, 900),
        lab.get(lab.bought, 40),
    ],
    "all lamports that may be spent": lambda lab: [*lab.swap(), lab.pay(lab.thief, SPENDABLE_LAMPORTS)],
    "another account is opened": lambda lab: [*lab.swap(), lab.open_fifth()],
}


@pytest.mark.parametrize("script", HONEST.values(), ids=HONEST)
def test_an_honest_program_lands_with_floors(lab, script):
    assert lab.send(lab.floored(lab.message(lab.call(script(lab))))) is None
    assert lab.harms() == []


def test_the_bought_tokens_account_may_be_opened_in_the_transaction(lab):
    lab.bought = lab.fifth
    lab.fill(lab.taker, lab.fifth, 0)
    script = [lab.give(lab.sold, 100), lab.get(lab.fifth, 40)]
    opened = lab.message(lab.open_fifth(), lab.call(script))
    floored = lab.floored(opened)
    assert lab.send(floored) is None
    assert lab.holding(lab.at(lab.session, lab.fifth)) == Holding(lab.fifth, lab.session, 40, None, None)
    lab = Lab(lab.kind)
    lab.bought = lab.fifth
    short = lab.floored(lab.message(lab.open_fifth(), lab.call([lab.give(lab.sold, 100), lab.get(lab.fifth, 39)])))
    assert lab.floor_of(short, lab.send(short)) == ("fifth", KEEP)


@pytest.mark.parametrize("ahead", [0, 10**6, 10**7], ids=["nothing", "some", "more than the rent"])
def test_rent_is_for_what_is_opened_and_nothing_else(lab, ahead):
    """Accounts that are there already are opened once more, as swap APIs do; and lamports lie where one isn't yet."""
    lab = Lab(lab.kind, spendable=0)
    fifth, rent = lab.at(lab.session, lab.fifth), lab.vm.get_balance(lab.at(lab.session, lab.fourth))
    lab.rents = {str(each): rent for each in (lab.at(lab.session, lab.bought), fifth)}
    if ahead:
        lab.vm.airdrop(fifth, ahead)
    again = create_associated_account(lab.session, lab.session, lab.bought, lab.program)
    for stolen in (0, 1):
        script = [*lab.swap(), lab.pay(lab.thief, stolen)]
        protected = lab.floored(lab.message(again, lab.open_fifth(), lab.call(script)))
        simulated = lab.vm.simulate_transaction(VersionedTransaction(protected, [lab.keypair]))
        if stolen:
            assert lab.floor_of(protected, simulated.err().index) == ("the wallet", 0)
        else:
            assert not isinstance(simulated, FailedTransactionMetadata)


def test_of_two_readings_the_one_counts_by_which_the_wallet_has_more(lab):
    """What came in the last seconds isn't final, and what went may come back."""
    message = lab.message(lab.call(lab.swap()))
    now = lab.accounts([*named_accounts(message, {}), *map(str, lab.mints)])
    sold, seeded, session = str(lab.at(lab.session, lab.sold)), str(lab.seeded), str(lab.session)
    rent = lab.vm.minimum_balance_for_rent_exemption(165)
    poorer = {
        **now,
        sold: None,
        seeded: now[seeded]._replace(data=now[seeded].data[:64] + bytes(8) + now[seeded].data[72:]),
        session: now[session]._replace(lamports=10**8),
    }
    some = {each: now[each] for each in (sold, seeded, session)}

    def floors(*readings):
        inspected = lab.inspected()
        return (
            token_floors(message, {}, lab.authorization(), inspected, readings, rent),
            lamport_floor(lab.authorization(), inspected, readings),
        )

    assert floors(poorer, now) == floors(now, poorer) == floors(poorer, some) == floors(now)
    with pytest.raises(TransactionRefused):
        floors(poorer)


@pytest.mark.parametrize("side", ["sold", "bought"])
def test_of_two_readings_that_one_counts_by_which_more_sol_lies_there(side):
    """By one, the account of wrapped SOL is open, with little in it; by the other it is closed, and much lies there."""
    lab = Lab(KINDS[f"wrapped SOL is {side}"])
    message = lab.message(lab.call(lab.swap()))
    now = lab.accounts([*named_accounts(message, {}), *map(str, lab.mints)])
    rent = lab.vm.minimum_balance_for_rent_exemption(165)
    closed = {**now, str(lab.native()): Account(str(SYSTEM_PROGRAM), rent + 10**9, b"")}
    for readings in ((now, closed), (closed, now)):
        floors = token_floors(message, {}, lab.authorization(), lab.inspected(), readings, rent)
        (floor,) = (each for each in floors if each.account == lab.native())
        assert floor.units == 10**9 + (-100 if side == "sold" else 40)


@pytest.mark.parametrize("side", ["sold", "bought"])
def test_rent_that_falls_is_not_taken_for_what_is_bought(side):
    lab = Lab(KINDS[f"wrapped SOL is {side}"], spendable=0)
    before = lab.vm.minimum_balance_for_rent_exemption(165)
    lab.vm.set_account(RENT_SYSVAR, VmAccount(10**6, struct.pack("<QdB", 696, 1.0, 50), SYSTEM_PROGRAM))
    freed = before - lab.vm.minimum_balance_for_rent_exemption(165)
    assert freed > 10**6
    more = [lab.token(b"\x11", lab.native()), lab.give(lab.mints[lab.kind.wrapped], freed)]
    for script in ([*lab.swap(), *more], lab.swap()):
        protected = lab.floored(lab.message(lab.call(script)))
        undone = lab.vm.simulate_transaction(VersionedTransaction(protected, [lab.keypair]))
        if script == lab.swap():
            assert not isinstance(undone, FailedTransactionMetadata)
        else:
            assert lab.floor_of(protected, undone.err().index) == (side, KEEP)


def test_token_2022s_own_wrapped_sol_is_left_alone():
    lab = Lab(KINDS["Token-2022"])
    native = Pubkey.from_string("9pan9bMn5HatX4EJdBwg9VgCa7Uz5HL8N1m5D3NdXejP")
    lab.vm.set_account(native, VmAccount(10**9, bytes(44) + b"\x09\x01" + bytes(36), TOKEN_2022_PROGRAM))
    opened = create_associated_account(lab.session, lab.session, native, TOKEN_2022_PROGRAM)
    with pytest.raises(TransactionRefused, match="Token-2022's wrapped SOL"):
        lab.floors(lab.message(opened, lab.call(lab.swap())))


def test_accounts_from_lookup_tables_keep_their_floors(lab):
    call = lab.call(lab.swap())
    table = lab.table([each.pubkey for each in call.accounts if not each.is_signer])
    unprotected = lab.message(call, tables=[table])
    assert len(unprotected.address_table_lookups[0].writable_indexes) > 8
    protected = lab.floored(unprotected, [table])
    assert lab.program in protected.account_keys
    lab.write([*lab.swap(), lab.give(lab.third, 1, source=lab.seeded)])
    assert lab.floor_of(protected, lab.send(protected), [table]) == ("third", KEEP)
    lab.write(lab.swap())
    lab.vm.expire_blockhash()
    protected = lab.floored(lab.message(call, tables=[table]), [table])
    assert lab.send(protected) is None
    assert lab.harms() == []


def test_a_table_that_is_left_with_nothing_goes(lab):
    call = lab.call(lab.swap())
    table = lab.table([lab.program])
    protected = lab.floored(lab.message(call, tables=[table]), [table])
    assert not protected.address_table_lookups
    assert lab.send(protected) is None
    assert lab.harms() == []


SESSION = bytes([9] * 32)
HELD = bytes(32) + SESSION + bytes(44) + b"\x01" + bytes(56)
NO_ACCOUNTS = {
    "another's": (TOKEN_PROGRAM, bytes(165)),
    "not initialized": (TOKEN_PROGRAM, HELD[:108] + bytes(57)),
    "too short": (TOKEN_PROGRAM, HELD[:-1]),
    "another program's": (MEMO_PROGRAM, HELD),
    "a mint with extensions": (TOKEN_2022_PROGRAM, HELD + b"\x01"),
    "a multisig with the session wallet among its signers": (TOKEN_2022_PROGRAM, (HELD + b"\x02").ljust(355, b"\0")),
}


@pytest.mark.parametrize(("program", "data"), NO_ACCOUNTS.values(), ids=NO_ACCOUNTS)
def test_what_is_no_token_account_of_the_session_wallet_is_not_read_as_one(program, data):
    session = str(Pubkey(SESSION))
    assert mints_of(session, {"": Account(str(program), 1, data), "nothing": None}) == set()
    for extended in (HELD, HELD + b"\x02", HELD + b"\x02" + bytes(4)):
        assert mints_of(session, {"": Account(str(TOKEN_2022_PROGRAM), 1, extended)}) == {str(SYSTEM_PROGRAM)}


def test_a_legacy_message_keeps_its_kind(lab):
    legacy = Message.new_with_blockhash([lab.call(lab.swap())], lab.session, lab.vm.latest_blockhash())
    protected = lab.floored(legacy)
    assert isinstance(protected, Message)
    assert lab.send(protected) is None
    assert lab.harms() == []


def read_only(call, account):
    metas = [
        AccountMeta(each.pubkey, each.is_signer, each.is_writable and each.pubkey != account) for each in call.accounts
    ]
    return Instruction(call.program_id, b"", metas)


def test_what_it_can_not_write_gets_no_floor(lab):
    message = lab.message(read_only(lab.call(lab.swap()), lab.seeded))
    assert lab.seeded not in [each.account for each in lab.floors(message)]
    assert lab.send(lab.floored(message)) is None


@pytest.mark.parametrize("extension", [b"\x24\x00" + bytes(32) + bytes(MEMO_PROGRAM), FEE], ids=["a hook", "a fee"])
def test_a_transfer_to_itself_pays_no_fee_and_calls_no_hook(extension):
    lab = Lab(KINDS["Token-2022"])
    mint = lab.make_mint(6, (extension, 165 + 1 + 4 + (64 if extension[0] == 0x24 else 108)))
    lab.fill(lab.session, mint, 1_000)
    account = lab.at(lab.session, mint)
    before = lab.vm.get_account(account)
    kept = lab.message(
        *floor_instructions(str(lab.session), [TokenFloor(account, mint, lab.program, 6, 1_000)], 1),
    )
    assert lab.send(kept) is None
    assert lab.vm.get_account(account) == before


def test_an_account_that_wants_memos_undoes_the_transaction():
    lab = Lab(KINDS["Token-2022"])
    account = lab.at(lab.session, lab.sold)
    metas = [
        AccountMeta(account, is_signer=False, is_writable=True),
        AccountMeta(lab.session, is_signer=True, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM, is_signer=False, is_writable=False),
        AccountMeta(lab.session, is_signer=True, is_writable=False),
    ]
    room = Instruction(lab.program, b"\x1d\x08\x00", metas)
    wanted = lab.token(b"\x1e\x00", account, signer=lab.session)
    assert lab.send(lab.message(room, wanted)) is None
    protected = lab.floored(lab.message(lab.call(lab.swap())))
    assert lab.floor_of(protected, lab.send(protected)) == ("sold", KEEP)


REFUSALS = {
    "it brings the bought token nowhere": (
        "can't write the session wallet's account of",
        lambda lab: lab.floors(lab.message(memo(b"", lab.session))),
    ),
    "it can't take from what is sold": (
        "can't write the session wallet's account of SOLD",
        lambda lab: lab.floors(lab.message(read_only(lab.call(lab.swap()), lab.at(lab.session, lab.sold)))),
    ),
    "the bought token's account is another's": (
        "can't write the session wallet's account of BOUGHT",
        lambda lab: (
            lab.vm.set_account(lab.at(lab.session, lab.bought), lab.vm.get_account(lab.at(lab.taker, lab.bought))),
            lab.floors(lab.message(lab.call(lab.swap()))),
        ),
    ),
    "the wallet holds less than is for sale": (
        "-1 base units",
        lambda lab: lab.floors(lab.message(lab.call(lab.swap())), sell_amount=1_001),
    ),
    "no account can hold as much": (
        "18446744073709551616 base units",
        lambda lab: lab.floors(lab.message(lab.call(lab.swap())), min_received=2**64 - 10),
    ),
    "it can open an account for a mint that isn't there yet": (
        "no mint",
        lambda lab: lab.floors(
            lab.message(
                lab.call(lab.swap()),
                create_associated_account(lab.session, lab.session, Pubkey([7] * 32), lab.program),
            )
        ),
    ),
    "it can open an account by the program that the mint isn't of": (
        "no mint",
        lambda lab: lab.floors(
            lab.message(
                lab.call(lab.swap()),
                create_associated_account(lab.session, lab.session, lab.third, TOKEN_2022_PROGRAM),
            )
        ),
    ),
    "another signer": (
        "2 signers",
        lambda lab: lab.floors(
            lab.message(memo(b"", lab.thief), memo(b"", lab.session)),
        ),
    ),
    "a table that isn't known": (
        "doesn't hold them",
        lambda lab: named_accounts(lab.message(lab.call(lab.swap()), tables=[lab.table(lab.mints)]), {}),
    ),
    "a place that the table doesn't have": (
        "doesn't hold them",
        lambda lab: named_accounts(
            lab.message(lab.call(lab.swap()), tables=[table := lab.table(lab.mints)]), {str(table.key): []}
        ),
    ),
    "a key twice": (
        "twice",
        lambda lab: named_accounts(
            lab.message(lab.call(lab.swap()), tables=[table := lab.table(lab.mints)]),
            {str(table.key): [str(lab.session)] * 5},
        ),
    ),
    "a floor on what it reads": (
        "reads",
        lambda lab: with_floors(
            lab.message(memo(b"", lab.session), lab.call(lab.swap())), {}, [lab.token(b"", lab.script)]
        ),
    ),
    "a floor that another signs": (
        "signed by",
        lambda lab: with_floors(lab.message(memo(b"", lab.session)), {}, [memo(b"", lab.thief)]),
    ),
    "a program that it writes": (
        "to write it",
        lambda lab: with_floors(
            lab.message(lab.token(b"", MEMO_PROGRAM), tables=[table := lab.table([MEMO_PROGRAM])]),
            {str(table.key): [str(MEMO_PROGRAM)]},
            [memo(b"", lab.session)],
        ),
    ),
    "a packet too long": (
        "packet's 1232",
        lambda lab: lab.floored(lab.message(lab.call(lab.swap()), memo(bytes(400), lab.session))),
    ),
    "too many accounts": (
        "257 accounts",
        lambda lab: with_floors(
            lab.message(
                lab.token(b"", *(keys := [Pubkey(each.to_bytes(32, "big")) for each in range(1, 254)])),
                tables=[table := lab.table(keys)],
            ),
            {str(table.key): [str(key) for key in keys]},
            [memo(b"", lab.session), lab.pay(lab.session, 1)],
        ),
    ),
}


@pytest.mark.parametrize(("match", "make"), REFUSALS.values(), ids=REFUSALS)
def test_what_floors_can_not_hold_is_refused(match, make):
    with pytest.raises(TransactionRefused, match=match):
        make(Lab(KINDS["the token program"]))


def test_every_instruction_sees_just_the_accounts_that_it_saw():
    """Messages of any shape: what each old instruction is handed, and with which rights, doesn't change."""
    choose = random.Random(11)
    for _ in range(300):
        keys = [Pubkey(choose.randbytes(32)) for _ in range(24)]
        payer, callee, floored = keys[0], keys[1], keys[2:6]
        metas = [AccountMeta(key, key == payer, choose.random() < 0.5) for key in choose.sample(keys, 12)]
        metas = [
            AccountMeta(each.pubkey, each.is_signer, True if each.pubkey in floored else each.is_writable)
            for each in metas
        ]
        tables = [AddressLookupTableAccount(Pubkey(choose.randbytes(32)), choose.sample(keys[1:], 8)) for _ in range(2)]
        contents = {str(each.key): [str(key) for key in each.addresses] for each in tables}
        program = Pubkey(choose.randbytes(32))
        called = [Instruction(program, choose.randbytes(3), choose.sample(metas, 8)) for _ in range(3)]
        message = MessageV0.try_compile(payer, called, tables, Hash.default())
        if callee in {meta.pubkey for meta in metas if meta.is_writable}:
            continue
        floors = [
            Instruction(callee, b"x", [AccountMeta(key, False, True), AccountMeta(payer, True, False)])
            for key in floored
        ]
        wider = with_floors(message, contents, floors)
        before, after = handed(message, contents), handed(wider, contents)
        assert after[: len(before)] == before
        assert [(each[0], [key for key, *_ in each[2]]) for each in after[len(before) :]] == [
            (callee, [key, payer]) for key in floored
        ]
        assert all(each[2][0][2] for each in after[len(before) :])
        assert wider.recent_blockhash == message.recent_blockhash


def handed(message, tables):
    """Return each instruction's program, data, and accounts with whether they sign and can be written."""
    lookups = message.address_table_lookups
    keys = [(key, message.is_signer(at), at) for at, key in enumerate(message.account_keys)]
    header = message.header
    unsigned = len(keys) - header.num_readonly_unsigned_accounts
    keys = [(key, signs, at == 0 or header.num_required_signatures <= at < unsigned) for key, signs, at in keys]
    for rights, which in ((True, "writable_indexes"), (False, "readonly_indexes")):
        for each in lookups:
            table = tables[str(each.account_key)]
            keys += [(Pubkey.from_string(table[at]), False, rights) for at in bytes(getattr(each, which))]
    return [
        (keys[each.program_id_index][0], bytes(each.data), [keys[at] for at in bytes(each.accounts)])
        for each in message.instructions
    ]
