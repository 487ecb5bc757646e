"""Sweeps: transactions that pay what a session wallet holds back to the wallet that signed its permits.

Built from the two addresses and from what the chain says of the session wallet, by nobody else: there is no field by
which anything could go elsewhere. Tokens come first, each into the wallet's associated account, and with them the rent
of the emptied accounts, back into the session wallet; the lamports last. Closing its account unwraps SOL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address

from executor.assets import NATIVE_MINT
from executor.errors import TransactionRefused, Unmovable
from executor.signing.programs import AccountClosing, AccountOpening, Call, LamportTransfer, TokenTransfer, decode
from executor.solana import (
    ASSOCIATED_TOKEN_PROGRAM,
    TOKEN_2022_PROGRAM,
    TOKEN_PROGRAM,
    close_account,
    create_associated_account,
    harvest_withheld,
    transfer_checked,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solders.instruction import Instruction

    from executor.rails import Account, Holding

__all__ = ["ACCOUNTS_MAX", "FEE_LAMPORTS", "Owned", "pays_home", "refusal", "sweep_message"]

ACCOUNTS_MAX: Final = 4
"""Token accounts in one transaction: the instructions for each take some 200 bytes of 1,232."""
FEE_LAMPORTS: Final = 5_000
"""For the one signature."""

HARVEST: Final = bytes(harvest_withheld(TOKEN_PROGRAM, TOKEN_PROGRAM, TOKEN_2022_PROGRAM).data)
DECIMALS: Final = 44
"""The byte of a mint that says them."""
BASE_BYTES: Final = 165
TRANSFER_FEE_AMOUNT: Final = (2).to_bytes(2, "little")
"""The type of the extension of a Token-2022 account that holds what was withheld of what it received."""
INSTRUCTION_ERROR: Final = re.compile(r'\{"InstructionError": \[(\d+), (.+)', re.DOTALL)
TOO_FEW_LAMPORTS: Final = '{"Custom": 1}'
"""How the System program says so, when the associated token program has it pay the rent of a new account."""
TOKEN_PROGRAMS: Final = frozenset({str(TOKEN_PROGRAM), str(TOKEN_2022_PROGRAM)})


class Owned(NamedTuple):
    """What a session wallet holds."""

    lamports: int
    holdings: Sequence[Holding]
    """Its token accounts; frozen ones can't be emptied."""
    accounts: Mapping[str, Account | None]
    """What lies at each of their addresses and at each of their mints, base58."""

    @property
    def movable(self) -> Sequence[Holding]:
        """Those token accounts that can be emptied and closed."""
        return [each for each in self.holdings if not each.frozen]


def sweep_message(wallet: str, session_pubkey: str, owned: Owned, blockhash: str) -> MessageV0:
    """Return the next transaction that pays back: of up to 4 token accounts, or, once there are none, of the lamports.

    Raises:
        Unmovable: one of the accounts is none that a sweep can move.
        TransactionRefused: nothing is left that could be moved, or no lamports for the fee, or `owned.accounts` doesn't
            say what has to be known of it.

    """
    home, session = Pubkey.from_string(wallet), Pubkey.from_string(session_pubkey)
    if owned.lamports < FEE_LAMPORTS:
        raise TransactionRefused(f"the session wallet has {owned.lamports} lamports, less than the fee")
    instructions = [
        instruction
        for holding in owned.movable[:ACCOUNTS_MAX]
        for instruction in _empty(home, session, holding, owned.accounts)
    ]
    if not instructions:
        left = owned.lamports - FEE_LAMPORTS
        if not left:
            raise TransactionRefused("the session wallet has nothing but the fee")
        instructions = [transfer(TransferParams(from_pubkey=session, to_pubkey=home, lamports=left))]
    return MessageV0.try_compile(session, instructions, [], Hash.from_string(blockhash))


def refusal(message: MessageV0, error: str) -> TransactionRefused:
    """Return what the chain's `error` says of the sweep `message`: only an instruction's own error shows an Unmovable.

    All else is about the moment, the fee, or the wallet; so is an instruction that opens an account at home, if the
    session wallet lacks the lamports for its rent.
    """
    undone = INSTRUCTION_ERROR.match(error)
    if undone is None or int(undone[1]) >= len(message.instructions):
        return TransactionRefused(f"the chain would undo the sweep: {error}")
    program = message.account_keys[message.instructions[int(undone[1])].program_id_index]
    if program == ASSOCIATED_TOKEN_PROGRAM and undone[2].startswith(TOO_FEW_LAMPORTS):
        return TransactionRefused("the session wallet has too few lamports for the rent of an account at home")
    return Unmovable(f"the chain would undo the sweep: {error}")


def pays_home(message: MessageV0, wallet: str) -> bool:
    """Tell whether the message pays nobody but `wallet`, and its rents into the session wallet that pays its fee."""
    home, keys = Pubkey.from_string(wallet), message.account_keys
    calls = (
        Call(keys[each.program_id_index], tuple(keys[index] for index in each.accounts), bytes(each.data))
        for each in message.instructions
    )
    try:
        return not message.address_table_lookups and all(_goes_home(call, home, keys[0]) for call in calls)
    except TransactionRefused:
        return False


def _goes_home(call: Call, home: Pubkey, session: Pubkey) -> bool:
    if call.data == HARVEST and call.program == TOKEN_2022_PROGRAM:
        return True  # to the mint, of what isn't the session's
    match decode(call):
        case LamportTransfer(destination=destination):
            return destination == home
        case AccountOpening(owner=owner):
            return owner == home
        case AccountClosing(destination=destination):
            return destination == session
        case TokenTransfer(mint=Pubkey() as mint, token_program=program, destination=destination):
            return destination == get_associated_token_address(home, mint, program)
    return False


def _empty(
    home: Pubkey, session: Pubkey, holding: Holding, accounts: Mapping[str, Account | None]
) -> list[Instruction]:
    """Return the instructions that move all of one token account home, and close it."""
    if holding.token_program not in TOKEN_PROGRAMS:
        raise Unmovable(f"the session wallet holds nothing of the program {holding.token_program}")
    source, mint, program = (
        Pubkey.from_string(each) for each in (holding.address, holding.mint, holding.token_program)
    )
    lying, minted = accounts[holding.address], accounts[holding.mint]
    if lying is None:
        raise TransactionRefused(f"the chain doesn't tell yet what lies in {holding.address}")
    closing = close_account(source, session, session, program)
    if holding.mint == NATIVE_MINT:
        return [closing]
    instructions = []
    if holding.amount:
        if minted is None:
            raise TransactionRefused(f"the chain doesn't tell yet of the mint {holding.mint}")
        if len(minted.data) <= DECIMALS:
            raise Unmovable(f"the session wallet holds {holding.mint}, which is no mint")
        instructions += [
            create_associated_account(session, home, mint, program),
            transfer_checked(
                source,
                mint,
                get_associated_token_address(home, mint, program),
                owner=session,
                amount=holding.amount,
                decimals=minted.data[DECIMALS],
                token_program=program,
            ),
        ]
    if program == TOKEN_2022_PROGRAM and _has_withheld(lying):
        instructions.append(harvest_withheld(mint, source, program))
    return [*instructions, closing]


def _has_withheld(account: Account) -> bool:
    """Tell whether a Token-2022 account may hold withheld fees, which keep it from being closed."""
    data = account.data[BASE_BYTES + 1 :]
    while any(data[:2]):
        if data[:2] == TRANSFER_FEE_AMOUNT:
            return True
        data = data[4 + int.from_bytes(data[2:4], "little") :]
    return False
