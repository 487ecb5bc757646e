"""The rules of a fire in the words of two policy engines, as far as those can say them.

Both are asked what `decide` is asked: the same facts, from what Python holds to a verdict. Values in dollars are worked
out for them, since neither language rounds as the cap does.
"""

from types import SimpleNamespace

import casbin
import cedarpy

RULES = """
    agent_state == "active" and halts == 0 and now_ms + 1000 < expires_ms and now_ms + 91000 < expires_ms
    and intent_free and sell_listed and buy_listed and sell != buy
    and sell_quotes > 0 and buy_quotes > 0 and sell_fresh > 0 and buy_fresh > 0
    and value <= cap and min_received >= least and active_agents <= 20 and now_ms >= slot_free_at_ms
"""

MODEL = """
[request_definition]
r = fire

[policy_definition]
p = effect

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = {}
"""


def facts(evidence, bounds, value, now_ms):
    """Return what the rules speak of."""
    request, usage = evidence.request, evidence.usage
    quoted = {
        name: [quote for quote in evidence.quotes if quote.mint == bounds.whitelist[asset].mint]
        for name, asset in (("sell", request.sell), ("buy", request.buy))
    }
    fresh = {name: [quote for quote in quotes if quote.is_fresh(now_ms, 1000)] for name, quotes in quoted.items()}
    return {
        "agent_state": usage.agent_state.value,
        "halts": len(usage.halts),
        "now_ms": now_ms,
        "expires_ms": bounds.expires_at_ms,
        "intent_free": usage.intent_held_by is None,
        "sell_listed": request.sell in bounds.whitelist,
        "buy_listed": request.buy in bounds.whitelist,
        "sell": request.sell,
        "buy": request.buy,
        "sell_quotes": len(quoted["sell"]),
        "buy_quotes": len(quoted["buy"]),
        "sell_fresh": len(fresh["sell"]),
        "buy_fresh": len(fresh["buy"]),
        "value": value,
        "cap": bounds.cap_micro_usd,
        "min_received": request.min_received,
        "least": 1,
        "active_agents": usage.active_agents,
        "slot_free_at_ms": (usage.window_attempt_at_ms or 0) + 86_401_000,
    }


def by_casbin():
    """Return a function that tells whether the rules allow a fire with these facts."""
    words = [f"r.fire.{word}" if word.isidentifier() and word not in WORDS else word for word in RULES.split()]
    model = casbin.Model()
    model.load_model_from_text(MODEL.format(" ".join(words).replace(" and ", " && ")))
    enforcer = casbin.Enforcer(model)
    enforcer.add_policy("fire")
    return lambda fire: enforcer.enforce(SimpleNamespace(**fire))


def by_cedar():
    """Return a function that tells whether the rules allow a fire with these facts."""
    words = [f"context.{word}" if word.isidentifier() and word not in WORDS else word for word in RULES.split()]
    when = " ".join(words).replace(" and ", " && ")
    policies = f"permit(principal, action, resource) when {{ {when} }};"
    named = {"principal": 'Agent::"1"', "action": 'Action::"fire"', "resource": 'Wallet::"1"'}
    return lambda fire: cedarpy.is_authorized(named | {"context": fire}, policies, []).allowed


WORDS = {"and"}
