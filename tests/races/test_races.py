"""Races: real processes on PostgreSQL, real threads on SQLite, all at the same moment. Every cap is exact.

Each test runs in several arenas, small ones here and large ones in the campaign. It plays some rounds, each for a user
of its own; afterwards the audit must find nothing.
"""

from collections import Counter
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from executor.audit import check_ledger
from executor.bounds import Bounds
from executor.decide import Allowed, Refused
from executor.entries import Kind
from executor.errors import LedgerError
from executor.guard import Guard
from executor.ledger import TREASURY, Ledger
from executor.limits import Limits
from executor.reasons import Reason
from tests.races import tasks
from tests.races.players import ASSETS, SEAL_KEYS, at_once, finish, prices, seated, start
from tests.races.tasks import User
from tests.support import T0, uuid

AGENTS_MAX = Limits().active_agents


class Arena:
    """Players around a ledger that only they write to; the test reads it."""

    def __init__(self, players, url, rounds):
        self.players = players
        self.users = range(5_000, 5_000 + rounds)
        self.url = url

    @contextmanager
    def ledger(self, limits=None):
        """Let all open a new ledger at once, yield a guard that reads it, and audit it at the end."""
        ids = at_once(self.players, tasks.open_ledger, self.url, limits)
        try:
            with Ledger.open(self.url, seal_keys=SEAL_KEYS, clock=lambda: T0, read_only=True) as ledger:
                assert set(ids) == {ledger.id}
                yield Guard(ledger, prices=prices(), assets=ASSETS)
                assert check_ledger(ledger).findings == ()
        finally:
            at_once(self.players, tasks.close_ledger)

    def all(self, task, *args):
        return at_once(self.players, task, *args)

    def one(self, task, *args):
        (result,) = at_once(self.players[:1], task, *args)
        return result

    def shares(self, total, after=0):
        """Return a function that deals at least `total` numbers out to the players, as many to each."""
        each = -(-total // len(self.players))
        return lambda number: range(after + 1 + number * each, after + 1 + (number + 1) * each)


ARENAS = {
    "postgresql-3-processes": (3, 1, 2),
    "sqlite-64-threads": (1, 64, 1),
    "postgresql-8-processes": (8, 1, 20),
    "postgresql-2-processes-of-16-threads": (2, 16, 8),
    "sqlite-64-threads-8-rounds": (1, 64, 8),
}
"""How many processes, how many threads in each, and how many rounds."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.campaign] * (rounds > 2)) for name, (*_, rounds) in ARENAS.items()],
)
def seats(request):
    processes, threads, rounds = ARENAS[request.param]
    with seated(processes, threads) as players:
        yield request.param.partition("-")[0], players, rounds


@pytest.fixture
def arena(seats, request, tmp_path):
    database, players, rounds = seats
    url = tmp_path / "ledger.db" if database == "sqlite" else request.getfixturevalue("postgres_ledger")
    return Arena(players, url, rounds)


def reasons(decisions):
    """Count the decisions by their reason; None: allowed."""
    return Counter(None if isinstance(each, Allowed | Bounds) else each.reason for each in decisions)


def flat(lists):
    return [each for some in lists for each in some]


def authorized(guard, wallet, agents=(1,)):
    entries = [each.entry for each in guard.entries(wallet, count_max=10**6)]
    return [each for each in entries if each.kind is Kind.AUTHORIZED and each.agent_id in map(uuid, agents)]


# Caps


@pytest.mark.parametrize("cap", [20, pytest.param(500, marks=pytest.mark.campaign)])
def test_exactly_the_cap_is_authorized_however_many_ask_at_once(arena, cap):
    with arena.ledger(Limits(executions_per_24h=cap)) as guard:
        share = arena.shares(cap + 20)
        for user in arena.users if cap < 500 else arena.users[:2]:
            arena.one(tasks.set_up, user, [1])
            decisions = flat(arena.all(tasks.fire, user, share))
            assert reasons(decisions) == {None: cap, Reason.EXECUTIONS_OVER_CAP: len(decisions) - cap}
            numbers = [each.authorization.attempt for each in decisions if isinstance(each, Allowed)]
            assert sorted(numbers) == list(range(1, cap + 1))
            assert [entry.attempt for entry in authorized(guard, User(user).wallet)] == list(range(1, cap + 1))


def test_exactly_twenty_agents_become_active_however_many_are_activated_at_once(arena):
    with arena.ledger() as guard:
        share = arena.shares(AGENTS_MAX + 4)
        for user in arena.users:
            arena.all(tasks.reserve, user, share)
            outcomes = flat(arena.all(tasks.activate, user, share))
            assert reasons(outcomes) == {None: AGENTS_MAX, Reason.AGENTS_OVER_CAP: len(outcomes) - AGENTS_MAX}
            assert guard.headroom(User(user).wallet).active_agents.used == AGENTS_MAX


def test_a_user_whom_nobody_knows_yet_is_made_once(arena):
    with arena.ledger(Limits(active_agents=100)) as guard:
        for user in arena.users:
            arrivals = arena.all(tasks.arrive, user, lambda number: number + 100, 2)
            shared, same, own, activated, fired = (flat(step) for step in zip(*arrivals, strict=True))
            count = len(arrivals)
            assert len(shared) == count - 1
            assert same + own == []
            assert reasons(activated) == reasons(fired) == {None: count}
            kinds = Counter(each.entry.kind for each in guard.entries(User(user).wallet))
            assert kinds == {Kind.RESERVED: count + 2, Kind.ACTIVATED: count, Kind.AUTHORIZED: count}


def test_of_two_permits_with_one_nonce_one_is_activated(arena):
    with arena.ledger(Limits(active_agents=100)):
        for user, (place, nonce) in product(arena.users, enumerate(["ab" * 16, "cd" * 16, "ef" * 16])):
            own = arena.shares(1, after=100 * place)
            arena.all(tasks.reserve, user, own)
            outcomes = flat(arena.all(tasks.activate, user, own, nonce))
            assert reasons(outcomes) == {None: 1, Reason.NONCE_SPENT: len(arena.players) - 1}


def test_every_cap_holds_for_every_user_whatever_everybody_does(arena):
    limits, agents, steps = (
        Limits(executions_per_24h=10, active_agents=3),
        range(1, 7),
        max(4, 120 // len(arena.players)),
    )
    with arena.ledger(limits) as guard:
        for first in arena.users:
            users = range(first * 100, first * 100 + 20)
            lives = arena.all(tasks.live, users, agents, lambda number, first=first: f"{first} {number}", steps)
            counted = reasons(flat(lives))
            assert counted[None] > 0
            assert Reason.LEDGER_TAMPERED not in counted
            for wallet in (User(user).wallet for user in users):
                attempts = [entry.attempt for entry in authorized(guard, wallet, agents)]
                assert attempts == list(range(1, len(attempts) + 1))
                assert len(attempts) <= limits.executions_per_24h
                assert sum(agent.state == "active" for agent in guard.agents(wallet)) <= limits.active_agents


def test_calls_for_many_users_in_opposite_orders_all_get_their_answers(arena):
    cap = 20
    with arena.ledger(Limits(executions_per_24h=cap)):
        share = arena.shares(cap + 4)
        for first in arena.users:
            users = range(first * 100, first * 100 + 5)
            for user in users:
                arena.one(tasks.set_up, user, [1])

            def calls(number, users=users):
                order = users if number % 2 else users[::-1]
                return [(user, execution) for execution in share(number) for user in order]

            decisions = flat(arena.all(tasks.fire_many, calls))
            allowed = Counter(each.authorization.wallet for each in decisions if isinstance(each, Allowed))
            assert allowed == {User(user).wallet: cap for user in users}
            assert set(reasons(decisions)) == {None, Reason.EXECUTIONS_OVER_CAP}


def test_exactly_the_lamports_of_a_user_and_of_all_are_given_however_many_ask_at_once(arena):
    """Each player asks for each user in an order of its own; five users could use up what is there for three."""
    limits = Limits(autofund_lamports_per_24h=400, autofund_lamports_per_24h_in_all=1_250)
    with arena.ledger(limits) as guard:
        users = range(100, 105)
        for user in users:
            arena.one(tasks.set_up, user, [1])
        arena.one(tasks.set_fundable, users)

        def order(number):
            return [*users[number % 5 :], *users[: number % 5]]

        decisions = [
            each
            for first in range(-(-8 // len(arena.players)))
            for each in flat(arena.all(tasks.fund, order, lambda number, first=first: 1_000 * first + number, 100))
        ]
        given = Counter(each.authorization.wallet for each in decisions if not isinstance(each, Refused))
        assert sum(given.values()) == 12
        assert max(given.values()) <= 4
        counted = {User(user).wallet: guard.headroom(User(user).wallet).autofund_lamports.used for user in users}
        assert counted == {wallet: 100 * given[wallet] for wallet in counted}
        assert [each.entry.funding for each in guard.entries(TREASURY)] == list(range(1, 13))


# One execution


def test_one_of_all_who_ask_for_an_execution_gets_the_authorization(arena):
    executions = range(5)
    with arena.ledger() as guard:
        for user in arena.users:
            arena.one(tasks.set_up, user, [1])
            decisions = flat(arena.all(tasks.fire, user, executions))
            assert reasons(decisions) == {None: len(decisions)}
            given = [each.authorization for each in decisions if each.authorization is not None]
            assert sorted(each.execution_id for each in given) == [uuid(10_000 + each) for each in executions]
            assert len(authorized(guard, User(user).wallet)) == len(executions)


def test_of_all_who_mean_something_else_by_one_execution_one_wins(arena):
    with arena.ledger() as guard:
        for user in arena.users:
            arena.one(tasks.set_up, user, [1])
            decisions = flat(arena.all(tasks.fire, user, [1], lambda number: {"sell_amount": 90 * 10**6 + number}))
            assert reasons(decisions) == {None: 1, Reason.EXECUTION_CONFLICT: len(decisions) - 1}
            (winner,) = (each.authorization for each in decisions if isinstance(each, Allowed))
            (entry,) = authorized(guard, User(user).wallet)
            assert entry.body["evidence"]["request"]["sellAmount"] == str(winner.sell_amount)


@pytest.mark.parametrize("signature", ["one for all", lambda number: f"of player {number}"], ids=["same", "different"])
def test_an_authorization_is_signed_on_once(arena, signature):
    with arena.ledger() as guard:
        for user in arena.users:
            arena.one(tasks.set_up, user, [1])
            (decision,) = arena.one(tasks.fire, user, [1])
            signed = arena.all(tasks.sign, decision.authorization, signature)
            assert sum(signed) == 1
            story = guard.execution(User(user).wallet, decision.authorization.execution_id)
            assert [step.entry.kind for step in story.steps] == [Kind.AUTHORIZED, Kind.SIGNED]


# Halts and stops


@pytest.mark.parametrize(
    "held", ["everything", "stopped", *(pytest.param(each, marks=pytest.mark.campaign) for each in ("wallet", "agent"))]
)
def test_nothing_is_authorized_after_a_halt_or_stop_has_returned(arena, held):
    """Agent 1 is held in every case; agent 2 only if more than an agent is."""
    firing = arena.players[1:]
    with arena.ledger(Limits(executions_per_24h=10**6)) as guard:
        for first in arena.users:
            users = [first * 100 + each for each in range(3)] if held == "everything" else [first]
            for user in users:
                arena.one(tasks.set_up, user, [1, 2])
            wallet = User(users[0]).wallet
            scope = {"everything": (), "wallet": (wallet,)}.get(held, (wallet, uuid(1)))

            start(firing, tasks.keep_firing, lambda number, users=users: users[number % len(users)], [1, 2])
            for player in firing:
                player.hear("said")
            if held == "stopped":
                arena.one(tasks.stop, wallet, uuid(1))
            else:
                arena.one(tasks.halt, scope)
            held_agents = [1] if held in ("agent", "stopped") else [1, 2]
            at_the_return = [authorized(guard, User(user).wallet, held_agents) for user in users]
            for player in firing:
                player.send("it is done")

            no = Reason.AGENT_STOPPED if held == "stopped" else Reason.HALTED
            for before, after in finish(firing):
                assert set(reasons(decision for _agent, decision in before)) <= {None, no}
                assert all(
                    set(reasons([decision])) == {no if agent in held_agents else None} for agent, decision in after
                )
            assert [authorized(guard, User(user).wallet, held_agents) for user in users] == at_the_return
            if held != "everything":
                entries = [each.entry for each in guard.entries(wallet, count_max=10**6)]
                kinds = [entry.kind for entry in entries if entry.agent_id in (None, *map(uuid, held_agents))]
                at = kinds.index(Kind.STOPPED if held == "stopped" else Kind.HALTED)
                assert Kind.AUTHORIZED in kinds[:at]
                assert Kind.AUTHORIZED not in kinds[at:]
            if held != "stopped":
                assert arena.one(tasks.lift, scope)
                assert reasons(arena.one(tasks.fire, users[0], [9_999])) == {None: 1}


# Who comes later


def test_another_process_may_read_while_all_fire_and_write_only_where_processes_may_share(arena):
    with arena.ledger(Limits(executions_per_24h=10**6)) as guard:
        arena.one(tasks.set_up, 1, [1])
        start(arena.players, tasks.keep_firing, 1, [1])
        for player in arena.players:
            player.hear("said")
        for _ in arena.users[:5]:
            if isinstance(arena.url, Path):
                with pytest.raises(LedgerError, match="in use by process"):
                    Ledger.open(arena.url, seal_keys=SEAL_KEYS, clock=lambda: T0)
            else:
                with Ledger.open(arena.url, seal_keys=SEAL_KEYS, clock=lambda: T0) as another:
                    assert another.id == guard.ledger.id
            assert check_ledger(guard.ledger).findings == ()
        for player in arena.players:
            player.send("enough")
        assert set(reasons(decision for shots in finish(arena.players) for _agent, decision in flat(shots))) == {None}


def test_of_all_who_open_a_file_at_once_one_holds_it_and_the_others_may_read(seats, tmp_path):
    _database, players, rounds = seats
    for turn in range(rounds):
        path = tmp_path / f"{turn}.db"
        start(players, tasks.hold, path)
        (holder,) = (player for player in players if player.hear("said")[1] == "mine")
        others = [player for player in players if player is not holder]
        for player in others:
            player.send("you may read")
        for refused, findings in finish(others):
            assert "is in use by process" in refused
            assert findings == ()
        holder.send("let go")
        assert finish([holder]) == [None]
