"""Floors: what must remain in the session wallet, enforced by the chain itself.

A program that can't be decoded may do through CPI whatever the session key's signature allows, and it can tell a
simulation from the real thing. So a transaction that calls one gets final instructions, of programs that are known.
If one of them fails, the chain undoes the whole transaction. In this order, for each token account of the session
wallet that the transaction can write:

| instruction | what it proves once it has passed |
|---|---|
| Revoke | nobody is the account's delegate |
| SetAuthority(CloseAccount, none) | nobody but its owner may close it |
| of wrapped SOL: SyncNative | all its lamports but its rent are its balance |
| TransferChecked of the floor to itself | it is there, the session's, of this mint, not frozen, and holds the floor |

and at last, for the wallet itself, a System transfer of the lamport floor to itself: it holds the floor, still belongs
to the System program, and has no data. An account of wrapped SOL that the transaction closes into the wallet, once no
such program is called any more, needs none of its own: what is in it counts to the wallet's floor.

INVARIANT: the transfer comes after Revoke. Only then is its signer looked at as the owner: a program may make itself
the owner and the session its delegate and close authority, and then each of the three passes in any other order (both
token programs let a delegate revoke itself). A transfer to itself moves nothing and costs no Token-2022 fee; no hook
runs in it. The lamport floor is at least 1: a transfer of 0 passes from an account that was given away.

An account that the transaction can't write can't change, so it needs no floor. Of wrapped SOL, lamports count too that
were only sent to the account, or to where it will be: else they would be taken, or taken for what was bought. What no
floor holds: lamports in any other token account beyond its balance and its rent; what comes into the wallet between the
reading of its accounts and the landing; rights of the session key outside the token programs. A session wallet has none
of the last, and is to have no second transaction open beside such a one.

All of this is computed from values; whoever calls has read the chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from solders.instruction import CompiledInstruction
from solders.message import Message, MessageAddressTableLookup, MessageHeader, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from executor.assets import NATIVE_MINT
from executor.errors import TransactionRefused
from executor.signing.tokens import is_free
from executor.solana import (
    MINT_BYTES,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    remove_close_authority,
    revoke,
    sync_native,
    transfer_checked,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solders.instruction import Instruction

    from executor.authorization import Authorization
    from executor.rails import Account
    from executor.signing.inspection import Inspected

__all__ = [
    "TokenFloor",
    "floor_instructions",
    "lamport_floor",
    "mints_of",
    "named_accounts",
    "token_floors",
    "with_floors",
]

TRANSACTION_BYTES_MAX: Final = 1_232
KEYS_MAX: Final = 256
"""An instruction names an account by one byte."""
UNITS_MAX: Final = 2**64 - 1
NATIVE_MINT_2022: Final = Pubkey.from_string("9pan9bMn5HatX4EJdBwg9VgCa7Uz5HL8N1m5D3NdXejP")
"""Of Token-2022's own wrapped SOL. Hardly anything trades it."""

TOKEN_ACCOUNT_BYTES: Final = 165
MULTISIG_BYTES: Final = 355
"""No token account has as many."""
KIND_ACCOUNT: Final = 2
"""The byte behind the first 165 of a Token-2022 account with extensions."""
STATE: Final = 108
"""The byte of a token account that is 0 until it is initialized."""
RESERVE: Final = slice(113, 121)
"""Of an account of wrapped SOL: the lamports that aren't its balance."""
DECIMALS: Final = 44
"""The byte of a mint that says them."""


class TokenFloor(NamedTuple):
    """What must remain in one token account of the session wallet when the transaction ends."""

    account: Pubkey
    mint: Pubkey
    token_program: Pubkey
    decimals: int
    """The mint's."""
    units: int
    """At least as many base units must be in it; 0 still means that it must exist and be the session's alone."""


class _Holding(NamedTuple):
    mint: Pubkey
    token_program: Pubkey
    units: int


class _Keys(NamedTuple):
    """Every account that a message names, in the order by which its instructions count them."""

    payer: Pubkey
    written: list[Pubkey]
    read: list[Pubkey]
    loaded_written: list[Pubkey]
    loaded_read: list[Pubkey]

    def all(self) -> list[Pubkey]:
        return [*self.static(), *self.loaded_written, *self.loaded_read]

    def static(self) -> list[Pubkey]:
        """Return those that stand in the message itself."""
        return [self.payer, *self.written, *self.read]

    def writable(self) -> list[Pubkey]:
        return [self.payer, *self.written, *self.loaded_written]


def named_accounts(message: Message | MessageV0, tables: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the address of every account that the message names, those from lookup tables too.

    Raises TransactionRefused if it has a second signer, a key twice, or a lookup that isn't in `tables`.
    """
    return [str(key) for key in _keys(message, tables).all()]


def mints_of(session_pubkey: str, *readings: Mapping[str, Account | None]) -> set[str]:
    """Return the mints of those accounts that are token accounts of the session wallet by any of the readings."""
    session = Pubkey.from_string(session_pubkey)
    accounts = (account for reading in readings for account in reading.values())
    return {str(held.mint) for each in accounts if (held := _held_by(session, each)) is not None}


def token_floors(
    message: Message | MessageV0,
    tables: Mapping[str, Sequence[str]],
    authorization: Authorization,
    inspected: Inspected,
    readings: Sequence[Mapping[str, Account | None]],
    rent_lamports: int,
) -> list[TokenFloor]:
    """Return the floor of each token account of the session wallet that the transaction can write, in its order.

    The sold token's associated account may fall by `sell_amount`, less what is wrapped into it; the bought token's must
    rise by `min_received`; every other keeps what it holds. The account of wrapped SOL that the transaction unwraps has
    none: `lamport_floor` holds what comes of it. An associated account of the session wallet that isn't there yet gets
    a floor too, so it must be opened: else the program could open it, approve a delegate, and wait until something is
    in it.

    Args:
        message: the transaction's, which the session key alone has to sign.
        tables: the content of each lookup table that it names.
        authorization: what was allowed.
        inspected: what its decoded instructions do.
        readings: what lies at each of `named_accounts`, and at each of `mints_of` them, None where nothing does; then
            the same at other moments, perhaps of some of them. Of each account the reading counts by which the wallet
            has most: what came just now isn't final, and what went may come back.
        rent_lamports: what a new account of wrapped SOL costs.

    Raises:
        TransactionRefused: one of the two tokens can't move by it; the wallet holds less than is for sale; a mint is
            none, or that of Token-2022's own wrapped SOL, which isn't counted here.

    """
    keys = _keys(message, tables)
    session = Pubkey.from_string(authorization.session_pubkey)
    openable = {
        get_associated_token_address(session, key, program): _Holding(key, program, 0)
        for key in keys.all()
        for program in (TOKEN_PROGRAM, TOKEN_2022_PROGRAM)
    }
    floors = {}
    for key in keys.writable():
        address = str(key)
        accounts = [reading[address] for reading in readings if address in reading]
        holdings = [_holding(session, each, openable.get(key), rent_lamports) for each in accounts]
        held = max(filter(None, holdings), key=lambda each: each.units, default=None)
        if held is None or address == inspected.unwrapped:
            continue
        if held.mint == NATIVE_MINT_2022:
            raise TransactionRefused("it can write an account of Token-2022's wrapped SOL")
        units = held.units
        if address == inspected.selling:
            units += inspected.wrapped_lamports - authorization.sell_amount
        if address == inspected.buying:
            units += authorization.min_received
        if not 0 <= units <= UNITS_MAX:
            raise TransactionRefused(f"the session wallet's account {key} would have to hold {units} base units")
        decimals = _decimals(held.mint, held.token_program, readings[0][str(held.mint)])
        floors[address] = TokenFloor(key, held.mint, held.token_program, decimals, units)
    for address, asset in ((inspected.selling, authorization.sell), (inspected.buying, authorization.buy)):
        if address not in {*floors, inspected.unwrapped}:
            raise TransactionRefused(f"it can't write the session wallet's account of {asset.symbol}")
    return list(floors.values())


def lamport_floor(
    authorization: Authorization, inspected: Inspected, readings: Sequence[Mapping[str, Account | None]]
) -> int:
    """Return the lamports that the session wallet must keep: what it has, less fees, rent, and what it wraps.

    Of the rent of what is opened, only what doesn't lie at its address already is paid. If the transaction unwraps SOL,
    all that lies in that account, and is wrapped into it, comes back, less what is sold of it and with what is bought.
    Arguments as for `token_floors`.
    """

    def lamports(address: str) -> int:
        return max((each.lamports for reading in readings if (each := reading.get(address)) is not None), default=0)

    rents = [max(0, rent - lamports(each)) for each, rent in inspected.rents.items()]
    floor = lamports(authorization.session_pubkey) - inspected.fee_lamports - sum(rents)
    if inspected.unwrapped is None:
        return floor - inspected.wrapped_lamports
    floor += lamports(inspected.unwrapped)
    if inspected.unwrapped == inspected.selling:
        return floor - authorization.sell_amount
    return floor + authorization.min_received


def floor_instructions(session_pubkey: str, floors: Sequence[TokenFloor], lamports: int) -> list[Instruction]:
    """Return the instructions that fail unless each of `floors` holds, and the wallet keeps `lamports` (at least 1).

    Raises TransactionRefused if `lamports` is less, which would hold no wallet, or more than there can be.
    """
    if not 1 <= lamports <= UNITS_MAX:
        raise TransactionRefused(f"the session wallet would have to keep {lamports} lamports")
    session = Pubkey.from_string(session_pubkey)
    instructions = []
    for each in floors:
        instructions += [
            revoke(each.account, session, each.token_program),
            remove_close_authority(each.account, session, each.token_program),
            *([sync_native(each.account, each.token_program)] if _is_sol(each) else []),
            transfer_checked(
                each.account,
                each.mint,
                each.account,
                owner=session,
                amount=each.units,
                decimals=each.decimals,
                token_program=each.token_program,
            ),
        ]
    to_itself = TransferParams(from_pubkey=session, to_pubkey=session, lamports=lamports)
    return [*instructions, transfer(to_itself)]


def with_floors(
    message: Message | MessageV0, tables: Mapping[str, Sequence[str]], instructions: Sequence[Instruction]
) -> Message | MessageV0:
    """Return `message` with `instructions` at its end; each one before them sees just the accounts that it saw.

    A program that a new one calls must be a key of the message itself, so one that is read from a lookup table moves.

    Raises:
        TransactionRefused: an account would have to be written, or to sign, which the message doesn't let; it gets more
            than 256 accounts, or the transaction more than 1,232 bytes.

    """
    keys = _keys(message, tables)
    _check_rights(keys, instructions)
    wider = _widened(keys, instructions)
    place = {key: number for number, key in enumerate(wider.all())}
    if len(place) > KEYS_MAX:
        raise TransactionRefused(f"with floors it names {len(place)} accounts, more than {KEYS_MAX}")
    moved = set(keys.loaded_read) - set(wider.loaded_read)
    named = keys.all()
    compiled = [
        *(
            CompiledInstruction(
                place[named[each.program_id_index]], bytes(each.data), bytes(place[named[at]] for at in each.accounts)
            )
            for each in message.instructions
        ),
        *(
            CompiledInstruction(
                place[each.program_id], bytes(each.data), bytes(place[meta.pubkey] for meta in each.accounts)
            )
            for each in instructions
        ),
    ]
    floored = _message(message, wider, compiled, _lookups(message, tables, moved))
    size = len(bytes(VersionedTransaction.populate(floored, [Signature.default()])))
    if size > TRANSACTION_BYTES_MAX:
        raise TransactionRefused(f"with floors it has {size} bytes, more than a packet's {TRANSACTION_BYTES_MAX}")
    return floored


def _check_rights(keys: _Keys, instructions: Sequence[Instruction]) -> None:
    writable, named = set(keys.writable()), set(keys.all())
    for meta in (meta for each in instructions for meta in each.accounts):
        if meta.is_signer and meta.pubkey != keys.payer:
            raise TransactionRefused(f"its floors would have to be signed by {meta.pubkey}")
        if meta.is_writable and meta.pubkey in named - writable:
            raise TransactionRefused(f"it reads {meta.pubkey}, which its floors write")


def _widened(keys: _Keys, instructions: Sequence[Instruction]) -> _Keys:
    """Return `keys` with all that the instructions need: what they write, what they read, and what they call."""
    metas = [meta for each in instructions for meta in each.accounts]
    programs = {each.program_id: None for each in instructions}
    for program in programs:
        if program in keys.loaded_written:
            raise TransactionRefused(f"it takes the program {program} from a lookup table, to write it")
    present = {*keys.static(), *keys.loaded_written, *keys.loaded_read} - (programs.keys() & set(keys.loaded_read))
    written = {meta.pubkey: None for meta in metas if meta.is_writable and meta.pubkey not in present}
    read = {key: None for key in (*(meta.pubkey for meta in metas), *programs) if key not in present | written.keys()}
    return keys._replace(
        written=[*keys.written, *written],
        read=[*keys.read, *read],
        loaded_read=[key for key in keys.loaded_read if key not in read],
    )


def _message(
    message: Message | MessageV0,
    keys: _Keys,
    instructions: list[CompiledInstruction],
    lookups: list[MessageAddressTableLookup],
) -> Message | MessageV0:
    blockhash = message.recent_blockhash
    if isinstance(message, Message):
        return Message.new_with_compiled_instructions(1, 0, len(keys.read), keys.static(), blockhash, instructions)
    return MessageV0(MessageHeader(1, 0, len(keys.read)), keys.static(), blockhash, instructions, lookups)


def _lookups(
    message: Message | MessageV0, tables: Mapping[str, Sequence[str]], moved: set[Pubkey]
) -> list[MessageAddressTableLookup]:
    """Return the message's lookups without those of `moved` that it reads; one that is left with nothing goes."""
    kept = []
    for each in [] if isinstance(message, Message) else message.address_table_lookups:
        table = tables[str(each.account_key)]
        read = bytes(at for at in each.readonly_indexes if Pubkey.from_string(table[at]) not in moved)
        if each.writable_indexes or read:
            kept.append(MessageAddressTableLookup(each.account_key, bytes(each.writable_indexes), read))
    return kept


def _keys(message: Message | MessageV0, tables: Mapping[str, Sequence[str]]) -> _Keys:
    header, static = message.header, message.account_keys
    if (header.num_required_signatures, header.num_readonly_signed_accounts) != (1, 0):
        raise TransactionRefused(f"it has {header.num_required_signatures} signers, so nothing can be added to it")
    lookups = [] if isinstance(message, Message) else message.address_table_lookups
    try:
        contents = [(each, [Pubkey.from_string(key) for key in tables[str(each.account_key)]]) for each in lookups]
        loaded_written = [table[at] for each, table in contents for at in each.writable_indexes]
        loaded_read = [table[at] for each, table in contents for at in each.readonly_indexes]
    except (KeyError, IndexError):
        raise TransactionRefused("it takes accounts from a lookup table that doesn't hold them") from None
    split = len(static) - header.num_readonly_unsigned_accounts
    keys = _Keys(static[0], static[1:split], static[split:], loaded_written, loaded_read)
    if len(set(keys.all())) != len(keys.all()):
        raise TransactionRefused("it names an account twice")
    return keys


def _held_by(session: Pubkey, account: Account | None) -> _Holding | None:
    """Read `account`; None unless it is a token account of the session wallet."""
    if account is None or account.owner not in (str(TOKEN_PROGRAM), str(TOKEN_2022_PROGRAM)):
        return None
    data = account.data
    extended = account.owner == str(TOKEN_2022_PROGRAM) and len(data) > TOKEN_ACCOUNT_BYTES
    if extended and (len(data) == MULTISIG_BYTES or data[TOKEN_ACCOUNT_BYTES] != KIND_ACCOUNT):
        return None
    if len(data) < TOKEN_ACCOUNT_BYTES or not data[STATE] or data[32:64] != bytes(session):
        return None
    return _Holding(
        Pubkey.from_bytes(data[:32]), Pubkey.from_string(account.owner), int.from_bytes(data[64:72], "little")
    )


def _holding(session: Pubkey, account: Account | None, opened: _Holding | None, rent_lamports: int) -> _Holding | None:
    """Return what the session wallet has in `account`, or in what it would be once it is `opened`.

    All lamports of wrapped SOL but its rent are its balance, as soon as they are counted. Which rent, today's or that
    of its opening, differs between versions of the program: the smaller one is taken off.
    """
    held = opened if is_free(account) else _held_by(session, account)
    if held is None or account is None or not _is_sol(held):
        return held
    reserve = min(rent_lamports, int.from_bytes(account.data[RESERVE], "little")) if account.data else rent_lamports
    return held._replace(units=max(held.units, account.lamports - reserve))


def _is_sol(held: _Holding | TokenFloor) -> bool:
    return (str(held.mint), held.token_program) == (NATIVE_MINT, TOKEN_PROGRAM)


def _decimals(mint: Pubkey, token_program: Pubkey, account: Account | None) -> int:
    if account is None or account.owner != str(token_program) or len(account.data) < MINT_BYTES:
        raise TransactionRefused(f"it can open the session wallet's account for {mint}, which is no mint")
    return account.data[DECIMALS]
