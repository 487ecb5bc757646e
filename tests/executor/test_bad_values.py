"""Values that are none: each is refused by the field's name, so that no decision is ever made from one."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from executor.assets import Asset
from executor.audit import check_ledger
from executor.errors import IllegalTransition, LedgerError
from executor.fill import Landing
from executor.halts import EVERYTHING, Halter
from executor.limits import Limits
from executor.prices.quote import Quote
from executor.reasons import Reason
from executor.request import FireRequest
from tests.support import JTO, T0, TOKEN, USDC, WALLET, key, uuid

NO_NUMBER = [1.0, 1.5, float("nan"), float("inf"), float("-inf"), Decimal(1), True, "", " 1", "1 ", "+1", "-1", "1.0",
             "1e3", "0x1", "١", "²", None, [], {}]  # fmt: skip
"""What is no integer, whatever its size."""

REQUEST = {"wallet": WALLET.wallet_address, "agent_id": uuid(1), "execution_id": uuid(2), "rail": "local",
           "sell": "USDC", "sell_amount": 1, "buy": "JTO", "min_received": 1}  # fmt: skip
QUOTE = {"mint": USDC.mint, "price_pico_usd": 1, "at_ms": T0, "max_age_ms": 1, "source": "test"}
LANDING = {"slot": 1, "sold": 1, "received": 1, "fee_lamports": 1}
ASSET = {"symbol": "USDC", "mint": USDC.mint, "decimals": 6, "token_program": TOKEN}

DIGITS = ["1"]
"""What only an amount may be, since it may outgrow JSON's integers."""

SIZES = [
    (FireRequest, REQUEST, "sell_amount", 1, 2**64 - 1),
    (FireRequest, REQUEST, "min_received", 1, 2**64 - 1),
    (Quote, QUOTE, "price_pico_usd", 1, 10**24),
    (Asset, ASSET, "decimals", 0, 19),
    (Limits, {}, "active_agents", 0, 2**53 - 1),
    (Limits, {}, "authorization_ttl_s", 1, 366 * 86_400),
    (Limits, {}, "executions_per_24h", 1, 2**53 - 1),
    (Limits, {}, "expiry_margin_s", 0, 366 * 86_400),
    (Limits, {}, "max_permit_age_s", 1, 366 * 86_400),
    (Limits, {}, "max_slippage_bps", 0, 10_000),
    (Limits, {}, "min_interval_ms", 0, 366 * 86_400_000),
    (Limits, {}, "notional_micro_usd_per_24h", 0, 2**53 - 1),
]


@pytest.mark.parametrize(("kind", "fields", "name", "least", "most"), SIZES, ids=[row[2] for row in SIZES])
def test_a_number_is_a_whole_one_within_its_bounds(kind, fields, name, least, most):
    for value in (least, most):
        assert getattr(kind(**{**fields, name: value}), name) == value
    optional = name == "notional_micro_usd_per_24h"
    wrong = [least - 1, most + 1, -(2**64), 10**40, *NO_NUMBER, *(DIGITS if kind is Limits else [])]
    for value in wrong:
        if value is None and optional:
            continue
        with pytest.raises(ValidationError) as refused:
            kind(**{**fields, name: value})
        assert {error["loc"][0].replace("_", "").lower() for error in refused.value.errors()} == {name.replace("_", "")}


@pytest.mark.parametrize(("name", "kind", "fields"), [("at_ms", Quote, QUOTE), ("max_age_ms", Quote, QUOTE),
                                                      ("sold", Landing, LANDING), ("received", Landing, LANDING),
                                                      ("fee_lamports", Landing, LANDING)])  # fmt: skip
@pytest.mark.parametrize("value", NO_NUMBER)
def test_a_time_or_an_outcome_is_a_whole_number(name, kind, fields, value):
    with pytest.raises(ValidationError, match=name.split("_", maxsplit=1)[0]):
        kind(**{**fields, name: value})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("wallet", ["", "*", "0" * 44, WALLET.wallet_address + "\n", WALLET.wallet_address.encode(), 1]),
        ("agent_id", ["", uuid(0xABC).upper(), uuid(1) + "\n", uuid(1)[:-1], "{" + uuid(1) + "}", uuid(1) + "\0"]),
        ("execution_id", ["", uuid(0xABC).upper(), uuid(1) + "\n", uuid(1).replace("-", ""), None]),
        ("sell", ["", "US DC", "USDC\n", "U" * 45, "УSDC", "USDC\0"]),
        ("buy", ["", "JT/O", "JTO\n", None]),
        ("rail", ["", "LOCAL", "local\n", "a" * 33]),
        ("intent_key", ["", "x" * 65, "tab\t", "umlaut ü", "x\n", 7]),
    ],
)
def test_a_name_is_of_its_form_to_the_last_character(name, wrong):
    for value in wrong:
        with pytest.raises(ValidationError):
            FireRequest(**{**REQUEST, name: value})


MALFORMED = ["", "*", "'; DROP TABLE entries; --", uuid(1) + "\n", "\x7f", "é", "x" * 10_000]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_id_is_nobodys(setup, name):
    setup.activate()
    authorization = setup.guard.authorize(setup.request(1)).authorization
    before = len(setup.guard.entries(setup.wallet))
    guard, wallet = setup.guard, setup.wallet
    assert guard.agent(wallet, name) is None
    assert guard.execution(wallet, name) is None
    assert list(guard.executions(wallet, name)) == []
    for step in (
        lambda: guard.stop(wallet, name),
        lambda: guard.complete(wallet, name, "done"),
        lambda: guard.arm_trigger(wallet, name, "x"),
        lambda: guard.set_next_run(wallet, name, None),
        lambda: guard.void(wallet, name, Reason.RAIL_UNAVAILABLE, ""),
        lambda: guard.mark_dead(wallet, name),
        lambda: guard.mark_failed(wallet, name, ""),
        lambda: guard.mark_landed(wallet, name, Landing(**LANDING)),
        lambda: guard.check(authorization._replace(execution_id=name)),
        lambda: guard.check(authorization._replace(agent_id=name)),
        lambda: setup.sign(authorization._replace(execution_id=name)),
    ):
        with pytest.raises(IllegalTransition):
            step()
    for step in (
        lambda: guard.reserve_session_key(wallet, name, key(5).wallet_address),
        lambda: guard.reserve_session_key(wallet, uuid(5), name),
        lambda: guard.reserve_session_key(name, uuid(5), key(5).wallet_address),
    ):
        with pytest.raises(ValueError, match=r"UUID|base58"):
            step()
    assert len(guard.entries(wallet)) == before
    assert guard.headroom(wallet).executions.used == 1


def test_every_asset_of_a_fire_must_be_one_that_the_permit_lists(setup):
    setup.activate(assets=("USDC", "JTO"))
    for changes in ({"sell": "BONK"}, {"buy": "BONK"}, {"sell": USDC.mint}, {"buy": JTO.mint}, {"buy": "WIF"}):
        refused = setup.guard.explain(setup.request(1, **changes))
        assert refused.reason is Reason.ASSET_NOT_WHITELISTED


HALF = "\ud83d"
"""Half of a surrogate pair, as a JSON text may hold it: Python has it in a string, UTF-8 and databases have not."""


def test_no_step_fails_by_half_a_surrogate_pair_in_what_it_tells(setup):
    setup.activate()
    guard, wallet = setup.guard, setup.wallet
    guard.arm_trigger(wallet, uuid(1), f"when {HALF} rises")
    first, second = (guard.authorize(setup.request(each)).authorization for each in (1, 2))
    guard.void(wallet, first.execution_id, Reason.RAIL_UNAVAILABLE, f"the rail said {HALF}")
    setup.sign(second)
    guard.mark_failed(wallet, second.execution_id, f"custom program error {HALF}")
    guard.halt(EVERYTHING, Halter.OPERATOR, f"a drill {HALF}")
    guard.complete(wallet, uuid(1), f"over {HALF}")
    assert guard.halts()[0].why == "a drill ?"
    told = [guard.execution(wallet, each.execution_id).steps[-1].entry.body["detail"] for each in (first, second)]
    assert told == ["the rail said ?", "custom program error ?"]
    assert check_ledger(guard.ledger).findings == ()


def test_half_a_surrogate_pair_where_a_name_belongs_is_told(setup):
    setup.activate()
    for ask in (setup.guard.agents, lambda wallet: setup.guard.stop(wallet, uuid(1))):
        with pytest.raises(LedgerError, match="half of a surrogate pair"):
            ask(HALF)
    with pytest.raises(LedgerError, match="half of a surrogate pair"):
        setup.guard.void(setup.wallet, HALF, Reason.RAIL_UNAVAILABLE, "nothing")
    with pytest.raises(ValidationError):
        setup.request(1, execution_id=HALF)
    assert setup.guard.authorize(setup.request(1)).outcome == "allowed"
