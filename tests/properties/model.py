"""A simple model of the guard: what it must answer, from the rules as they are told to users.

It shares no rule with `executor`: times lie in a deque and are counted one by one, amounts are fractions, and when room
comes back is found by trying. Only names are shared: the order of `Reason`, and the fields of `Limits`.

An answer is a tuple: `("ok", value)`, `("allowed", micro-USD, attempt or None)`, `("refused", reasons, retry)` with
every failing check's reason in order, or `("error", the fault's class)`.
"""

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from math import ceil
from typing import NamedTuple

from executor.limits import Limits
from executor.reasons import Reason

DAY_MS = 86_400_000
SKEW_MS = 1_000
BACK_MS_MAX = 2_000
ORDER = [str(reason) for reason in Reason]
DECIMALS = {"USDC": 6, "JTO": 9, "BONK": 5}
OPEN = {"authorized", "signed"}
HOLDS_INTENT = {"authorized", "signed", "landed"}
ENDED_BY_TIME = {"paused": "AGENT_PAUSED", "stopped": "AGENT_STOPPED", "completed": "AGENT_COMPLETED"}


class Terms(NamedTuple):
    """What a permit says; times in Unix ms, the cap in cents."""

    wallet: str
    agent: str
    key: str
    assets: tuple[str, ...]
    cents: int
    issued_ms: int
    expires_ms: int
    nonce: str

    def is_over(self, now_ms):
        return now_ms >= self.expires_ms - SKEW_MS


class Price(NamedTuple):
    usd: Fraction
    at_ms: int
    max_age_ms: int
    stale: bool

    def is_fresh(self, now_ms):
        return not self.stale and now_ms - self.max_age_ms <= self.at_ms <= now_ms + SKEW_MS


@dataclass
class Agent:
    key: str
    state: str = "reserved"
    terms: Terms | None = None
    listed: bool = False
    """It may fire, or nobody found out yet that its permit is over. A new permit of anybody makes all find out."""
    stopped_ms: int | None = None
    fired_ms: int | None = None


@dataclass
class Execution:
    agent: str
    request: tuple
    answer: tuple
    state: str
    at_ms: int
    intent: str | None
    earlier: int = 0
    """How many of the user's fires were allowed before it."""
    signature: str | None = None


@dataclass
class User:
    seen_ms: int = 0
    agents: dict[str, Agent] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    fires: deque[tuple[int, int]] = field(default_factory=deque)
    """When, Unix ms, and for how many micro-USD."""
    executions: dict[str, Execution] = field(default_factory=dict)
    halts: set[tuple[str | None, str]] = field(default_factory=set)
    """The agent, or None for all of them, and who halted."""

    def used(self, now_ms, before=None):
        """Return how many fires of the last day there are, of all or of the first so many."""
        return sum(now_ms < at_ms + DAY_MS + SKEW_MS for at_ms, _ in islice(self.fires, before))

    def worth(self, now_ms, but=None):
        """Return what the fires of the last day are worth, of all or of all but this one."""
        return sum(
            worth
            for number, (at_ms, worth) in enumerate(self.fires)
            if now_ms < at_ms + DAY_MS + SKEW_MS and number != but
        )

    def active(self, now_ms):
        return {each for each, agent in self.agents.items() if agent.listed and not agent.terms.is_over(now_ms)}

    def open_signatures(self, agent=None):
        signed = [each for each in self.executions.values() if each.state == "signed"]
        return [each.signature for each in reversed(signed) if agent in (None, each.agent)]

    def first_room(self, now_ms, has_room):
        """Return the first moment from `now_ms` on at which `has_room`, by trying each at which a slot frees."""
        frees = (at_ms + DAY_MS + SKEW_MS for at_ms, _ in self.fires)
        return next((at_ms for at_ms in sorted(frees) if at_ms > now_ms and has_room(at_ms)), None)


class Fault(Exception):
    """The guard raises this class."""


def refusal(checks):
    """Return the answer that failing checks, of a reason and the time that cures it, make."""
    cures = [cure for _, cure in checks]
    reasons = sorted((reason for reason, _ in checks), key=ORDER.index)
    return "refused", reasons, None if None in cures else max(cures)


def bare(reason):
    """Return the answer that has a reason and no checks."""
    return "refused", [reason], None


class Model:
    """What a guard over these limits knows."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.clock_ms = 0
        self.prices: dict[str, Price] = {}
        self.users: dict[str, User] = {}
        self.halts: set[str] = set()
        self.halts_seen_ms = 0

    # Time and users

    def now(self, seen_ms):
        if self.clock_ms < seen_ms - BACK_MS_MAX:
            raise Fault("ClockUntrusted")
        return max(self.clock_ms, seen_ms)

    def user(self, wallet):
        if wallet not in self.users:
            raise Fault("UnknownWallet")
        return self.users[wallet]

    def judged(self, wallet, unknown, decide):
        """Return what `decide` says of a known user now; faults are refusals."""
        if wallet not in self.users:
            return bare(unknown)
        user = self.users[wallet]
        try:
            return decide(user, self.now(user.seen_ms))
        except Fault:
            return bare("CLOCK_UNTRUSTED")

    def edges(self):
        """Return every moment at which something changes by itself."""
        limits = self.limits
        for user in self.users.values():
            for at_ms, _ in user.fires:
                yield at_ms + DAY_MS + SKEW_MS
            for agent in user.agents.values():
                if agent.listed:
                    yield agent.terms.expires_ms - SKEW_MS
                    yield agent.terms.expires_ms - SKEW_MS - limits.expiry_margin_s * 1000
                if agent.fired_ms is not None:
                    yield agent.fired_ms + limits.min_interval_ms
            for each in user.executions.values():
                if each.state == "authorized":
                    yield each.at_ms + limits.authorization_ttl_s * 1000
        for price in self.prices.values():
            yield price.at_ms + price.max_age_ms + 1

    # Agents

    def reserve(self, wallet, agent_id, key):
        user = self.users.setdefault(wallet, User())
        now_ms = self.now(user.seen_ms)
        agent = user.agents.get(agent_id)
        if agent is not None and agent.key == key:
            return "ok", None
        if agent is not None or any(each.key == key for each in user.agents.values()):
            raise Fault("IllegalTransition")
        user.agents[agent_id] = Agent(key)
        user.seen_ms = now_ms
        return "ok", None

    def activate(self, terms):
        return self.judged(terms.wallet, "SESSION_KEY_NOT_RESERVED", lambda user, now: self._activate(user, now, terms))

    def _activate(self, user, now_ms, terms):
        agent = user.agents.get(terms.agent) or Agent("")
        last, limits = agent.terms, self.limits
        after_ms = agent.stopped_ms if agent.state == "stopped" else None
        if last is not None:
            after_ms = max(last.issued_ms, after_ms or 0)
        scope_is_free = last is None or agent.state == "stopped" or not set(terms.assets) <= DECIMALS.keys()
        others = user.active(now_ms) - {terms.agent}
        checks = [
            *[("HALTED", None) for _ in self.halts_on(user, terms.agent)],
            agent.key != terms.key and ("SESSION_KEY_NOT_RESERVED", None),
            terms.issued_ms > now_ms + SKEW_MS and ("PERMIT_NOT_YET_VALID", terms.issued_ms),
            now_ms - terms.issued_ms > limits.max_permit_age_s * 1000 and ("PERMIT_TOO_OLD", None),
            after_ms is not None and terms.issued_ms <= after_ms and ("PERMIT_NOT_NEWER", None),
            terms.nonce in user.nonces and ("NONCE_SPENT", None),
            not scope_is_free and scope(terms) != scope(last) and ("SCOPE_CHANGED", None),
            not set(terms.assets) <= DECIMALS.keys() and ("ASSET_UNKNOWN", None),
            agent.state == "completed" and ("AGENT_COMPLETED", None),
            terms.is_over(now_ms) and ("PERMIT_EXPIRED", None),
            len(others) >= limits.active_agents and ("AGENTS_OVER_CAP", None),
        ]
        if any(checks):
            return refusal([check for check in checks if check])
        for each in user.agents.values():
            each.listed = each.listed and not each.terms.is_over(now_ms)
        agent.state, agent.terms, agent.listed = "active", terms, True
        user.nonces.add(terms.nonce)
        user.seen_ms = now_ms
        return "ok", terms.nonce

    def end(self, wallet, agent_id, state):
        user = self.user(wallet)
        now_ms = self.now(user.seen_ms)
        agent = user.agents.get(agent_id)
        endable = {"active", "paused"} if state == "stopped" else {"reserved", "active", "paused", "stopped"}
        if agent is None or agent.state not in endable:
            raise Fault("IllegalTransition")
        self._end(agent, state, now_ms)
        user.seen_ms = now_ms
        return "ok", user.open_signatures(agent_id)

    def _end(self, agent, state, now_ms):
        agent.state, agent.listed = state, False
        agent.stopped_ms = now_ms if state == "stopped" else None

    def revoke(self, wallet, nonce):
        user = self.users.setdefault(wallet, User())
        now_ms = self.now(user.seen_ms)
        fires_by_it = [each for each in user.agents.values() if each.listed and each.terms.nonce == nonce]
        for agent in fires_by_it:
            self._end(agent, "stopped", now_ms)
        if not fires_by_it and nonce in user.nonces:
            return "ok", False
        user.nonces.add(nonce)
        user.seen_ms = now_ms
        return "ok", True

    # Halts

    def halts_on(self, user, agent_id):
        return [*self.halts, *(each for each in user.halts if each[0] in (None, agent_id))]

    def halt(self, wallet, agent_id, by):
        if wallet is None:
            self.halts_seen_ms = max(self.clock_ms, self.halts_seen_ms)  # no clock keeps a halt from being made
            self.halts.add(by)
            return "ok", []
        user = self.users.setdefault(wallet, User())
        user.seen_ms = max(self.clock_ms, user.seen_ms)
        user.halts.add((agent_id, by))
        return "ok", user.open_signatures(agent_id)

    def lift(self, wallet, agent_id, by):
        if wallet is None:
            now_ms = self.now(self.halts_seen_ms)
            if by not in self.halts:
                return "ok", False
            self.halts_seen_ms = now_ms
            self.halts.remove(by)
            return "ok", True
        user = self.users.setdefault(wallet, User())
        now_ms = self.now(user.seen_ms)
        if (agent_id, by) not in user.halts:
            return "ok", False
        user.seen_ms = now_ms
        user.halts.remove((agent_id, by))
        return "ok", True

    def change_limits(self, limits):
        now_ms = self.now(self.halts_seen_ms)
        if limits != self.limits:
            self.limits, self.halts_seen_ms = limits, now_ms
        return "ok", None

    # Fires

    def authorize(self, request):
        return self.judged(request.wallet, "AGENT_UNKNOWN", lambda user, now: self._authorize(user, now, request))

    def _authorize(self, user, now_ms, request):
        content = tuple(request.to_json_object().items())
        stored = user.executions.get(request.execution_id)
        if stored is not None:
            return stored.answer if stored.request == content else bare("EXECUTION_CONFLICT")
        agent = user.agents.get(request.agent_id)
        if agent is None or agent.terms is None:
            return bare("AGENT_UNKNOWN")
        checks, worth = self._checks(user, agent, request, now_ms)
        answer = refusal(checks) if checks else ("allowed", worth, None)
        user.executions[request.execution_id] = Execution(
            agent=request.agent_id,
            request=content,
            answer=answer,
            state="refused" if checks else "authorized",
            at_ms=now_ms,
            intent=None if checks else request.intent_key,
            earlier=len(user.fires),
        )
        user.seen_ms = now_ms
        if checks:
            if answer[1][0] == "PERMIT_EXPIRED":
                agent.state, agent.listed = "paused", False
            return answer
        user.fires.append((now_ms, worth))
        agent.fired_ms = now_ms
        return "allowed", worth, len(user.fires)

    def _checks(self, user, agent, request, now_ms, signing=None):
        """Return every failing check with the time that cures it, and what the trade is worth in micro-USD.

        `signing` is the execution itself, if it was allowed before.
        """
        limits, terms = self.limits, agent.terms
        margin_ms = limits.expiry_margin_s * 1000
        holders = [
            each
            for execution_id, each in user.executions.items()
            if each.agent == request.agent_id and execution_id != request.execution_id
            if request.intent_key is not None and each.intent == request.intent_key and each.state in HOLDS_INTENT
        ]
        checks = [
            *[("HALTED", None) for _ in self.halts_on(user, request.agent_id)],
            agent.state in ENDED_BY_TIME and (ENDED_BY_TIME[agent.state], None),
            terms.is_over(now_ms) and ("PERMIT_EXPIRED", None),
            not terms.is_over(now_ms) and terms.is_over(now_ms + margin_ms) and ("PERMIT_EXPIRING", None),
            bool(holders) and ("INTENT_TAKEN", None),
            len(user.active(now_ms)) > limits.active_agents and ("AGENTS_OVER_CAP", None),
        ]
        legs = [name for name in (request.sell, request.buy) if name in terms.assets]
        checks += [("ASSET_NOT_WHITELISTED", None)] * (2 - len(legs))
        checks += [("ASSETS_IDENTICAL", None)] * (request.sell == request.buy and len(legs) == 2)
        checks += [("PRICE_MISSING", None) for name in legs if name not in self.prices]
        known = [name for name in legs if name in self.prices]
        checks += [("PRICE_STALE", None) for name in known if not self.prices[name].is_fresh(now_ms)]
        worth = None
        if len(legs) == 2 and not {"PRICE_MISSING", "PRICE_STALE"} & {check[0] for check in checks if check}:
            worth = self._worth(request)
            checks += [
                worth > terms.cents * 10_000 and ("AMOUNT_OVER_CAP", None),
                request.min_received < self.least(request.sell, request.sell_amount, request.buy)
                and ("MIN_RECEIVED_TOO_LOW", None),
            ]
        checks += self._usage_checks(user, agent, worth, now_ms, signing)
        return [check for check in checks if check], worth

    def _usage_checks(self, user, agent, worth, now_ms, signing):
        limits, cap, slots = self.limits, self.limits.notional_micro_usd_per_24h, self.limits.executions_per_24h
        earlier = None if signing is None else signing.earlier
        checks = []
        if user.used(now_ms, earlier) >= slots:
            cure = user.first_room(now_ms, lambda at_ms: user.used(at_ms, earlier) < slots)
            checks.append(("EXECUTIONS_OVER_CAP", cure))
        if signing is not None:
            if cap is not None and worth is not None and user.worth(now_ms, signing.earlier) + worth > cap:
                cure = user.first_room(now_ms, lambda at_ms: user.worth(at_ms, signing.earlier) + worth <= cap)
                checks.append(("NOTIONAL_OVER_CAP", cure if worth <= cap else None))
            return checks
        if cap is not None and worth is not None and user.worth(now_ms) + worth > cap:
            cure = user.first_room(now_ms, lambda at_ms: user.worth(at_ms) + worth <= cap)
            checks.append(("NOTIONAL_OVER_CAP", cure))
        if agent.fired_ms is not None and now_ms - agent.fired_ms < limits.min_interval_ms:
            checks.append(("INTERVAL_TOO_SHORT", agent.fired_ms + limits.min_interval_ms))
        return checks

    def _worth(self, request):
        legs = ((request.sell, request.sell_amount), (request.buy, request.min_received))
        return max(
            ceil(Fraction(amount, 10 ** DECIMALS[name]) * self.prices[name].usd * 10**6) for name, amount in legs
        )

    def least(self, sell, sell_amount, buy):
        """Return the least that must come back, in base units."""
        usd = Fraction(sell_amount, 10 ** DECIMALS[sell]) * self.prices[sell].usd
        owed = usd * Fraction(10_000 - self.limits.max_slippage_bps, 10_000)
        return ceil(owed / self.prices[buy].usd * 10 ** DECIMALS[buy])

    # Attempts

    def sign(self, request, signature):
        user = self.user(request.wallet)
        now_ms = self.now(user.seen_ms)
        execution = user.executions[request.execution_id]
        if execution.state != "authorized":
            raise Fault("IllegalTransition")
        user.seen_ms = now_ms
        if now_ms >= execution.at_ms + self.limits.authorization_ttl_s * 1000:
            execution.state = "voided"
            return bare("AUTHORIZATION_EXPIRED")
        checks, _ = self._checks(user, user.agents[request.agent_id], request, now_ms, execution)
        if checks:
            execution.state = "voided"
            return refusal(checks)
        execution.state, execution.signature = "signed", signature
        return "ok", None

    def end_attempt(self, wallet, execution_id, state):
        user = self.user(wallet)
        now_ms = self.now(user.seen_ms)
        execution = user.executions.get(execution_id)
        before = "authorized" if state == "voided" else "signed"
        if execution is None or execution.state != before:
            raise Fault("IllegalTransition")
        execution.state = state
        user.seen_ms = now_ms
        return "ok", None


def scope(terms):
    """Return what only a stop lets change."""
    return terms.key, terms.assets, terms.cents
