"""The signing gate: the one place where a session key signs, and only what was authorized.

The order is the safety: read what the chain says → inspect, and append floors where a program can't be decoded → then,
in one transaction under the user's lock, hold the authorization against the ledger, decide once more, sign, and commit
the signature → release the bytes. A signature that the guard didn't commit never leaves this module.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from solders.signature import Signature
from solders.transaction import VersionedTransaction

from executor.errors import ChainError, IllegalTransition, TransactionRefused, VaultError
from executor.rails import ACCOUNTS_MAX
from executor.rails.passing import PAUSES_S
from executor.reasons import Reason
from executor.signing.book import Facts
from executor.signing.floors import (
    TOKEN_ACCOUNT_BYTES,
    floor_instructions,
    lamport_floor,
    mints_of,
    named_accounts,
    token_floors,
    with_floors,
)
from executor.signing.inspection import inspect, needs
from executor.signing.policy import Policy
from executor.signing.proposal import message_of, read_proposal
from executor.signing.sweep import refusal, sweep_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from solders.message import Message, MessageV0

    from executor.authorization import Authorization
    from executor.decide import Refused
    from executor.guard import AsyncGuard
    from executor.ledger import WalletView
    from executor.rails import Account, Blockhash, Chain, Simulation
    from executor.rails.agreed import AgreedChain
    from executor.signing.inspection import Inspected
    from executor.signing.proposal import Proposal
    from executor.signing.sweep import Owned
    from executor.signing.vault import SessionVault

__all__ = ["SignedTransaction", "SigningGate"]

READING_S_MAX: Final = 20
"""How long the chain may take to say what a signature needs, every try included: an authorization lives 60 s."""


class SignedTransaction(NamedTuple):
    """A transaction that may be sent: its signature is committed to the ledger."""

    tx_signature: str
    """base58 of the session key's signature, the transaction's id."""
    content: bytes
    """Wire format."""
    last_valid_block_height: int


class SigningGate:
    """Signs for the agents of one guard with the keys of one vault."""

    def __init__(
        self,
        guard: AsyncGuard,
        vault: SessionVault,
        chain: Chain,
        *,
        policy: Policy | None = None,
        tables: AgreedChain | None = None,
    ) -> None:
        """Open the gate.

        Args:
            guard: who decides.
            vault: who keeps the session keys.
            chain: the executor's own connection, by which it learns what accounts hold.
            policy: what the operator lets pass; by default only what can be decoded.
            tables: two sources that must agree on what a lookup table holds. Without them, only those that the policy
                pins are resolved.

        """
        self._guard = guard
        self._vault = vault
        self._chain = chain
        self._policy = policy or Policy()
        self._tables = tables

    async def sign(
        self,
        authorization: Authorization,
        transaction: bytes,
        blockhash: Blockhash,
        cosigners: AbstractSet[str] = frozenset(),
    ) -> SignedTransaction | Refused:
        """Sign `transaction` if it is exactly what `authorization` allows, and may still happen.

        Args:
            authorization: what the guard gave to this caller.
            transaction: as the rail built it.
            blockhash: the one that it was built on, which the executor fetched.
            cosigners: who else signs, as the rail declared, base58.

        Returns:
            The transaction to send, or the guard's refusal at this moment; then the attempt is voided.

        Raises:
            TransactionRefused: it is not the authorized trade; the attempt is voided.
            ChainError: the chain didn't say what the inspection needs; nothing was signed.
            IllegalTransition: `authorization` is not one that the guard gave to this caller, or it is used up.
            VaultError, LedgerError: nothing was released.

        """
        alone_since = None
        try:
            async with asyncio.timeout(READING_S_MAX):
                proposal = read_proposal(transaction)
                tables = await self._tables_of(proposal)
                resolved = proposal.resolve(tables)
                facts = await self._facts(needs(resolved, authorization))
                inspected = inspect(resolved, authorization, blockhash.hash, cosigners, facts, self._policy)
                checked = proposal.wire
                if inspected.programs:
                    alone_since = await self._guard.head_seq(authorization.wallet)  # before what it holds is read
                    checked = await self._floored(proposal.message, tables, authorization, inspected, facts)
        except TimeoutError:
            raise ChainError(f"the chain didn't say within {READING_S_MAX} s what the inspection needs") from None
        except TransactionRefused as error:
            await self._guard.check(authorization)  # nobody voids by an authorization that they weren't given
            await self._guard.void(
                authorization.wallet, authorization.execution_id, Reason.TRANSACTION_REFUSED, str(error)
            )
            raise
        signing = _Signing(self._vault, authorization.agent_id, authorization.session_pubkey, checked)
        refused = await self._guard.sign_with(
            signing, authorization, last_valid_block_height=blockhash.last_valid_block_height, alone_since=alone_since
        )
        return signing.done(blockhash) if refused is None else refused

    async def sign_sweep(self, wallet: str, agent_id: str, owned: Owned, blockhash: Blockhash) -> SignedTransaction:
        """Sign the next transaction that pays what the agent's session wallet holds back to `wallet`, to nobody else.

        It needs no permit, and no halt forbids it: it only takes exposure away. The agent must be stopped or completed.

        Raises:
            Unmovable: one of its token accounts can't be moved, as what lies there shows, or the chain.
            TransactionRefused: there is nothing to pay back, not enough for fees and rent, or it would be undone.
            ChainError: the chain couldn't be asked, or said nothing of it: that shows nothing.
            IllegalTransition: the agent may still fire, or there is none.
            VaultError, LedgerError: nothing was released.

        """
        agent = await self._guard.agent(wallet, agent_id)
        if agent is None:
            raise IllegalTransition(f"there is no agent `{agent_id}`")
        message = sweep_message(wallet, agent.session_pubkey, owned, blockhash.hash)
        unsigned = bytes(VersionedTransaction.populate(message, [Signature.default()]))
        try:
            async with asyncio.timeout(READING_S_MAX):
                error = (await self._simulated(unsigned)).error
        except TimeoutError:
            raise ChainError(f"the chain didn't try the sweep within {READING_S_MAX} s") from None
        if error is not None:
            raise refusal(message, error)
        signing = _Signing(self._vault, agent_id, agent.session_pubkey, unsigned)
        await self._guard.record_sweep(
            wallet, agent_id, signing, last_valid_block_height=blockhash.last_valid_block_height
        )
        return signing.done(blockhash)

    async def _tables_of(self, proposal: Proposal) -> Mapping[str, Sequence[str]]:
        """Return what the lookup tables of `proposal` hold: what is pinned, or else what two sources agree on."""
        pinned = self._policy.tables
        missing = [each for each in proposal.tables if each not in pinned]
        if not missing:
            return pinned
        if self._tables is None:
            raise TransactionRefused("it takes accounts from a lookup table that isn't pinned")
        return {**await self._tables.tables(missing), **pinned}

    async def _facts(self, addresses: Iterable[str]) -> Facts:
        """Return what the chain says of the accounts at `addresses`."""
        newest = await self._chain.finalized_block()
        return Facts(await self._accounts(addresses), newest.epoch)

    async def _floored(
        self,
        message: Message | MessageV0,
        tables: Mapping[str, Sequence[str]],
        authorization: Authorization,
        inspected: Inspected,
        facts: Facts,
    ) -> bytes:
        """Return the transaction with final instructions by which the chain itself keeps what isn't for sale.

        It is simulated too: that is no bound, but saves the fee of one that would be undone.
        """
        session = authorization.session_pubkey
        finalized = await self._accounts(named_accounts(message, tables), finalized=True)
        mints = mints_of(session, finalized, facts.accounts) | {authorization.sell.mint, authorization.buy.mint}
        finalized |= await self._accounts(mints - finalized.keys(), finalized=True)
        readings = finalized, facts.accounts
        rent = facts.rent(TOKEN_ACCOUNT_BYTES)
        floors = token_floors(message, tables, authorization, inspected, readings, rent)
        lamports = lamport_floor(authorization, inspected, readings)
        floored = with_floors(message, tables, floor_instructions(session, floors, lamports))
        transaction = bytes(VersionedTransaction.populate(floored, [Signature.default()]))
        simulated = await self._simulated(transaction)
        if simulated.error is not None:
            raise TransactionRefused(f"with floors, the chain would undo it: {simulated.error}")
        return transaction

    async def _simulated(self, transaction: bytes) -> Simulation:
        """Try the transaction, again where the answer says nothing of it. Raises ChainError if none ever does."""
        for pause_s in PAUSES_S:
            simulated = await self._chain.simulate(transaction)
            if not simulated.passes:
                return simulated
            await asyncio.sleep(pause_s)
        simulated = await self._chain.simulate(transaction)
        if simulated.passes:
            raise ChainError(f"the chain can't try the transaction now: {simulated.error}")
        return simulated

    async def _accounts(self, addresses: Iterable[str], *, finalized: bool = False) -> dict[str, Account | None]:
        asked = sorted(addresses)
        if len(asked) > ACCOUNTS_MAX:
            raise TransactionRefused(f"{len(asked)} accounts would have to be read for it, more than {ACCOUNTS_MAX}")
        found = await self._chain.accounts(asked, finalized=finalized) if asked else []
        return dict(zip(asked, found, strict=True))


class _Signing:
    """Signs one transaction, when and as often as the guard says; the same each time."""

    def __init__(self, vault: SessionVault, agent_id: str, session_pubkey: str, transaction: bytes) -> None:
        self._vault = vault
        self._agent_id = agent_id
        self._session_pubkey = session_pubkey
        self._transaction = transaction
        self._signed: tuple[str, bytes] | None = None

    def __call__(self, view: WalletView) -> tuple[str, bytes]:
        """Return the session key's signature, and the wire format with it in the first signature's place."""
        message = message_of(self._transaction)
        signature = self._vault.sign(view, self._agent_id, self._session_pubkey, message)
        content = self._transaction[:1] + signature + self._transaction[1 + len(signature) :]
        self._signed = str(Signature(signature)), content
        return self._signed

    def done(self, blockhash: Blockhash) -> SignedTransaction:
        """Return what was signed, once the guard has committed it."""
        if self._signed is None:
            raise VaultError("nothing was signed")
        return SignedTransaction(*self._signed, blockhash.last_valid_block_height)
