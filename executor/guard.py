"""The guard: it alone lets an execution happen.

Every call is one transaction of the ledger: it locks the user, reads the time, gathers the evidence, asks the pure
core (`executor.decide`, `executor.activation`, `executor.lifecycle`), and appends what was decided. A refusal is a
value; a fault is an exception and leaves nothing authorized.

What entries hold, by kind:

| kind | body |
|---|---|
| reserved | sessionPubkey |
| activated | bounds |
| authorized, refused | evidence, decision; authorized also claimHash |
| voided | reason, and detail; or evidence and decision, where the rules said no at signing |
| signed | txSignature, transaction (hex), lastValidBlockHeight |
| landed | rail, txSignature, fill |
| failed | reason, detail |
| dead | reason |
"""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from executor.activation import Standing, decide_activation
from executor.assets import NATIVE_MINT
from executor.authorization import Authorization
from executor.bounds import Bounds
from executor.caps import count_unexpired, is_expired
from executor.decide import Allowed, Refused, Usage, read_decision
from executor.entries import ActiveAgent, Kind
from executor.errors import ClockUntrusted, IllegalTransition, LedgerTampered, UnknownWallet
from executor.evidence import Evidence
from executor.fill import Fill, Landing
from executor.ledger import Ledger, system_clock_ms
from executor.lifecycle import AgentState, AttemptState, require_agent_step, require_attempt_step
from executor.reasons import Reason
from permits import ENVELOPES, SignedPermit, keys, verify
from permits.model import UUID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from executor.assets import AssetRegistry
    from executor.decide import Decision
    from executor.ledger import Clock, SealedEntry, WalletTransaction, WalletView
    from executor.limits import Limits
    from executor.prices.quote import PriceSource
    from executor.request import FireRequest
    from executor.seal import SealKeys

__all__ = ["Agent", "Execution", "Guard"]

CLAIM_BYTES: Final = 16

FAULTS: Final = {LedgerTampered: Reason.LEDGER_TAMPERED, ClockUntrusted: Reason.CLOCK_UNTRUSTED}
"""Faults that are told as refusals: the caller did nothing wrong, and nothing fires."""

_is_uuid = re.compile(UUID_PATTERN).fullmatch


class Agent(NamedTuple):
    """An agent as the ledger knows it."""

    state: AgentState
    session_pubkey: str
    bounds: Bounds | None
    """The newest that were activated; None while it is reserved."""


class Execution(NamedTuple):
    """One execution's whole story."""

    state: AttemptState
    decision: Decision
    evidence: Evidence
    """What it was decided from."""
    bounds: Bounds
    """What it was held to."""
    steps: tuple[SealedEntry, ...]
    """Its entries, in order."""


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
        self._prices = prices
        self._assets = assets
        self._random_bytes = random_bytes

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        seal_keys: SealKeys,
        prices: PriceSource,
        assets: AssetRegistry,
        limits: Limits | None = None,
        clock: Clock = system_clock_ms,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> Self:
        """Open the ledger in the SQLite file `path` and guard it. See `Ledger.open` for the rest and what it raises.

        Args:
            path: the file, made where there is none.
            seal_keys: kept outside the database; without them nothing in it can be forged unnoticed.
            prices: quotes from memory, asked under the user's lock.
            assets: what the names in permits stand for, asked once at activation.
            limits: the caps for everyone, if not what the ledger holds already.
            clock: Unix time in ms.
            random_bytes: the operating system's, unless a test or a demo must repeat itself.

        """
        ledger = Ledger.open(path, seal_keys=seal_keys, limits=limits, clock=clock, random_bytes=random_bytes)
        return cls(ledger, prices=prices, assets=assets, random_bytes=random_bytes)

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def reserve_session_key(self, wallet: str, agent_id: str, session_pubkey: str) -> None:
        """Set `session_pubkey` aside for the wallet's agent; the caller has authenticated the wallet.

        Again with the same key it changes nothing.

        Raises:
            ValueError: an address isn't base58 of 32 bytes, or `agent_id` no UUID as permits spell it.
            IllegalTransition: the agent has another session key, or the key another agent.
            LedgerError: as `Ledger.transaction`.

        """
        for address in (wallet, session_pubkey):
            if keys.decode_key(address) is None:
                raise ValueError(f"`{address[:64]}` is not base58 of 32 bytes")
        if not _is_uuid(agent_id):
            raise ValueError(f"`{agent_id[:64]}` is not a UUID in lowercase with hyphens")
        with self.ledger.transaction(wallet, create=True) as transaction:
            held = transaction.reservation(session_pubkey)
            if held is not None and held.entry.agent_id == agent_id:
                return
            if held is not None:
                raise IllegalTransition(f"session key `{session_pubkey}` is reserved for another agent")
            require_agent_step(_state(transaction, agent_id), AgentState.RESERVED)
            transaction.append(
                Kind.RESERVED,
                agent_id,
                {"sessionPubkey": session_pubkey},
                agent_state=AgentState.RESERVED,
            )

    def activate(self, signed: SignedPermit | bytes) -> Bounds | Refused:
        """Put a signed permit into force: activation, renewal, or resumption of a paused agent.

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
        agent_id = verified.permit.agent_id
        try:
            with self.ledger.transaction(verified.wallet) as transaction:
                standing = self._standing(transaction, verified.permit.session_pubkey, verified.permit.nonce, agent_id)
                limits, now_ms = self.ledger.limits, transaction.now_ms
                outcome = decide_activation(verified, standing, self._assets, limits, now_ms)
                if isinstance(outcome, Refused):
                    return outcome
                require_agent_step(_state(transaction, agent_id), AgentState.ACTIVE)
                activated = transaction.append(
                    Kind.ACTIVATED,
                    agent_id,
                    {"bounds": outcome.to_json_object()},
                    agent_state=AgentState.ACTIVE,
                )
                transaction.forget_expired()
                transaction.set_active(
                    agent_id, ActiveAgent(activation=activated.entry.seq, expires_at_ms=outcome.expires_at_ms)
                )
                return outcome
        except UnknownWallet:
            return Refused(reason=Reason.SESSION_KEY_NOT_RESERVED)
        except (LedgerTampered, ClockUntrusted) as fault:
            return Refused(reason=FAULTS[type(fault)])

    def authorize(self, request: FireRequest) -> Allowed | Refused:
        """Decide on `request`, and count it if it is allowed.

        The same executionId again gets the stored answer and never a second authorization: that stays with whoever
        asked first. With other content it is refused as EXECUTION_CONFLICT.

        Raises:
            LedgerError: the database failed; nothing is authorized.

        """
        try:
            with self.ledger.transaction(request.wallet) as transaction:
                stored = transaction.execution(request.execution_id)
                if stored:
                    return _stored_answer(stored[0], request)
                return self._decide(transaction, request)
        except UnknownWallet:
            return Refused(reason=Reason.AGENT_UNKNOWN)
        except (LedgerTampered, ClockUntrusted) as fault:
            return Refused(reason=FAULTS[type(fault)])

    def check(self, authorization: Authorization) -> None:
        """Make sure that `authorization` is, to the letter, one that this guard gave, and not used up.

        Raises:
            IllegalTransition: it isn't: it was changed, made up, claimed by another caller, signed on or voided.
            LedgerError: as `Ledger.view`.

        """
        with self.ledger.view(authorization.wallet) as view:
            decided = _attempt(view, authorization.execution_id, AttemptState.SIGNED)
            self._require_genuine(view, decided, authorization)

    def mark_signed(
        self,
        authorization: Authorization,
        *,
        tx_signature: str,
        transaction_bytes: bytes,
        last_valid_block_height: int,
    ) -> Refused | None:
        """Record that the signature exists, before it leaves the process; decide once more, now, with fresh quotes.

        Returns:
            None: it may be sent. A refusal: the rules no longer allow it; the attempt is voided, and the signature
            must be thrown away.

        Raises:
            IllegalTransition: the attempt isn't authorized any more, or not to this caller.
            LedgerError: nothing may be sent.

        """
        with self.ledger.transaction(authorization.wallet) as transaction:
            decided = _attempt(transaction, authorization.execution_id, AttemptState.SIGNED)
            self._require_genuine(transaction, decided, authorization)
            refused, evidence = self._decide_again(transaction, decided)
            if refused is not None:
                transaction.append(
                    Kind.VOIDED,
                    authorization.agent_id,
                    {"reason": refused.reason, **evidence, "decision": refused.to_json_object()},
                    execution_id=authorization.execution_id,
                )
                return refused
            transaction.append(
                Kind.SIGNED,
                authorization.agent_id,
                {
                    "txSignature": tx_signature,
                    "transaction": transaction_bytes.hex(),
                    "lastValidBlockHeight": last_valid_block_height,
                },
                execution_id=authorization.execution_id,
            )
            return None

    def void(self, wallet: str, execution_id: str, reason: Reason, detail: str) -> None:
        """Give up an attempt that was never signed, for `reason`, told in `detail`; its slot stays used.

        Raises:
            IllegalTransition: it is not merely authorized.

        """
        body = {"reason": reason, "detail": detail}
        self._end(wallet, execution_id, AttemptState.VOIDED, body)

    def mark_landed(self, wallet: str, execution_id: str, landing: Landing) -> Fill:
        """Record that the signed transaction landed and what it moved, and return that in dollars.

        Raises:
            IllegalTransition: the attempt is not signed, or ended already.

        """
        with self.ledger.transaction(wallet) as transaction:
            decided = _attempt(transaction, execution_id, AttemptState.LANDED)
            signed = transaction.execution(execution_id)[-1]
            evidence = Evidence.from_json_object(decided.entry.body["evidence"])
            whitelist = _bounds(transaction.entry(evidence.activation)).whitelist
            sell, buy = whitelist[evidence.request.sell], whitelist[evidence.request.buy]
            fill = Fill.of(landing, evidence, decided.entry.at_ms, sell, buy)
            transaction.append(
                Kind.LANDED,
                decided.entry.agent_id,
                {
                    "rail": evidence.request.rail,
                    "txSignature": signed.entry.body["txSignature"],
                    "fill": fill.to_json_object(),
                },
                execution_id=execution_id,
            )
            return fill

    def mark_failed(self, wallet: str, execution_id: str, detail: str) -> None:
        """Record that the chain executed the signed transaction and undid it; `detail` is what the chain said.

        Raises:
            IllegalTransition: the attempt is not signed, or ended already.

        """
        body = {"reason": Reason.TRANSACTION_FAILED, "detail": detail}
        self._end(wallet, execution_id, AttemptState.FAILED, body)

    def mark_dead(self, wallet: str, execution_id: str) -> None:
        """Record that the signed transaction never landed and no longer can.

        The caller has seen, in this order, that its blockhash is no longer valid at finalized commitment, and that
        a look-up in the full history finds nothing.

        Raises:
            IllegalTransition: the attempt is not signed, or ended already.

        """
        self._end(wallet, execution_id, AttemptState.DEAD, {"reason": Reason.TRANSACTION_DEAD})

    def agent(self, wallet: str, agent_id: str) -> Agent | None:
        """Return the wallet's agent; None if there is none. An expired one stays active until a fire records it."""
        try:
            with self.ledger.view(wallet) as view:
                moved = view.agent_move(agent_id)
                if moved is None or moved.entry.agent_state is None:
                    return None
                activated = view.agent_move(agent_id, AgentState.ACTIVE)
                reserved = view.agent_move(agent_id, AgentState.RESERVED)
                bounds = None if activated is None else _bounds(activated)
                pubkey = "" if reserved is None else reserved.entry.body["sessionPubkey"]
                return Agent(moved.entry.agent_state, pubkey, bounds)
        except UnknownWallet:
            return None

    def execution(self, wallet: str, execution_id: str) -> Execution | None:
        """Return the story of one execution; None if the wallet has none of this id."""
        try:
            with self.ledger.view(wallet) as view:
                steps = tuple(view.execution(execution_id))
                if not steps:
                    return None
                decided = steps[0].entry
                evidence = Evidence.from_json_object(decided.body["evidence"])
                return Execution(
                    state=AttemptState(steps[-1].entry.kind),
                    decision=read_decision(decided.body["decision"]),
                    evidence=evidence,
                    bounds=_bounds(view.entry(evidence.activation)),
                    steps=steps,
                )
        except UnknownWallet:
            return None

    def entries(self, wallet: str, after: int = 0, count_max: int = 1_000) -> Sequence[SealedEntry]:
        """Return up to `count_max` of the wallet's entries with sequence numbers above `after`, in order."""
        try:
            with self.ledger.view(wallet) as view:
                return view.after(after, count_max)
        except UnknownWallet:
            return ()

    def _standing(self, transaction: WalletTransaction, session_pubkey: str, nonce: str, agent_id: str) -> Standing:
        reserved = transaction.reservation(session_pubkey)
        current = transaction.agent_move(agent_id, AgentState.ACTIVE)
        others = (held.expires_at_ms for each, held in transaction.head.active.items() if each != agent_id)
        return Standing(
            reserved_for=None if reserved is None else reserved.entry.agent_id,
            nonce_spent=transaction.is_nonce_spent(nonce),
            current=None if current is None else _bounds(current),
            other_active_agents=count_unexpired(others, transaction.now_ms),
        )

    def _decide(self, transaction: WalletTransaction, request: FireRequest) -> Allowed | Refused:
        activated = _activation(transaction, request.agent_id)
        if activated is None:
            return Refused(reason=Reason.AGENT_UNKNOWN)
        bounds = _bounds(activated)
        attempt = transaction.head.attempts + 1
        evidence = self._evidence(transaction, request, activated.entry.seq, bounds, attempt)
        decision = evidence.decide(bounds, transaction.now_ms)
        body = {"evidence": evidence.to_json_object(), "decision": decision.to_json_object()}
        if isinstance(decision, Refused):
            _refuse(transaction, request, decision, body)
            return decision
        claim = self._random_bytes(CLAIM_BYTES).hex()
        decided = transaction.append(
            Kind.AUTHORIZED,
            request.agent_id,
            {**body, "claimHash": _claim_hash(claim)},
            execution_id=request.execution_id,
            attempt=attempt,
        )
        authorization = self._authorization(decided, evidence, bounds, claim)
        return decision.model_copy(update={"authorization": authorization})

    def _decide_again(
        self, transaction: WalletTransaction, decided: SealedEntry
    ) -> tuple[Refused | None, dict[str, Any]]:
        """Hold an authorized attempt against everything once more, at this moment's state, quotes and time.

        The second value is the evidence, as an entry keeps it; empty where the decision needed none.
        """
        entry = decided.entry
        if transaction.now_ms >= entry.at_ms + self.ledger.limits.authorization_ttl_s * 1000:
            return Refused(reason=Reason.AUTHORIZATION_EXPIRED), {}
        request = Evidence.from_json_object(entry.body["evidence"]).request
        activated = _activation(transaction, request.agent_id)
        if activated is None or entry.attempt is None:
            return Refused(reason=Reason.AGENT_UNKNOWN), {}
        bounds = _bounds(activated)
        evidence = self._evidence(transaction, request, activated.entry.seq, bounds, entry.attempt)
        decision = evidence.decide(bounds, transaction.now_ms)
        return decision if isinstance(decision, Refused) else None, {"evidence": evidence.to_json_object()}

    def _evidence(
        self, transaction: WalletTransaction, request: FireRequest, activation: int, bounds: Bounds, attempt: int
    ) -> Evidence:
        """Gather what the decision on the user's `attempt` needs."""
        limits, now_ms, active = self.ledger.limits, transaction.now_ms, transaction.head.active
        back = attempt - limits.executions_per_24h
        assets = (bounds.whitelist.get(request.sell), bounds.whitelist.get(request.buy))
        mints = dict.fromkeys([*(asset.mint for asset in assets if asset), NATIVE_MINT])
        return Evidence(
            activation=activation,
            request=request,
            usage=Usage(
                agent_state=_state(transaction, request.agent_id) or AgentState.RESERVED,
                active_agents=count_unexpired((held.expires_at_ms for held in active.values()), now_ms),
                attempt=attempt,
                window_attempt_at_ms=transaction.attempt(back).entry.at_ms if back > 0 else None,
            ),
            quotes=tuple(quote for mint in mints for quote in self._prices.quotes(mint)),
            limits=limits,
        )

    def _require_genuine(self, view: WalletView, decided: SealedEntry, authorization: Authorization) -> None:
        """Hold `authorization` against the entry that it says it is from: callers' objects are not trusted."""
        if decided.entry.body["claimHash"] != _claim_hash(authorization.claim):
            raise IllegalTransition("the attempt was authorized to another caller")
        evidence = Evidence.from_json_object(decided.entry.body["evidence"])
        bounds = _bounds(view.entry(evidence.activation))
        if authorization != self._authorization(decided, evidence, bounds, authorization.claim):
            raise IllegalTransition("the authorization is not the one that was given")

    def _authorization(self, decided: SealedEntry, evidence: Evidence, bounds: Bounds, claim: str) -> Authorization:
        request = evidence.request
        return Authorization(
            wallet=request.wallet,
            agent_id=request.agent_id,
            execution_id=request.execution_id,
            attempt=evidence.usage.attempt,
            rail=request.rail,
            session_pubkey=bounds.terms.session_pubkey,
            sell=bounds.whitelist[request.sell],
            sell_amount=request.sell_amount,
            buy=bounds.whitelist[request.buy],
            min_received=request.min_received,
            entry_hash=decided.hash,
            expires_at_ms=decided.entry.at_ms + self.ledger.limits.authorization_ttl_s * 1000,
            claim=claim,
        )

    def _end(self, wallet: str, execution_id: str, state: AttemptState, body: dict[str, Any]) -> None:
        with self.ledger.transaction(wallet) as transaction:
            decided = _attempt(transaction, execution_id, state)
            transaction.append(Kind(state), decided.entry.agent_id, body, execution_id=execution_id)


def _state(view: WalletTransaction, agent_id: str) -> AgentState | None:
    """Return where the agent stands. Who may fire, the sealed head says; entries only tell the rest."""
    if agent_id in view.head.active:
        return AgentState.ACTIVE
    moved = view.agent_move(agent_id)
    if moved is None:
        return None
    if moved.entry.agent_state is AgentState.ACTIVE and not is_expired(_bounds(moved).expires_at_ms, view.now_ms):
        raise LedgerTampered(f"agent `{agent_id}` is active by its entries, but not by the head")
    return moved.entry.agent_state


def _activation(transaction: WalletTransaction, agent_id: str) -> SealedEntry | None:
    """Return the activation that the agent is held to; None if no permit was ever activated for it."""
    active = transaction.head.active.get(agent_id)
    if active is None:
        return transaction.agent_move(agent_id, AgentState.ACTIVE)
    activated = transaction.entry(active.activation)
    if (activated.entry.kind, activated.entry.agent_id) != (Kind.ACTIVATED, agent_id):
        raise LedgerTampered(f"the head names entry {active.activation} as the activation of `{agent_id}`")
    return activated


def _bounds(activated: SealedEntry) -> Bounds:
    return Bounds.from_json_object(activated.entry.body["bounds"])


def _stored_answer(decided: SealedEntry, request: FireRequest) -> Decision:
    if decided.entry.body["evidence"]["request"] != request.to_json_object():
        return Refused(reason=Reason.EXECUTION_CONFLICT)
    return read_decision(decided.entry.body["decision"])


def _refuse(transaction: WalletTransaction, request: FireRequest, refused: Refused, body: dict[str, Any]) -> None:
    """Record a refusal. That the permit is over, the first fire to find out records by pausing the agent."""
    pauses = refused.reason is Reason.PERMIT_EXPIRED
    transaction.append(
        Kind.REFUSED,
        request.agent_id,
        {"reason": refused.reason, **body},
        execution_id=request.execution_id,
        agent_state=AgentState.PAUSED if pauses else None,
    )
    if pauses:
        transaction.set_active(request.agent_id, None)


def _attempt(view: WalletView, execution_id: str, following: AttemptState) -> SealedEntry:
    """Return the entry that authorized the execution, if its attempt may go on to `following`."""
    steps = view.execution(execution_id)
    require_attempt_step(AttemptState(steps[-1].entry.kind) if steps else None, following)
    return steps[0]


def _claim_hash(claim: str) -> str:
    return sha256(claim.encode("ascii")).hexdigest()
