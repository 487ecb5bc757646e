"""Instructions as values: what each of the few programs that are decoded is told to do.

An instruction is decoded only if it has exactly the documented bytes and accounts. The programs themselves are laxer:
they ignore what trails, and take a multisig's signers after the authority. What they might ignore, nobody needs; so the
answer is no, and two readings of one instruction can't exist. What isn't decoded of these programs is refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from executor.errors import TransactionRefused
from executor.solana import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    MEMO_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from solders.pubkey import Pubkey

__all__ = [
    "AccountClosing",
    "AccountOpening",
    "Budget",
    "Call",
    "Decoded",
    "LamportTransfer",
    "Memo",
    "Opaque",
    "Sync",
    "TokenTransfer",
    "decode",
]


class Call(NamedTuple):
    """An instruction with its accounts looked up."""

    program: Pubkey
    accounts: tuple[Pubkey, ...]
    data: bytes


class Memo(NamedTuple):
    """Text for the log. The accounts that it names must have signed, and nothing else happens to them."""

    text: bytes


class Budget(NamedTuple):
    """A setting of the transaction's compute budget."""

    kind: int
    value: int


class LamportTransfer(NamedTuple):
    """Lamports from one wallet to any account."""

    source: Pubkey
    destination: Pubkey
    lamports: int


class AccountOpening(NamedTuple):
    """An associated token account is made, or is there already."""

    payer: Pubkey
    account: Pubkey
    owner: Pubkey
    mint: Pubkey
    token_program: Pubkey


class TokenTransfer(NamedTuple):
    """Tokens from one account to another of the same mint: the program sees to that."""

    token_program: Pubkey
    source: Pubkey
    mint: Pubkey | None
    """None if the instruction doesn't say."""
    destination: Pubkey
    authority: Pubkey
    amount: int
    """Base units that leave `source`."""
    decimals: int | None
    """What the instruction takes the mint to have; the program compares."""
    fee: int | None
    """What it takes the mint to withhold; the program compares."""
    others: tuple[Pubkey, ...]
    """For the mint's transfer hook."""


class Sync(NamedTuple):
    """An account of wrapped SOL counts the lamports that were sent to it. Anyone may ask for that."""

    account: Pubkey


class AccountClosing(NamedTuple):
    """A token account is closed, and its lamports, wrapped SOL included, go to `destination`."""

    account: Pubkey
    destination: Pubkey
    authority: Pubkey


class Opaque(NamedTuple):
    """A call that can't be decoded."""

    program: Pubkey
    accounts: tuple[Pubkey, ...]


TOKEN_PROGRAMS: Final = frozenset({TOKEN_PROGRAM, TOKEN_2022_PROGRAM})

Decoded: TypeAlias = Memo | Budget | LamportTransfer | AccountOpening | TokenTransfer | Sync | AccountClosing | Opaque


def decode(call: Call) -> Decoded:
    """Return what `call` does; `Opaque` for any program that isn't known.

    Raises:
        TransactionRefused: a known program is called for something that no trade needs, or not in its one form.

    """
    decoder = DECODERS.get(call.program)
    return decoder(call) if decoder is not None else Opaque(call.program, call.accounts)


def _memo(call: Call) -> Memo:
    return Memo(call.data)


BUDGET_VALUE_BYTES: Final = {1: 4, 2: 4, 3: 8, 4: 4}
"""By kind: heap bytes, compute units, price per unit, bytes of loaded accounts."""


def _budget(call: Call) -> Budget:
    kind, value = call.data[:1], call.data[1:]
    if not kind or len(value) != BUDGET_VALUE_BYTES.get(kind[0]) or call.accounts:
        raise TransactionRefused(f"it sets an unknown compute budget `{call.data.hex()}`")
    return Budget(kind[0], int.from_bytes(value, "little"))


SYSTEM_TRANSFER: Final = (2).to_bytes(4, "little")
SYSTEM_ADVANCE_NONCE: Final = (4).to_bytes(4, "little")
SYSTEM_NAMES: Final = {
    0: "create an account",
    1: "assign",
    2: "transfer",
    3: "create an account with a seed",
    4: "advance a nonce",
    5: "withdraw from a nonce",
    6: "initialize a nonce",
    7: "authorize a nonce",
    8: "allocate",
    9: "allocate with a seed",
    10: "assign with a seed",
    11: "transfer with a seed",
    12: "upgrade a nonce",
}


def _system(call: Call) -> LamportTransfer:
    kind, value = call.data[:4], call.data[4:]
    if kind == SYSTEM_ADVANCE_NONCE:
        raise TransactionRefused("it advances a durable nonce, so it could land at any time")
    if kind != SYSTEM_TRANSFER:
        raise TransactionRefused(f"it calls the System program to {_name(SYSTEM_NAMES, kind)}")
    if len(value) != 8 or len(call.accounts) != 2:  # noqa: PLR2004 - 64 bits; from and to
        raise TransactionRefused("it transfers lamports in another form than the documented one")
    return LamportTransfer(*call.accounts, int.from_bytes(value, "little"))


ASSOCIATED_CREATIONS: Final = frozenset({b"", b"\0", b"\1"})
ASSOCIATED_NAMES: Final = {2: "recover nested"}


def _associated(call: Call) -> AccountOpening:
    if call.data not in ASSOCIATED_CREATIONS:
        raise TransactionRefused(f"it calls the associated token program to {_name(ASSOCIATED_NAMES, call.data)}")
    if len(call.accounts) != 6:  # noqa: PLR2004 - the four below, and two programs
        raise TransactionRefused("it opens a token account in another form than the documented one")
    payer, account, owner, mint, system, token_program = call.accounts
    if system != SYSTEM_PROGRAM or token_program not in TOKEN_PROGRAMS:
        raise TransactionRefused("it opens a token account with other programs than the genuine ones")
    return AccountOpening(payer, account, owner, mint, token_program)


TOKEN_NAMES: Final = {
    0: "initialize a mint",
    1: "initialize an account",
    2: "initialize a multisig",
    3: "transfer",
    4: "approve",
    5: "revoke",
    6: "set an authority",
    7: "mint",
    8: "burn",
    9: "close an account",
    10: "freeze",
    11: "thaw",
    12: "transfer checked",
    13: "approve checked",
    14: "mint checked",
    15: "burn checked",
    16: "initialize an account (2)",
    17: "sync native",
    18: "initialize an account (3)",
    19: "initialize a multisig (2)",
    20: "initialize a mint (2)",
}
"""Kinds by their first byte; what Token-2022 adds is told by number."""
TRANSFER: Final = 3
CLOSE_ACCOUNT: Final = 9
TRANSFER_CHECKED: Final = 12
SYNC_NATIVE: Final = 17
TRANSFER_FEE_EXTENSION: Final = 26
TRANSFER_CHECKED_WITH_FEE: Final = 1
"""The extension's one instruction that is decoded; its number stands behind the extension's."""

TOKEN_FORMS: Final = {
    TRANSFER: (9, 3),
    CLOSE_ACCOUNT: (1, 3),
    TRANSFER_CHECKED: (10, 4),
    SYNC_NATIVE: (1, 1),
    TRANSFER_FEE_EXTENSION: (19, 4),
}
"""Bytes and accounts of what is decoded."""
HOOKED: Final = frozenset({TRANSFER_CHECKED, TRANSFER_FEE_EXTENSION})
"""These may name more accounts, for a transfer hook; whether this mint's may, is for the inspection."""


def _token(call: Call) -> TokenTransfer | Sync | AccountClosing:
    data, accounts = call.data, call.accounts
    kind = data[0] if data else None
    length, count = TOKEN_FORMS.get(kind, (0, 0)) if kind is not None else (0, 0)
    if not count or (kind == TRANSFER_FEE_EXTENSION and not _is_transfer_with_fee(call)):
        raise TransactionRefused(f"it calls the token program to {_name(TOKEN_NAMES, data[:1])}")
    if len(data) != length or len(accounts) < count or (len(accounts) > count and kind not in HOOKED):
        raise TransactionRefused(f"it calls the token program to {_name(TOKEN_NAMES, data[:1])} in no documented form")
    if kind == SYNC_NATIVE:
        return Sync(accounts[0])
    if kind == CLOSE_ACCOUNT:
        return AccountClosing(*accounts)
    return _transfer(call, kind)


def _transfer(call: Call, kind: int | None) -> TokenTransfer:
    first = 2 if kind == TRANSFER_FEE_EXTENSION else 1
    amount, rest = int.from_bytes(call.data[first : first + 8], "little"), call.data[first + 8 :]
    if kind == TRANSFER:
        source, destination, authority = call.accounts
        return TokenTransfer(call.program, source, None, destination, authority, amount, None, None, ())
    source, mint, destination, authority, *others = call.accounts
    fee = int.from_bytes(rest[1:], "little") if kind == TRANSFER_FEE_EXTENSION else None
    return TokenTransfer(call.program, source, mint, destination, authority, amount, rest[0], fee, tuple(others))


def _is_transfer_with_fee(call: Call) -> bool:
    return call.program == TOKEN_2022_PROGRAM and call.data[1:2] == bytes([TRANSFER_CHECKED_WITH_FEE])


def _name(names: dict[int, str], kind: bytes) -> str:
    return names.get(int.from_bytes(kind, "little"), f"do `{kind.hex()}`") if kind else "do nothing"


DECODERS: Final[dict[Pubkey, Callable[[Call], Decoded]]] = {
    MEMO_PROGRAM: _memo,
    COMPUTE_BUDGET_PROGRAM: _budget,
    SYSTEM_PROGRAM: _system,
    ASSOCIATED_TOKEN_PROGRAM: _associated,
    TOKEN_PROGRAM: _token,
    TOKEN_2022_PROGRAM: _token,
}
