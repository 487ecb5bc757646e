"""The real guard, over a SQLite file, driven at random beside a model that knows the rules and nothing of the code.

Each step does the same to both, and their answers must agree: every failing check, in order, and the time that cures
it. The caps are small and half of the clock's moves go to within a millisecond of an edge, so that edges are met often.
At the end the ledger is audited, every decision made again, and the caps counted anew over what was authorized.
"""

import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.caps import WINDOW_MS
from executor.decide import Allowed, Refused
from executor.entries import Kind
from executor.errors import ExecutorError
from executor.evidence import replay
from executor.fill import Landing
from executor.halts import Halter, Scope
from executor.limits import Limits
from executor.reasons import Reason
from executor.request import FireRequest
from permits import Revocation, draft, issue, revoke, timestamp
from tests.properties.model import BACK_MS_MAX, DAY_MS, DECIMALS, SKEW_MS, Fault, Model, Price, Terms
from tests.support import BONK, HOUR_MS, JTO, T0, USDC, Setup, key, uuid

USERS = (key(1_001), key(1_002))
STRANGER = key(1_003).wallet_address
AGENTS = (1, 2, 3, 4, 5)
ASSETS = {"USDC": USDC, "JTO": JTO, "BONK": BONK}
WHITELISTS = (("USDC", "JTO"), ("USDC", "JTO"), ("USDC", "JTO", "BONK"), ("JTO", "WIF"))
LANDING = Landing(slot=1, sold=1, received=1, fee_lamports=5_000)

LIMITS = (
    Limits(active_agents=3, executions_per_24h=4),
    Limits(active_agents=3, executions_per_24h=4, notional_micro_usd_per_24h=400 * 10**6, min_interval_ms=1_000),
    Limits(active_agents=2, executions_per_24h=1, min_interval_ms=2 * DAY_MS, max_slippage_bps=0),
    Limits(active_agents=1, executions_per_24h=100, notional_micro_usd_per_24h=250 * 10**6, expiry_margin_s=0),
)

users = st.sampled_from((0, 0, 0, 1))
agents = st.sampled_from((1, 1, 1, 2, 2, 3, 4, 5))
halters = st.sampled_from(Halter)
rarely = st.sampled_from((False, False, False, True))


def plain(call):
    """Return what the guard answers to `call` in the model's words."""
    try:
        answer = call()
    except ExecutorError as fault:
        return "error", type(fault).__name__
    match answer:
        case Allowed(value_micro_usd=worth, authorization=authorization):
            return "allowed", worth, None if authorization is None else authorization.attempt
        case Refused(reason=reason, checks=checks, retry_at_ms=retry_at_ms):
            reasons = [str(check.reason) for check in checks] or [str(reason)]
            assert reasons[0] == reason
            return "refused", reasons, retry_at_ms
        case Bounds():
            return "ok", answer.terms.nonce
    return "ok", list(answer) if isinstance(answer, (list, tuple)) else answer


def base_units(amount):
    return max(1, min(2**64 - 1, int(amount)))


def predicted(call):
    try:
        return call()
    except Fault as fault:
        return "error", str(fault)


class GuardMachine(RuleBasedStateMachine):
    """Both of them, and what was done so far."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.number = 0
        self.requests = []
        self.authorizations = {}

    @initialize(limits=st.sampled_from(LIMITS), ready=st.sampled_from((1, 2, 3)))
    def begin(self, limits, ready):
        self.setup = Setup(Path(self.folder.name) / "ledger.db", limits=limits)
        self.model = Model(limits)
        self.model.clock_ms = T0
        self.requote("USDC", "1", stale=False, max_age_ms=10**12)
        self.requote("JTO", "2.50", stale=False, max_age_ms=10**12)
        for user, agent in [(1, 1), *((0, agent) for agent in AGENTS[:ready])]:
            self.reserve(user, agent, agent)
            self.activate(user, agent, 0, 3 * 86_400, ("USDC", "JTO"), 25_000, same_nonce=False)

    def teardown(self):
        try:
            if hasattr(self, "setup"):
                self.setup.now_ms = max([self.model.halts_seen_ms, self.setup.now_ms, *self.seen()])
                self.check_the_end()
                self.setup.guard.close()
        finally:
            self.folder.cleanup()

    def seen(self):
        return [user.seen_ms for user in self.model.users.values()]

    @property
    def guard(self):
        return self.setup.guard

    def both(self, real, expected):
        """Do the same to the guard and to the model: they must answer the same."""
        expected = predicted(expected)
        assert plain(real) == expected
        return expected

    def next_number(self):
        self.number += 1
        return self.number

    # Time

    def set_clock(self, now_ms):
        self.setup.now_ms = self.model.clock_ms = now_ms

    @rule(by_ms=st.sampled_from((1, 999, 1_000, 30_000, 60_000, HOUR_MS, DAY_MS // 2)))
    def wait(self, by_ms):
        self.set_clock(self.setup.now_ms + by_ms)

    @rule(data=st.data(), off_by_ms=st.sampled_from((-1, 0, 1)))
    def wait_for_an_edge(self, data, off_by_ms):
        edges = sorted({edge for edge in self.model.edges() if edge > self.setup.now_ms})
        if edges:
            self.set_clock(data.draw(st.sampled_from([*edges[:2] * 4, *edges])) + off_by_ms)

    @rule(by_ms=st.sampled_from((1, 500, BACK_MS_MAX - 1, BACK_MS_MAX)))
    def go_back(self, by_ms):
        self.set_clock(self.setup.now_ms - by_ms)

    @rule(by_ms=st.sampled_from((BACK_MS_MAX + 1, HOUR_MS, 2 * DAY_MS)), user=users, agent=agents)
    def go_back_far(self, by_ms, user, agent):
        before_ms = self.setup.now_ms
        self.set_clock(before_ms - by_ms)
        self.authorize(self.request(user, agent))
        self.set_clock(before_ms)

    # Agents

    @rule(user=users, agent=agents, session=agents)
    def reserve(self, user, agent, session):
        wallet, pubkey = USERS[user].wallet_address, key(session).wallet_address
        self.both(
            lambda: self.guard.reserve_session_key(wallet, uuid(agent), pubkey),
            lambda: self.model.reserve(wallet, uuid(agent), pubkey),
        )

    @rule(
        user=users,
        agent=agents,
        issued=st.sampled_from((0, 0, 0, 0, -1, SKEW_MS, SKEW_MS + 1, -HOUR_MS, -HOUR_MS - 1)),
        lifetime_s=st.sampled_from((1, 91, 92, 3_600, 90_000, 3 * 86_400)),
        whitelist=st.sampled_from(WHITELISTS),
        cents=st.sampled_from((25_000, 25_000, 25_001)),
        same_nonce=rarely,
    )
    def activate(self, user, agent, issued, lifetime_s, whitelist, cents, same_nonce):
        terms = Terms(
            wallet=USERS[user].wallet_address,
            agent=uuid(agent),
            key=key(agent).wallet_address,
            assets=whitelist,
            cents=cents,
            issued_ms=self.setup.now_ms + issued,
            expires_ms=self.setup.now_ms + issued + lifetime_s * 1000,
            nonce=f"{0 if same_nonce else self.next_number():032x}",
        )
        self.submit(user, terms)

    @rule(user=users, agent=agents)
    def renew(self, user, agent):
        self.activate_anew(user, agent, "none")

    @rule(user=users, agent=agents, change=st.sampled_from(("nothing", "time", "nonce", "key", "scope")))
    def activate_anew(self, user, agent, change):
        """Submit the agent's last permit again, or one like it."""
        known = self.model.users[USERS[user].wallet_address]
        last = known.agents[uuid(agent)].terms if uuid(agent) in known.agents else None
        if last is None:
            self.reserve(user, agent, agent)
            return
        span_ms, fresh = last.expires_ms - last.issued_ms, f"{self.next_number():032x}"
        if change != "nothing":
            now_ms = self.setup.now_ms
            last = last._replace(issued_ms=now_ms, expires_ms=now_ms + span_ms, nonce=fresh)
        match change:
            case "time":
                stopped_ms = known.agents[uuid(agent)].stopped_ms or last.issued_ms
                last = last._replace(issued_ms=stopped_ms, expires_ms=stopped_ms + span_ms)
            case "nonce":
                last = last._replace(nonce=min(known.nonces))
            case "key":
                last = last._replace(key=key(agent + 1).wallet_address)
            case "scope":
                last = last._replace(cents=last.cents + 1)
        self.submit(user, last)

    def submit(self, user, terms):
        drafted = draft(
            agent_id=terms.agent,
            session_pubkey=terms.key,
            asset_whitelist=terms.assets,
            max_amount_usd=Fraction(terms.cents, 100).__float__(),
            issued_at_ms=terms.issued_ms,
            lifetime_s=(terms.expires_ms - terms.issued_ms) // 1000,
            nonce=terms.nonce,
        )
        signed = issue(drafted, USERS[user])
        self.both(lambda: self.guard.activate(signed), lambda: self.model.activate(terms))

    @rule(user=users, agent=agents, completes=rarely)
    def end_agent(self, user, agent, completes):
        wallet, state = USERS[user].wallet_address, "completed" if completes else "stopped"
        self.both(
            lambda: (
                self.guard.stop(wallet, uuid(agent))
                if state == "stopped"
                else self.guard.complete(wallet, uuid(agent), "done")
            ),
            lambda: self.model.end(wallet, uuid(agent), state),
        )

    @rule(user=users, data=st.data())
    def revoke(self, user, data):
        wallet = USERS[user].wallet_address
        used = sorted(self.model.users[wallet].nonces)
        nonce = data.draw(st.sampled_from([*used, f"{self.next_number():032x}"]))
        document = Revocation.from_json_object({"nonce": nonce, "revokedAt": timestamp(self.setup.now_ms)})
        signed = revoke(document, USERS[user])
        self.both(lambda: self.guard.revoke(signed), lambda: self.model.revoke(wallet, nonce))

    # Halts

    @rule(user=st.sampled_from((0, 0, 1, None)), agent=st.one_of(agents, st.none()), by=halters)
    def halt(self, user, agent, by):
        wallet = None if user is None else USERS[user].wallet_address
        agent_id = None if wallet is None or agent is None else uuid(agent)
        self.both(
            lambda: self.guard.halt(Scope(wallet, agent_id), by, "because"),
            lambda: self.model.halt(wallet, agent_id, str(by)),
        )

    @rule(by=halters, data=st.data())
    def lift(self, by, data):
        held = [(None, None, by) for by in sorted(self.model.halts)]
        for wallet, user in self.model.users.items():
            held += [(wallet, agent_id, by) for agent_id, by in sorted(user.halts, key=str)]
        wallet, agent_id, by = data.draw(st.sampled_from(held or [(USERS[0].wallet_address, None, str(by))]))
        by = data.draw(st.sampled_from((by, by, by, "user")))
        self.both(
            lambda: self.guard.lift(Scope(wallet, agent_id), Halter(by)),
            lambda: self.model.lift(wallet, agent_id, by),
        )

    # Fires

    def request(self, user, agent, **fields):
        made = {
            "wallet": USERS[user].wallet_address,
            "agent_id": uuid(agent),
            "execution_id": uuid(10_000 + self.next_number()),
            "rail": "local",
            "sell": "USDC",
            "sell_amount": 100 * 10**6,
            "buy": "JTO",
            "min_received": 40 * 10**9,
            **fields,
        }
        return FireRequest(**made)

    def authorize(self, request):
        decisions = []

        def real():
            decisions.append(self.guard.authorize(request))
            return decisions[0]

        self.both(real, lambda: self.model.authorize(request))
        self.remember(request, *decisions)

    def remember(self, request, decision):
        if request not in self.requests:
            self.requests.append(request)
        if isinstance(decision, Allowed) and decision.authorization is not None:
            self.authorizations[request.wallet, request.execution_id] = (request, decision.authorization)

    def draw_agent(self, data, user):
        """Return mostly one that may fire."""
        known = self.model.users[USERS[user].wallet_address]
        active = known.active(self.setup.now_ms)
        had = [each for each in AGENTS if uuid(each) in known.agents and known.agents[uuid(each)].terms is not None]
        return data.draw(st.sampled_from([*[each for each in had if uuid(each) in active] * 6, *had, AGENTS[-1]]))

    @rule(data=st.data(), user=users, gaps_ms=st.lists(st.sampled_from((0, 1, 999, 1_000, HOUR_MS)), max_size=4))
    def fire(self, data, user, gaps_ms):
        """Fire once, and again after each gap."""
        for gap_ms in (0, *gaps_ms):
            self.set_clock(self.setup.now_ms + gap_ms)
            intent = data.draw(st.sampled_from((None, None, "dip")))
            other = data.draw(st.booleans())
            legs = (
                {"sell": "JTO", "sell_amount": 20 * 10**9, "buy": "USDC", "min_received": 50 * 10**6} if other else {}
            )
            self.authorize(self.request(user, self.draw_agent(data, user), intent_key=intent, **legs))

    @rule(
        data=st.data(),
        user=users,
        legs=st.sampled_from(
            (*[("USDC", "JTO"), ("JTO", "USDC")] * 3, ("BONK", "USDC"), ("USDC", "WIF"), ("JTO", "JTO"))
        ),
        micro_usd=st.sampled_from((1, 10**8, 250 * 10**6, 250 * 10**6 + 1, 250_010_000, 250_010_001)),
        off_by=st.sampled_from((-1, 0, 0, 1)),
    )
    def fire_at_an_edge(self, data, user, legs, micro_usd, off_by):
        """Sell almost exactly so much, for almost exactly the least that may be asked."""
        agent, (sell, buy) = self.draw_agent(data, user), legs
        prices = self.model.prices
        amount, least = 10**6, 1
        if sell in prices:
            amount = base_units(Fraction(micro_usd, 10**6) / prices[sell].usd * 10 ** DECIMALS[sell])
        if sell in prices and buy in prices:
            least = base_units(self.model.least(sell, amount, buy) + off_by)
        self.authorize(self.request(user, agent, sell=sell, sell_amount=amount, buy=buy, min_received=least))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), change=st.sampled_from(("nothing", "amount", "agent", "wallet", "stranger")))
    def fire_again(self, data, change):
        request = data.draw(st.sampled_from(self.requests))
        changed = {
            "nothing": {},
            "amount": {"sell_amount": request.sell_amount - 1 or 2},
            "agent": {"agent_id": uuid(AGENTS[0])},
            "wallet": {"wallet": USERS[1].wallet_address},
            "stranger": {"wallet": STRANGER},
        }[change]
        self.authorize(request.model_copy(update=changed))

    @rule(data=st.data(), fires=st.lists(st.tuples(users, rarely), min_size=1, max_size=6))
    def fire_many(self, data, fires):
        requests = [
            data.draw(st.sampled_from(self.requests))
            if again and self.requests
            else self.request(user, self.draw_agent(data, user))
            for user, again in fires
        ]
        decisions = self.guard.authorize_many(requests)
        assert len(decisions) == len(requests)
        for request, decision in zip(requests, decisions, strict=True):
            assert plain(lambda decision=decision: decision) == self.model.authorize(request)
            self.remember(request, decision)

    @rule(
        name=st.sampled_from(("USDC", "JTO", "JTO", "BONK")),
        usd=st.sampled_from(("1", "2.5", "2.40", "2.51", "0.000000000007")),
        stale=rarely,
        max_age_ms=st.sampled_from((10**12, 10**12, 30_000)),
    )
    def requote(self, name, usd, stale, max_age_ms):
        self.setup.quote(ASSETS[name], usd, stale=stale, max_age_ms=max_age_ms)
        self.model.prices[name] = Price(Fraction(usd), self.setup.now_ms, max_age_ms, stale)

    # Attempts

    @precondition(lambda self: self.authorizations)
    @rule(data=st.data())
    def sign(self, data):
        request, authorization = self.draw_authorized(data)
        signature = f"signature {self.next_number()}"
        self.both(lambda: self.setup.sign(authorization, signature), lambda: self.model.sign(request, signature))

    @precondition(lambda self: self.authorizations)
    @rule(data=st.data(), state=st.sampled_from(("voided", "landed", "failed", "dead")))
    def end_attempt(self, data, state):
        request, _ = self.draw_authorized(data)
        wallet, execution_id = request.wallet, request.execution_id
        end = {
            "voided": lambda: self.guard.void(wallet, execution_id, Reason.RAIL_UNAVAILABLE, "gone"),
            "landed": lambda: self.guard.mark_landed(wallet, execution_id, LANDING) and None,
            "failed": lambda: self.guard.mark_failed(wallet, execution_id, "undone"),
            "dead": lambda: self.guard.mark_dead(wallet, execution_id),
        }[state]
        self.both(end, lambda: self.model.end_attempt(wallet, execution_id, state))

    def draw_authorized(self, data):
        """Return one of the newest authorizations: older ones have mostly ended."""
        return data.draw(st.sampled_from(list(self.authorizations.values())[-3:]))

    # The guard itself

    @rule(limits=st.sampled_from(LIMITS))
    def change_limits(self, limits):
        self.both(lambda: self.guard.change_limits(limits), lambda: self.model.change_limits(limits))
        self.setup.limits = self.model.limits

    @rule()
    def reopen(self):
        self.guard.close()
        self.setup.guard = self.setup.open()

    @rule(user=users)
    def look(self, user):
        wallet = USERS[user].wallet_address
        known = self.model.users[wallet]
        if self.setup.now_ms < known.seen_ms - BACK_MS_MAX:
            return
        now_ms, left = max(self.setup.now_ms, known.seen_ms), self.guard.headroom(wallet)
        assert (left.active_agents.used, left.executions.used) == (len(known.active(now_ms)), known.used(now_ms))
        if left.notional_micro_usd is not None:
            assert left.notional_micro_usd.used == known.worth(now_ms)
        states = {each.agent_id: each.state for each in self.guard.agents(wallet)}
        assert states == {agent_id: agent.state for agent_id, agent in known.agents.items()}
        for execution_id, execution in known.executions.items():
            assert self.guard.execution(wallet, execution_id).state == execution.state

    def check_the_end(self):
        assert check_ledger(self.guard.ledger).findings == ()
        for wallet in self.model.users:
            entries = [sealed.entry for sealed in self.guard.entries(wallet)]
            for entry in entries:
                if entry.kind in {Kind.AUTHORIZED, Kind.REFUSED}:
                    stored = self.guard.execution(wallet, entry.execution_id).decision
                    assert replay(entry, entries[entry.body["evidence"]["activation"] - 1]) == stored
            fired = [entry for entry in entries if entry.kind is Kind.AUTHORIZED]
            for last in fired:
                limits = last.body["evidence"]["limits"]
                day = [each for each in fired if each.seq <= last.seq and last.at_ms - each.at_ms < WINDOW_MS]
                assert len(day) <= limits["executionsPer24H"]
                worth = sum(int(each.body["decision"]["valueMicroUsd"]) for each in day)
                assert worth <= limits.get("notionalMicroUsdPer24H", worth)


def run(examples):
    how = settings(
        max_examples=examples,
        stateful_step_count=50,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # to explain would take minutes more
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(GuardMachine, settings=how)


@pytest.mark.timeout(600)  # a disagreement takes time to be made small
def test_the_guard_answers_as_the_model_does():
    run(80)


@pytest.mark.campaign
@pytest.mark.timeout(1_800)
def test_the_guard_answers_as_the_model_does_at_length():
    run(1_000)
