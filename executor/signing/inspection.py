"""Inspection: whether a transaction is exactly what was authorized.

It decodes what it knows, token transfers and the memo, and refuses everything else. What it lets pass moves at most
the authorized amount out of the session wallet, brings at least the minimum into it, in one transaction that lands
whole or not at all, and says in its memo which decision allowed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from executor.errors import TransactionRefused
from executor.solana import MEMO_PROGRAM, TOKEN_PROGRAM, TRANSFER_CHECKED

if TYPE_CHECKING:
    from solders.instruction import CompiledInstruction

    from executor.assets import Asset
    from executor.authorization import Authorization

__all__ = ["inspect"]

TRANSACTION_BYTES_MAX: Final = 1_232
SIGNERS_MAX: Final = 4
"""Each signature costs the session wallet 5,000 lamports."""

TRANSFER_ACCOUNTS: Final = 4
TRANSFER_DATA_BYTES: Final = 10


class _Transfer(NamedTuple):
    source: Pubkey
    mint: Pubkey
    destination: Pubkey
    owner: Pubkey
    amount: int


def inspect(transaction: bytes, authorization: Authorization, blockhash: str) -> VersionedTransaction:
    """Return the parsed transaction, which the session key may sign.

    Args:
        transaction: as `Rail.build` returns it.
        authorization: what was allowed.
        blockhash: the one that the executor itself fetched.

    Raises:
        TransactionRefused: it is anything but the authorized trade.

    """
    parsed = _parse(transaction)
    message = parsed.message
    if not isinstance(message, MessageV0):
        raise TransactionRefused("it is not a version 0 transaction")
    if message.address_table_lookups:
        raise TransactionRefused("it takes accounts from lookup tables")
    if str(message.recent_blockhash) != blockhash:
        raise TransactionRefused("its blockhash is not the executor's")
    for asset in (authorization.sell, authorization.buy):
        if asset.token_program != str(TOKEN_PROGRAM):
            raise TransactionRefused(f"{asset.symbol} is of a token program whose fees and hooks it can't count")
    session = Pubkey.from_string(authorization.session_pubkey)
    _check_signers(parsed, message, session)
    _check_memo(message, authorization)
    _check_transfers(_transfers(message, authorization), authorization, session)
    return parsed


def _parse(transaction: bytes) -> VersionedTransaction:
    if len(transaction) > TRANSACTION_BYTES_MAX:
        raise TransactionRefused(f"it has {len(transaction)} bytes, more than a packet's {TRANSACTION_BYTES_MAX}")
    try:
        parsed = VersionedTransaction.from_bytes(transaction)
        parsed.sanitize()
    except Exception as error:  # noqa: BLE001 - whatever a foreign parser raises on hostile bytes, the answer is no
        raise TransactionRefused(f"it can't be read: {error}") from None
    if bytes(parsed) != transaction:
        raise TransactionRefused("it is not in its one encoding")
    return parsed


def _check_signers(parsed: VersionedTransaction, message: MessageV0, session: Pubkey) -> None:
    signers = message.account_keys[: message.header.num_required_signatures]
    if len(signers) > SIGNERS_MAX:
        raise TransactionRefused(f"it has {len(signers)} signers, more than {SIGNERS_MAX}")
    if signers[0] != session:
        raise TransactionRefused(f"its fee payer is {signers[0]}, not the session key")
    signed = to_bytes_versioned(message)
    for signer, signature in zip(signers[1:], parsed.signatures[1:], strict=True):
        if not signature.verify(signer, signed):
            raise TransactionRefused(f"its signer {signer} hasn't signed it")


def _check_memo(message: MessageV0, authorization: Authorization) -> None:
    memos = [bytes(each.data) for each in message.instructions if _program(message, each) == MEMO_PROGRAM]
    if memos != [authorization.memo]:
        raise TransactionRefused("its memo is not this authorization's")


def _transfers(message: MessageV0, authorization: Authorization) -> list[_Transfer]:
    """Decode every instruction but the memo; each must be a checked transfer of one of the two assets."""
    known = {(asset.token_program, asset.mint) for asset in (authorization.sell, authorization.buy)}
    transfers = []
    for each in message.instructions:
        program, data = _program(message, each), bytes(each.data)
        if program == MEMO_PROGRAM:
            continue
        accounts = [message.account_keys[index] for index in each.accounts]
        if len(data) != TRANSFER_DATA_BYTES or data[0] != TRANSFER_CHECKED or len(accounts) != TRANSFER_ACCOUNTS:
            raise TransactionRefused(f"it calls {program} for something other than a checked transfer")
        source, mint, destination, owner = accounts
        if (str(program), str(mint)) not in known:
            raise TransactionRefused(f"it moves the token {mint} of the program {program}")
        transfers.append(_Transfer(source, mint, destination, owner, int.from_bytes(data[1:9], "little")))
    return transfers


def _check_transfers(transfers: list[_Transfer], authorization: Authorization, session: Pubkey) -> None:
    """Hold what leaves and what comes against the authorization; refuse whatever else touches the session wallet."""
    selling, buying = _account(session, authorization.sell), _account(session, authorization.buy)
    left = received = 0
    for each in transfers:
        if (each.source, str(each.mint), each.owner) == (selling, authorization.sell.mint, session):
            left += each.amount
        elif session in (each.source, each.owner) or each.source in (selling, buying):
            raise TransactionRefused("it takes from the session wallet what is not for sale")
        elif (each.destination, str(each.mint)) == (buying, authorization.buy.mint):
            received += each.amount
    if left > authorization.sell_amount:
        raise TransactionRefused(f"{left} base units would leave, more than {authorization.sell_amount}")
    if received < authorization.min_received:
        raise TransactionRefused(f"{received} base units would come, less than {authorization.min_received}")


def _account(owner: Pubkey, asset: Asset) -> Pubkey:
    program = Pubkey.from_string(asset.token_program)
    return get_associated_token_address(owner, Pubkey.from_string(asset.mint), program)


def _program(message: MessageV0, instruction: CompiledInstruction) -> Pubkey:
    return message.account_keys[instruction.program_id_index]
