"""What Solana's JSON-RPC answers, field by field as documented, of all that it says as much as we rely on.

A field that is missing, of another type, or out of its range makes the whole answer unusable; nothing is coerced. More
fields than these are let pass: each version of the nodes adds some. https://solana.com/docs/rpc
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from solders.transaction import VersionedTransaction

from executor.errors import ChainError
from executor.rails.chain import Account, Balances, TokenBalance, TransactionRecord
from permits import keys

__all__ = [
    "U64",
    "AccountInfo",
    "EpochInfo",
    "KeyedAccount",
    "LatestBlockhash",
    "SignatureStatus",
    "Simulated",
    "Transaction",
    "WithContext",
    "error_text",
]

U64_MAX: Final = 2**64 - 1
ERROR_CHARS_MAX: Final = 200


def _decoded(value: object) -> bytes:
    """Read what nodes write for bytes: a pair of the text and its encoding."""
    match value:
        case [str(text), "base64"]:
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                raise ValueError("it is not base64") from None
    raise ValueError("it is not bytes in base64")


def _key(value: object) -> str:
    if isinstance(value, str) and keys.is_key(value):
        return value
    raise ValueError("it is not base58 of 32 bytes")


def _amount(value: object) -> int:
    """Read an amount, which is a string of digits, since JSON's readers lose big numbers."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(U64_MAX)):
        return int(value)
    raise ValueError("it is not an amount")


U64 = Annotated[int, Field(ge=0, le=U64_MAX, strict=True)]
Key = Annotated[str, BeforeValidator(_key)]
Bytes = Annotated[bytes, BeforeValidator(_decoded)]
Amount = Annotated[int, BeforeValidator(_amount), Field(ge=0, le=U64_MAX)]

T = TypeVar("T")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", alias_generator=to_camel)


class _Context(_Answer):
    slot: U64
    """The newest slot that the answer knows."""


class WithContext(_Answer, Generic[T]):
    """An answer that says as of which slot it holds."""

    context: _Context
    value: T


class EpochInfo(_Answer):
    """The result of getEpochInfo."""

    absolute_slot: U64
    block_height: U64
    epoch: U64


class LatestBlockhash(_Answer):
    """The value of getLatestBlockhash."""

    blockhash: Key
    last_valid_block_height: U64


class AccountInfo(_Answer):
    """An account, asked for in base64."""

    data: Bytes
    lamports: U64
    owner: Key

    def plain(self) -> Account:
        """Return it in our words."""
        return Account(self.owner, self.lamports, self.data)


class KeyedAccount(_Answer):
    """One of getTokenAccountsByOwner's."""

    account: AccountInfo
    pubkey: Key


class SignatureStatus(_Answer):
    """One of getSignatureStatuses'."""

    confirmation_status: Literal["processed", "confirmed", "finalized"]
    err: Any
    slot: U64


class Simulated(_Answer):
    """The value of simulateTransaction."""

    err: Any
    logs: list[str] | None


class _UiAmount(_Answer):
    amount: Amount


class _TokenBalance(_Answer):
    account_index: U64
    mint: Key
    owner: Key
    ui_token_amount: _UiAmount


class _LoadedAddresses(_Answer):
    readonly: list[Key] = []
    writable: list[Key] = []


class _Meta(_Answer):
    err: Any
    fee: U64
    loaded_addresses: _LoadedAddresses | None = None
    post_balances: list[U64]
    post_token_balances: list[_TokenBalance]
    pre_balances: list[U64]
    pre_token_balances: list[_TokenBalance]


class Transaction(_Answer):
    """The result of getTransaction, in base64."""

    meta: _Meta
    slot: U64
    transaction: Bytes

    def record(self, tx_signature: str) -> TransactionRecord:
        """Return it in our words. Raises ChainError if it isn't the transaction of this signature, or not whole."""
        try:
            parsed = VersionedTransaction.from_bytes(self.transaction)
            parsed.sanitize()
            genuine = str(parsed.signatures[0]) == tx_signature and parsed.verify_with_results()[0]
        except Exception as error:  # noqa: BLE001 - whatever a foreign parser raises on hostile bytes
            raise ChainError(f"the transaction that was answered can't be read: {error}") from None
        if not genuine:
            raise ChainError(f"what was answered is not the transaction `{tx_signature}`")
        loaded = self.meta.loaded_addresses or _LoadedAddresses()
        addresses = [*map(str, parsed.message.account_keys), *loaded.writable, *loaded.readonly]
        meta = self.meta
        return TransactionRecord(
            slot=self.slot,
            error=error_text(meta.err),
            fee_lamports=meta.fee,
            before=_balances(addresses, meta.pre_balances, meta.pre_token_balances),
            after=_balances(addresses, meta.post_balances, meta.post_token_balances),
        )


def error_text(err: object) -> str | None:
    """Return what the chain calls `err`, in a line; None if it is no error."""
    return None if err is None else (err if isinstance(err, str) else json.dumps(err))[:ERROR_CHARS_MAX]


def _balances(addresses: list[str], lamports: list[int], tokens: list[_TokenBalance]) -> Balances:
    indexes = [each.account_index for each in tokens]
    if len(lamports) != len(addresses) or len(set(indexes)) != len(indexes):
        raise ChainError("the balances that were answered don't fit the transaction's accounts")
    if any(index >= len(addresses) for index in indexes):
        raise ChainError("a balance that was answered belongs to none of the transaction's accounts")
    return Balances(
        lamports=dict(zip(addresses, lamports, strict=True)),
        tokens={
            addresses[each.account_index]: TokenBalance(each.mint, each.owner, each.ui_token_amount.amount)
            for each in tokens
        },
    )
