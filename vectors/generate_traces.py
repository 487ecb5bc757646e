"""Writes the golden traces: `python vectors/generate_traces.py [FOLDER]`. The same every time.

A trace is what happens to one guard, step by step, and what it must answer. Nothing here comes from the guard: each
answer stands where its step is made, worked out by hand from the rules. Of the generator of the vectors it uses the
keys, the canonical form and the permits' ids; those too share no code with the implementations.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from generate import Key, base58, permit_id, revoked, signed

T0 = 1_777_723_200_000  # 2026-05-02T12:00:00Z
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
SKEW = 1_000
USD = 10**6  # in micro-USD
USDC, JTO = 10**6, 10**9  # whole tokens, in base units
SPL = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
NATIVE = "So11111111111111111111111111111111111111112"


@cache
def key(name):
    return Key(name)


ALICE, BOB = key("alice"), key("bob")


def session(number):
    return key(f"session {number}").address


def agent_id(number):
    return f"a{number:07}-0000-4000-8000-000000000000"


def execution_id(number):
    return f"e{number:07}-0000-4000-8000-000000000000"


def mint(symbol):
    return NATIVE if symbol == "SOL" else base58(hashlib.sha256(f"holdfire traces: {symbol}".encode()).digest())


ASSETS = [
    {"symbol": symbol, "mint": mint(symbol), "decimals": decimals, "tokenProgram": SPL}
    for symbol, decimals in (("USDC", 6), ("JTO", 9), ("BONK", 5), ("SOL", 9))
]


def quote(symbol, pico_usd, at=T0, max_age=10**12, source="desk", *, stale=False):
    """A quote of one whole token, in 1e-12 USD."""
    return {
        "mint": mint(symbol),
        "pricePicoUsd": str(pico_usd),
        "atMs": at,
        "maxAgeMs": max_age,
        "source": source,
        "stale": stale,
    }


DOLLAR = 10**12
USDC_AT_1, JTO_AT_2_50 = quote("USDC", DOLLAR), quote("JTO", 25 * DOLLAR // 10)
QUOTES = [USDC_AT_1, JTO_AT_2_50]


def iso(ms):
    text = datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return text + (f".{ms % 1000:03}Z" if ms % 1000 else "Z")


# Answers

OK = {"ok": True}


def ok(**more):
    return {"ok": True, **more}


def allowed(micro_usd, attempt):
    return {"ok": True, "outcome": "allowed", "value_micro_usd": str(micro_usd), "attempt": attempt}


def as_before(micro_usd):
    """The stored answer to an allowed fire: without a second authorization."""
    return {"ok": True, "outcome": "allowed", "value_micro_usd": str(micro_usd)}


def refused(*reasons, retry=None):
    answer = {"ok": False, "outcome": "refused", "reason": reasons[0], "checks": list(reasons)}
    return answer if retry is None else {**answer, "retry_at_ms": retry}


def bare(reason):
    """A refusal without checks: what they would be made on isn't there."""
    return {"ok": False, "outcome": "refused", "reason": reason, "checks": []}


def error(name):
    return {"ok": False, "error": name}


ILLEGAL, UNKNOWN, UNTRUSTED = error("IllegalTransition"), error("UnknownWallet"), error("ClockUntrusted")
LANDING = {"slot": 7, "sold": str(100 * USDC), "received": str(40 * JTO), "feeLamports": "5000"}
FILL = ok(filled_amount="40", filled_price_usd="2.5", fee_usd=None)

FILES: dict[str, list] = {}


class Trace:
    """One guard's story. `now` is its clock, Unix ms; `quotes` set what is known from the next step on."""

    def __init__(self, identity, comment, *, quotes=QUOTES, **limits):
        self.now = T0
        self.quotes = quotes
        self.nonces = 0
        self.steps = []
        self.document = {"id": identity, "comment": comment, "limits": limits, "assets": ASSETS, "start": T0}
        FILES.setdefault(identity.partition("/")[0], []).append(self)

    def step(self, call, expected, **fields):
        quotes = {} if self.quotes is None else {"quotes": self.quotes}
        self.quotes = None
        self.steps.append({"at": self.now, **quotes, "call": call, **fields, "expected": expected})

    # Agents

    def reserve(self, agent=1, expected=OK, *, key=None, wallet=ALICE):
        fields = {"wallet": wallet.address, "agent_id": agent_id(agent), "session_pubkey": session(key or agent)}
        self.step("reserve_session_key", expected, **fields)

    def permit(self, agent=1, *, key=None, assets=("USDC", "JTO"), usd=250, issued=None, lasts=HOUR, nonce=None):
        issued = self.now if issued is None else issued
        self.nonces += 1
        made = hashlib.sha256(f"{self.document['id']} {self.nonces}".encode()).hexdigest()[:32]
        return {
            "agentId": agent_id(agent),
            "sessionPubkey": session(key or agent),
            "assetWhitelist": list(assets),
            "maxAmountPerExecutionUsd": usd,
            "expiresAt": iso(issued + lasts),
            "issuedAt": iso(issued),
            "nonce": nonce or made,
        }

    def submit(self, permit, expected=None, *, wallet=ALICE, envelope="raw", **changes):
        if expected is None:
            expected = ok(permit_id=permit_id(wallet.public, permit))
        self.step("activate", expected, signed_permit={**signed(permit, wallet, envelope), **changes})

    def activate(self, agent=1, expected=None, *, wallet=ALICE, **permit):
        self.submit(self.permit(agent, **permit), expected, wallet=wallet)

    def ready(self, *agents, wallet=ALICE, **permit):
        for agent in agents or (1,):
            self.reserve(agent, wallet=wallet)
            self.activate(agent, wallet=wallet, **permit)

    def stop(self, agent=1, *opened, expected=None, wallet=ALICE):
        fields = {"wallet": wallet.address, "agent_id": agent_id(agent)}
        self.step("stop", expected or ok(open=list(opened)), **fields)

    def complete(self, agent=1, *opened, expected=None, wallet=ALICE):
        fields = {"wallet": wallet.address, "agent_id": agent_id(agent), "reason": "target reached"}
        self.step("complete", expected or ok(open=list(opened)), **fields)

    def revoke(self, nonce, expected, *, wallet=ALICE, **changes):
        document = revoked({"nonce": nonce, "revokedAt": iso(self.now)}, wallet)
        self.step("revoke", expected, signed_revocation={**document, **changes})

    # Halts and limits

    def limit(self, **limits):
        self.step("change_limits", OK, limits=limits)

    def halt(self, wallet=None, agent=None, *opened, by="operator", why="prices look wrong"):
        self.step("halt", ok(open=list(opened)), scope=scope(wallet, agent), by=by, why=why)

    def lift(self, wallet=None, agent=None, *, changed=True, by="operator"):
        self.step("lift", ok(changed=changed), scope=scope(wallet, agent), by=by)

    # Fundings

    def fundable(self, *, fundable=True, changed=True, wallet=ALICE):
        self.step("set_fundable", ok(changed=changed), wallet=wallet.address, fundable=fundable)

    def fund(self, number, lamports, expected=None, *, agent=1, wallet=ALICE):
        made = {
            "wallet": wallet.address,
            "agentId": agent_id(agent),
            "executionId": execution_id(number),
            "lamports": str(lamports),
        }
        self.step("authorize_funding", expected or ok(outcome="allowed", lamports=str(lamports)), request=made)

    def funded(self, number, expected=OK, **wallet):
        self.attempt("funded", number, expected, **wallet)

    # Fires

    def fire(self, number, expected, *, agent=1, wallet=ALICE, **request):
        """Sell 100 USDC for at least 40 JTO, worth $100, unless `request` says otherwise."""
        made = {
            "wallet": wallet.address,
            "agentId": agent_id(agent),
            "executionId": execution_id(number),
            "rail": "local",
            "sell": "USDC",
            "sellAmount": str(request.pop("sellAmount", 100 * USDC)),
            "buy": "JTO",
            "minReceived": str(request.pop("minReceived", 40 * JTO)),
            **request,
        }
        self.step("authorize", expected, request=made)

    def sell(self, number, usd, expected, **request):
        """Sell so many whole USDC at the fair price: worth as many dollars."""
        self.fire(number, expected, sellAmount=usd * USDC, minReceived=usd * JTO * 2 // 5, **request)

    def attempt(self, call, number, expected, wallet=ALICE, **fields):
        self.step(call, expected, wallet=wallet.address, execution_id=execution_id(number), **fields)

    def sign(self, number, expected=OK, **wallet):
        self.attempt("sign", number, expected, tx_signature=f"signature {number}", **wallet)

    def sign_alone(self, number, expected=OK, **wallet):
        self.attempt("sign_alone", number, expected, tx_signature=f"signature {number}", **wallet)

    def void(self, number, expected=OK, reason="RAIL_UNAVAILABLE", **wallet):
        self.attempt("void", number, expected, reason=reason, **wallet)

    def land(self, number, expected=FILL, **wallet):
        self.attempt("land", number, expected, landing=LANDING, **wallet)

    def fail(self, number, expected=OK, **wallet):
        self.attempt("fail", number, expected, **wallet)

    def dead(self, number, expected=OK, **wallet):
        self.attempt("dead", number, expected, **wallet)

    def look(self, number, state, reason=None, **wallet):
        self.attempt("execution", number, ok(state=state, **({} if reason is None else {"reason": reason})), **wallet)

    def restart(self, expected=OK):
        self.step("restart", expected)


def scope(wallet, agent):
    held = {} if wallet is None else {"wallet": wallet.address}
    return held if agent is None else {**held, "agent_id": agent_id(agent)}


def make_activation():
    t = Trace("activation/no-reservation", "a permit whose session key nobody reserved; the wallet is new")
    t.activate(1, bare("SESSION_KEY_NOT_RESERVED"))
    t.reserve(2)
    t.activate(1, refused("SESSION_KEY_NOT_RESERVED"))
    t.reserve(1)
    t.activate(1)

    t = Trace("activation/key-of-another-agent", "a session key is reserved for one agent")
    t.reserve(1)
    t.reserve(2)
    t.activate(2, refused("SESSION_KEY_NOT_RESERVED"), key=1)
    t.activate(2)

    t = Trace("activation/age-edge", "a permit may be activated for an hour after it was issued, inclusive")
    t.reserve()
    late = t.permit(lasts=DAY)
    t.now = T0 + HOUR + 1
    t.submit(late, refused("PERMIT_TOO_OLD"))
    t.now = T0 + HOUR
    t.submit(late)

    t = Trace("activation/age-limit", "the operator's own maximal age", maxPermitAgeS=60)
    t.reserve()
    late = t.permit()
    t.now = T0 + MINUTE + 1
    t.submit(late, refused("PERMIT_TOO_OLD"))
    t.now = T0 + MINUTE
    t.submit(late)

    t = Trace("activation/future-edge", "a permit from the future counts from 1 s before")
    t.reserve()
    early = t.permit(issued=T0 + 5 * SECOND)
    t.submit(early, refused("PERMIT_NOT_YET_VALID", retry=T0 + 5 * SECOND))
    t.now = T0 + 5 * SECOND - SKEW - 1
    t.submit(early, refused("PERMIT_NOT_YET_VALID", retry=T0 + 5 * SECOND))
    t.now += 1
    t.submit(early)

    t = Trace("activation/expiry-edge", "a permit is over 1 s before its end")
    t.reserve(1)
    t.reserve(2)
    first, second = t.permit(1), t.permit(2)
    t.now = T0 + HOUR - SKEW - 1
    t.submit(first)
    t.now += 1
    t.submit(second, refused("PERMIT_EXPIRED"))

    t = Trace("activation/too-old-and-expired", "two rules are broken: the first in the order of reasons is the reason")
    t.reserve()
    late = t.permit()
    t.now = T0 + DAY
    t.submit(late, refused("PERMIT_TOO_OLD", "PERMIT_EXPIRED"))

    t = Trace("activation/same-permit-twice", "a permit comes into force once")
    t.reserve()
    once = t.permit()
    t.submit(once)
    t.submit(once, refused("PERMIT_NOT_NEWER", "NONCE_SPENT"))
    t.now += 1
    t.submit(once, refused("PERMIT_NOT_NEWER", "NONCE_SPENT"))

    t = Trace("activation/not-newer", "a renewal is issued after what it renews")
    t.ready()
    t.now += 1
    t.activate(1, refused("PERMIT_NOT_NEWER"), issued=T0 - 1)
    t.activate(1, refused("PERMIT_NOT_NEWER"), issued=T0)
    t.activate(1, issued=T0 + 1)

    t = Trace("activation/nonce-spent", "a nonce is spent for the whole wallet")
    t.ready(1, nonce="ab" * 16)
    t.reserve(2)
    t.activate(2, refused("NONCE_SPENT"), nonce="ab" * 16)
    t.now += 1
    t.activate(1, refused("NONCE_SPENT"), nonce="ab" * 16)
    t.activate(2, nonce="cd" * 16)

    t = Trace("activation/nonce-of-another-wallet", "another wallet's nonces are its own")
    t.ready(1, nonce="ab" * 16)
    t.ready(1, nonce="ab" * 16, wallet=BOB)

    for name, comment, change in (
        ("cap", "another amount", {"usd": 251}),
        ("fewer-assets", "fewer assets", {"assets": ("USDC",)}),
        ("asset-order", "the assets in another order", {"assets": ("JTO", "USDC")}),
        ("asset-spelling", "an asset by its mint", {"assets": ("USDC", mint("JTO"))}),
    ):
        t = Trace(f"activation/scope-{name}", f"an active agent's scope doesn't change: {comment}")
        t.ready()
        t.now += SECOND
        t.activate(1, refused("SCOPE_CHANGED"), **change)
        t.fire(1, allowed(100 * USD, 1))
        t.activate(1)

    t = Trace("activation/other-key", "an agent has one session key for ever")
    t.ready(1)
    t.now += SECOND
    t.activate(1, refused("SESSION_KEY_NOT_RESERVED", "SCOPE_CHANGED"), key=9)

    t = Trace("activation/asset-unknown", "an asset that the executor can't resolve")
    t.reserve()
    t.activate(1, refused("ASSET_UNKNOWN"), assets=("USDC", "WIF"))
    t.activate(1)
    t.now += SECOND
    t.activate(1, refused("ASSET_UNKNOWN"), assets=("USDC", "WIF"))

    t = Trace("activation/envelopes", "a permit in each envelope")
    for number, envelope in enumerate(("raw", "offchain-v0", "offchain-v1"), 1):
        t.reserve(number)
        t.submit(t.permit(number), envelope=envelope)

    t = Trace("activation/forged", "no permit that a wallet signed: nothing is said of the agent")
    t.reserve()
    good = t.permit()
    wider = {**good, "maxAmountPerExecutionUsd": 251}
    t.step("activate", error("SIGNATURE_INVALID"), signed_permit={**signed(good, ALICE), "permit": wider})
    t.submit(good, error("SIGNATURE_INVALID"), walletAddress=BOB.address)
    t.submit({**good, "maxAmountPerExecutionUsd": 0}, error("SCHEMA_MAX_AMOUNT"))
    t.submit(good)

    t = Trace("activation/renewal", "a renewal before the end moves the end")
    t.ready()
    t.now = T0 + HOUR // 2
    t.activate()
    t.now = T0 + HOUR
    t.fire(1, allowed(100 * USD, 1))
    t.now = T0 + HOUR + HOUR // 2 - SKEW
    t.fire(2, refused("PERMIT_EXPIRED"))

    t = Trace("activation/shorter-renewal", "a renewal may also end earlier")
    t.ready(lasts=DAY)
    t.now += 1
    t.activate(1, lasts=2 * MINUTE)
    t.now += 2 * MINUTE - SKEW
    t.fire(1, refused("PERMIT_EXPIRED"))


def make_agents():
    t = Trace("agents/reservations", "an agent keeps one session key, and a key one agent")
    t.reserve(1)
    t.reserve(1)
    t.reserve(1, ILLEGAL, key=2)
    t.reserve(2, ILLEGAL, key=1)
    t.reserve(2)
    t.reserve(1, wallet=BOB)

    t = Trace("agents/cap-of-3", "the fourth active agent is refused until one's permit is over", activeAgents=3)
    t.ready(1, 2, lasts=DAY)
    t.ready(3, lasts=HOUR)
    t.reserve(4)
    t.activate(4, refused("AGENTS_OVER_CAP"))
    t.now = T0 + HOUR - SKEW - 1
    t.activate(4, refused("AGENTS_OVER_CAP"))
    t.now += 1
    t.activate(4)
    t.activate(3, refused("AGENTS_OVER_CAP"))

    t = Trace("agents/cap-and-renewal", "an agent's renewal takes no second place", activeAgents=2)
    t.ready(1, 2)
    t.now += 1
    t.activate(1)
    t.activate(2)
    t.ready(1, wallet=BOB)

    t = Trace("agents/stopped-frees-place", "whoever doesn't fire any more frees a place", activeAgents=2)
    t.ready(1, 2)
    t.reserve(3)
    t.reserve(4)
    t.activate(3, refused("AGENTS_OVER_CAP"))
    t.stop(1)
    t.activate(3)
    t.activate(4, refused("AGENTS_OVER_CAP"))
    t.complete(2)
    t.activate(4)

    t = Trace("agents/cap-of-none", "where no agent may be active, none is", activeAgents=0)
    t.reserve()
    t.activate(1, refused("AGENTS_OVER_CAP"))

    t = Trace("agents/cap-of-20", "the limit as it stands: 20 active agents, and the 21st when the first is over")
    t.ready(1, lasts=HOUR)
    t.ready(*range(2, 21), lasts=DAY)
    t.reserve(21)
    t.activate(21, refused("AGENTS_OVER_CAP"))
    t.fire(1, allowed(100 * USD, 1), agent=20)
    t.now = T0 + HOUR - SKEW - 1
    t.activate(21, refused("AGENTS_OVER_CAP"))
    t.now += 1
    t.activate(21)

    t = Trace("agents/stopped", "a stopped agent doesn't fire, and starts with a permit issued after the stop")
    t.ready()
    before = t.permit(usd=1, issued=T0 + 1)
    t.now = T0 + SECOND
    t.stop()
    t.fire(1, refused("AGENT_STOPPED"))
    t.submit(before, refused("PERMIT_NOT_NEWER"))
    t.activate(1, refused("PERMIT_NOT_NEWER"), issued=T0 + SECOND)
    t.stop(expected=ILLEGAL)
    t.activate(1, issued=T0 + SECOND + 1, usd=1, assets=("JTO", "BONK"))
    t.fire(2, refused("ASSET_NOT_WHITELISTED"))

    t = Trace("agents/stopped-keeps-its-key", "a stop frees the scope, but not the session key")
    t.ready()
    t.stop()
    t.now += 1
    t.activate(1, refused("SESSION_KEY_NOT_RESERVED"), key=9)
    t.activate(1, usd=999)

    t = Trace("agents/completed", "a completed agent is over for ever")
    t.ready()
    t.complete()
    t.fire(1, refused("AGENT_COMPLETED"))
    t.now += 1
    t.activate(1, refused("AGENT_COMPLETED"))
    t.activate(1, refused("SCOPE_CHANGED", "AGENT_COMPLETED"), usd=1)
    t.stop(expected=ILLEGAL)
    t.complete(expected=ILLEGAL)

    t = Trace("agents/stopped-then-completed", "a stopped agent can be completed")
    t.ready()
    t.stop()
    t.complete()
    t.fire(1, refused("AGENT_COMPLETED"))

    t = Trace("agents/reserved-only", "an agent without a permit can be completed, and not stopped")
    t.reserve()
    t.stop(expected=ILLEGAL)
    t.fire(1, bare("AGENT_UNKNOWN"))
    t.complete()
    t.activate(1, refused("AGENT_COMPLETED"))

    t = Trace("agents/unknown", "agents and wallets that nobody has seen")
    t.fire(1, bare("AGENT_UNKNOWN"))
    t.stop(expected=UNKNOWN)
    t.complete(expected=UNKNOWN)
    t.ready(1)
    t.fire(1, bare("AGENT_UNKNOWN"), agent=2)
    t.stop(2, expected=ILLEGAL)
    t.fire(1, bare("AGENT_UNKNOWN"), wallet=BOB)
    t.fire(1, allowed(100 * USD, 1))

    t = Trace("agents/pause-and-resume", "the first fire after the end pauses; a permit of the same scope resumes")
    t.ready()
    t.now = T0 + HOUR
    t.fire(1, refused("PERMIT_EXPIRED"))
    t.fire(2, refused("AGENT_PAUSED", "PERMIT_EXPIRED"))
    t.activate(1, refused("SCOPE_CHANGED"), usd=251)
    t.activate(1)
    t.fire(1, refused("PERMIT_EXPIRED"))
    t.fire(3, allowed(100 * USD, 1))

    t = Trace("agents/stopped-while-paused", "a paused agent can be stopped, and then gets any scope")
    t.ready()
    t.now = T0 + HOUR
    t.fire(1, refused("PERMIT_EXPIRED"))
    t.stop()
    t.fire(2, refused("AGENT_STOPPED", "PERMIT_EXPIRED"))
    t.now += 1
    t.activate(1, usd=1_000)
    t.sell(3, 1_000, allowed(1_000 * USD, 1))

    t = Trace("agents/over-while-others-start", "another agent's permit doesn't hide that an agent's own is over")
    t.ready(1)
    t.now = T0 + HOUR
    t.ready(2)
    t.fire(1, refused("PERMIT_EXPIRED"))
    t.fire(2, refused("AGENT_PAUSED", "PERMIT_EXPIRED"))
    t.fire(3, allowed(100 * USD, 1), agent=2)

    t = Trace("agents/stop-hands-back", "a stop tells which signatures may still land, newest first")
    t.ready(1, 2)
    for number in range(1, 6):
        t.fire(number, allowed(100 * USD, number))
    for number in range(1, 5):
        t.sign(number)
    t.land(1)
    t.dead(2)
    t.fire(6, allowed(100 * USD, 6), agent=2)
    t.sign(6)
    t.stop(1, "signature 4", "signature 3")
    t.complete(2, "signature 6")
    t.land(3)

    t = Trace("agents/another-wallets-agent", "another wallet's agent of the same id is another agent")
    t.ready(1)
    t.ready(1, wallet=BOB)
    t.stop(wallet=BOB)
    t.fire(1, refused("AGENT_STOPPED"), wallet=BOB)
    t.fire(1, allowed(100 * USD, 1))


def make_revocations():
    t = Trace("revocations/before-activation", "a revoked permit never comes into force; a nonce is revoked once")
    t.reserve()
    t.revoke("ab" * 16, ok(changed=True))
    t.revoke("ab" * 16, ok(changed=False))
    t.activate(1, refused("NONCE_SPENT"), nonce="ab" * 16)
    t.activate(1)

    t = Trace("revocations/in-force", "who fires by a revoked permit is stopped, and nobody else")
    t.ready(1, nonce="ab" * 16)
    t.ready(2)
    t.revoke("ab" * 16, ok(changed=True))
    t.fire(1, refused("AGENT_STOPPED"))
    t.fire(2, allowed(100 * USD, 1), agent=2)
    t.revoke("ab" * 16, ok(changed=False))
    t.now += 1
    t.activate(1, usd=1)

    t = Trace("revocations/replaced", "the nonce of a permit that was renewed is spent already")
    t.ready(1, nonce="ab" * 16)
    t.now += 1
    t.activate(1)
    t.revoke("ab" * 16, ok(changed=False))
    t.fire(1, allowed(100 * USD, 1))

    t = Trace("revocations/by-another-wallet", "a wallet revokes its own nonces")
    t.ready(1, nonce="ab" * 16)
    t.revoke("ab" * 16, ok(changed=True), wallet=BOB)
    t.fire(1, allowed(100 * USD, 1))

    t = Trace("revocations/forged", "no revocation that a wallet signed")
    t.ready(1, nonce="ab" * 16)
    t.revoke("ab" * 16, error("SIGNATURE_INVALID"), wallet=BOB, walletAddress=ALICE.address)
    t.fire(1, allowed(100 * USD, 1))

    t = Trace("revocations/unknown-wallet", "a wallet that nobody has seen revokes ahead")
    t.revoke("ab" * 16, ok(changed=True))
    t.reserve()
    t.activate(1, refused("NONCE_SPENT"), nonce="ab" * 16)


def make_fires():
    t = Trace("fires/cap-inclusive", "$250 may be traded, and not a millionth of a dollar more")
    t.ready()
    t.fire(1, allowed(250 * USD, 1), sellAmount=250 * USDC, minReceived=100 * JTO)
    t.fire(2, refused("AMOUNT_OVER_CAP"), sellAmount=250 * USDC + 1, minReceived=100 * JTO)

    t = Trace("fires/cap-of-a-cent", "the smallest amount that a permit can name")
    t.ready(usd=0.01)
    t.fire(1, allowed(10_000, 1), sellAmount=10_000, minReceived=4 * 10**6)
    t.fire(2, refused("AMOUNT_OVER_CAP"), sellAmount=10_001, minReceived=4 * 10**6)

    t = Trace("fires/larger-leg", "the larger of both legs' values counts")
    t.ready()
    t.fire(1, allowed(250 * USD, 1), sellAmount=100 * USDC, minReceived=100 * JTO)
    t.fire(2, refused("AMOUNT_OVER_CAP"), sellAmount=100 * USDC, minReceived=100 * JTO + 1)
    t.fire(3, allowed(100 * USD, 2), sellAmount=100 * USDC, minReceived=39 * JTO)

    t = Trace(
        "fires/value-rounds-up", "a part of a millionth of a dollar counts as one: 1 base unit of JTO is $0.0000000025"
    )
    t.ready(usd=0.01)
    t.fire(1, allowed(1, 1), sell="JTO", sellAmount=1, buy="USDC", minReceived=1)
    t.fire(2, allowed(1, 2), sell="JTO", sellAmount=400, buy="USDC", minReceived=1)
    t.fire(3, allowed(2, 3), sell="JTO", sellAmount=401, buy="USDC", minReceived=1)
    t.fire(4, allowed(10_000, 4), sell="JTO", sellAmount=4 * 10**6, buy="USDC", minReceived=10_000)
    t.fire(5, refused("AMOUNT_OVER_CAP"), sell="JTO", sellAmount=4 * 10**6 + 1, buy="USDC", minReceived=10_000)

    t = Trace(
        "fires/largest-amounts",
        "the largest amounts are valued exactly: (2^64 - 1) USDC units are $18446744073709.551615",
    )
    t.ready(usd=1)
    t.fire(1, refused("AMOUNT_OVER_CAP", "MIN_RECEIVED_TOO_LOW"), sellAmount=2**64 - 1, minReceived=1)

    t = Trace("fires/minimum-edge", "the minimum received may lie 3 % below the quotes, inclusive: 38.8 JTO for $100")
    t.ready()
    t.fire(1, allowed(100 * USD, 1), minReceived=38_800_000_000)
    t.fire(2, refused("MIN_RECEIVED_TOO_LOW"), minReceived=38_799_999_999)

    t = Trace("fires/minimum-rounds-up", "a part of a base unit is asked for whole: 27714.28 units of BONK are 27715")
    t.quotes = [USDC_AT_1, quote("BONK", 7 * DOLLAR)]
    t.ready(assets=("USDC", "BONK"))
    # 2 units are $0.000002; less 3 %, $0.00000194; at $7 and 5 decimals that is 0.0277 units
    t.fire(1, allowed(70, 1), sellAmount=2, buy="BONK", minReceived=1)
    # 2 USDC less 3 % are $1.94: 27714.28 units
    t.fire(2, refused("MIN_RECEIVED_TOO_LOW"), sellAmount=2 * USDC, buy="BONK", minReceived=27_714)
    t.fire(3, allowed(2 * USD, 2), sellAmount=2 * USDC, buy="BONK", minReceived=27_715)

    t = Trace("fires/no-slippage", "an operator that allows no slippage", maxSlippageBps=0)
    t.ready()
    t.fire(1, refused("MIN_RECEIVED_TOO_LOW"), minReceived=40 * JTO - 1)
    t.fire(2, allowed(100 * USD, 1), minReceived=40 * JTO)

    t = Trace("fires/any-slippage", "an operator that allows any slippage", maxSlippageBps=10_000)
    t.ready()
    t.fire(1, allowed(100 * USD, 1), minReceived=1)

    t = Trace("fires/highest-quote-values", "of several sources the highest price values the trade")
    t.quotes = [*QUOTES, quote("USDC", 11 * DOLLAR // 10, source="other")]
    t.ready()
    t.fire(1, allowed(110 * USD, 1), minReceived=44 * JTO)
    t.fire(2, refused("MIN_RECEIVED_TOO_LOW"), minReceived=42_679_999_999)
    t.fire(3, allowed(110 * USD, 2), minReceived=42_680_000_000)

    t = Trace(
        "fires/lowest-quote-buys", "what is bought counts at its lowest price for the minimum, and highest for the cap"
    )
    t.quotes = [*QUOTES, quote("JTO", 2 * DOLLAR, source="other")]
    t.ready()
    t.fire(1, refused("MIN_RECEIVED_TOO_LOW"), minReceived=48_499_999_999)
    t.fire(2, allowed(121_250_000, 1), minReceived=48_500_000_000)

    t = Trace("fires/not-whitelisted", "both legs are in the whitelist, as it spells them")
    t.ready()
    t.fire(1, refused("ASSET_NOT_WHITELISTED"), sell="BONK")
    t.fire(2, refused("ASSET_NOT_WHITELISTED"), buy="BONK")
    t.fire(3, refused("ASSET_NOT_WHITELISTED", "ASSET_NOT_WHITELISTED"), sell="BONK", buy="SOL")
    t.fire(4, refused("ASSET_NOT_WHITELISTED"), sell=mint("USDC"))
    t.fire(5, refused("ASSET_NOT_WHITELISTED"), sell="usdc")

    t = Trace("fires/whitelisted-by-mint", "an asset that the permit names by its mint")
    t.ready(assets=(mint("USDC"), "JTO"))
    t.fire(1, refused("ASSET_NOT_WHITELISTED"))
    t.fire(2, allowed(100 * USD, 1), sell=mint("USDC"))

    t = Trace("fires/identical", "both legs are one mint, by whichever names")
    t.ready(assets=("USDC", mint("USDC")))
    t.fire(1, refused("ASSETS_IDENTICAL"), buy="USDC", minReceived=100 * USDC)
    t.fire(2, refused("ASSETS_IDENTICAL"), buy=mint("USDC"), minReceived=100 * USDC)

    t = Trace("fires/price-missing", "what nobody quotes can't be valued")
    t.quotes = [USDC_AT_1]
    t.ready()
    t.fire(1, refused("PRICE_MISSING"))
    t.quotes = []
    t.fire(2, refused("PRICE_MISSING", "PRICE_MISSING"))
    t.quotes = QUOTES
    t.fire(3, allowed(100 * USD, 1))

    t = Trace("fires/price-flagged", "a source that says itself not to trade on its quote")
    t.quotes = [USDC_AT_1, quote("JTO", 25 * DOLLAR // 10, stale=True)]
    t.ready()
    t.fire(1, refused("PRICE_STALE"))
    t.quotes = [USDC_AT_1, quote("JTO", 25 * DOLLAR // 10, stale=True), quote("JTO", 25 * DOLLAR // 10, source="other")]
    t.fire(2, allowed(100 * USD, 1))

    t = Trace("fires/price-age-edge", "a quote is fresh as long as it says, inclusive")
    t.quotes = [USDC_AT_1, quote("JTO", 25 * DOLLAR // 10, max_age=30 * SECOND)]
    t.ready()
    t.now = T0 + 30 * SECOND
    t.fire(1, allowed(100 * USD, 1))
    t.now += 1
    t.fire(2, refused("PRICE_STALE"))

    t = Trace("fires/price-future-edge", "a quote from up to 1 s ahead is fresh")
    t.quotes = [USDC_AT_1, quote("JTO", 25 * DOLLAR // 10, at=T0 + MINUTE)]
    t.ready()
    t.now = T0 + MINUTE - SKEW - 1
    t.fire(1, refused("PRICE_STALE"))
    t.now += 1
    t.fire(2, allowed(100 * USD, 1))

    t = Trace("fires/stale-price-counts-nothing", "a stale quote neither values a trade nor lowers the minimum")
    t.quotes = [
        *QUOTES,
        quote("USDC", 9 * DOLLAR, source="other", stale=True),
        quote("JTO", DOLLAR, source="other", max_age=0),
    ]
    t.ready()
    t.now += 1
    t.fire(1, allowed(100 * USD, 1))

    t = Trace("fires/expiry-edges", "no fire within 90 s (and 1 s) of the permit's end, and it is over 1 s before")
    t.ready()
    t.now = T0 + HOUR - 91 * SECOND - 1
    t.fire(1, allowed(100 * USD, 1))
    t.now += 1
    t.fire(2, refused("PERMIT_EXPIRING"))
    t.now = T0 + HOUR - SKEW - 1
    t.fire(3, refused("PERMIT_EXPIRING"))
    t.now += 1
    t.fire(4, refused("PERMIT_EXPIRED"))
    t.fire(5, refused("AGENT_PAUSED", "PERMIT_EXPIRED"))

    t = Trace("fires/no-margin", "an operator that asks for no margin", expiryMarginS=0)
    t.ready()
    t.now = T0 + HOUR - SKEW - 1
    t.fire(1, allowed(100 * USD, 1))
    t.now += 1
    t.fire(2, refused("PERMIT_EXPIRED"))

    t = Trace("fires/retry-of-an-allowed", "the same request again gets the same answer, and no second authorization")
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(1, as_before(100 * USD))
    t.stop()
    t.quotes = []
    t.now += DAY
    t.fire(1, as_before(100 * USD))
    t.look(1, "authorized")

    t = Trace("fires/retry-of-a-refused", "a refusal is final for its executionId")
    t.quotes = []
    t.ready()
    t.fire(1, refused("PRICE_MISSING", "PRICE_MISSING"))
    t.quotes = QUOTES
    t.fire(1, refused("PRICE_MISSING", "PRICE_MISSING"))
    t.look(1, "refused", "PRICE_MISSING")
    t.fire(2, allowed(100 * USD, 1))

    t = Trace("fires/conflict", "an executionId with other content than before")
    t.ready(1, 2)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(1, bare("EXECUTION_CONFLICT"), sellAmount=1)
    t.fire(1, bare("EXECUTION_CONFLICT"), agent=2)
    t.fire(1, bare("EXECUTION_CONFLICT"), rail="other")
    t.fire(1, bare("EXECUTION_CONFLICT"), intentKey="dip")
    t.fire(1, as_before(100 * USD))
    t.fire(2, refused("ASSET_NOT_WHITELISTED"), sell="BONK")
    t.fire(2, bare("EXECUTION_CONFLICT"))

    t = Trace("fires/unrecorded-refusal", "what was refused for want of an agent may be asked again")
    t.reserve()
    t.fire(1, bare("AGENT_UNKNOWN"))
    t.activate()
    t.fire(1, allowed(100 * USD, 1))

    t = Trace("fires/another-wallets-execution", "executionIds are unique to a wallet")
    t.ready(1)
    t.ready(1, wallet=BOB)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(1, allowed(50 * USD, 1), wallet=BOB, sellAmount=50 * USDC, minReceived=20 * JTO)

    t = Trace("fires/every-failing-check", "all that is wrong is named, in order", executionsPer24H=1)
    t.ready()
    t.fire(1, allowed(100 * USD, 1), intentKey="dip")
    t.halt()
    t.quotes = [USDC_AT_1, quote("JTO", 25 * DOLLAR // 10, stale=True)]
    t.now = T0 + HOUR - 91 * SECOND
    t.fire(
        2, refused("HALTED", "PERMIT_EXPIRING", "INTENT_TAKEN", "PRICE_STALE", "EXECUTIONS_OVER_CAP"), intentKey="dip"
    )
    t.lift()
    t.quotes = QUOTES
    t.fire(
        3,
        refused("PERMIT_EXPIRING", "AMOUNT_OVER_CAP", "MIN_RECEIVED_TOO_LOW", "EXECUTIONS_OVER_CAP"),
        sellAmount=251 * USDC,
    )


def make_intents():
    for state, steps in (
        ("authorized", ()),
        ("signed", ("sign",)),
        ("landed", ("sign", "land")),
    ):
        t = Trace(f"intents/{state}", f"an intent is taken while its attempt is {state}")
        t.ready(1)
        t.fire(1, allowed(100 * USD, 1), intentKey="dip")
        for step in steps:
            getattr(t, step)(1)
        t.fire(2, refused("INTENT_TAKEN"), intentKey="dip")
        t.fire(1, as_before(100 * USD), intentKey="dip")
    for state, steps in (
        ("voided", ("void",)),
        ("failed", ("sign", "fail")),
        ("dead", ("sign", "dead")),
    ):
        t = Trace(f"intents/{state}", f"an intent is free again once its attempt is {state}")
        t.ready(1)
        t.fire(1, allowed(100 * USD, 1), intentKey="dip")
        for step in steps:
            getattr(t, step)(1)
        t.fire(2, allowed(100 * USD, 2), intentKey="dip")
        t.fire(3, refused("INTENT_TAKEN"), intentKey="dip")

    t = Trace("intents/whose", "an intent is one agent's, exactly as it spells it; a refused fire takes none")
    t.ready(1, 2)
    t.fire(1, refused("AMOUNT_OVER_CAP", "MIN_RECEIVED_TOO_LOW"), intentKey="dip", sellAmount=251 * USDC)
    t.fire(2, allowed(100 * USD, 1), intentKey="dip")
    t.fire(3, allowed(100 * USD, 2), intentKey="dip", agent=2)
    t.fire(4, allowed(100 * USD, 3), intentKey="Dip")
    t.fire(5, allowed(100 * USD, 4))
    t.fire(6, refused("INTENT_TAKEN"), intentKey="dip")

    t = Trace("intents/past-a-stop", "a new permit doesn't free an intent")
    t.ready()
    t.fire(1, allowed(100 * USD, 1), intentKey="dip")
    t.stop()
    t.now += 1
    t.activate()
    t.fire(2, refused("INTENT_TAKEN"), intentKey="dip")


def make_window():
    free = T0 + DAY + SKEW

    t = Trace("window/edges", "a slot is free 24 h and 1 s after its attempt", executionsPer24H=3)
    t.ready(lasts=5 * DAY)
    for number in range(1, 4):
        t.now = T0 + (number - 1) * HOUR
        t.fire(number, allowed(100 * USD, number))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.now = free - 1
    t.fire(5, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.now = free
    t.fire(6, allowed(100 * USD, 4))
    t.fire(7, refused("EXECUTIONS_OVER_CAP", retry=free + HOUR))
    t.now = free + HOUR - 1
    t.fire(8, refused("EXECUTIONS_OVER_CAP", retry=free + HOUR))
    t.now = free + HOUR
    t.fire(9, allowed(100 * USD, 5))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free))

    t = Trace("window/of-one", "a cap of one", executionsPer24H=1)
    t.ready(lasts=5 * DAY)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.now = free
    t.fire(3, allowed(100 * USD, 2))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free + DAY + SKEW))

    t = Trace("window/all-at-once", "what was used at one moment is free at one moment", executionsPer24H=3)
    t.ready(lasts=5 * DAY)
    for number in range(1, 4):
        t.fire(number, allowed(100 * USD, number))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.now = free
    for number in range(5, 8):
        t.fire(number, allowed(100 * USD, number - 1))
    t.fire(8, refused("EXECUTIONS_OVER_CAP", retry=free + DAY + SKEW))

    t = Trace("window/not-a-calendar-day", "no counter starts anew at midnight", executionsPer24H=2)
    t.ready(lasts=5 * DAY)
    t.now = T0 + 12 * HOUR - 1
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2))
    t.now = T0 + 12 * HOUR
    t.fire(3, refused("EXECUTIONS_OVER_CAP", retry=T0 + 36 * HOUR + SKEW - 1))

    t = Trace(
        "window/slots-are-not-given-back", "an attempt keeps its slot, whatever becomes of it", executionsPer24H=4
    )
    t.ready()
    for number in range(1, 5):
        t.fire(number, allowed(100 * USD, number))
    for number in range(2, 5):
        t.sign(number)
    t.void(1)
    t.fail(2)
    t.dead(3)
    t.land(4)
    t.fire(5, refused("EXECUTIONS_OVER_CAP", retry=free))

    t = Trace("window/refusals-are-free", "a refused fire uses no slot, nor does a retry", executionsPer24H=2)
    t.ready()
    t.fire(1, refused("ASSET_NOT_WHITELISTED"), sell="BONK")
    t.fire(2, allowed(100 * USD, 1))
    t.fire(2, as_before(100 * USD))
    t.fire(2, bare("EXECUTION_CONFLICT"), sellAmount=1)
    t.fire(3, allowed(100 * USD, 2))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free))

    t = Trace("window/whose", "a wallet's agents share its window, and wallets don't", executionsPer24H=2)
    t.ready(1, 2)
    t.ready(1, wallet=BOB)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2), agent=2)
    t.fire(3, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free), agent=2)
    t.fire(3, allowed(100 * USD, 1), wallet=BOB)

    t = Trace("window/past-a-stop", "neither a stop nor a new agent resets the window", executionsPer24H=1)
    t.ready(1)
    t.fire(1, allowed(100 * USD, 1))
    t.stop()
    t.now += 1
    t.activate(1)
    t.fire(2, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.ready(2)
    t.fire(3, refused("EXECUTIONS_OVER_CAP", retry=free), agent=2)

    t = Trace("window/time-does-not-cure-all", "no time is told where time alone doesn't help", executionsPer24H=1)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, refused("AMOUNT_OVER_CAP", "MIN_RECEIVED_TOO_LOW", "EXECUTIONS_OVER_CAP"), sellAmount=251 * USDC)

    t = Trace("window/of-500", "the limit as it stands: 500, a second apart, and the 501st when the first is a day old")
    t.ready(lasts=3 * DAY)
    for number in range(1, 501):
        t.now = T0 + number * SECOND
        t.sell(number, 1, allowed(USD, number))
    t.sell(501, 1, refused("EXECUTIONS_OVER_CAP", retry=T0 + SECOND + DAY + SKEW))
    t.now = T0 + SECOND + DAY + SKEW - 1
    t.sell(502, 1, refused("EXECUTIONS_OVER_CAP", retry=T0 + SECOND + DAY + SKEW))
    t.now += 1
    t.sell(503, 1, allowed(USD, 501))
    t.sell(504, 1, refused("EXECUTIONS_OVER_CAP", retry=T0 + 2 * SECOND + DAY + SKEW))


def make_notional():
    free = T0 + DAY + SKEW

    t = Trace("notional/edges", "$300 a day, inclusive, and not a millionth more", notionalMicroUsdPer24H=300 * USD)
    t.ready(lasts=5 * DAY)
    t.sell(1, 100, allowed(100 * USD, 1))
    t.now = T0 + HOUR
    t.sell(2, 150, allowed(150 * USD, 2))
    t.fire(3, refused("NOTIONAL_OVER_CAP", retry=free), sellAmount=50 * USDC + 1, minReceived=20 * JTO)
    t.sell(4, 50, allowed(50 * USD, 3))
    t.fire(5, refused("NOTIONAL_OVER_CAP", retry=free), sellAmount=1, minReceived=400)
    t.now = free - 1
    t.sell(6, 100, refused("NOTIONAL_OVER_CAP", retry=free))
    t.now = free
    t.fire(7, refused("NOTIONAL_OVER_CAP", retry=free + HOUR), sellAmount=100 * USDC + 1, minReceived=40 * JTO)
    t.sell(8, 100, allowed(100 * USD, 4))
    t.sell(9, 1, refused("NOTIONAL_OVER_CAP", retry=free + HOUR))

    t = Trace("notional/several-leave", "the time told is when enough has left", notionalMicroUsdPer24H=300 * USD)
    t.ready(lasts=5 * DAY)
    for number in range(1, 4):
        t.now = T0 + (number - 1) * HOUR
        t.sell(number, 100, allowed(100 * USD, number))
    t.sell(4, 100, refused("NOTIONAL_OVER_CAP", retry=free))
    t.sell(5, 101, refused("NOTIONAL_OVER_CAP", retry=free + HOUR))
    t.sell(6, 200, refused("NOTIONAL_OVER_CAP", retry=free + HOUR))
    t.sell(7, 250, refused("NOTIONAL_OVER_CAP", retry=free + 2 * HOUR))
    t.now = free + HOUR
    t.sell(8, 200, allowed(200 * USD, 4))

    t = Trace(
        "notional/more-than-a-day",
        "no time cures a trade worth more than a day's",
        notionalMicroUsdPer24H=100 * USD - 1,
    )
    t.ready()
    t.sell(1, 100, refused("NOTIONAL_OVER_CAP"))
    t.fire(2, allowed(100 * USD - 1, 1), sellAmount=100 * USDC - 1, minReceived=39 * JTO)

    t = Trace("notional/of-nothing", "an operator that allows nothing", notionalMicroUsdPer24H=0)
    t.ready()
    t.fire(1, refused("NOTIONAL_OVER_CAP"), sellAmount=1, minReceived=400)

    t = Trace(
        "notional/not-given-back",
        "what was authorized counts, whatever becomes of it",
        notionalMicroUsdPer24H=200 * USD,
    )
    t.ready()
    t.sell(1, 100, allowed(100 * USD, 1))
    t.void(1)
    t.sell(2, 100, allowed(100 * USD, 2))
    t.sign(2)
    t.dead(2)
    t.sell(3, 1, refused("NOTIONAL_OVER_CAP", retry=free))

    t = Trace(
        "notional/value-of-then",
        "an attempt counts for what it was worth when it was authorized",
        notionalMicroUsdPer24H=300 * USD,
    )
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.quotes = [quote("USDC", 2 * DOLLAR), quote("JTO", 5 * DOLLAR)]
    t.fire(2, allowed(200 * USD, 2))
    t.fire(3, refused("NOTIONAL_OVER_CAP", retry=free), sellAmount=1, minReceived=400)

    t = Trace("notional/whose", "a wallet's agents share it, and wallets don't", notionalMicroUsdPer24H=100 * USD)
    t.ready(1, 2)
    t.ready(1, wallet=BOB)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, refused("NOTIONAL_OVER_CAP", retry=free), agent=2)
    t.fire(2, allowed(100 * USD, 1), wallet=BOB)

    t = Trace(
        "notional/signing",
        "an attempt doesn't stand in its own way when it is signed",
        notionalMicroUsdPer24H=100 * USD,
    )
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.sign(1)

    t = Trace(
        "notional/both-windows",
        "two windows are full: the later time cures",
        notionalMicroUsdPer24H=200 * USD,
        executionsPer24H=2,
    )
    t.ready()
    t.sell(1, 50, allowed(50 * USD, 1))
    t.now += MINUTE
    t.sell(2, 150, allowed(150 * USD, 2))
    t.sell(3, 50, refused("EXECUTIONS_OVER_CAP", "NOTIONAL_OVER_CAP", retry=free))
    t.sell(4, 51, refused("EXECUTIONS_OVER_CAP", "NOTIONAL_OVER_CAP", retry=free + MINUTE))


def make_interval():
    t = Trace("interval/edges", "an agent fires 10 s apart, to the millisecond", minIntervalMs=10_000)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))
    t.now = T0 + 9_999
    t.fire(3, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))
    t.now = T0 + 10_000
    t.fire(4, allowed(100 * USD, 2))
    t.fire(5, refused("INTERVAL_TOO_SHORT", retry=T0 + 20_000))

    t = Trace("interval/whose", "each agent keeps its own distance", minIntervalMs=10_000)
    t.ready(1, 2)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2), agent=2)
    t.fire(3, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000), agent=2)

    t = Trace("interval/refusals", "a refused fire starts no interval", minIntervalMs=10_000)
    t.ready()
    t.fire(1, refused("ASSET_NOT_WHITELISTED"), sell="BONK")
    t.fire(2, allowed(100 * USD, 1))
    t.now += 5_000
    t.fire(3, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))
    t.now += 5_000
    t.fire(4, allowed(100 * USD, 2))

    t = Trace("interval/voided", "an attempt that was voided counts too", minIntervalMs=10_000)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.void(1)
    t.fire(2, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))

    t = Trace("interval/past-a-renewal", "a renewal doesn't shorten it", minIntervalMs=10_000)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.now += 1
    t.activate()
    t.fire(2, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))

    t = Trace("interval/past-a-stop", "nor does a stop and a new start", minIntervalMs=10_000)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.stop()
    t.fire(2, refused("AGENT_STOPPED", "INTERVAL_TOO_SHORT"))
    t.now += 1
    t.activate()
    t.fire(3, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))

    t = Trace("interval/past-a-pause", "nor a pause", minIntervalMs=2 * HOUR)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.now = T0 + HOUR
    t.fire(2, refused("PERMIT_EXPIRED", "INTERVAL_TOO_SHORT"))
    t.activate(1, lasts=3 * HOUR)
    t.fire(3, refused("INTERVAL_TOO_SHORT", retry=T0 + 2 * HOUR))
    t.now = T0 + 2 * HOUR
    t.fire(4, allowed(100 * USD, 2))

    t = Trace("interval/signing", "an attempt doesn't stand in its own way when it is signed", minIntervalMs=10_000)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.sign(1)


def make_attempts():
    for state, reason in (("landed", None), ("failed", "TRANSACTION_FAILED"), ("dead", "TRANSACTION_DEAD")):
        end = {"landed": "land", "failed": "fail"}.get(state, state)
        t = Trace(f"attempts/{state}", f"authorized, signed, {state}: each step once, and nothing after")
        t.ready()
        t.fire(1, allowed(100 * USD, 1))
        getattr(t, end)(1, ILLEGAL)
        t.look(1, "authorized")
        t.sign(1)
        t.sign(1, ILLEGAL)
        t.void(1, ILLEGAL)
        t.look(1, "signed")
        getattr(t, end)(1)
        for call in (t.land, t.fail, t.dead, t.void, t.sign):
            call(1, ILLEGAL)
        t.look(1, state, reason)

    for reason in ("RAIL_UNAVAILABLE", "TRANSACTION_REFUSED"):
        t = Trace(f"attempts/voided-{reason.lower().replace('_', '-')}", "given up before it was signed")
        t.ready()
        t.fire(1, allowed(100 * USD, 1))
        t.void(1, reason=reason)
        for call in (t.land, t.fail, t.dead, t.void, t.sign):
            call(1, ILLEGAL)
        t.look(1, "voided", reason)

    t = Trace("attempts/fee", "what landed is valued at the quotes that decided: 5000 lamports at $150 are $0.00075")
    t.quotes = [*QUOTES, quote("SOL", 150 * DOLLAR)]
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.sign(1)
    t.quotes = []
    t.land(1, ok(filled_amount="40", filled_price_usd="2.5", fee_usd="0.00075"))

    t = Trace("attempts/ttl-edge", "an authorization may be signed on for 60 s, exclusive")
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2))
    t.now = T0 + MINUTE - 1
    t.sign(1)
    t.now += 1
    t.sign(2, bare("AUTHORIZATION_EXPIRED"))
    t.look(2, "voided", "AUTHORIZATION_EXPIRED")
    t.sign(2, ILLEGAL)

    t = Trace("attempts/ttl-limit", "the operator's own life of an authorization", authorizationTtlS=5)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2))
    t.now = T0 + 5 * SECOND - 1
    t.sign(1)
    t.now += 1
    t.sign(2, bare("AUTHORIZATION_EXPIRED"))

    for name, quotes, reasons in (
        ("price-up", [quote("USDC", 251 * DOLLAR // 100), JTO_AT_2_50], ("AMOUNT_OVER_CAP", "MIN_RECEIVED_TOO_LOW")),
        ("price-down", [USDC_AT_1, quote("JTO", 24 * DOLLAR // 10)], ("MIN_RECEIVED_TOO_LOW",)),
        ("price-stale", [USDC_AT_1, quote("JTO", 25 * DOLLAR // 10, stale=True)], ("PRICE_STALE",)),
        ("price-missing", [USDC_AT_1], ("PRICE_MISSING",)),
    ):
        t = Trace(f"attempts/signing-{name}", "signing is decided again, at the quotes of that moment")
        t.ready()
        t.fire(1, allowed(100 * USD, 1))
        t.quotes = quotes
        t.sign(1, refused(*reasons))
        t.look(1, "voided", reasons[0])

    t = Trace("attempts/signing-expiry-edge", "nothing is signed within 90 s (and 1 s) of the permit's end")
    t.ready()
    t.now = T0 + HOUR - 91 * SECOND - 1
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2))
    t.sign(1)
    t.now += 1
    t.sign(2, refused("PERMIT_EXPIRING"))

    t = Trace("attempts/signing-stopped", "what was authorized before a stop isn't signed after it")
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.stop()
    t.sign(1, refused("AGENT_STOPPED"))
    t.look(1, "voided", "AGENT_STOPPED")

    t = Trace("attempts/signing-renewed", "a renewal meanwhile is what signing is held to")
    t.ready()
    t.now = T0 + HOUR - 91 * SECOND - 1
    t.fire(1, allowed(100 * USD, 1))
    t.activate()
    t.now += SECOND
    t.sign(1)

    t = Trace(
        "attempts/signing-full-window", "a window that filled up meanwhile takes no slot back", executionsPer24H=2
    )
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2))
    t.fire(3, refused("EXECUTIONS_OVER_CAP", retry=T0 + DAY + SKEW))
    t.sign(1)
    t.sign(2)

    t = Trace("attempts/unknown", "what was never authorized has no steps")
    t.void(1, UNKNOWN)
    t.ready()
    for call in (t.void, t.land, t.fail, t.dead):
        call(1, ILLEGAL)
    t.fire(1, refused("ASSET_NOT_WHITELISTED"), sell="BONK")
    for call in (t.void, t.land, t.fail, t.dead):
        call(1, ILLEGAL)

    t = Trace("attempts/restarts", "a restart between any two steps changes nothing")
    t.ready()
    t.restart()
    t.fire(1, allowed(100 * USD, 1))
    t.restart()
    t.fire(1, as_before(100 * USD))
    t.sign(1)
    t.restart()
    t.sign(1, ILLEGAL)
    t.land(1)
    t.restart()
    t.land(1, ILLEGAL)
    t.look(1, "landed")
    t.fire(2, allowed(100 * USD, 2))


def make_alone():
    t = Trace(
        "alone/not-beside-another", "what must be alone isn't signed while another may land, and the other way round"
    )
    t.ready(1, 2)
    for number in range(1, 6):
        t.fire(number, allowed(100 * USD, number), agent=2 if number == 5 else 1)
    t.sign(1)
    t.sign_alone(2, bare("SESSION_BUSY"))
    t.look(2, "voided", "SESSION_BUSY")
    t.land(1)
    t.sign_alone(3)
    t.sign(4, bare("SESSION_BUSY"))
    t.sign_alone(5)
    t.dead(3)
    t.fire(6, allowed(100 * USD, 6))
    t.sign(6)


def make_halts():
    for name, wallet, agent, others, theirs in (
        ("agent", ALICE, 1, True, True),
        ("wallet", ALICE, None, False, True),
        ("everything", None, None, False, False),
    ):
        t = Trace(f"halts/{name}", f"what a halt of {name} holds, until it is lifted")
        t.ready(1, 2)
        t.ready(1, wallet=BOB)
        t.halt(wallet, agent)
        t.fire(1, refused("HALTED"))
        t.fire(2, allowed(100 * USD, 1) if others else refused("HALTED"), agent=2)
        t.fire(3, allowed(100 * USD, 1) if theirs else refused("HALTED"), wallet=BOB)
        t.lift(wallet, agent)
        t.lift(wallet, agent, changed=False)
        t.fire(1, refused("HALTED"))
        t.fire(4, allowed(100 * USD, 2 if others else 1))

    t = Trace("halts/whose", "a halt is lifted only by who set it")
    t.ready()
    t.halt(ALICE, by="user", why="on holiday")
    t.lift(ALICE, changed=False)
    t.halt(ALICE)
    t.fire(1, refused("HALTED", "HALTED"))
    t.lift(ALICE)
    t.fire(2, refused("HALTED"))
    t.lift(ALICE, by="user")
    t.fire(3, allowed(100 * USD, 1))

    t = Trace("halts/scopes-apart", "a lift is of exactly its scope")
    t.ready()
    t.halt()
    t.halt(ALICE)
    t.halt(ALICE, 1)
    t.fire(1, refused("HALTED", "HALTED", "HALTED"))
    t.lift(ALICE)
    t.fire(2, refused("HALTED", "HALTED"))
    t.lift()
    t.lift(BOB, changed=False)
    t.fire(3, refused("HALTED"))
    t.lift(ALICE, 1)
    t.fire(4, allowed(100 * USD, 1))

    t = Trace("halts/again", "a halt again is one halt")
    t.ready()
    t.halt(ALICE, 1)
    t.halt(ALICE, 1, why="still")
    t.fire(1, refused("HALTED"))
    t.lift(ALICE, 1)
    t.fire(2, allowed(100 * USD, 1))

    t = Trace("halts/activation", "nothing comes into force under a halt; stopping goes on")
    t.ready(1)
    t.reserve(2)
    t.halt()
    t.activate(2, refused("HALTED"))
    t.now += 1
    t.activate(1, refused("HALTED"))
    t.stop(1)
    t.lift()
    t.activate(2)

    t = Trace("halts/signing", "what was authorized before a halt isn't signed under it; what is signed is told")
    t.ready(1, 2)
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, allowed(100 * USD, 2))
    t.fire(3, allowed(100 * USD, 3), agent=2)
    t.sign(2)
    t.sign(3)
    t.halt(ALICE, 1, "signature 2", by="user")
    t.halt(ALICE, None, "signature 3", "signature 2")
    t.sign(1, refused("HALTED", "HALTED"))
    t.lift(ALICE, 1, by="user")
    t.lift(ALICE)
    t.sign(1, ILLEGAL)
    t.land(2)

    t = Trace("halts/lifting-restores-nothing", "what expired under a halt stays so")
    t.ready()
    t.halt()
    t.now = T0 + HOUR
    t.fire(1, refused("HALTED", "PERMIT_EXPIRED"))
    t.lift()
    t.fire(2, refused("PERMIT_EXPIRED"))
    t.fire(3, refused("AGENT_PAUSED", "PERMIT_EXPIRED"))

    t = Trace("halts/unknown-wallet", "a wallet that nobody has seen can be halted")
    t.halt(ALICE)
    t.reserve()
    t.activate(1, refused("HALTED"))
    t.lift(ALICE)
    t.activate(1)

    t = Trace("halts/retry", "an answer of before a halt is still the answer")
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.halt()
    t.restart()
    t.fire(1, as_before(100 * USD))
    t.fire(2, refused("HALTED"))


def make_clock():
    t = Trace("clock/back-by-2s", "a clock that goes back by up to 2 s stands still meanwhile", minIntervalMs=10_000)
    t.ready()
    t.now = T0 + MINUTE
    t.fire(1, allowed(100 * USD, 1))
    t.now = T0 + MINUTE - 2 * SECOND
    t.fire(2, refused("INTERVAL_TOO_SHORT", retry=T0 + MINUTE + 10_000))
    t.sign(1)
    t.now = T0 + MINUTE - 2 * SECOND - 1
    t.fire(3, bare("CLOCK_UNTRUSTED"))
    t.now = T0 + MINUTE + 10_000
    t.fire(3, allowed(100 * USD, 2))

    t = Trace("clock/back-past-an-edge", "a permit that was over stays over when the clock goes back")
    t.ready(1, 2)
    t.now = T0 + HOUR - SKEW
    t.fire(1, refused("PERMIT_EXPIRED"))
    t.now -= 1
    t.fire(2, refused("PERMIT_EXPIRED"), agent=2)
    t.fire(3, refused("AGENT_PAUSED", "PERMIT_EXPIRED"))

    t = Trace("clock/slots-and-back", "a slot that was free stays free when the clock goes back", executionsPer24H=1)
    t.ready(lasts=5 * DAY)
    t.fire(1, allowed(100 * USD, 1))
    t.now = T0 + DAY + SKEW
    t.fire(2, refused("ASSET_NOT_WHITELISTED"), sell="BONK")
    t.now -= 1
    t.fire(3, allowed(100 * USD, 2))
    t.now += 1 + DAY + SKEW - 1
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=T0 + 2 * (DAY + SKEW)))
    t.now += 1
    t.fire(5, allowed(100 * USD, 3))

    t = Trace("clock/back-far", "on a clock that went back by more, nothing is decided or written")
    t.ready(1, lasts=DAY)
    t.now = T0 + HOUR
    t.fire(1, allowed(100 * USD, 1))
    t.sign(1)
    t.fire(2, allowed(100 * USD, 2))
    t.now = T0 + HOUR - 2 * SECOND - 1
    t.fire(1, bare("CLOCK_UNTRUSTED"))
    t.fire(3, bare("CLOCK_UNTRUSTED"))
    t.activate(1, bare("CLOCK_UNTRUSTED"))
    t.reserve(2, UNTRUSTED)
    t.revoke("ab" * 16, UNTRUSTED)
    t.sign(2, UNTRUSTED)
    t.void(2, UNTRUSTED)
    t.land(1, UNTRUSTED)
    t.fail(1, UNTRUSTED)
    t.dead(1, UNTRUSTED)
    t.stop(expected=UNTRUSTED)
    t.complete(expected=UNTRUSTED)
    t.now = T0 + HOUR - 2 * SECOND
    t.fire(1, as_before(100 * USD))
    t.sign(2)
    t.land(1)
    t.fire(3, allowed(100 * USD, 3))

    t = Trace("clock/whose", "what time a wallet has seen is its own")
    t.ready(1)
    t.ready(1, wallet=BOB)
    t.now = T0 + HOUR // 2
    t.fire(1, allowed(100 * USD, 1))
    t.now = T0 + MINUTE
    t.fire(2, bare("CLOCK_UNTRUSTED"))
    t.fire(2, allowed(100 * USD, 1), wallet=BOB)

    t = Trace("clock/before-a-halt", "a halt of everything has its own time, and holds wallets whose clock it isn't")
    t.ready()
    t.now = T0 + MINUTE
    t.halt()
    t.now = T0 + MINUTE - 2 * SECOND - 1
    t.restart()
    t.fire(1, refused("HALTED"))
    t.step("lift", UNTRUSTED, scope={}, by="operator")
    t.halt(by="user", why="mine")  # what only takes authority away needs no clock
    t.now = T0 + MINUTE - 2 * SECOND
    t.lift()
    t.fire(2, refused("HALTED"))
    t.lift(by="user")
    t.fire(3, allowed(100 * USD, 1))


def make_limits():
    free = T0 + DAY + SKEW

    t = Trace("limits/fewer-agents", "too many active agents: none fires until there are few enough", activeAgents=2)
    t.ready(1, 2)
    t.limit(activeAgents=1)
    t.fire(1, refused("AGENTS_OVER_CAP"))
    t.fire(2, refused("AGENTS_OVER_CAP"), agent=2)
    t.stop(2)
    t.fire(3, allowed(100 * USD, 1))

    t = Trace("limits/fewer-agents-signing", "what was authorized before isn't signed then", activeAgents=2)
    t.ready(1, 2)
    t.fire(1, allowed(100 * USD, 1))
    t.limit(activeAgents=1)
    t.sign(1, refused("AGENTS_OVER_CAP"))

    t = Trace("limits/fewer-executions", "a smaller cap holds against what was used before", executionsPer24H=3)
    t.ready(lasts=5 * DAY)
    for number in range(1, 4):
        t.now = T0 + (number - 1) * HOUR
        t.fire(number, allowed(100 * USD, number))
    t.limit(executionsPer24H=1)
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free + 2 * HOUR))
    t.now = free + 2 * HOUR - 1
    t.fire(5, refused("EXECUTIONS_OVER_CAP", retry=free + 2 * HOUR))
    t.now += 1
    t.fire(6, allowed(100 * USD, 4))

    t = Trace("limits/more-executions", "a larger cap gives room at once", executionsPer24H=1)
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.fire(2, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.limit(executionsPer24H=2)
    t.fire(2, refused("EXECUTIONS_OVER_CAP", retry=free))
    t.fire(3, allowed(100 * USD, 2))
    t.fire(4, refused("EXECUTIONS_OVER_CAP", retry=free))

    t = Trace("limits/notional-begins", "a day's worth counts what was authorized before there was a limit")
    t.ready()
    t.sell(1, 100, allowed(100 * USD, 1))
    t.sell(2, 100, allowed(100 * USD, 2))
    t.limit(notionalMicroUsdPer24H=250 * USD)
    t.sell(3, 51, refused("NOTIONAL_OVER_CAP", retry=free))
    t.sell(4, 50, allowed(50 * USD, 3))

    t = Trace("limits/interval-begins", "so does the distance between two fires")
    t.ready()
    t.fire(1, allowed(100 * USD, 1))
    t.limit(minIntervalMs=10_000)
    t.fire(2, refused("INTERVAL_TOO_SHORT", retry=T0 + 10_000))

    t = Trace("limits/slippage", "signing is held to the limits of its moment")
    t.ready()
    t.fire(1, allowed(100 * USD, 1), minReceived=39 * JTO)
    t.limit(maxSlippageBps=0)
    t.sign(1, refused("MIN_RECEIVED_TOO_LOW"))


def make_fundings():
    free = T0 + DAY + SKEW
    caps = {"autofundLamportsPer24H": 1_000, "autofundLamportsPer24HInAll": 1_500}

    t = Trace("fundings/nothing-unless-allowed", "by default nobody is given anything")
    t.ready()
    t.fund(1, 1, refused("FUNDING_NOT_ALLOWED", "FUNDING_OVER_CAP", "FUNDING_OVER_CAP_IN_ALL"))
    t.fundable()
    t.fundable(changed=False)
    t.fund(1, 1, refused("FUNDING_OVER_CAP", "FUNDING_OVER_CAP_IN_ALL"))

    t = Trace("fundings/listed", "only wallets that the operator names, and only while it does", **caps)
    t.ready()
    t.fund(1, 100, refused("FUNDING_NOT_ALLOWED"))
    t.fundable()
    t.fund(1, 100)
    t.fundable(fundable=False)
    t.fund(2, 100, refused("FUNDING_NOT_ALLOWED"))
    t.sign(1, refused("FUNDING_NOT_ALLOWED"))
    t.look(1, "voided", "FUNDING_NOT_ALLOWED")
    t.ready(1, wallet=BOB)
    t.fund(1, 100, refused("FUNDING_NOT_ALLOWED"), wallet=BOB)

    t = Trace("fundings/user-cap", "a user's cap is inclusive, rolls, and takes nothing back", **caps)
    t.ready(lasts=5 * DAY)
    t.fundable()
    t.fund(1, 400)
    t.now = T0 + HOUR
    t.fund(2, 600)
    t.fund(3, 1, refused("FUNDING_OVER_CAP", retry=free))
    t.fund(3, 401, refused("FUNDING_OVER_CAP", retry=free + HOUR))
    t.fund(3, 1_001, refused("FUNDING_OVER_CAP", "FUNDING_OVER_CAP_IN_ALL"))
    t.void(2)
    t.now = free - 1
    t.fund(3, 1, refused("FUNDING_OVER_CAP", retry=free))
    t.now = free
    t.fund(3, 400)
    t.fund(4, 1, refused("FUNDING_OVER_CAP", retry=free + HOUR))

    t = Trace("fundings/cap-of-all", "all users share one cap", **caps)
    t.ready()
    t.ready(wallet=BOB)
    t.fundable()
    t.fundable(wallet=BOB)
    t.fund(1, 1_000)
    t.fund(1, 501, refused("FUNDING_OVER_CAP_IN_ALL", retry=free), wallet=BOB)
    t.fund(1, 500, wallet=BOB)
    t.fund(2, 1, refused("FUNDING_OVER_CAP_IN_ALL", retry=free), wallet=BOB)

    t = Trace("fundings/once", "the same funding again is the same, and an id is a trade's or a funding's", **caps)
    t.ready()
    t.fundable()
    t.fund(1, 400)
    t.fund(1, 400, ok(outcome="allowed"))
    t.fund(1, 401, bare("EXECUTION_CONFLICT"))
    t.fire(1, bare("EXECUTION_CONFLICT"))
    t.fire(2, allowed(100 * USD, 1))
    t.fund(2, 400, bare("EXECUTION_CONFLICT"))
    t.fund(3, 600)

    t = Trace("fundings/steps", "a funding goes the way of every attempt, and ends once", **caps)
    t.ready()
    t.fundable()
    t.fund(1, 100)
    t.funded(1, ILLEGAL)
    t.sign(1)
    t.sign(1, ILLEGAL)
    t.land(1, ILLEGAL)
    t.funded(1)
    t.funded(1, ILLEGAL)
    t.look(1, "landed")
    t.fund(2, 100)
    t.sign(2)
    t.dead(2)
    t.look(2, "dead", "TRANSACTION_DEAD")
    t.fund(3, 100)
    t.now += MINUTE
    t.sign(3, bare("AUTHORIZATION_EXPIRED"))
    t.fire(4, allowed(100 * USD, 1))
    t.sign(4)
    t.funded(4, ILLEGAL)

    t = Trace("fundings/agent", "an agent that may not fire isn't funded", **caps)
    t.fundable()
    t.fund(1, 1, bare("AGENT_UNKNOWN"))
    t.reserve()
    t.fund(1, 1, bare("AGENT_UNKNOWN"))
    t.activate()
    t.halt(ALICE)
    t.fund(1, 1, refused("HALTED"))
    t.lift(ALICE)
    t.fund(1, 1)
    t.stop()
    t.sign(1, refused("AGENT_STOPPED"))
    t.fund(2, 1, refused("AGENT_STOPPED"))
    t.ready(2)
    t.now = T0 + HOUR
    t.fund(3, 1, refused("PERMIT_EXPIRED"), agent=2)

    t = Trace("fundings/lowered-cap", "signing is held to the caps of its moment, and doesn't count itself", **caps)
    t.ready()
    t.fundable()
    t.fund(1, 400)
    t.fund(2, 600)
    t.sign(2)
    t.limit(autofundLamportsPer24H=999, autofundLamportsPer24HInAll=1_500)
    t.sign(1, refused("FUNDING_OVER_CAP", retry=free))


def text_of(traces):
    """Return a file's content: a step is a line."""
    parts = []
    for trace in traces:
        head = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in trace.document.items())
        steps = ",\n".join(f"   {json.dumps(step)}" for step in trace.steps)
        parts.append(f' {{\n{head},\n  "steps": [\n{steps}\n  ]\n }}')
    return '{\n"$schema": "../schemas/traces.json",\n"traces": [\n' + ",\n".join(parts) + "\n]\n}\n"


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "traces"
    folder.mkdir(exist_ok=True)
    for make in (
        make_activation,
        make_agents,
        make_revocations,
        make_fires,
        make_intents,
        make_window,
        make_notional,
        make_interval,
        make_attempts,
        make_alone,
        make_halts,
        make_clock,
        make_limits,
        make_fundings,
    ):
        make()
    for file, traces in FILES.items():
        (folder / f"{file}.json").write_text(text_of(traces), "ascii")
        print(f"{file}: {len(traces)} traces, {sum(len(trace.steps) for trace in traces)} steps")


if __name__ == "__main__":
    main()
