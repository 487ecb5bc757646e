"""The threat model names tests that exist; attacks that are tried nowhere else are tried here."""

import ast
import asyncio
import re
from functools import cache
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from executor.bounds import Bounds
from executor.demo.world import World
from executor.errors import IllegalTransition
from executor.funding import FundingRequest
from executor.lifecycle import AttemptState
from executor.limits import Limits
from executor.reasons import Reason
from executor.signing import SigningGate
from executor.signing.sweep import Owned
from tests.support import key, uuid

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "explanation" / "threat-model.md"


def without_comments(page):
    """Return the page without what is still to come."""
    return re.sub(r"<!--.*?-->", "", page, flags=re.DOTALL)


def named_tests(page):
    """Return each `tests/...::test_name` on the page."""
    return re.findall(r"`(tests/[^`:]+)::(\w+)`", without_comments(page))


@cache
def found_in(path):
    """Return the names of the tests in a file, parametrized ones by their function's."""
    if not (ROOT / path).is_file():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def missing(page):
    return [f"{path}::{name}" for path, name in named_tests(page) if name not in found_in(path)]


def test_each_test_that_the_page_names_is_there():
    page = PAGE.read_text()
    assert len(named_tests(page)) > 100
    assert without_comments(page).count("::test_") == len(named_tests(page)), "a name stands outside of back quotes"
    assert missing(page) == []


def test_a_name_that_is_no_test_is_noticed():
    here = "tests/test_threats.py"
    gone = [f"{here}::test_that_is_gone", f"{here}::missing_", "tests/test_gone.py::test_gone"]
    page = f"`{here}::test_a_name_that_is_no_test_is_noticed` " + " ".join(f"`{each}`" for each in gone)
    assert missing(page) == gone
    assert missing("<!-- `tests/test_gone.py::test_gone` -->") == []


@pytest.fixture
def two(setup):
    """Return a user's two authorizations, of one agent."""
    setup.activate()
    return setup, [setup.guard.authorize(setup.request(number)).authorization for number in (1, 2)]


def sign(setup, authorization, *, alone):
    return setup.guard.mark_signed(
        authorization,
        tx_signature=f"signature {authorization.attempt}",
        transaction_bytes=b"signed",
        last_valid_block_height=100,
        alone_since=setup.guard.head_seq(setup.wallet) if alone else None,
    )


@pytest.mark.parametrize("alone", [(True, False), (False, True), (True, True)], ids=["first", "second", "both"])
def test_a_transaction_with_floors_has_no_other_beside_it(two, alone):
    setup, (first, second) = two
    assert sign(setup, first, alone=alone[0]) is None
    assert sign(setup, second, alone=alone[1]).reason is Reason.SESSION_BUSY
    assert setup.guard.execution(setup.wallet, second.execution_id).state is AttemptState.VOIDED


def test_a_transaction_with_floors_waits_for_nobody_else(two):
    """Neither for an attempt that has ended, nor for one of another agent, nor for one that isn't signed."""
    setup, (first, second) = two
    setup.activate(2)
    other = setup.guard.authorize(setup.request(3, agent=2)).authorization
    assert sign(setup, other, alone=True) is None
    assert sign(setup, first, alone=False) is None
    setup.guard.mark_dead(setup.wallet, first.execution_id)
    assert setup.guard.authorize(setup.request(4)).authorization is not None
    assert sign(setup, second, alone=True) is None


def test_what_ended_since_the_floors_were_read_is_too_late_for_them(two):
    setup, (first, second) = two
    read_at = setup.guard.head_seq(setup.wallet)
    assert sign(setup, second, alone=False) is None
    setup.guard.mark_dead(setup.wallet, second.execution_id)
    refused = setup.guard.mark_signed(
        first, tx_signature="first", transaction_bytes=b"", last_valid_block_height=1, alone_since=read_at
    )
    assert refused.reason is Reason.SESSION_BUSY


def funding(setup):
    caps = Limits(autofund_lamports_per_24h=100, autofund_lamports_per_24h_in_all=100)
    setup.guard.change_limits(caps)
    setup.guard.set_fundable(setup.wallet, fundable=True)
    request = FundingRequest(wallet=setup.wallet, agent_id=uuid(1), execution_id=uuid(20_000), lamports=1)
    return setup.guard.authorize_funding(request).authorization


def test_a_funding_is_no_company_for_floors_either(two):
    setup, (first, _second) = two
    given = funding(setup)
    assert sign(setup, first, alone=True) is None
    assert setup.sign(given, "given").reason is Reason.SESSION_BUSY


def test_floors_are_no_company_for_a_funding(two):
    setup, (first, _second) = two
    assert setup.sign(funding(setup), "given") is None
    assert sign(setup, first, alone=True).reason is Reason.SESSION_BUSY


def test_what_was_signed_under_an_older_permit_is_not_sent_under_a_newer(two):
    setup, (first, _second) = two
    assert sign(setup, first, alone=False) is None
    assert setup.guard.may_send(setup.wallet, first.execution_id) is None
    setup.guard.stop(setup.wallet, uuid(1))
    assert setup.guard.may_send(setup.wallet, first.execution_id).reason is Reason.AGENT_STOPPED
    setup.now_ms += 1_000
    setup.activate(usd=1, assets=("USDC", "BONK"))
    assert setup.guard.may_send(setup.wallet, first.execution_id).reason is Reason.PERMIT_NOT_NEWER


class Agreeable(int):
    """A number that says that it equals every other."""

    __hash__ = int.__hash__

    def __eq__(self, _other):
        return True

    def __ne__(self, _other):
        return False


def test_a_number_that_equals_everything_authorizes_nothing_more(two):
    setup, (first, _second) = two
    for change in ({"sell_amount": Agreeable(9 * 10**8)}, {"min_received": Agreeable(1)}):
        with pytest.raises(IllegalTransition, match="not the one that was given"):
            sign(setup, first._replace(**change), alone=False)
    assert sign(setup, first, alone=False) is None


def test_a_wallet_that_the_operator_did_not_list_is_given_nothing(setup):
    setup.guard.change_limits(Limits(autofund_lamports_per_24h=100, autofund_lamports_per_24h_in_all=100))
    setup.activate()
    setup.guard.set_fundable(key(9).wallet_address, fundable=True)
    request = FundingRequest(wallet=setup.wallet, agent_id=uuid(1), execution_id=uuid(20_000), lamports=1)
    assert setup.guard.authorize_funding(request).reason is Reason.FUNDING_NOT_ALLOWED
    setup.guard.set_fundable(setup.wallet, fundable=True)
    assert setup.guard.authorize_funding(request).authorization.lamports == 1


def test_a_sweep_that_the_agents_restart_overtook_is_not_released(tmp_path):
    with World(tmp_path, seed=3) as world:
        world.guard.activate(world.sign_permit())
        world.guard.stop(world.wallet, world.agent_id)
        gate = SigningGate(world.awaited, world.vault, world.chain)
        owned = Owned(world.chain.lamports(Pubkey.from_string(world.session_pubkey)), (), {})
        blockhash = asyncio.run(world.chain.latest_blockhash())
        world.let_pass(seconds=1)
        assert isinstance(world.guard.activate(world.sign_permit()), Bounds)
        with pytest.raises(IllegalTransition, match="only what was stopped or completed"):
            asyncio.run(gate.sign_sweep(world.wallet, world.agent_id, owned, blockhash))
        assert not any(each.entry.kind == "sweep-signed" for each in world.guard.entries(world.wallet))
