"""The guard: it alone lets an execution happen.

Every call is one transaction of the ledger: it locks the user, reads the time, gathers the evidence, asks the pure
core (`executor.decide`, `executor.activation`, `executor.lifecycle`), and appends what was decided. Quotes are asked
for before it, so that the price source runs under no lock (`executor.guard.prefetch`). A refusal is a value; a fault is
an exception and leaves nothing authorized.

What entries hold, by kind:

| kind | body |
|---|---|
| reserved | sessionPubkey |
| activated | bounds |
| stopped, completed | terminalReason |
| revoked | nonce |
| trigger-armed | condition |
| next-run-set | nextRunAt, if there will be one |
| halted, lifted | halt |
| limits-changed | old, new |
| sweep-signed | txSignature, transaction (hex), lastValidBlockHeight |
| key-destroyed | |
| funding-set | fundable |
| funding-counted | wallet, executionId, lamports, lamportsBefore: on the treasury's chain |
| restored | epoch, before: those of the event stream |
| authorized, refused | evidence, decision; authorized also claimHash and worthBefore, refused also reason |
| authorized, of a funding | evidence, decision, claimHash, lamportsBefore |
| voided | reason, and detail; or evidence and decision, where the rules said no at signing |
| signed | txSignature, transaction (hex), lastValidBlockHeight; alone, if no other may be open beside it |
| landed | rail, txSignature, fill; of a funding slot, feeLamports |
| failed | reason, detail |
| dead | reason |
"""

from __future__ import annotations

import logging
import re
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from uuid import UUID

from executor.assets import ResolvedAssets
from executor.decide import Refused
from executor.entries import Kind
from executor.errors import ClockUntrusted, IllegalTransition, LedgerError, LedgerTampered, UnknownWallet
from executor.events import Event, event_of
from executor.funding import FundingAuthorization, FundingRequest
from executor.guard import agents, attempts, fires, fundings
from executor.guard.headroom import headroom
from executor.guard.prefetch import Prefetch
from executor.halts import EVERYTHING, Halt, Halter, Scope
from executor.ledger import EVERYBODY, Ahead, Ledger
from executor.lifecycle import AttemptState
from executor.reasons import Reason
from executor.request import FireRequest
from permits import ENVELOPES, SignedPermit, SignedRevocation, keys, timestamp, verify, verify_revocation
from permits.model import UUID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from executor.assets import AssetRegistry
    from executor.authorization import Authorization
    from executor.bounds import Bounds
    from executor.decide import Decision
    from executor.fill import Fill, Landing
    from executor.funding import FundingDecision
    from executor.guard.agents import Agent
    from executor.guard.attempts import Execution
    from executor.guard.headroom import Headroom
    from executor.guard.prefetch import Prefetched
    from executor.ledger import Clock, SealedEntry, WalletTransaction, WalletView
    from executor.limits import Limits
    from executor.prices.quote import PriceSource
    from executor.seal import SealKeys

__all__ = ["Guard"]

log = logging.getLogger("executor.guard")

CLAIM_BYTES: Final = 16
STREAM_EPOCH_BYTES: Final = 8

FAULTS: Final = {LedgerTampered: Reason.LEDGER_TAMPERED, ClockUntrusted: Reason.CLOCK_UNTRUSTED}
"""Faults that are told as refusals: the caller did nothing wrong, and nothing fires."""

T = TypeVar("T")
U = TypeVar("U")

_is_uuid = re.compile(UUID_PATTERN).fullmatch


class Guard:
    """Decides on every fire, and remembers. Open one with `Guard.open`; threads may share it."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        prices: PriceSource,
        assets: AssetRegistry,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.ledger: Final = ledger
        self._prefetch = Prefetch(prices)
        self._assets = assets
        self._random_bytes = random_bytes

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        seal_keys: SealKeys,
        prices: PriceSource,
        assets: AssetRegistry,
        limits: Limits | None = None,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Open the ledger at `url` and guard it. See `Ledger.open` for what it raises.

        Args:
            url: the path of an SQLite file, or a URL, which has `://`: see `Ledger.open`.
            seal_keys: kept outside the database; without them nothing in it can be forged unnoticed.
            prices: asked before each decision, in the caller's thread and under no lock.
            assets: what the names in permits stand for, asked once, before each activation, under no lock.
            limits: the caps for everyone, if not what the ledger holds already.
            clock: None is the clock of the database's host; another, returning Unix ms, is believed as it is.
            random_bytes: the operating system's, unless a test or a demo must repeat itself.

        """
        ledger = Ledger.open(url, seal_keys=seal_keys, limits=limits, clock=clock, random_bytes=random_bytes)
        return cls(ledger, prices=prices, assets=assets, random_bytes=random_bytes)

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # Agents

    def reserve_session_key(self, wallet: str, agent_id: str, session_pubkey: str) -> None:
        """Set `session_pubkey` aside for the wallet's agent; the caller has authenticated the wallet.

        Again with the same key it changes nothing.

        Raises:
            ValueError: an address isn't base58 of 32 bytes, or `agent_id` no UUID as permits spell it.
            IllegalTransition: the agent has another session key, or the key another agent.
            LedgerError: as `Ledger.change`.

        """
        agents.require_names(wallet, agent_id, session_pubkey)
        self.ledger.change(wallet, lambda wallet: agents.reserve(wallet, agent_id, session_pubkey), create=True)

    def activate(self, signed: SignedPermit | bytes) -> Bounds | Refused:
        """Put a signed permit into force: activation, renewal, resumption of a paused agent, or a new start.

        The permit is verified here, whoever says that they did.

        Returns:
            The bounds that now hold, or the refusal: nothing changed.

        Raises:
            PermitError: it is no permit that a wallet signed.
            LedgerError: the database failed.

        """
        if isinstance(signed, SignedPermit):
            signed = SignedPermit.from_json_object(signed.to_json_object())  # whatever class it came as
        verified = verify(signed, envelopes=ENVELOPES)
        assets = ResolvedAssets(self._assets, verified.permit.asset_whitelist)  # somebody else's code: under no lock
        try:
            bounds = self.ledger.change(verified.wallet, lambda wallet: agents.activate(wallet, verified, assets))
        except UnknownWallet:
            return Refused(reason=Reason.SESSION_KEY_NOT_RESERVED)
        except (LedgerTampered, ClockUntrusted) as fault:
            return _refusal_of(fault)
        if not isinstance(bounds, Refused):
            self._prefetch.learn(verified.wallet, verified.permit.agent_id, bounds.whitelist)
        return bounds

    def revoke(self, signed: SignedRevocation | bytes) -> bool:
        """Spend a permit's nonce for ever, as its wallet signed; an agent that fires by that permit is stopped.

        Returns:
            Whether anything changed: a nonce is revoked once.

        Raises:
            PermitError: it is no revocation that a wallet signed.
            LedgerError: as `Ledger.change`.

        """
        if isinstance(signed, SignedRevocation):
            signed = SignedRevocation.from_json_object(signed.to_json_object())
        wallet, revocation = verify_revocation(signed, envelopes=ENVELOPES)
        event_id = self._new_id()
        return self.ledger.change(
            wallet, lambda wallet: agents.revoke(wallet, revocation.nonce, event_id), create=True, urgent=True
        )

    def stop(self, wallet: str, agent_id: str) -> Sequence[str]:
        """Stop an agent for its user, who may start it again with a newer permit.

        Returns:
            The transaction signatures that exist and have not ended, if they can be told: these may still land.

        Raises:
            IllegalTransition: no permit was ever activated for it, or it is stopped or completed.
            LedgerError: as `Ledger.change`.

        """
        return self._end(wallet, agent_id, Kind.STOPPED, "stopped")

    def complete(self, wallet: str, agent_id: str, reason: str) -> Sequence[str]:
        """End an agent for ever, for the executor's `reason`. Returns and raises as `stop` does."""
        return self._end(wallet, agent_id, Kind.COMPLETED, _writable(reason))

    def record_sweep(
        self,
        wallet: str,
        agent_id: str,
        make: Callable[[WalletView], tuple[str, bytes]],
        *,
        last_valid_block_height: int,
    ) -> None:
        """Have `make` sign a transaction that pays the wallet back, as for `sign_with`, and record it before it leaves.

        No halt forbids that.

        Raises:
            IllegalTransition: the agent is neither stopped nor completed.
            LedgerError: nothing may be sent.

        """
        self.ledger.change(
            wallet,
            lambda wallet: agents.record_sweep(
                wallet, agent_id, lambda: _signed(*make(wallet), last_valid_block_height)
            ),
        )

    def destroy_session_key(self, wallet: str, agent_id: str) -> None:
        """Take the agent's session key away for ever; a stopped agent is completed by that. Once done, no more happens.

        The caller has seen, at finalized commitment, that the session wallet is empty, and that no sweep of it can
        land any more.

        Raises:
            IllegalTransition: the agent is neither stopped nor completed, or has attempts that have not ended.
            LedgerError: as `Ledger.change`.

        """
        self.ledger.change(wallet, lambda wallet: agents.destroy_key(wallet, agent_id))

    def arm_trigger(self, wallet: str, agent_id: str, condition: str) -> None:
        """Tell the user that the agent now waits for `condition`. Raises as `stop` does."""
        self._tell(wallet, agent_id, Kind.TRIGGER_ARMED, {"condition": _writable(condition)})

    def set_next_run(self, wallet: str, agent_id: str, at_ms: int | None) -> None:
        """Tell the user when the agent runs next, Unix ms; None: it won't by itself. Raises as `stop` does."""
        body = {} if at_ms is None else {"nextRunAt": timestamp(at_ms)}
        self._tell(wallet, agent_id, Kind.NEXT_RUN_SET, body)

    # Halts

    def halt(self, scope: Scope, by: Halter, why: str) -> Sequence[str]:
        """Let nothing in `scope` fire until `by` lifts it. Once this returns, nothing is authorized there.

        It goes before all that waits, and no clock keeps it from that: if nobody knows the time, the halt has that of
        what the ledger saw last there.

        Returns:
            The transaction signatures of that wallet or agent that exist and have not ended, if they can be told; for
            everything, none: see `in_doubt`.

        Raises:
            ValueError: `why` is empty or longer than 200 characters, or `scope` names no wallet or agent.
            LedgerError: as `Ledger.change`.

        """
        self.ledger.change(
            _chain_of(scope),
            lambda transaction: _halt(transaction, scope, by, why),
            create=scope.wallet is not None,
            urgent=True,
            any_clock=True,
        )
        return () if scope.wallet is None else self._may_still_land(scope.wallet, scope.agent_id)

    def lift(self, scope: Scope, by: Halter) -> bool:
        """Lift the halt that `by` set on exactly `scope`; what expired meanwhile stays so. Tell whether there was one.

        Raises:
            ValueError: `scope` names no wallet or agent.
            LedgerError: as `Ledger.change`.

        """

        def work(transaction: WalletTransaction) -> bool:
            lifted = [each for each in transaction.head.halts if (each.scope, each.by) == (scope, by)]
            for halt in lifted:
                transaction.append(Kind.LIFTED, scope.agent_id, {"halt": halt.to_json_object()})
            if lifted:
                transaction.move_head(halts=tuple(each for each in transaction.head.halts if each not in lifted))
            return bool(lifted)

        return self.ledger.change(_chain_of(scope), work, create=scope.wallet is not None)

    def halts(self, wallet: str | None = None) -> Sequence[Halt]:
        """Return the halts of everything; with `wallet`, also those of it and its agents."""
        with self.ledger.view(wallet or EVERYBODY) as view:
            return view.every_halt()

    def mark_restored(self, why: str = "restored from a backup") -> str:
        """Say that this ledger was put back to an earlier state: halt everything, and begin the ids of events anew.

        Both are one change; the halt is the operator's, to be lifted once nothing that was forgotten can count or
        land any more. Clients that come back with an id from before are told to reset.

        Returns:
            The event stream's new epoch, in hex.

        Raises:
            ValueError: `why` is empty or longer than 200 characters.
            LedgerError: as `Ledger.change`.

        """
        epoch = self._random_bytes(STREAM_EPOCH_BYTES).hex()

        def work(everybody: WalletTransaction) -> None:
            if everybody.again and everybody.head.stream_epoch == epoch:
                return
            body = {"before": everybody.head.stream_epoch, "epoch": epoch}
            everybody.append(Kind.RESTORED, None, body, {"restored_epoch": epoch})
            _halt(everybody, EVERYTHING, Halter.OPERATOR, why)

        self.ledger.change(EVERYBODY, work, urgent=True, any_clock=True)
        return epoch

    # Limits

    def change_limits(self, limits: Limits) -> None:
        """Hold every user to `limits` from now on; raises as `Ledger.change_limits`, which says more."""
        self.ledger.change_limits(limits)

    # Fundings

    def set_fundable(self, wallet: str, *, fundable: bool) -> bool:
        """Let the operator fund the wallet's agents from now on, or no longer; tell whether that changed anything.

        Raises:
            ValueError: `wallet` isn't base58 of 32 bytes.
            LedgerError: as `Ledger.change`.

        """
        agents.require_names(wallet)
        return self.ledger.change(wallet, lambda wallet: fundings.set_fundable(wallet, fundable=fundable), create=True)

    def authorize_funding(self, request: FundingRequest, *, alone_since: int | None = None) -> FundingDecision:
        """Decide whether the agent's session wallet may be given lamports, and count them if so, for ever.

        The same executionId again gets the stored answer and never a second authorization. A refusal is recorded
        nowhere, and the same may be asked again. With `alone_since`, nothing else may have been authorized for the
        agent after that entry of the wallet: its `head_seq` from before the session wallet was looked at.

        Raises:
            LedgerError: the database failed; nothing is authorized.

        """
        if type(request) is not FundingRequest:  # a subclass may check less
            raise TypeError("only a FundingRequest is authorized")
        claim = self._random_bytes(CLAIM_BYTES).hex()
        try:
            return self.ledger.change(
                request.wallet, lambda wallet: fundings.authorize(wallet, request, claim, alone_since), treasury=True
            )
        except (UnknownWallet, LedgerTampered, ClockUntrusted) as fault:
            return _refusal_of(fault)

    # Fires

    def authorize(self, request: FireRequest) -> Decision:
        """Decide on `request`, and count it if it is allowed.

        The same executionId again gets the stored answer and never a second authorization: that stays with whoever
        asked first. With other content it is refused as EXECUTION_CONFLICT.

        Raises:
            LedgerError: the database failed; nothing is authorized.

        """
        work, ahead = self._authorizing(request), _ahead(request)

        def decide(fetched: Prefetched) -> Decision:
            return self.ledger.change(request.wallet, partial(work, fetched), ahead=ahead)

        try:
            return self._prefetch.decide(request, decide)
        except (UnknownWallet, LedgerTampered, ClockUntrusted) as fault:
            return _refusal_of(fault)

    def authorize_many(self, requests: Iterable[FireRequest]) -> Sequence[Decision]:
        """Decide on each of `requests` as `authorize` does, in few transactions; the answers are in their order.

        Raises:
            LedgerError: the database failed. Some may be authorized: ask again with the same executionIds.

        """
        fires = [(request, self._authorizing(request)) for request in requests]

        def decide(numbered: Sequence[tuple[int, Prefetched]]) -> Sequence[Decision | Exception]:
            asked = ((*fires[number], fetched) for number, fetched in numbered)
            return self.ledger.change_many(
                [(request.wallet, partial(work, fetched), _ahead(request)) for request, work, fetched in asked]
            )

        asked_for = [request for request, _work in fires]
        answers: Sequence[Decision | Exception] = self._prefetch.decide_many(asked_for, decide)
        return [_refusal_of(answer) if isinstance(answer, Exception) else answer for answer in answers]

    def explain(self, request: FireRequest) -> Decision:
        """Return what `authorize` would answer now, by the same code, and write nothing."""

        def look(fetched: Prefetched) -> Decision:
            with self.ledger.view(request.wallet) as view:
                return fires.explain(view, request, fetched)

        try:
            return self._prefetch.decide(request, look)
        except (UnknownWallet, LedgerTampered, ClockUntrusted) as fault:
            return _refusal_of(fault)

    def check(self, authorization: Authorization) -> None:
        """Make sure that `authorization` is, to the letter, one that this guard gave, and not used up.

        Raises:
            IllegalTransition: it isn't: it was changed, made up, claimed by another caller, signed on or voided.
            LedgerError: as `Ledger.view`.

        """
        with self.ledger.view(authorization.wallet) as view:
            decided = attempts.step_to(view, authorization.execution_id, AttemptState.SIGNED)
            fires.require_genuine(view, decided, authorization)

    def mark_signed(
        self,
        authorization: Authorization | FundingAuthorization,
        *,
        tx_signature: str,
        transaction_bytes: bytes,
        last_valid_block_height: int,
        alone_since: int | None = None,
    ) -> Refused | None:
        """Record that the signature exists, before it leaves the process; decide once more, now, with fresh quotes.

        With `alone_since`, no other transaction of the agent's session key may be open beside it, nor have been signed
        or ended after that entry of the wallet: its `head_seq` from before the chain was read for it.

        Returns:
            None: it may be sent. A refusal: the rules no longer allow it; the attempt is voided, and the signature
            must be thrown away.

        Raises:
            IllegalTransition: the attempt isn't authorized any more, or not to this caller.
            LedgerError: nothing may be sent.

        """
        if isinstance(authorization, FundingAuthorization):
            signed = _signed(tx_signature, transaction_bytes, last_valid_block_height)
            return self.ledger.change(
                authorization.wallet,
                lambda wallet: fundings.record_signature(wallet, authorization, signed),
                treasury=True,
            )
        return self.sign_with(
            lambda _view: (tx_signature, transaction_bytes),
            authorization,
            last_valid_block_height=last_valid_block_height,
            alone_since=alone_since,
        )

    def sign_with(
        self,
        make: Callable[[WalletView], tuple[str, bytes]],
        authorization: Authorization,
        *,
        last_valid_block_height: int,
        alone_since: int | None = None,
    ) -> Refused | None:
        """Decide once more, and only then have `make` sign, in the same transaction: else as `mark_signed`.

        `make` sees the ledger under the wallet's lock, and returns the signature (base58) and the wire format; it may
        be called again, and gives the same again. What it raises undoes all, and leaves the attempt authorized.
        """

        def work(fetched: Prefetched, transaction: WalletTransaction) -> Refused | None:
            def sign() -> dict[str, Any]:
                alone = {} if alone_since is None else {"alone": True}
                return {**alone, **_signed(*make(transaction), last_valid_block_height)}

            return fires.record_signature(transaction, authorization, sign, fetched, alone_since)

        ahead = _ahead(authorization)
        return self._prefetch.decide(
            authorization,
            lambda fetched: self.ledger.change(authorization.wallet, partial(work, fetched), ahead=ahead),
        )

    def head_seq(self, wallet: str) -> int:
        """Return the number of the wallet's newest entry. Raises UnknownWallet, LedgerError as `Ledger.view`."""
        with self.ledger.view(wallet) as view:
            return view.head.seq

    def may_send(self, wallet: str, execution_id: str) -> Refused | None:
        """Return why a signed transaction may not be sent, or sent again, now; None: it may.

        A stopped, paused or halted agent's is only looked up from then on: it may land, if it was sent before.

        Raises:
            IllegalTransition: the wallet has no signed execution of this id.
            LedgerError: as `Ledger.view`.

        """
        with self.ledger.view(wallet) as view:
            attempts.step_to(view, execution_id, AttemptState.LANDED)
            return attempts.may_send(view, execution_id)

    def void_expired(self, wallet: str, execution_id: str) -> bool:
        """Give up an attempt whose authorization nobody used in its time; tell whether it was one.

        Raises LedgerError as `Ledger.change` does. What is younger, or signed, stays as it is.
        """
        return self.ledger.change(wallet, lambda wallet: attempts.void_expired(wallet, execution_id))

    def void(self, wallet: str, execution_id: str, reason: Reason, detail: str) -> None:
        """Give up an attempt that was never signed, for `reason`, told in `detail`; its slot stays used.

        Raises:
            IllegalTransition: it is not merely authorized.

        """
        self._end_attempt(wallet, execution_id, Kind.VOIDED, {"reason": reason, "detail": _writable(detail)})

    def mark_landed(self, wallet: str, execution_id: str, landing: Landing) -> Fill:
        """Record that the signed transaction landed and what it moved, and return that in dollars.

        Raises:
            IllegalTransition: the attempt is not signed, or ended already.

        """
        return self.ledger.change(wallet, lambda wallet: fires.land(wallet, execution_id, landing))

    def mark_funded(self, wallet: str, execution_id: str, *, slot: int, fee_lamports: int) -> None:
        """Record that the signed funding landed, in `slot` and for a fee that the operator paid.

        Raises:
            IllegalTransition: it is not signed, has ended already, or is no funding.

        """
        self.ledger.change(wallet, lambda wallet: fundings.land(wallet, execution_id, slot, fee_lamports))

    def mark_failed(self, wallet: str, execution_id: str, detail: str) -> None:
        """Record that the chain executed the signed transaction and undid it; `detail` is what the chain said.

        Raises:
            IllegalTransition: the attempt is not signed, or ended already.

        """
        body = {"reason": Reason.TRANSACTION_FAILED, "detail": _writable(detail)}
        self._end_attempt(wallet, execution_id, Kind.FAILED, body)

    def mark_dead(self, wallet: str, execution_id: str) -> None:
        """Record that the signed transaction never landed and no longer can.

        The caller has seen, in this order, that its blockhash is no longer valid at finalized commitment, and that
        a look-up in the full history finds nothing.

        Raises:
            IllegalTransition: the attempt is not signed, or ended already.

        """
        self._end_attempt(wallet, execution_id, Kind.DEAD, {"reason": Reason.TRANSACTION_DEAD})

    # Looking

    def agent(self, wallet: str, agent_id: str) -> Agent | None:
        """Return the wallet's agent; None if there is none. An expired one stays active until a fire records it."""
        return self._look(wallet, lambda view: agents.agent(view, agent_id), None)

    def agents(self, wallet: str) -> Sequence[Agent]:
        """Return every agent of the wallet, in the order of their reservations."""
        return self._look(wallet, agents.agents, ())

    def headroom(self, wallet: str) -> Headroom:
        """Return how much of each cap the wallet has left. Raises UnknownWallet, LedgerError as `Ledger.view`."""
        with self.ledger.view(wallet) as view:
            return headroom(view)

    def execution(self, wallet: str, execution_id: str) -> Execution | None:
        """Return the story of one execution; None if the wallet has none of this id."""
        return self._look(wallet, lambda view: attempts.execution(view, execution_id), None)

    def executions(
        self, wallet: str, agent_id: str, *, before: int | None = None, count_max: int = 100
    ) -> Sequence[Execution]:
        """Return up to `count_max` of the agent's executions and refusals, newest first.

        `before` is the sequence number of the oldest one seen: that of its first step's entry.
        """

        def look(view: WalletView) -> list[Execution]:
            decided = view.decided(agent_id, view.head.seq + 1 if before is None else before, count_max)
            found = (attempts.execution(view, each.entry.execution_id or "") for each in decided)
            return [each for each in found if each is not None]

        return self._look(wallet, look, ())

    def in_doubt(self, wallet: str | None = None) -> Iterator[tuple[str, Execution]]:
        """Yield the wallet and the story of each attempt and funding that has not ended, newest of a wallet first.

        With `wallet`, of that one alone.

        Raises:
            LedgerTampered: some wallet's entries can't be trusted; those of all others were yielded before.
            LedgerError: as `Ledger.view`.

        """
        tampered: LedgerTampered | None = None
        for each in self._wallets_in_doubt() if wallet is None else (wallet,):
            try:
                stories = self._look(each, _open_stories, ())
            except LedgerTampered as fault:
                tampered = tampered or fault
                continue
            yield from ((each, story) for story in stories)
        if tampered is not None:
            raise tampered

    def events(self, wallet: str, after: int = 0, count_max: int = 1_000) -> Sequence[tuple[int, Event]]:
        """Return the events among up to `count_max` entries above `after`, with their sequence numbers."""
        sealed = self.entries(wallet, after, count_max)
        return [(each.entry.seq, event) for each in sealed if (event := event_of(each.entry)) is not None]

    def entries(self, wallet: str, after: int = 0, count_max: int = 1_000) -> Sequence[SealedEntry]:
        """Return up to `count_max` of the wallet's entries with sequence numbers above `after`, in order."""
        return self._look(wallet, lambda view: view.after(after, count_max), ())

    def _wallets_in_doubt(self) -> Iterator[str]:
        after = ""
        while wallets := self.ledger.wallets_in_doubt(after):
            yield from wallets
            after = wallets[-1]

    def _authorizing(self, request: FireRequest) -> Callable[[Prefetched, WalletTransaction], Decision]:
        """Return the work that decides on `request`: made again for whatever reason, it holds the same claim."""
        if type(request) is not FireRequest:  # a subclass may check less
            raise TypeError("only a FireRequest is authorized")
        claim = self._random_bytes(CLAIM_BYTES).hex()
        return lambda fetched, wallet: fires.authorize(wallet, request, fetched, claim)

    def _look(self, wallet: str, look: Callable[[WalletView], T], unknown: U) -> T | U:
        try:
            with self.ledger.view(wallet) as view:
                return look(view)
        except UnknownWallet:
            return unknown

    def _end(self, wallet: str, agent_id: str, kind: Kind, reason: str) -> Sequence[str]:
        event_id = self._new_id()

        self.ledger.change(
            wallet, lambda transaction: agents.end(transaction, agent_id, kind, reason, event_id), urgent=True
        )
        return self._may_still_land(wallet, agent_id)

    def _may_still_land(self, wallet: str, agent_id: str | None) -> Sequence[str]:
        """Return the transaction signatures of the agent, or of all of the wallet's, that have not ended.

        It is asked once their authority is gone: if they can't be told, that must not undo it, nor look as if it had.
        """
        try:
            return self._look(wallet, lambda view: _open_signatures(view, agent_id), ())
        except LedgerError as fault:
            log.error("what of wallet %s may still land can't be told: %s", wallet, fault)  # noqa: TRY400 - it says all
            return ()

    def _tell(self, wallet: str, agent_id: str, kind: Kind, body: dict[str, Any]) -> None:
        event_id = self._new_id()

        def work(transaction: WalletTransaction) -> None:
            if agents.state(transaction, agent_id) is None:
                raise IllegalTransition(f"there is no agent `{agent_id}`")
            if transaction.again and transaction.has_told(event_id):
                return
            transaction.append(kind, agent_id, body, execution_id=event_id)

        self.ledger.change(wallet, work)

    def _end_attempt(self, wallet: str, execution_id: str, kind: Kind, body: dict[str, Any]) -> None:
        def work(transaction: WalletTransaction) -> None:
            if transaction.again and attempts.is_last(transaction, execution_id, kind, body):
                return
            decided = attempts.step_to(transaction, execution_id, AttemptState(kind)).entry
            transaction.append(kind, decided.agent_id, body, execution_id=execution_id, funding=decided.funding)

        self.ledger.change(wallet, work)

    def _new_id(self) -> str:
        return str(UUID(bytes=self._random_bytes(16), version=4))


def _signed(tx_signature: str, transaction_bytes: bytes, last_valid_block_height: int) -> dict[str, Any]:
    return {
        "lastValidBlockHeight": last_valid_block_height,
        "transaction": transaction_bytes.hex(),
        "txSignature": tx_signature,
    }


def _writable(text: str) -> str:
    """Return `text` with `?` for each half of a surrogate pair, which UTF-8 has not: no step may fail by its words."""
    return text.encode(errors="replace").decode()


def _ahead(fire: FireRequest | Authorization) -> Ahead:
    return Ahead(fire.agent_id, fire.execution_id)


def _refusal_of(fault: Exception) -> Refused:
    """Return the refusal that tells `fault`; raise one that is none."""
    if isinstance(fault, UnknownWallet):
        return Refused(reason=Reason.AGENT_UNKNOWN)
    for kind, reason in FAULTS.items():
        if isinstance(fault, kind):
            return Refused(reason=reason)
    raise fault


def _chain_of(scope: Scope) -> str:
    """Return the wallet whose chain tells of halts in `scope`. Raises ValueError if it is no scope."""
    if scope == EVERYTHING:
        return EVERYBODY
    if scope.wallet is None or keys.decode_key(scope.wallet) is None:
        raise ValueError("a halt is of everything, of a wallet in base58, or of a wallet's agent")
    if scope.agent_id is not None and not _is_uuid(scope.agent_id):
        raise ValueError("an agent's id is a UUID in lowercase with hyphens")
    return scope.wallet


def _halt(transaction: WalletTransaction, scope: Scope, by: Halter, why: str) -> None:
    halt = Halt(wallet=scope.wallet, agent_id=scope.agent_id, by=by, why=_writable(why), at_ms=transaction.now_ms)
    others = tuple(each for each in transaction.head.halts if (each.scope, each.by) != (scope, by))
    transaction.append(Kind.HALTED, scope.agent_id, {"halt": halt.to_json_object()})
    transaction.move_head(halts=(*others, halt))


def _open_stories(view: WalletView) -> Sequence[Execution]:
    found = (attempts.execution(view, steps[0].entry.execution_id or "") for steps in view.open_attempts())
    return [each for each in found if each is not None]


def _open_signatures(view: WalletView, agent_id: str | None) -> Sequence[str]:
    """Return the transaction signatures of the agent, or of all of the wallet's, that may still land."""
    return [
        steps[-1].entry.body["txSignature"]
        for steps in view.open_attempts()
        if steps[-1].entry.kind is Kind.SIGNED and agent_id in (None, steps[-1].entry.agent_id)
    ]
