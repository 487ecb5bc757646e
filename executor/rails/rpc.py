"""The chain, as a node of Solana's tells it by JSON-RPC.

One node, or one provider, is believed as far as its answers fit what is documented, each other, and what was asked:
that is no proof. Whoever needs more asks two (`executor.rails.AgreedChain`).

    async with RpcChain("https://mainnet.example/?api-key=…") as chain:
        await chain.latest_blockhash()
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pydantic import TypeAdapter
from solders.transaction import VersionedTransaction

from executor.errors import ChainError
from executor.rails.accounts import holding, table, token_balance
from executor.rails.answers import (
    U64,
    AccountInfo,
    EpochInfo,
    KeyedAccount,
    LatestBlockhash,
    SignatureStatus,
    Simulated,
    Transaction,
    WithContext,
    error_text,
)
from executor.rails.chain import ACCOUNTS_MAX, BLOCKHASH_BLOCKS, Block, Blockhash, Pending, Simulation
from executor.rails.jsonrpc import Declined, JsonRpc, Unanswered
from executor.rails.passing import PAUSES_S, PREFLIGHT_FAILED
from executor.solana import TOKEN_2022_PROGRAM, TOKEN_PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from solders.pubkey import Pubkey

    from executor.rails.chain import Account, Holding, TransactionRecord

__all__ = ["RpcChain", "require_plausible"]

TIMEOUT_S: Final = 10.0

UNFINALIZED_BLOCKS_MAX: Final = 150
"""How far the newest block may be ahead of the newest finalized one: about 32 by the protocol, more in bad times."""

T = TypeVar("T")

_EPOCH_INFO: Final = TypeAdapter(EpochInfo)
_BLOCKHASH: Final = TypeAdapter(WithContext[LatestBlockhash])
_ACCOUNTS: Final = TypeAdapter(WithContext[list[AccountInfo | None]])
_HOLDINGS: Final = TypeAdapter(WithContext[list[KeyedAccount]])
_LAMPORTS: Final = TypeAdapter(U64)
_SLOT: Final = TypeAdapter(U64)
_SIMULATED: Final = TypeAdapter(WithContext[Simulated])
_STATUSES: Final = TypeAdapter(WithContext[list[SignatureStatus | None]])
_TRANSACTION: Final = TypeAdapter(Transaction | None)


class RpcChain:
    """One node. Implements `executor.rails.Chain`. Use it on one event loop, and close it there."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, pauses_s: Sequence[float] = PAUSES_S) -> None:
        """Prepare to ask the node at `url`; nothing is sent yet. Arguments and errors are those of `JsonRpc`."""
        self._rpc = JsonRpc(url, timeout_s=timeout_s, pauses_s=pauses_s)
        self._known_slot = 0  # the newest confirmed one by which an account or a landing was told

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._rpc.host!r})"

    async def close(self) -> None:
        """Close the connections."""
        await self._rpc.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def latest_blockhash(self) -> Blockhash:
        """Return the newest confirmed block's hash and how long it lives, held against the newest finalized block.

        Confirmed rather than finalized: 32 blocks more of its 150 are left, and the chain's docs say so. Of a node that
        hasn't come to the finalized block of another behind the same address, it is asked again.
        """
        newest = await self.finalized_block()  # before: the other way round, finality could go past the blockhash

        def read(result: object) -> Blockhash:
            told = _BLOCKHASH.validate_python(result).value
            blockhash = Blockhash(told.blockhash, told.last_valid_block_height)
            require_plausible(blockhash, newest)
            return blockhash

        return await self._ask("getLatestBlockhash", [{"commitment": "confirmed"}], read)

    async def finalized_block(self) -> Block:
        """Return the newest finalized block; slot and height are from one answer."""
        info = await self._ask("getEpochInfo", [{"commitment": "finalized"}], _EPOCH_INFO.validate_python)
        if info.block_height > info.absolute_slot:
            raise ChainError(f"{self._rpc.host} tells of more blocks than there were slots")
        return Block(info.absolute_slot, info.block_height, info.epoch)

    async def accounts(self, addresses: Sequence[str], *, finalized: bool = False) -> Sequence[Account | None]:
        """Return what lies at each address. Raises ValueError for more than 100: they wouldn't be of one moment."""
        if len(addresses) > ACCOUNTS_MAX:
            raise ValueError(f"{len(addresses)} accounts can't be asked for at once, only {ACCOUNTS_MAX}")
        answer = await self._ask("getMultipleAccounts", [list(addresses), _form(finalized)], _ACCOUNTS.validate_python)
        self._know(answer.context.slot, finalized=finalized)
        if len(answer.value) != len(addresses):
            raise ChainError(f"{self._rpc.host} answered with {len(answer.value)} accounts, not {len(addresses)}")
        return [None if info is None else info.plain() for info in answer.value]

    async def holdings(self, owner: str, *, finalized: bool = False) -> Sequence[Holding]:
        """Return every token account of `owner`. The two token programs are asked one after the other."""
        held = [
            await self._holdings(owner, program, finalized=finalized) for program in (TOKEN_PROGRAM, TOKEN_2022_PROGRAM)
        ]
        return sorted(each for of_program in held for each in of_program)

    async def tables(self, addresses: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the finalized content of each address lookup table."""
        accounts = await self.accounts(addresses, finalized=True)
        return {address: table(address, account) for address, account in zip(addresses, accounts, strict=True)}

    async def rent(self, data_bytes: int) -> int:
        """Return the lamports with which an account of `data_bytes` is kept for ever."""
        return await self._ask("getMinimumBalanceForRentExemption", [data_bytes], _LAMPORTS.validate_python)

    async def simulate(self, transaction: bytes) -> Simulation:
        """Try the transaction, on a node that knows what was told of accounts before.

        Its signatures aren't looked at, its blockhash is.
        """
        how = {**_form(finalized=False), "sigVerify": False, "replaceRecentBlockhash": False}
        read = _SIMULATED.validate_python
        answer = await self._ask_informed("simulateTransaction", [_base64(transaction), how], read)
        return Simulation(error_text(answer.value.err), tuple(answer.value.logs or ()))

    async def send(self, transaction: bytes) -> None:
        """Hand over a signed transaction, the same bytes again if no answer comes.

        The node tries it first, so one that would fail costs no fee. It is told not to send it again by itself: each
        time is the executor's to decide.
        """
        how = {"encoding": "base64", "preflightCommitment": "confirmed", "skipPreflight": False, "maxRetries": 0}
        tx_signature = _signature(transaction)
        try:
            answer = await self._ask_informed("sendTransaction", [_base64(transaction), how], str)
        except Declined as error:
            if error.code == PREFLIGHT_FAILED and _err_of(error.data) == "AlreadyProcessed":
                return  # by an earlier try whose answer got lost
            raise
        if answer != tx_signature:
            raise ChainError(f"{self._rpc.host} took another transaction than `{tx_signature}`")

    async def record(
        self, tx_signature: str, as_of_slot: int, since_slot: int = 0
    ) -> TransactionRecord | Pending | None:
        """Look the transaction up in the full history, by two roads that must lead to the same."""
        status = await self._status(tx_signature, as_of_slot)
        if status is not None and status.confirmation_status != "processed":
            self._know(status.slot, finalized=False)
        if status is not None and status.confirmation_status != "finalized":
            return Pending(status.slot)

        def read(result: object) -> Transaction | None:
            found = _TRANSACTION.validate_python(result)
            if found is None and status is not None:
                raise Unanswered(f"{self._rpc.host} hasn't the transaction `{tx_signature}` yet, which it calls final")
            return found

        how = {"encoding": "base64", "commitment": "finalized", "maxSupportedTransactionVersion": 0}
        found = await self._ask("getTransaction", [tx_signature, how], read)
        if status is None and found is None:
            first = await self._ask("getFirstAvailableBlock", [], _SLOT.validate_python)
            if first > since_slot:
                raise ChainError(f"{self._rpc.host} has forgotten what was before slot {first}")
            return None
        if status is None or found is None or found.slot != status.slot or found.meta.err != status.err:
            raise ChainError(f"{self._rpc.host} contradicts itself about the transaction `{tx_signature}`")
        return found.record(tx_signature)

    async def _status(self, tx_signature: str, as_of_slot: int) -> SignatureStatus | None:
        def read(result: object) -> SignatureStatus | None:
            answer = _STATUSES.validate_python(result)
            if answer.context.slot < as_of_slot:
                raise Unanswered(f"{self._rpc.host} hasn't come to slot {as_of_slot} yet")
            if len(answer.value) != 1:
                raise ChainError(f"{self._rpc.host} answered with {len(answer.value)} statuses, not 1")
            return answer.value[0]

        how = {"searchTransactionHistory": True}
        return await self._ask("getSignatureStatuses", [[tx_signature], how], read)

    async def _holdings(self, owner: str, program: Pubkey, *, finalized: bool) -> list[Holding]:
        ask = self._ask if finalized else self._ask_informed
        answer = await ask(
            "getTokenAccountsByOwner",
            [owner, {"programId": str(program)}, _form(finalized)],
            _HOLDINGS.validate_python,
        )
        self._know(answer.context.slot, finalized=finalized)
        held = []
        for each in answer.value:
            account = each.account.plain()
            balance, one = token_balance(account), holding(each.pubkey, account)
            if one is None or balance is None or one.token_program != str(program) or balance.owner != owner:
                raise ChainError(f"`{each.pubkey}` is no token account of `{owner}`")
            held.append(one)
        return held

    async def _ask(self, method: str, parameters: Sequence[Any], read: Callable[[Any], T]) -> T:
        return await self._rpc.ask(method, parameters, read)

    def _know(self, slot: int, *, finalized: bool) -> None:
        if not finalized:
            self._known_slot = max(self._known_slot, slot)

    async def _ask_informed(self, method: str, parameters: Sequence[Any], read: Callable[[Any], T]) -> T:
        """Ask a node that knows what was told of accounts and landings before: the others say so, and are asked again.

        One that lags has never heard of what came a slot ago: it would call it unmovable, or no longer there.
        """
        *before, how = parameters
        try:
            return await self._ask(method, [*before, {**how, "minContextSlot": self._known_slot}], read)
        except Unanswered:
            self._known_slot = 0  # perhaps nobody else ever comes to that slot
            raise


def require_plausible(blockhash: Blockhash, finalized: Block) -> None:
    """Hold how long `blockhash` is said to live against the newest finalized block, read just before.

    Said to end too early, its transaction would be called dead while it can still land; too late, never. The newest
    block is at least as high as the finalized one, and its hash lives for 150 blocks more.

    Raises:
        Unanswered: it ends too early: whoever told it may not have come to the finalized block yet.
        ChainError: it ends too late, which can't be true.

    """
    life = blockhash.last_valid_block_height - finalized.height
    text = f"a blockhash is said to live for {life} blocks after the newest finalized one"
    if life < BLOCKHASH_BLOCKS:
        raise Unanswered(text)
    if life > BLOCKHASH_BLOCKS + UNFINALIZED_BLOCKS_MAX:
        raise ChainError(text)


def _form(finalized: bool) -> dict[str, Any]:  # noqa: FBT001 - which of two commitments
    return {"encoding": "base64", "commitment": "finalized" if finalized else "confirmed"}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _signature(transaction: bytes) -> str:
    try:
        return str(VersionedTransaction.from_bytes(transaction).signatures[0])
    except (ValueError, IndexError) as error:
        raise ChainError(f"what shall be sent is no transaction: {error}") from None


def _err_of(data: object) -> object:
    return data.get("err") if isinstance(data, dict) else None
