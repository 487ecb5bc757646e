"""What lies in accounts: token accounts and address lookup tables, read from their bytes.

Whoever hands over the bytes has told which program they belong to; what another program says about itself is no
token account, whatever it looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from solders.address_lookup_table_account import ID as TABLE_PROGRAM
from solders.pubkey import Pubkey
from solders.token.state import TokenAccount, TokenAccountState

from executor.errors import ChainError
from executor.rails.chain import Holding, TokenBalance
from executor.solana import TOKEN_2022_PROGRAM, TOKEN_PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from executor.rails.chain import Account

__all__ = ["holding", "table", "table_bytes", "token_balance"]

TOKEN_ACCOUNT_BYTES: Final = 165
TOKEN_ACCOUNT_TYPE: Final = 2
"""What Token-2022 writes into the byte after those 165, where a token account has extensions; 1 is a mint."""
MULTISIG_BYTES: Final = 355
"""An account of this length is a multisig of either program, whatever else its bytes look like."""
KEY_BYTES: Final = 32

TABLE_HEADER_BYTES: Final = 56
TABLE_KIND: Final = (1).to_bytes(4, "little")
TABLE_ACTIVE: Final = b"\xff" * 8
"""The slot of deactivation (u64 after the kind) of a table that is not being deactivated."""
TABLE_ADDRESSES_MAX: Final = 256


def holding(address: str, account: Account) -> Holding | None:
    """Return what the token account `account` at `address` holds; None if it is no token account, or not set up."""
    parsed = _token_account(account)
    if parsed is None:
        return None
    return Holding(
        address=address,
        token_program=account.owner,
        mint=str(parsed.mint),
        amount=parsed.amount,
        lamports=account.lamports,
        frozen=parsed.state == TokenAccountState.Frozen,
    )


def token_balance(account: Account) -> TokenBalance | None:
    """Return whose token account it is, of what, and how much is in it; None as for `holding`."""
    parsed = _token_account(account)
    return None if parsed is None else TokenBalance(str(parsed.mint), str(parsed.owner), parsed.amount)


def table(address: str, account: Account | None) -> Sequence[str]:
    """Return the addresses in the lookup table at `address`.

    Raises:
        ChainError: it is no lookup table, or it is being deactivated: soon nobody can say what it held.

    """
    if account is None or account.owner != str(TABLE_PROGRAM):
        raise ChainError(f"`{address}` is no address lookup table")
    kind, deactivated_at, addresses = account.data[:4], account.data[4:12], account.data[TABLE_HEADER_BYTES:]
    count, rest = divmod(len(addresses), KEY_BYTES)
    if len(account.data) < TABLE_HEADER_BYTES or kind != TABLE_KIND or rest or count > TABLE_ADDRESSES_MAX:
        raise ChainError(f"the address lookup table `{address}` can't be read")
    if deactivated_at != TABLE_ACTIVE:
        raise ChainError(f"the address lookup table `{address}` is being deactivated")
    keys = (addresses[each * KEY_BYTES : (each + 1) * KEY_BYTES] for each in range(count))
    return tuple(str(Pubkey.from_bytes(key)) for key in keys)


def table_bytes(addresses: Iterable[str]) -> bytes:
    """Return the data of an active lookup table without an authority, which holds `addresses`."""
    header = TABLE_KIND + TABLE_ACTIVE + bytes(8 + 1 + 1)
    return header.ljust(TABLE_HEADER_BYTES, b"\0") + b"".join(bytes(Pubkey.from_string(each)) for each in addresses)


def _token_account(account: Account) -> TokenAccount | None:
    base, rest = account.data[:TOKEN_ACCOUNT_BYTES], account.data[TOKEN_ACCOUNT_BYTES:]
    extended = account.owner == str(TOKEN_2022_PROGRAM) and rest[:1] == bytes([TOKEN_ACCOUNT_TYPE])
    plain = account.owner in (str(TOKEN_PROGRAM), str(TOKEN_2022_PROGRAM)) and not rest
    if len(base) != TOKEN_ACCOUNT_BYTES or len(account.data) == MULTISIG_BYTES or not (plain or extended):
        return None
    try:
        parsed = TokenAccount.from_bytes(base)
    except ValueError:
        return None
    return None if parsed.state == TokenAccountState.Uninitialized else parsed
