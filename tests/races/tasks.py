"""What players do. Each task prepares, and returns what is left to do at the signal."""

from __future__ import annotations

import random
import secrets
import time
from contextlib import suppress
from itertools import count

from executor.audit import check_ledger
from executor.decide import Allowed
from executor.errors import IllegalTransition, LedgerError, UnknownWallet
from executor.funding import FundingRequest
from executor.halts import Halter, Scope
from executor.ledger import Ledger
from tests.races.players import DEADLINE_S, SEAL_KEYS
from tests.support import T0, Setup, key, uuid


class User(Setup):
    """One of many users of a guard that was opened elsewhere."""

    def __init__(self, number, guard=None):
        self.guard = guard
        self.signer = key(number)
        self.wallet = self.signer.wallet_address
        self.now_ms = T0
        self.random = secrets.SystemRandom()


def open_ledger(player, url, limits):
    return lambda: player.table.open(url, limits)


def close_ledger(player):
    return player.table.close


def reserve(player, user, agents, session=None):
    """Reserve for each of `agents` the session key of this number, or that of its own; tell which were refused."""
    wallet = User(user).wallet
    keys = {agent: key(session or agent).wallet_address for agent in agents}

    def at_the_signal():
        refused = []
        for agent, session_pubkey in keys.items():
            try:
                player.guard.reserve_session_key(wallet, uuid(agent), session_pubkey)
            except IllegalTransition:
                refused.append(agent)
        return refused

    return at_the_signal


def activate(player, user, agents, nonce=None):
    """Activate a permit for each of `agents`."""
    permits = [User(user).permit(agent, nonce=nonce) for agent in agents]
    return lambda: [player.guard.activate(permit) for permit in permits]


def set_up(player, user, agents):
    """Reserve and activate."""

    def at_the_signal():
        for agent in agents:
            User(user, player.guard).activate(agent)

    return at_the_signal


def fire(player, user, executions, fields=None):
    requests = [User(user).request(each, **(fields or {})) for each in executions]
    return lambda: [player.guard.authorize(request) for request in requests]


def fire_many(player, executions):
    """Fire for many users in one call; `executions` are pairs of user and execution."""
    requests = [User(user).request(execution) for user, execution in executions]
    return lambda: player.guard.authorize_many(requests)


def fund(player, users, funding, lamports):
    """Ask for the same funding for each of `users`."""
    requests = [
        FundingRequest(wallet=User(user).wallet, agent_id=uuid(1), execution_id=uuid(funding), lamports=lamports)
        for user in users
    ]
    return lambda: [player.guard.authorize_funding(request) for request in requests]


def set_fundable(player, users):
    return lambda: [player.guard.set_fundable(User(user).wallet, fundable=True) for user in users]


def arrive(player, user, own, shared):
    """Reserve, activate and fire, each player for its `own` agent, for a user whom the ledger may not know yet.

    First all try to get the `shared` session key for one more agent of their own, and all reserve the same.
    """
    steps = [
        reserve(player, user, [own + 1_000], shared),
        reserve(player, user, [1]),
        reserve(player, user, [own]),
        activate(player, user, [own]),
        fire(player, user, [own], {"agent": own}),
    ]
    return lambda: [step() for step in steps]


def keep_firing(player, user, agents):
    """Fire until told; return what was decided before, and what was asked for after, each with its agent."""
    firing, executions = User(user), count(player.number * 1_000_000)

    def shots():
        return [(agent, player.guard.authorize(firing.request(next(executions), agent=agent))) for agent in agents]

    def at_the_signal():
        before, deadline = shots(), time.monotonic() + DEADLINE_S
        player.say()
        while not player.is_told():
            before += shots()
            assert time.monotonic() < deadline
        return before, shots()

    return at_the_signal


def hold(player, path):
    """Open the file and hold it until told; return None, or why it can't be opened and whether it can be read."""

    def at_the_signal():
        try:
            ledger = Ledger.open(path, seal_keys=SEAL_KEYS, clock=lambda: T0)
        except LedgerError as error:
            player.meet()
            with Ledger.open(path, seal_keys=SEAL_KEYS, clock=lambda: T0, read_only=True) as ledger:
                return str(error), check_ledger(ledger).findings
        with ledger:
            player.say("mine")
            assert player.is_told(DEADLINE_S)
        return None

    return at_the_signal


def halt(player, scope):
    return lambda: player.guard.halt(Scope(*scope), Halter.OPERATOR, "a drill")


def lift(player, scope):
    return lambda: player.guard.lift(Scope(*scope), Halter.OPERATOR)


def stop(player, wallet, agent_id):
    return lambda: player.guard.stop(wallet, agent_id)


def sign(player, authorization, signature):
    """Tell whether it was this player that recorded the signature."""

    def at_the_signal():
        try:
            refused = player.guard.mark_signed(
                authorization, tx_signature=signature, transaction_bytes=b"\1", last_valid_block_height=150
            )
        except IllegalTransition:
            return False
        return refused is None

    return at_the_signal


def live(player, users, agents, seed, steps):
    """Do anything with anybody, over and over; return what was decided."""
    life = Life(player, users, random.Random(seed))
    return lambda: life.live(agents, steps)


class Life:
    """What one player does to many users."""

    def __init__(self, player, users, rng):
        self.player = player
        self.users = [User(user) for user in users]
        self.rng = rng
        self.decisions = []

    def live(self, agents, steps):
        moves = {self.fire: 8, self.fire_again: 2, self.fire_many: 2, self.begin: 8, self.end: 1, self.interrupt: 1}
        for move in self.rng.choices(list(moves), list(moves.values()), k=steps):
            with suppress(IllegalTransition, UnknownWallet):
                move(self.rng.choice(self.users), self.rng.choice(agents))
        return self.decisions

    def fresh(self):
        return self.rng.randrange(10, 10**9)

    def fire(self, user, agent):
        request = user.request(self.fresh(), agent=agent, sell_amount=self.rng.choice((1, 300)) * 10**6)
        decision = self.player.guard.authorize(request)
        if isinstance(decision, Allowed) and self.rng.choice((True, False)):
            sign(self.player, decision.authorization, str(self.fresh()))()
        self.decisions.append(decision)

    def fire_again(self, user, agent):
        self.decisions.append(self.player.guard.authorize(user.request(self.rng.randrange(10), agent=agent)))

    def fire_many(self, _user, agent):
        requests = [each.request(self.fresh(), agent=agent) for each in self.rng.sample(self.users, 5)]
        self.decisions.extend(self.player.guard.authorize_many(requests))

    def begin(self, user, agent):
        self.player.guard.reserve_session_key(user.wallet, uuid(agent), key(agent).wallet_address)
        self.decisions.append(self.player.guard.activate(user.permit(agent)))

    def end(self, user, agent):
        self.player.guard.stop(user.wallet, uuid(agent))

    def interrupt(self, user, agent):
        scope = self.rng.choice((Scope(), Scope(user.wallet), Scope(user.wallet, uuid(agent))))
        self.player.guard.halt(scope, Halter.OPERATOR, "a drill")
        self.fire(user, agent)
        self.player.guard.lift(scope, Halter.OPERATOR)
