"""Mints and token accounts as the two token programs store them, and what a Token-2022 mint's extensions may do.

A mint of the Token program has 82 bytes and can do nothing but mint and freeze. One of Token-2022 may carry extensions
(a type, a length, a value, again and again), each a power. They are read again at signing, since most can be changed:

| extension | |
|---|---|
| transfer fee | counted: what comes is net of it. A change takes two epochs, so this epoch's and the next are known |
| metadata, metadata pointer, group, group member, their pointers | safe: text, moves nothing |
| default account state | safe: an account born frozen lets a transfer fail, which undoes the transaction |
| mint close authority | listed only: a mint with no supply can be closed and made anew with other powers |
| transfer hook | listed only: somebody's program runs in each transfer, and may change |
| permanent delegate | listed only: somebody may take or burn what anyone holds, at any time |
| pausable | listed only: somebody may stop all transfers, so what is bought may never be sold |
| interest-bearing, scaled UI amount | listed only: what a price says of a token isn't what it says of its base units |
| confidential transfer, its fee, its minting | listed only: balances and fees that can't be read |
| permissioned burn | listed only: somebody's consent is needed for what anybody could do |
| non-transferable | listed only; such a token can't be traded at all |
| any other, a wrong length, twice the same, anything behind the end | refused, listed or not |

"Listed" means by the operator, in `Policy.mints`: they know the issuer. Even then no hook gets the session key's
signature, since Token-2022 hands none on, and no delegate may take from the session wallet in that transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from executor.errors import TransactionRefused
from executor.solana import MINT_BYTES, SYSTEM_PROGRAM, TOKEN_2022_PROGRAM, TOKEN_PROGRAM

if TYPE_CHECKING:
    from executor.rails import Account

__all__ = ["TRANSFER_HOOK", "Fee", "Mint", "TokenAccount", "is_free", "read_mint", "read_token_account"]

SYSTEM: Final = str(SYSTEM_PROGRAM)
TOKEN: Final = str(TOKEN_PROGRAM)
TOKEN_2022: Final = str(TOKEN_2022_PROGRAM)

BASE_BYTES: Final = 165
"""A token account; a mint with extensions is padded with zeros to as many."""
MULTISIG_BYTES: Final = 355
KIND_MINT: Final = 1
KIND_ACCOUNT: Final = 2
"""The byte behind the base, of what has extensions."""
HEADER_BYTES: Final = 4
"""Before each extension's value: type and length, 16 bits each."""
BASIS_POINTS: Final = 10_000

ANY_LENGTH: Final = -1
TRANSFER_FEE: Final = 1
NON_TRANSFERABLE: Final = 9
TRANSFER_HOOK: Final = 14
CONFIDENTIAL_TRANSFER_FEE: Final = 16
PAUSABLE: Final = 26

SAFE: Final = {TRANSFER_FEE: 108, 6: 1, 18: 64, 19: ANY_LENGTH, 20: 64, 21: 80, 22: 64, 23: 72}
"""Type and length of the extensions that any mint may have."""

LISTED_ONLY: Final = {
    3: (32, "a close authority"),
    4: (65, "confidential transfers"),
    NON_TRANSFERABLE: (0, "no transfers at all"),
    10: (52, "interest"),
    12: (32, "a permanent delegate"),
    TRANSFER_HOOK: (64, "a transfer hook"),
    CONFIDENTIAL_TRANSFER_FEE: (129, "confidential fees"),
    24: (196, "confidential minting"),
    25: (56, "a scaled amount"),
    PAUSABLE: (33, "a pause"),
    28: (32, "a permissioned burn"),
}
"""Type, length and name of those that only a listed mint may have."""

IMMUTABLE_OWNER_BYTES: Final = HEADER_BYTES
"""Each associated account of Token-2022 has this extension, without a value."""
ACCOUNT_EXTENSION_BYTES: Final = {
    TRANSFER_FEE: HEADER_BYTES + 8,
    NON_TRANSFERABLE: HEADER_BYTES,
    TRANSFER_HOOK: HEADER_BYTES + 1,
    PAUSABLE: HEADER_BYTES,
}
"""What a mint's extension adds to each new account of it; confidential ones are added later, at their owner's wish."""


class Fee(NamedTuple):
    """What a Token-2022 mint withholds of each transfer."""

    epoch: int
    """From then on."""
    units_max: int
    basis_points: int

    def of(self, amount: int) -> int:
        """Return the base units that are withheld of `amount`, rounded up as the program does."""
        return min(self.units_max, -(-amount * self.basis_points // BASIS_POINTS))


class Mint(NamedTuple):
    """A mint, as far as the inspection asks."""

    decimals: int
    extensions: frozenset[int]
    older_fee: Fee
    newer_fee: Fee

    def fee(self, amount: int, epoch: int) -> int:
        """Return the base units withheld of a transfer of `amount` in `epoch`."""
        return (self.newer_fee if epoch >= self.newer_fee.epoch else self.older_fee).of(amount)

    def fee_max(self, amount: int, epoch: int) -> int:
        """Return the most that may be withheld if the transfer is made in `epoch` or the next."""
        return max(self.fee(amount, epoch), self.fee(amount, epoch + 1))

    def account_bytes(self, token_program: str) -> int:
        """Return the size of a new associated account."""
        if token_program == TOKEN:
            return BASE_BYTES
        needed = sum(ACCOUNT_EXTENSION_BYTES.get(each, 0) for each in self.extensions)
        return BASE_BYTES + 1 + IMMUTABLE_OWNER_BYTES + needed


class TokenAccount(NamedTuple):
    """A token account, as far as the inspection asks. Keys are base58's 32 bytes."""

    mint: bytes
    owner: bytes
    amount: int
    has_delegate: bool
    frozen: bool
    close_authority: bytes | None


NO_FEE: Final = Fee(epoch=0, units_max=0, basis_points=0)


def read_mint(address: str, account: Account | None, *, listed: bool) -> Mint:
    """Read a mint whose every power is safe, or accepted by the operator.

    Raises:
        TransactionRefused: it is none, is malformed, or has a power that it may not have.

    """
    if account is None:
        raise TransactionRefused(f"the mint {address} doesn't exist")
    data, token_2022 = account.data, account.owner == TOKEN_2022
    if not token_2022 and account.owner != TOKEN:
        raise TransactionRefused(f"the mint {address} belongs to {account.owner}, which is no token program")
    if len(data) != MINT_BYTES and not (token_2022 and _is_extended(data, KIND_MINT) and not any(data[82:165])):
        raise TransactionRefused(f"the mint {address} is malformed")
    if data[45] != 1:
        raise TransactionRefused(f"the mint {address} is not initialized")
    extensions = _extensions(address, data[BASE_BYTES + 1 :])
    for each in extensions:
        if each in LISTED_ONLY and not listed:
            raise TransactionRefused(
                f"the mint {address} has {LISTED_ONLY[each][1]}, and the operator hasn't listed it"
            )
    older, newer = _fees(extensions[TRANSFER_FEE]) if TRANSFER_FEE in extensions else (NO_FEE, NO_FEE)
    if max(older.basis_points, newer.basis_points) > BASIS_POINTS:
        raise TransactionRefused(f"the mint {address} is malformed")
    return Mint(data[44], frozenset(extensions), older, newer)


def is_free(account: Account | None) -> bool:
    """Tell whether a token account can still be opened where `account` lies; lamports that lie there don't hinder."""
    return account is None or (account.owner == SYSTEM and not account.data)


def read_token_account(account: Account | None) -> TokenAccount | None:
    """Read a token account of either program; None if it is something else, or not initialized."""
    if account is None or account.owner not in {TOKEN, TOKEN_2022}:
        return None
    data = account.data
    extended = account.owner == TOKEN_2022 and _is_extended(data, KIND_ACCOUNT)
    if (len(data) != BASE_BYTES and not extended) or data[108] == 0:
        return None
    return TokenAccount(
        mint=data[:32],
        owner=data[32:64],
        amount=int.from_bytes(data[64:72], "little"),
        has_delegate=any(data[72:76]),
        frozen=data[108] != 1,
        close_authority=data[133:165] if any(data[129:133]) else None,
    )


def _is_extended(data: bytes, kind: int) -> bool:
    return len(data) > BASE_BYTES and len(data) != MULTISIG_BYTES and data[BASE_BYTES] == kind


def _extensions(address: str, data: bytes) -> dict[int, bytes]:
    """Return each extension's value by its type; each is known, of its length, and there once."""
    found: dict[int, bytes] = {}
    position = 0
    while any(data[position:]):
        kind, length = (int.from_bytes(data[at : at + 2], "little") for at in (position, position + 2))
        value = data[position + HEADER_BYTES : position + HEADER_BYTES + length]
        if kind not in SAFE and kind not in LISTED_ONLY:
            raise TransactionRefused(f"the mint {address} has an extension of the unknown type {kind}")
        expected = SAFE[kind] if kind in SAFE else LISTED_ONLY[kind][0]
        if len(value) != length or expected not in {ANY_LENGTH, length} or kind in found:
            raise TransactionRefused(f"the mint {address} is malformed")
        found[kind] = value
        position += HEADER_BYTES + length
    return found


def _fees(config: bytes) -> tuple[Fee, Fee]:
    """Return the older and the newer fee: two authorities and what is withheld stand before them."""
    older, newer = (
        Fee(*(int.from_bytes(config[at + first : at + last], "little") for first, last in ((0, 8), (8, 16), (16, 18))))
        for at in (72, 90)
    )
    return older, newer
