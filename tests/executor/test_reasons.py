"""One order: that of the enum, of the checks as they are written, and of the page that explains them."""

import ast
import inspect
import runpy
from pathlib import Path

import pytest

from executor import activation, decide, funding
from executor.activation import Standing, decide_activation
from executor.assets import KnownAssets
from executor.bounds import Bounds
from executor.decide import Usage
from executor.halts import EVERYTHING, Halt, Halter
from executor.lifecycle import AgentState
from executor.limits import Limits
from executor.prices.quote import Quote
from executor.reasons import Reason
from executor.request import FireRequest
from permits import draft, issue, verify
from tests.support import HOUR_MS, JTO, T0, USDC, WALLET, key, uuid

ORDER = list(Reason)
DAY_MS = 24 * HOUR_MS
GENERATOR = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "reasons.py"))
SAID = GENERATOR["SAID"]

FAULTS = {Reason.LEDGER_TAMPERED, Reason.CLOCK_UNTRUSTED}
SETTLED = {Reason.INTENT_TAKEN, Reason.EXECUTIONS_OVER_CAP, Reason.INTERVAL_TOO_SHORT}
"""What `decide` can't say of an attempt that it has allowed before."""


def defined_in(module):
    tree = ast.parse(inspect.getsource(module))
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return defined | {
        target.id: node.value for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    }


def checks_of(module, function):
    """Return what each check of `function` may say, as (reason, may time cure it), in the order of the source."""
    defined = defined_in(decide) | defined_in(module)
    (checks,) = (
        node.value
        for node in ast.walk(defined[function])
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "checks"
    )
    return list(dict.fromkeys(reason for check in checks.elts for reason in said(check, defined)))


def said(node, defined):
    curable = any(isinstance(each, ast.keyword) and each.arg == "retry_at_ms" for each in ast.walk(node))
    names = [each for each in ast.walk(node) if isinstance(each, (ast.Attribute, ast.Name))]
    for each in sorted(names, key=lambda name: (name.lineno, name.col_offset)):
        if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "Reason":
            yield Reason[each.attr], curable
        elif isinstance(each, ast.Name) and each.id in defined:
            yield from said(defined[each.id], defined)


FIRE = checks_of(decide, "decide")
ACTIVATION = checks_of(activation, "decide_activation")
FUNDING = checks_of(funding, "decide_funding")


@pytest.mark.parametrize("checks", [FIRE, ACTIVATION, FUNDING], ids=["decide", "decide_activation", "decide_funding"])
def test_the_checks_stand_in_the_order_of_precedence(checks):
    reasons = [reason for reason, _ in checks]
    assert len(reasons) > 5
    assert reasons == sorted(set(reasons), key=ORDER.index)


HALT = Halt(by=Halter.OPERATOR, why="a drill", at_ms=T0)


def bounds(**changes):
    terms = {"agent_id": uuid(1), "session_pubkey": key(1).wallet_address, "asset_whitelist": ["USDC", "JTO"],
             "max_amount_usd": 250, "issued_at_ms": T0, "lifetime_s": 3600, "nonce": "ab" * 16}  # fmt: skip
    verified = verify(issue(draft(**{**terms, **changes}), WALLET))
    return verified, Bounds.of(verified, (USDC, JTO))


def quotes(at_ms=T0):
    fields = {"price_pico_usd": 10**12, "at_ms": at_ms, "max_age_ms": 1_000, "source": "test"}
    return [Quote(mint=asset.mint, **fields) for asset in (USDC, JTO)]


def fires():
    """Yield decisions on fires that break as many rules at a time as can be broken together."""
    limits = Limits(notional_micro_usd_per_24h=1, min_interval_ms=HOUR_MS)
    worst = Usage(agent_state=AgentState.RESERVED, active_agents=99, attempt=501, window_attempt_at_ms=T0,
                  halts=(HALT, HALT), intent_held_by=uuid(9), window_micro_usd=1, fired_at_ms=T0)  # fmt: skip
    asked = {"wallet": WALLET.wallet_address, "agent_id": uuid(1), "execution_id": uuid(2), "rail": "local",
             "sell": "USDC", "sell_amount": 10**15, "buy": "JTO", "min_received": 1}  # fmt: skip
    for state in AgentState:
        for now_ms in (T0, T0 + HOUR_MS - 60_000, T0 + HOUR_MS):
            for changes in ({}, {"sell": "BONK"}, {"buy": "BONK"}, {"buy": "USDC"}):
                for known in (quotes(now_ms), quotes(now_ms - 2_000), [], quotes()[:1]):
                    request = FireRequest(**{**asked, **changes})
                    usage = worst._replace(agent_state=state)
                    yield decide.decide(bounds()[1], request, usage, known, limits, now_ms)


def activations():
    """Yield decisions on permits that break as many rules at a time as can be broken together."""
    current = bounds(max_amount_usd=1, issued_at_ms=T0)[1]
    for state in AgentState:
        for issued_at_ms in (T0 - 2 * DAY_MS, T0, T0 + DAY_MS):
            for known in (KnownAssets([USDC]), KnownAssets([USDC, JTO])):
                verified, _ = bounds(issued_at_ms=issued_at_ms)
                standing = Standing(reserved_for=None, nonce_spent=True, current=current, other_active_agents=99,
                                    agent_state=state, halts=(HALT,))  # fmt: skip
                yield decide_activation(verified, standing, known, Limits(), T0)


@pytest.mark.parametrize(("broken", "checks"), [(fires, FIRE), (activations, ACTIVATION)])
def test_every_check_is_reached_in_that_order_and_not_only_sorted_into_it(broken, checks, monkeypatch):
    monkeypatch.setattr(decide, "PRECEDENCE", dict.fromkeys(Reason, 0))  # sorts nothing
    found = [[check.reason for check in decision.checks] for decision in broken()]
    assert all(reasons == sorted(reasons, key=ORDER.index) for reasons in found)
    assert {reason for reasons in found for reason in reasons} == {reason for reason, _ in checks}


def test_what_the_execution_itself_is_refused_for_comes_before_its_agent(sqlite_setup):
    setup = sqlite_setup
    setup.activate()
    authorization = setup.guard.authorize(setup.request(1)).authorization
    assert setup.guard.authorize(setup.request(1, agent=2)).reason is Reason.EXECUTION_CONFLICT
    assert setup.guard.authorize(setup.request(2, agent=2)).reason is Reason.AGENT_UNKNOWN
    setup.guard.halt(EVERYTHING, Halter.OPERATOR, "a drill")
    setup.now_ms += 60_000
    assert setup.sign(authorization).reason is Reason.AUTHORIZATION_EXPIRED
    assert ORDER[2:6] == [
        Reason.EXECUTION_CONFLICT,
        Reason.AUTHORIZATION_EXPIRED,
        Reason.AGENT_UNKNOWN,
        Reason.HALTED,
    ]


def test_the_page_is_what_the_generator_gives():
    assert GENERATOR["PAGE"].read_text("utf-8") == GENERATOR["page"](), "run `python docs/reasons.py`"


def test_the_page_tells_of_each_reason_in_that_order():
    assert list(SAID) == ORDER
    headings = [line for line in GENERATOR["page"]().splitlines() if line.startswith("## ")]
    assert headings == [f"## `{reason}`" for reason in ORDER]


def test_the_page_says_of_each_call_what_its_checks_may_say():
    given = {call: {reason for reason in SAID if call in SAID[reason].calls.split()} for call in GENERATOR["CALLS"]}
    fire, activation_, funding_ = dict(FIRE), dict(ACTIVATION), dict(FUNDING)
    assert given["fire"] == set(fire) | FAULTS | {Reason.EXECUTION_CONFLICT}
    assert given["activation"] == set(activation_) | FAULTS
    assert given["funding"] == set(funding_) | FAULTS | {Reason.EXECUTION_CONFLICT}
    assert given["signing"] == set(fire) - SETTLED | set(funding_) | {Reason.AUTHORIZATION_EXPIRED, Reason.SESSION_BUSY}
    assert set().union(*given.values()) == set(Reason)
    assert {reason for reason in SAID if SAID[reason].retry} == {
        reason for reason, curable in (fire | activation_ | funding_).items() if curable
    }
