"""Transactions that must not be signed, each with the one sentence that says why.

Most would really land: the VM runs them. They are made from an honest swap, by one change each.
"""

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, CompiledInstruction, Instruction
from solders.message import MessageAddressTableLookup, MessageV0, MessageV1
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import AdvanceNonceAccountParams, advance_nonce_account
from solders.transaction import VersionedTransaction

from executor.errors import TransactionRefused
from executor.signing import Policy, read_proposal
from executor.solana import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM, TOKEN_2022_PROGRAM, TOKEN_PROGRAM
from tests.executor.signing.scene import (
    COMPUTE_BUDGET_PROGRAM,
    FEE,
    JTO,
    LISTED_PROGRAM,
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
    address,
    ata,
    budget,
    call,
    close,
    extension,
    fee_config,
    give,
    mint_bytes,
    mint_of,
    open_account,
    plain_transfer,
    sync,
    token_call,
    transfer_with_fee,
    with_accounts,
    with_data,
)

SELL_SOL = {"sell": WSOL, "sell_amount": SOL, "buy": USDC, "min_received": 100 * 10**6}
BUY_SOL = {"sell": USDC, "sell_amount": 100 * 10**6, "buy": WSOL, "min_received": SOL}
BUY_FEE = {"buy": FEE, "min_received": 99 * 10**6}
BUY_2022 = {"buy": PLAIN, "min_received": 10**6}
LISTED = {"policy": Policy(programs=frozenset({str(LISTED_PROGRAM)}))}

ONE = (1).to_bytes(8, "little")


def swap_and(*more):
    """Return what builds the swap with more instructions behind it."""
    return lambda s: s.build(*s.swap(), *(each(s) if callable(each) else each for each in more))


def own(token):
    return ata(SESSION, token)


def other_account(scene, token=JTO, **how):
    """Give the session wallet a second account of a token, which isn't the associated one."""
    key = address("second account")
    scene.fund(SESSION.pubkey(), token, 10**12, account=key, **how)
    return key


def mint_with(token, *extensions):
    """Return what builds the swap after the mint of a token got these extensions."""

    def make(scene):
        scene.put(mint_of(token), TOKEN_2022_PROGRAM, mint_bytes(token.decimals, b"".join(extensions)))
        return scene.build(*scene.swap())

    return make


def account_as(token, **how):
    """Return what builds the swap after the session wallet's account of a token was written anew."""

    def make(scene):
        scene.fund(SESSION.pubkey(), token, 10**12, **how)
        return scene.build(*scene.swap())

    return make


def changed_message(change):
    """Return what builds the swap with a changed message, signed anew by the maker."""

    def make(scene):
        message = scene.compile(*scene.swap()).message
        return bytes(scene.cosign(change(message)))

    return make


def message_with(message, *, keys=None, instructions=None, lookups=()):
    return MessageV0(
        message.header,
        keys or message.account_keys,
        message.recent_blockhash,
        instructions or message.instructions,
        list(lookups),
    )


def key_named_twice(message):
    keys = message.account_keys
    writable = message.header.num_required_signatures
    return message_with(message, keys=[*keys[:writable], keys[writable], *keys[writable:]])


def by_table(keys, *, promised=None, tables=None):
    """Return what takes `keys` from a lookup table that was said to hold `promised`."""

    def make(scene):
        key = scene.make_table(keys)
        if promised is not None:
            scene.tables[str(key)] = tuple(map(str, promised))
        if tables is not None:
            scene.tables = tables
        return scene.build(*scene.swap(), tables=[AddressLookupTableAccount(key, keys)])

    return make


def program_from_table(scene):
    message = scene.compile(*scene.swap()).message
    lookup = MessageAddressTableLookup(scene.make_table([LISTED_PROGRAM]), b"", b"\0")
    first, *rest = message.instructions
    looked_up = CompiledInstruction(len(message.account_keys), bytes(first.data), bytes(first.accounts))
    return bytes(scene.cosign(message_with(message, instructions=[looked_up, *rest], lookups=[lookup])))


def beyond_the_table(scene):
    table = scene.make_table([mint_of(USDC)])
    message = scene.compile(*scene.swap()).message
    lookup = MessageAddressTableLookup(table, b"", b"\1")
    return bytes(scene.cosign(message_with(message, lookups=[lookup])))


def looked_up_twice(scene):
    table = scene.make_table([own(USDC)])
    message = scene.compile(*scene.swap()).message
    lookup = MessageAddressTableLookup(table, b"\0", b"")
    return bytes(scene.cosign(message_with(message, lookups=[lookup])))


def account_out_of_bounds(message):
    first, *rest = message.instructions
    return message_with(
        message, instructions=[CompiledInstruction(first.program_id_index, bytes(first.data), b"\x7f" * 4), *rest]
    )


def payer_as_program(message):
    first, *rest = message.instructions
    return message_with(message, instructions=[CompiledInstruction(0, bytes(first.data), bytes(first.accounts)), *rest])


def longer_count(scene):
    """Write the number of signatures, 2, in two bytes."""
    return b"\x82\x00" + scene.build(*scene.swap())[1:]


def nonce(authority=SESSION):
    return advance_nonce_account(
        AdvanceNonceAccountParams(nonce_pubkey=address("nonce"), authorized_pubkey=authority.pubkey())
    )


def version_1(scene):
    message = MessageV1.try_compile(SESSION.pubkey(), scene.swap(), Hash.from_string(scene.blockhash))
    return bytes(scene.cosign(message))


def forged(scene):
    parsed = scene.compile(*scene.swap())
    wrong = MAKER.sign_message(b"something else")
    return bytes(VersionedTransaction.populate(parsed.message, [Signature.default(), wrong]))


def wrapping(*instructions, lamports=SOL):
    """Return what wraps SOL into a new account, sells it, and goes on."""

    def make(scene):
        scene.remove(own(WSOL))
        start = [open_account(SESSION, SESSION, WSOL), give(SESSION, own(WSOL), lamports), sync(own(WSOL))]
        return scene.build(*start, *scene.swap(), *instructions)

    return make


def hooked(*others):
    """Return what hands more accounts to the transfer of what is bought."""

    def make(scene):
        scene.policy = Policy(mints=frozenset({PLAIN.mint}))
        scene.put(mint_of(PLAIN), TOKEN_2022_PROGRAM, mint_bytes(6, extension(14, bytes(64))))
        pay = scene.pay()
        metas = [AccountMeta(each, is_signer=False, is_writable=True) for each in others]
        return scene.build(scene.sell(), with_accounts(pay, *pay.accounts, *metas), scene.memo())

    return make


def opaque(*accounts, more=(), signers=()):
    """Return what calls a program that the operator listed."""
    return lambda s: s.build(s.sell(), s.memo(), *more, call(LISTED_PROGRAM, b"go", SESSION, *accounts, *signers))


def opaque_with(key, program, data=b"x"):
    def make(scene):
        scene.put(key, program, data)
        return opaque(key)(scene)

    return make


def system(kind, rest, *accounts):
    return call(SYSTEM_PROGRAM, kind.to_bytes(4, "little") + rest, *accounts)


def stranger_delegate(scene):
    """Let somebody else, who signs too, move the session wallet's own second account into the first."""
    key = other_account(scene, delegate=MAKER.pubkey())
    return scene.build(scene.sell(), scene.move(JTO, MAKER, SESSION, 40 * 10**9, account=key), scene.memo())


def third_mint(scene):
    return scene.move(OTHER, SESSION, MAKER, 1)


def from_second_account(scene):
    return scene.build(
        scene.sell(99 * 10**6),
        scene.move(USDC, SESSION, MAKER, 10**6, account=other_account(scene, USDC)),
        scene.pay(),
        scene.memo(),
    )


def closed_by_a_stranger(scene):
    key = other_account(scene, WSOL, closer=MAKER.pubkey())
    return scene.build(*scene.swap(), close(key, MAKER.pubkey(), MAKER))


def wallet_as(program, data):
    def make(scene):
        transaction = scene.build(*scene.swap())
        scene.put(SESSION.pubkey(), program, data)
        return transaction

    return make


def without(token, *instructions):
    def make(scene):
        scene.remove(own(token))
        return scene.build(*scene.swap(), *instructions)

    return make


def opened_elsewhere(scene):
    scene.put(own(JTO), SYSTEM_PROGRAM, bytes(80))
    return scene.build(open_account(SESSION, SESSION, JTO), *scene.swap())


def lamports_ahead(scene):
    scene.put(own(JTO), SYSTEM_PROGRAM, b"", lamports=900_000)
    return scene.build(*scene.swap())


def mint_data(token, data, program=TOKEN_PROGRAM):
    def make(scene):
        scene.put(mint_of(token), program, data)
        return scene.build(*scene.swap())

    return make


def mint_gone(scene):
    scene.remove(mint_of(JTO))
    return scene.build(*scene.swap())


ATTACKS = {
    # --- amounts and mints
    "one unit too much leaves": (
        {},
        lambda s: s.build(s.sell(10**8 + 1), s.pay(), s.memo()),
        "100000001 .* would leave",
    ),
    "a hidden second transfer": ({}, lambda s: s.build(s.sell(1), s.pay(), s.memo(), s.sell()), "would leave, more"),
    "two that would overflow 64 bits": (
        {},
        lambda s: s.build(s.sell(2**64 - 1), s.sell(2), s.pay(), s.memo()),
        "18446744073709551617 base units would leave",
    ),
    "a thousand times too much": ({}, lambda s: s.build(s.sell(10**11), s.pay(), s.memo()), "would leave, more"),
    "only the second recipient gets too much": (
        {},
        lambda s: s.build(s.sell(), s.move(USDC, SESSION, STRANGER, 1), s.pay(), s.memo()),
        "100000001 base units would leave",
    ),
    "one unit too little comes": (
        {},
        lambda s: s.build(s.sell(), s.pay(40 * 10**9 - 1), s.memo()),
        "39999999999 base units would come, less",
    ),
    "nothing comes": ({}, lambda s: s.build(s.sell(), s.memo()), "0 base units would come"),
    "another mint comes, as much": (
        {},
        lambda s: s.build(s.sell(), s.move(OTHER, MAKER, SESSION, 40 * 10**9), s.memo()),
        "0 base units would come",
    ),
    "it comes to another account of the wallet": (
        {},
        lambda s: s.build(s.sell(), s.pay(into=other_account(s)), s.memo()),
        "0 base units would come",
    ),
    "it comes to a stranger": (
        {},
        lambda s: s.build(s.sell(), s.move(JTO, MAKER, STRANGER, 40 * 10**9), s.memo()),
        "0 base units would come",
    ),
    "the wallet pays itself": (
        {},
        lambda s: s.build(s.sell(), s.move(JTO, SESSION, SESSION, 40 * 10**9), s.memo()),
        "not for sale",
    ),
    "a delegate pays with the wallet's own": ({}, stranger_delegate, "by somebody else's authority"),
    "another mint leaves": ({}, swap_and(third_mint), "not for sale"),
    "the bought token leaves again": ({}, swap_and(lambda s: s.move(JTO, SESSION, MAKER, 1)), "not for sale"),
    "the sold token leaves from a second account": ({}, from_second_account, "not for sale"),
    "mints summed together": (
        {},
        lambda s: s.build(s.sell(1), s.move(OTHER, SESSION, MAKER, 1), s.pay(), s.memo()),
        "not for sale",
    ),
    "the session key moves a stranger's tokens": (
        {},
        swap_and(lambda s: s.move(USDC, STRANGER, MAKER, 1, authority=SESSION)),
        "not for sale",
    ),
    "other decimals": ({}, lambda s: s.build(s.sell(decimals=9), s.pay(), s.memo()), "to have 9 decimals"),
    "the sold token under the other program": (
        {},
        lambda s: s.build(s.sell(program=TOKEN_2022_PROGRAM), s.pay(), s.memo()),
        "not for sale",
    ),
    "the bought token under the other program": (
        {},
        lambda s: s.build(s.sell(), s.pay(program=TOKEN_2022_PROGRAM), s.memo()),
        "0 base units would come",
    ),
    "a Token-2022 token under the Token program": (
        BUY_2022,
        lambda s: s.build(s.sell(), s.pay(program=TOKEN_PROGRAM), s.memo()),
        "0 base units would come",
    ),
    "a plain transfer of another mint": (
        {},
        swap_and(plain_transfer(OTHER, own(OTHER), ata(MAKER, OTHER), SESSION, 1)),
        "not for sale",
    ),
    "a plain transfer from nobody knows what": (
        {},
        swap_and(plain_transfer(OTHER, address("nothing"), ata(MAKER, OTHER), MAKER, 1)),
        "what that holds isn't known",
    ),
    # --- rights
    "approve": ({}, swap_and(token_call(USDC, b"\x04" + ONE, own(USDC), MAKER.pubkey(), SESSION)), "to approve"),
    "approve, checked": (
        {},
        swap_and(token_call(USDC, b"\x0d" + ONE + b"\6", own(USDC), mint_of(USDC), MAKER.pubkey(), SESSION)),
        "to approve checked",
    ),
    "a third mint is approved": (
        {},
        swap_and(token_call(OTHER, b"\x04" + ONE, own(OTHER), MAKER.pubkey(), SESSION)),
        "to approve",
    ),
    "revoke": ({}, swap_and(token_call(USDC, b"\x05", own(USDC), SESSION)), "to revoke"),
    "the account is given away": (
        {},
        swap_and(token_call(USDC, b"\x06\x02\x01" + bytes(MAKER.pubkey()), own(USDC), SESSION)),
        "to set an authority",
    ),
    "the right to close it is given away": (
        {},
        swap_and(token_call(USDC, b"\x06\x03\x01" + bytes(MAKER.pubkey()), own(USDC), SESSION)),
        "to set an authority",
    ),
    "burn": ({}, swap_and(token_call(USDC, b"\x08" + ONE, own(USDC), mint_of(USDC), SESSION)), "to burn"),
    "burn, checked": (
        {},
        swap_and(token_call(USDC, b"\x0f" + ONE + b"\6", own(USDC), mint_of(USDC), SESSION)),
        "to burn checked",
    ),
    "mint": ({}, swap_and(token_call(USDC, b"\x07" + ONE, mint_of(USDC), own(USDC), SESSION)), "to mint"),
    "freeze": ({}, swap_and(token_call(USDC, b"\x0a", own(USDC), mint_of(USDC), SESSION)), "to freeze"),
    "an account is initialized": (
        {},
        swap_and(token_call(USDC, b"\x12" + bytes(MAKER.pubkey()), address("new"), mint_of(USDC))),
        "to initialize an account",
    ),
    "a batch": ({}, swap_and(token_call(USDC, b"\xff" + bytes(9), own(USDC))), "to do `ff`"),
    "excess lamports": (
        {},
        swap_and(token_call(USDC, b"\x26", own(USDC), MAKER.pubkey(), SESSION)),
        "to do `26`",
    ),
    "an empty instruction": ({}, swap_and(token_call(USDC, b"")), "to do nothing"),
    "fees are withdrawn": (
        BUY_FEE,
        swap_and(token_call(FEE, b"\x1a\x03", own(FEE), SESSION)),
        "to do `1a`",
    ),
    "Token-2022's guard is set": (
        BUY_FEE,
        swap_and(token_call(FEE, b"\x22\x00", own(FEE), SESSION)),
        "to do `22`",
    ),
    "a transfer with a trailing byte": (
        {},
        lambda s: s.build(with_data(s.sell(), bytes(s.sell().data) + b"\0"), s.pay(), s.memo()),
        "to transfer checked in no documented form",
    ),
    "a transfer of a multisig": (
        {},
        lambda s: s.build(with_accounts(s.sell(), *s.sell().accounts, s.pay().accounts[3]), s.pay(), s.memo()),
        "more accounts than it takes",
    ),
    "a plain transfer of a multisig": (
        {},
        swap_and(token_call(USDC, b"\x03" + ONE, own(USDC), ata(MAKER, USDC), MAKER.pubkey(), SESSION)),
        "to transfer in no documented form",
    ),
    "a transfer without its authority": (
        {},
        swap_and(lambda s: with_accounts(s.sell(), *s.sell().accounts[:3])),
        "to transfer checked in no documented form",
    ),
    # --- closing, wrapping
    "the sold token's account is closed": (
        {},
        swap_and(close(own(USDC), SESSION.pubkey(), SESSION)),
        "closes the session wallet's account",
    ),
    "the third mint's account is closed": (
        {},
        swap_and(close(own(OTHER), MAKER.pubkey(), SESSION)),
        "closes the session wallet's account",
    ),
    "wrapped SOL is closed, and not traded": (
        {},
        swap_and(close(own(WSOL), SESSION.pubkey(), SESSION)),
        "closes the session wallet's account",
    ),
    "wrapped SOL is closed to a stranger": (
        BUY_SOL,
        swap_and(close(own(WSOL), STRANGER.pubkey(), SESSION)),
        "unwraps the session wallet's SOL to",
    ),
    "wrapped SOL is closed by a stranger": (
        BUY_SOL,
        swap_and(close(own(WSOL), SESSION.pubkey(), MAKER)),
        "unwraps the session wallet's SOL to",
    ),
    "a second account of wrapped SOL is closed by a stranger": (
        {},
        closed_by_a_stranger,
        "closes the session wallet's account",
    ),
    "the session key closes a stranger's account": (
        {},
        swap_and(close(ata(STRANGER, WSOL), STRANGER.pubkey(), SESSION)),
        "closes the session wallet's account",
    ),
    "wrapped SOL is paid after the account is closed": (
        BUY_SOL,
        lambda s: s.build(s.sell(), s.memo(), close(own(WSOL), SESSION.pubkey(), SESSION), s.pay()),
        "after closing it",
    ),
    "the account of wrapped SOL is opened again": (
        BUY_SOL,
        swap_and(close(own(WSOL), SESSION.pubkey(), SESSION), open_account(SESSION, SESSION, WSOL)),
        "after closing it",
    ),
    "SOL is wrapped into the closed account": (
        SELL_SOL,
        swap_and(close(own(WSOL), SESSION.pubkey(), SESSION), give(SESSION, own(WSOL), 1)),
        "after closing it",
    ),
    "closing with a multisig": (
        BUY_SOL,
        swap_and(token_call(WSOL, b"\x09", own(WSOL), SESSION.pubkey(), SESSION, MAKER)),
        "to close an account in no documented form",
    ),
    "more is wrapped than is sold": (SELL_SOL, wrapping(lamports=SOL + 1), "wraps 1000000001 lamports"),
    "it is wrapped in two parts": (SELL_SOL, wrapping(give(SESSION, own(WSOL), 1)), "wraps 1000000001 lamports"),
    "SOL is wrapped that isn't sold": (BUY_SOL, swap_and(give(SESSION, own(WSOL), 1)), "takes 1 lamports"),
    "SOL is wrapped for a stranger": (SELL_SOL, swap_and(give(SESSION, ata(MAKER, WSOL), 1)), "takes 1 lamports"),
    # --- lamports and the System program
    "a tip": ({}, swap_and(give(SESSION, STRANGER, 1_000)), "takes 1000 lamports"),
    "lamports into the wallet's own token account": ({}, swap_and(give(SESSION, own(USDC), 1)), "takes 1 lamports"),
    "an account is created": (
        {},
        swap_and(system(0, bytes(48), SESSION, MAKER)),
        "to create an account",
    ),
    "the wallet is assigned to a program": ({}, swap_and(system(1, bytes(32), SESSION)), "to assign"),
    "the wallet gets data": ({}, swap_and(system(8, ONE, SESSION)), "to allocate"),
    "a transfer with a seed": (
        {},
        swap_and(system(11, bytes(48), address("derived"), SESSION, MAKER.pubkey())),
        "to transfer with a seed",
    ),
    "a nonce is withdrawn": ({}, swap_and(system(5, ONE, address("nonce"), SESSION)), "to withdraw from a nonce"),
    "a System instruction that isn't there": ({}, swap_and(system(99, b"", SESSION)), "to do `63000000`"),
    "a lamport transfer with a trailing byte": (
        {},
        swap_and(system(2, ONE + b"\0", MAKER, STRANGER.pubkey())),
        "another form than the documented one",
    ),
    "a durable nonce, first": ({}, lambda s: s.build(nonce(), *s.swap()), "advances a durable nonce"),
    "a durable nonce, last": ({}, swap_and(nonce()), "advances a durable nonce"),
    "a durable nonce of a stranger": ({}, lambda s: s.build(nonce(MAKER), *s.swap()), "advances a durable nonce"),
    # --- new accounts
    "an account for a stranger": ({}, swap_and(open_account(SESSION, MAKER, OTHER)), "at the session wallet's expense"),
    "an account of a third mint": (
        {},
        swap_and(open_account(SESSION, SESSION, OTHER)),
        "at the session wallet's expense",
    ),
    "an account at another address": (
        {},
        swap_and(
            with_accounts(
                open_account(SESSION, SESSION, JTO),
                *open_account(SESSION, SESSION, JTO).accounts[:1],
                AccountMeta(own(USDC), is_signer=False, is_writable=True),
                *open_account(SESSION, SESSION, JTO).accounts[2:],
            )
        ),
        "at the session wallet's expense",
    ),
    "nested accounts are recovered": ({}, swap_and(call(ASSOCIATED_TOKEN_PROGRAM, b"\2", SESSION)), "recover nested"),
    "an unknown kind of opening": ({}, swap_and(call(ASSOCIATED_TOKEN_PROGRAM, b"\3", SESSION)), "to do `03`"),
    "an opening with an account more": (
        {},
        swap_and(
            with_accounts(
                open_account(SESSION, SESSION, JTO),
                *open_account(SESSION, SESSION, JTO).accounts,
                AccountMeta(MAKER.pubkey(), is_signer=True, is_writable=True),
            )
        ),
        "opens a token account in another form",
    ),
    "an opening by a program that isn't genuine": (
        {},
        swap_and(
            with_accounts(
                open_account(SESSION, SESSION, JTO),
                *open_account(SESSION, SESSION, JTO).accounts[:5],
                AccountMeta(LISTED_PROGRAM, is_signer=False, is_writable=False),
            )
        ),
        "other programs than the genuine ones",
    ),
    "new accounts that cost too much": (
        {"policy": Policy(rent_lamports_max=2 * RENT - 1)},
        swap_and(*(open_account(SESSION, SESSION, each) for each in (USDC, JTO))),
        f"cost {2 * RENT} lamports, more than {2 * RENT - 1}",
    ),
    "the account isn't there and isn't opened": ({}, without(JTO), "no account of JTO, and it opens none"),
    "something else is where the account would be": (
        {},
        opened_elsewhere,
        "is no account of JTO",
    ),
    "only lamports are where the account would be": ({}, lamports_ahead, "no account of JTO, and it opens none"),
    "there is nothing to sell from": ({}, without(USDC), "no account of USDC"),
    # --- the state of the wallet's accounts
    "the account was given to somebody": ({}, account_as(JTO, held_by=MAKER.pubkey()), "was given to somebody else"),
    "the account is frozen": ({}, account_as(JTO, state=2), "is frozen"),
    "the account has a delegate": ({}, account_as(USDC, delegate=MAKER.pubkey()), "may take from"),
    "somebody else may close it": ({}, account_as(USDC, closer=MAKER.pubkey()), "somebody else may close"),
    "another mint's account lies there": (
        {},
        lambda s: (s.fund(SESSION.pubkey(), OTHER, 1, account=own(JTO)), s.build(*s.swap()))[1],
        "is no account of JTO",
    ),
    "the wallet belongs to a program": ({}, wallet_as(LISTED_PROGRAM, b""), "not a plain wallet"),
    "the wallet has data": ({}, wallet_as(SYSTEM_PROGRAM, b"x"), "not a plain wallet"),
    # --- memo
    "no memo": ({}, lambda s: s.build(s.sell(), s.pay()), "has no memo"),
    "two memos": ({}, swap_and(lambda s: s.memo(b"hello")), "more than one memo"),
    "the memo twice": ({}, swap_and(lambda s: s.memo()), "more than one memo"),
    "another execution's memo": (
        {},
        lambda s: s.build(s.sell(), s.pay(), s.memo(b"holdfire:" + b"cd" * 32)),
        "memo is not this authorization's",
    ),
    "the memo and a space": (
        {},
        lambda s: s.build(s.sell(), s.pay(), s.memo(s.authorization.memo + b" ")),
        "memo is not this authorization's",
    ),
    "the memo by the first memo program": (
        {},
        lambda s: s.build(
            s.sell(),
            s.pay(),
            Instruction(
                Pubkey.from_string("Memo1UhkJRfHyvLMcVucJwxXeuD728EqVDDwQDxFMNo"),
                s.authorization.memo,
                s.memo().accounts,
            ),
        ),
        "which isn't known or listed",
    ),
    # --- signers
    "a foreign fee payer": (
        {},
        lambda s: s.build(*s.swap(), payer=STRANGER),
        "its fee payer is .*, not the session key",
    ),
    "a cosigner who wasn't declared": ({}, swap_and(give(STRANGER, MAKER, 1)), "not one that the rail declared"),
    "a cosigner who hasn't signed": ({}, lambda s: s.build(*s.swap(), forge=(MAKER,)), "hasn't signed it"),
    "a forged signature": ({}, forged, "hasn't signed it"),
    "too many cosigners": (
        {"policy": Policy(cosigners_max=1)},
        swap_and(give(STRANGER, MAKER, 1)),
        "has 2 cosigners, more than 1",
    ),
    "another blockhash": ({}, lambda s: s.build(*s.swap(), blockhash=str(Hash.new_unique())), "blockhash is not"),
    # --- encoding
    "a byte at the end": ({}, lambda s: s.build(*s.swap()) + b"\0", "one encoding|can't be read"),
    "a count in two bytes": ({}, longer_count, "can't be read"),
    "half of it": ({}, lambda s: s.build(*s.swap())[:150], "can't be read"),
    "nothing": ({}, lambda _: b"", "can't be read"),
    "a message of version 1": ({}, version_1, "neither a legacy transaction nor one of version 0"),
    "too long": ({}, lambda s: s.build(s.sell(), s.pay(), *[s.memo()] * 12), "more than a packet's 1232"),
    "a key twice": ({}, changed_message(key_named_twice), "it names the account .* twice"),
    "an account out of bounds": ({}, changed_message(account_out_of_bounds), "is not sound"),
    "the payer as a program": ({}, changed_message(payer_as_program), "is not sound"),
    "a signature too many": (
        {},
        lambda s: bytes(
            VersionedTransaction.populate(s.compile(*s.swap()).message, [*s.compile(*s.swap()).signatures] * 2)
        ),
        "is not sound",
    ),
    # --- lookup tables
    "a table that nobody resolved": ({}, by_table([ata(MAKER, USDC)], tables={}), "is not resolved"),
    "a table that holds the wrong account": (
        {},
        by_table([own(JTO)], promised=[ata(STRANGER, JTO)]),
        "0 base units would come",
    ),
    "a table that hides the session wallet's own account": (
        {},
        by_table([ata(MAKER, JTO)], promised=[own(OTHER)]),
        "by somebody else's authority",
    ),
    "a program from a table": ({}, program_from_table, "takes a program from a lookup table"),
    "an entry that the table doesn't have": ({}, beyond_the_table, "takes entry 1 of the lookup table .*, which has 1"),
    "a key that a table names again": ({}, looked_up_twice, "it names the account .* twice"),
    # --- fees
    "a priority fee too high": (
        {},
        lambda s: s.build(budget(2, 1_000_000), budget(3, 1_000_001), *s.swap()),
        "priority fee is 1000001 lamports",
    ),
    "a price without a limit": (
        {},
        lambda s: s.build(budget(3, 714_286), *s.swap()),
        "priority fee is 1000001 lamports",
    ),
    "the highest price": ({}, lambda s: s.build(budget(2, 1_400_000), budget(3, 2**64 - 1), *s.swap()), "priority fee"),
    "a budget twice": (
        {},
        lambda s: s.build(budget(2, 1), budget(2, 200_000), *s.swap()),
        "same compute budget twice",
    ),
    "an unknown budget": ({}, lambda s: s.build(budget(5, 1), *s.swap()), "unknown compute budget"),
    "a budget's trailing byte": (
        {},
        lambda s: s.build(Instruction(COMPUTE_BUDGET_PROGRAM, b"\2" + bytes(5), []), *s.swap()),
        "unknown compute budget",
    ),
    "an empty budget": (
        {},
        lambda s: s.build(Instruction(COMPUTE_BUDGET_PROGRAM, b"", []), *s.swap()),
        "unknown compute budget",
    ),
    # --- mints
    "a fee larger than was counted": (
        BUY_FEE,
        lambda s: s.build(s.sell(), s.pay(99 * 10**6), s.memo()),
        "98010000 base units would come",
    ),
    "a fee that rises in the next epoch": (
        BUY_2022,
        mint_with(PLAIN, fee_config(0, 1, newer_epoch=1)),
        "999900 base units would come",
    ),
    "a fee that falls in the next epoch": (
        BUY_2022,
        mint_with(PLAIN, fee_config(1, 0, newer_epoch=1)),
        "999900 base units would come",
    ),
    "a fee told wrong": (
        BUY_FEE,
        lambda s: s.build(
            s.sell(), transfer_with_fee(FEE, ata(MAKER, FEE), own(FEE), MAKER, 10**8, 10**6 - 1), s.memo()
        ),
        "takes the transfer fee to be 999999",
    ),
    "a fee told to the Token program": (
        {},
        swap_and(token_call(JTO, b"\x1a\x01" + ONE + b"\x09" + ONE, ata(MAKER, JTO), mint_of(JTO), own(JTO), MAKER)),
        "to do `1a`",
    ),
    "more than the whole as a fee": (BUY_2022, mint_with(PLAIN, fee_config(10_001, 0)), "is malformed"),
    "a close authority": (BUY_2022, mint_with(PLAIN, extension(3, bytes(32))), "has a close authority"),
    "confidential transfers": (BUY_2022, mint_with(PLAIN, extension(4, bytes(65))), "has confidential transfers"),
    "no transfers": (BUY_2022, mint_with(PLAIN, extension(9, b"")), "has no transfers at all"),
    "interest": (BUY_2022, mint_with(PLAIN, extension(10, bytes(52))), "has interest"),
    "a permanent delegate": (BUY_2022, mint_with(PLAIN, extension(12, bytes(32))), "has a permanent delegate"),
    "a transfer hook": (BUY_2022, mint_with(PLAIN, extension(14, bytes(64))), "has a transfer hook"),
    "a scaled amount": (BUY_2022, mint_with(PLAIN, extension(25, bytes(56))), "has a scaled amount"),
    "a pause": (BUY_2022, mint_with(PLAIN, extension(26, bytes(33))), "has a pause"),
    "a permissioned burn": (BUY_2022, mint_with(PLAIN, extension(28, bytes(32))), "has a permissioned burn"),
    "an unknown extension": (BUY_2022, mint_with(PLAIN, extension(29, b"x")), "unknown type 29"),
    "an account's extension": (BUY_2022, mint_with(PLAIN, extension(7, b"")), "unknown type 7"),
    "an unknown extension of a listed mint": (
        {**BUY_2022, "policy": Policy(mints=frozenset({PLAIN.mint}))},
        mint_with(PLAIN, extension(29, b"x")),
        "unknown type 29",
    ),
    "a hook behind the end": (BUY_2022, mint_with(PLAIN, bytes(4), extension(14, bytes(64))), "unknown type 0"),
    "an extension of a wrong length": (BUY_2022, mint_with(PLAIN, extension(18, bytes(63))), "is malformed"),
    "an extension that is cut off": (BUY_2022, mint_with(PLAIN, extension(18, b"x" * 64)[:-1]), "is malformed"),
    "an extension twice": (BUY_2022, mint_with(PLAIN, extension(18, bytes(64)) * 2), "is malformed"),
    "other decimals than were sealed": ({}, mint_data(JTO, mint_bytes(6)), "JTO has 6 decimals, not 9"),
    "another program than was sealed": (
        {},
        mint_data(JTO, mint_bytes(9), TOKEN_2022_PROGRAM),
        "not of the token program that it had",
    ),
    "a mint of no token program": ({}, mint_data(JTO, mint_bytes(9), LISTED_PROGRAM), "which is no token program"),
    "a mint of the Token program with extensions": (
        {},
        mint_data(JTO, mint_bytes(9, extension(18, bytes(64)))),
        "is malformed",
    ),
    "a mint that is no mint": ({}, mint_data(JTO, bytes(165)), "is malformed"),
    "a mint that isn't initialized": ({}, mint_data(JTO, bytes(82)), "is not initialized"),
    "a mint that is gone": ({}, mint_gone, "doesn't exist"),
    "the wallet's accounts for a hook": (BUY_2022, hooked(own(USDC)), "hands a transfer hook the session wallet's"),
    "the session key for a hook": (BUY_2022, hooked(SESSION.pubkey()), "hands a transfer hook the session wallet's"),
    # --- programs
    "an unknown program": ({}, opaque(), "which isn't known or listed"),
    "a known program isn't listed by its name": (
        {"policy": Policy(programs=frozenset({str(SYSTEM_PROGRAM), str(TOKEN_PROGRAM)}))},
        swap_and(give(SESSION, STRANGER, 1)),
        "takes 1 lamports",
    ),
    "a cosigner beside a listed program": (
        LISTED,
        opaque(signers=[MAKER]),
        "cosigners beside a program that can't be decoded",
    ),
    "a listed program is called after SOL was unwrapped": (
        {**BUY_SOL, **LISTED},
        opaque(more=[close(own(WSOL), SESSION.pubkey(), SESSION)]),
        "can't be decoded, after unwrapping SOL",
    ),
    "more is wrapped than is sold, beside a listed program": (
        {**SELL_SOL, **LISTED},
        opaque(more=[give(SESSION, own(WSOL), SOL + 1)]),
        "wraps 1000000001 lamports",
    ),
    "more leaves beside a listed program": (
        LISTED,
        lambda s: s.build(s.sell(10**8 + 1), s.memo(), call(LISTED_PROGRAM, b"", SESSION)),
        "would leave, more than",
    ),
    "a stake account for a listed program": (
        LISTED,
        opaque_with(address("stake"), Pubkey.from_string("Stake11111111111111111111111111111111111111")),
        "hands .* the account .* of Stake111",
    ),
    "a nonce account for a listed program": (
        LISTED,
        opaque_with(address("nonce"), SYSTEM_PROGRAM),
        "hands .* the account .* of 11111111111111111111111111111111",
    ),
}


@pytest.mark.parametrize(("trade", "make", "sentence"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_by_its_name(trade, make, sentence):
    scene = Scene(**trade)
    transaction = make(scene)
    with pytest.raises(TransactionRefused, match=sentence):
        scene.inspect(transaction)


def test_most_of_them_would_land():
    """An attack that the chain refuses itself proves little; so many don't need it."""
    landing = set()
    for name, (trade, make, _) in ATTACKS.items():
        scene = Scene(**trade)
        try:
            completed = scene.complete(make(scene))
        except ValueError:
            continue
        if not hasattr(scene.vm.simulate_transaction(completed), "err"):
            landing.add(name)
    assert len(landing) >= 80


def test_what_was_not_read_is_not_guessed():
    scene = Scene()
    transaction = scene.build(*scene.swap())
    facts = scene.facts(transaction)
    for missing in facts.accounts:
        kept = {key: account for key, account in facts.accounts.items() if key != missing}
        with pytest.raises(TransactionRefused, match=f"{missing} was not read"):
            scene.inspect_with(transaction, facts._replace(accounts=kept))


def test_a_listed_program_passes_with_what_the_floors_need():
    scene = Scene(**LISTED)
    inspected = scene.inspect(opaque(own(USDC), own(JTO), own(OTHER), address("pool"))(scene))
    assert inspected.programs == (str(LISTED_PROGRAM),)
    assert inspected.sold_max == scene.authorization.sell_amount
    assert inspected.received_min == 0
    assert inspected.lamports_max == 5_000


@pytest.mark.parametrize("unwraps", [False, True])
def test_sol_is_wrapped_before_a_listed_program_is_called_and_unwrapped_after(unwraps):
    scene = Scene(**SELL_SOL, **LISTED)
    wrap = [open_account(SESSION, SESSION, WSOL), give(SESSION, own(WSOL), SOL), sync(own(WSOL))]
    unwrap = [close(own(WSOL), SESSION.pubkey(), SESSION)] if unwraps else []
    trade = call(LISTED_PROGRAM, b"go", SESSION, own(WSOL), own(USDC))
    inspected = scene.inspect(scene.build(*wrap, trade, *unwrap, scene.memo()))
    assert (inspected.programs, inspected.wrapped_lamports) == ((str(LISTED_PROGRAM),), SOL)
    assert inspected.unwrapped == (str(own(WSOL)) if unwraps else None)
    assert inspected.rents == ({} if unwraps else {str(own(WSOL)): RENT})


@pytest.mark.parametrize(
    "extensions",
    [
        extension(3, bytes(32)),
        extension(4, bytes(65)),
        extension(9, b""),
        extension(10, bytes(52)),
        extension(12, bytes(32)),
        extension(14, bytes(64)),
        extension(16, bytes(129)),
        extension(24, bytes(196)),
        extension(25, bytes(56)),
        extension(26, bytes(33)),
        extension(28, bytes(32)),
    ],
    ids=lambda each: str(each[0]),
)
def test_a_power_is_accepted_of_a_listed_mint_alone(extensions):
    scene = Scene(**BUY_2022)
    transaction = mint_with(PLAIN, extensions)(scene)
    with pytest.raises(TransactionRefused, match="hasn't listed it"):
        scene.inspect(transaction)
    scene.policy = Policy(mints=frozenset({PLAIN.mint}))
    assert scene.inspect(transaction).received_min == 10**6


def test_text_is_no_power():
    scene = Scene(**BUY_2022)
    text = [extension(6, b"\1"), extension(18, bytes(64)), extension(19, b"any text"), extension(20, bytes(64))]
    text += [extension(21, bytes(80)), extension(22, bytes(64)), extension(23, bytes(72)), bytes(7)]
    assert scene.inspect(mint_with(PLAIN, *text)(scene)).received_min == 10**6


def test_a_hook_that_the_operator_accepted_gets_its_accounts():
    scene = Scene(**BUY_2022)
    assert scene.inspect(hooked(address("hook"), address("hook's state"))(scene)).received_min == 10**6


def test_the_shell_is_told_which_tables_to_resolve_and_which_accounts_to_read():
    scene = Scene()
    direct = scene.build(*scene.swap())
    table = scene.make_table([ata(MAKER, JTO)])
    by_table = scene.build(*scene.swap(), tables=[AddressLookupTableAccount(table, [ata(MAKER, JTO)])])
    assert read_proposal(direct).tables == []
    assert read_proposal(by_table).tables == [str(table)]
    mints = {USDC.mint, JTO.mint}
    touched = {str(SESSION.pubkey()), str(own(USDC)), str(own(JTO)), str(ata(MAKER, JTO))}
    assert scene.facts(direct).accounts.keys() == scene.facts(by_table).accounts.keys() == mints | touched
