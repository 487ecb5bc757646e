"""The few Solana programs that this library speaks: their addresses, and their instructions as bytes.

Built by hand from each program's documented layout, since `solders` ships the programs but no builders for them.
"""

from __future__ import annotations

from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

__all__ = [
    "ASSOCIATED_TOKEN_PROGRAM",
    "COMPUTE_BUDGET_PROGRAM",
    "MEMO_PROGRAM",
    "MINT_BYTES",
    "SYSTEM_PROGRAM",
    "TOKEN_2022_PROGRAM",
    "TOKEN_PROGRAM",
    "TRANSFER_CHECKED",
    "close_account",
    "create_associated_account",
    "harvest_withheld",
    "initialize_mint",
    "memo",
    "mint_to",
    "remove_close_authority",
    "revoke",
    "transfer_checked",
]

SYSTEM_PROGRAM: Final = Pubkey.from_string("11111111111111111111111111111111")
TOKEN_PROGRAM: Final = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022_PROGRAM: Final = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED_TOKEN_PROGRAM: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
COMPUTE_BUDGET_PROGRAM: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
RENT_SYSVAR: Final = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
MEMO_PROGRAM: Final = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")

MINT_BYTES: Final = 82

CREATE_IDEMPOTENT: Final = 1
REVOKE: Final = 5
SET_AUTHORITY: Final = 6
CLOSE_AUTHORITY: Final = 3
MINT_TO: Final = 7
CLOSE_ACCOUNT: Final = 9
TRANSFER_CHECKED: Final = 12
SYNC_NATIVE: Final = 17
INITIALIZE_MINT_2: Final = 20
TRANSFER_FEE_EXTENSION: Final = 26
HARVEST_WITHHELD: Final = 4


def create_associated_account(
    payer: Pubkey, owner: Pubkey, mint: Pubkey, token_program: Pubkey = TOKEN_PROGRAM
) -> Instruction:
    """Open `owner`'s account for `mint` at `payer`'s expense; nothing if it is there."""
    return Instruction(
        ASSOCIATED_TOKEN_PROGRAM,
        bytes([CREATE_IDEMPOTENT]),
        [
            _signer(payer),
            _writable(get_associated_token_address(owner, mint, token_program)),
            _read(owner),
            _read(mint),
            _read(SYSTEM_PROGRAM),
            _read(token_program),
        ],
    )


def initialize_mint(mint: Pubkey, authority: Pubkey, decimals: int) -> Instruction:
    """Make the account `mint`, of 82 bytes, a mint without a freeze authority."""
    return Instruction(
        TOKEN_PROGRAM, bytes([INITIALIZE_MINT_2, decimals]) + bytes(authority) + b"\x00", [_writable(mint)]
    )


def mint_to(mint: Pubkey, account: Pubkey, authority: Pubkey, amount: int) -> Instruction:
    """Mint `amount` base units into `account`."""
    return Instruction(
        TOKEN_PROGRAM,
        bytes([MINT_TO]) + amount.to_bytes(8, "little"),
        [_writable(mint), _writable(account), _signer(authority)],
    )


def transfer_checked(
    source: Pubkey, mint: Pubkey, destination: Pubkey, owner: Pubkey, amount: int, decimals: int, token_program: Pubkey
) -> Instruction:
    """Move `amount` base units from `source`, which `owner` owns, to `destination`."""
    return Instruction(
        token_program,
        bytes([TRANSFER_CHECKED]) + amount.to_bytes(8, "little") + bytes([decimals]),
        [_writable(source), _read(mint), _writable(destination), _signer(owner, writable=False)],
    )


def sync_native(account: Pubkey, token_program: Pubkey) -> Instruction:
    """Have an account of wrapped SOL count what lamports were sent to it. Anybody may; any other account fails."""
    return Instruction(token_program, bytes([SYNC_NATIVE]), [_writable(account)])


def revoke(account: Pubkey, owner: Pubkey, token_program: Pubkey) -> Instruction:
    """Take from the delegate of `account` what it may spend; nothing if there is none. The delegate may sign it too."""
    return Instruction(token_program, bytes([REVOKE]), [_writable(account), _signer(owner, writable=False)])


def remove_close_authority(account: Pubkey, authority: Pubkey, token_program: Pubkey) -> Instruction:
    """Leave `account` to be closed by its owner alone. `authority` is whoever may close it now."""
    data = bytes([SET_AUTHORITY, CLOSE_AUTHORITY, 0])
    return Instruction(token_program, data, [_writable(account), _signer(authority, writable=False)])


def close_account(account: Pubkey, destination: Pubkey, owner: Pubkey, token_program: Pubkey) -> Instruction:
    """Close a token account that is empty or holds wrapped SOL; its lamports go to `destination`."""
    return Instruction(
        token_program,
        bytes([CLOSE_ACCOUNT]),
        [_writable(account), _writable(destination), _signer(owner, writable=False)],
    )


def harvest_withheld(mint: Pubkey, account: Pubkey, token_program: Pubkey) -> Instruction:
    """Move the fees that Token-2022 withheld in `account` to its mint. Anybody may."""
    return Instruction(
        token_program, bytes([TRANSFER_FEE_EXTENSION, HARVEST_WITHHELD]), [_writable(mint), _writable(account)]
    )


def memo(text: bytes, signer: Pubkey) -> Instruction:
    """Write `text` (UTF-8) into the transaction's log, in the name of `signer`."""
    return Instruction(MEMO_PROGRAM, text, [_signer(signer, writable=False)])


def _read(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=False)


def _writable(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=True)


def _signer(key: Pubkey, *, writable: bool = True) -> AccountMeta:
    return AccountMeta(key, is_signer=True, is_writable=writable)
