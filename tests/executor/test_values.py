"""Small laws of the values: rounding, scope, fills, seals."""

import json
from hashlib import sha256

import pytest
from pydantic import ValidationError

from executor.assets import NATIVE_MINT, KnownAssets
from executor.caps import value_micro_usd
from executor.decide import Allowed, Check, Refused, Usage, read_decision
from executor.entries import ActiveAgent, Entry, Head, Kind, chain_start, next_hash
from executor.errors import IllegalTransition
from executor.fill import Fill, Landing
from executor.halts import Halt, Halter
from executor.lifecycle import (
    AGENT_STEPS,
    ATTEMPT_STEP,
    ATTEMPT_STEPS,
    AgentState,
    AttemptState,
    require_agent_step,
    require_attempt_step,
)
from executor.prices.quote import PICO, Quote
from executor.reasons import Reason
from executor.registry import read_assets
from executor.seal import SealKeys
from tests.support import JTO, T0, USDC, Setup, key, uuid


@pytest.mark.parametrize(("amount", "micro"), [(0, 0), (1, 1), (1_000_000, 1_000_000), (999_999, 999_999)])
def test_a_value_is_rounded_up(amount, micro):
    assert value_micro_usd(amount, 6, PICO) == micro
    assert value_micro_usd(1, 9, 1) == 1


def test_a_price_is_rounded_up_and_must_be_one():
    def of(price):
        return Quote.of(USDC.mint, price, at_ms=T0, max_age_ms=1, source="test").price_pico_usd

    assert of("0.0000000000001") == 1
    assert of("1.0000000000001") == PICO + 1
    for wrong in ("0", "-1", "NaN", "sNaN", "Infinity", "1E+5000", "abc", "1E+13"):
        with pytest.raises(ValueError, match="price"):
            of(wrong)


@pytest.mark.parametrize("change", [{"mint": JTO.mint}, {"decimals": 7}, {"token_program": JTO.mint}])
def test_the_same_names_for_other_assets_are_another_scope(tmp_path, change):
    setup = Setup(tmp_path / "ledger.db")
    setup.activate(assets=("USDC",))
    setup.now_ms += 1_000
    setup.guard._assets = KnownAssets([USDC.model_copy(update=change)])
    assert setup.guard.activate(setup.permit(assets=("USDC",))).reason == "SCOPE_CHANGED"
    setup.guard.close()


def test_another_session_key_is_another_scope(setup):
    bounds = setup.activate()
    other = {**bounds.to_json_object(), "permit": {**bounds.permit, "sessionPubkey": JTO.mint}}
    assert type(bounds).from_json_object(other).scope != bounds.scope


def test_a_fill_is_valued_at_fresh_quotes_only(setup):
    setup.activate()
    setup.prices._by_mint[USDC.mint] = (
        *setup.prices.quotes(USDC.mint),
        Quote.of(USDC.mint, "9", at_ms=T0, max_age_ms=1, source="test").model_copy(update={"stale": True}),
    )
    setup.prices.set(Quote.of(NATIVE_MINT, "150", at_ms=T0 - 5, max_age_ms=1, source="test"))
    authorization = setup.guard.authorize(setup.request()).authorization
    setup.guard.mark_signed(authorization, tx_signature="5" * 87, transaction_bytes=b"", last_valid_block_height=1)
    landing = Landing(slot=1, sold=100 * 10**6, received=0, fee_lamports=5_000)
    fill = setup.guard.mark_landed(setup.wallet, authorization.execution_id, landing)
    assert (fill.filled_amount, fill.filled_price_usd, fill.fee_usd) == ("0", "0", None)
    assert Fill.from_json_object(fill.to_json_object()) == fill


def test_a_seal_is_for_one_kind_of_row_and_one_key():
    keys = SealKeys({"1": b"a" * 32, "2": b"b" * 32}, "2")
    seal = keys.seal(b"head", b"data")
    assert keys.fits(seal, b"head", b"data")
    assert not keys.fits(seal, b"entry", b"data")
    assert not keys.fits(seal, b"head", b"other")
    assert not keys.fits(seal._replace(key_id="1"), b"head", b"data")
    assert not keys.fits(seal._replace(key_id="3"), b"head", b"data")


def test_a_chain_begins_for_one_ledger_and_wallet():
    assert len({chain_start("00", "a"), chain_start("01", "a"), chain_start("00", "b")}) == 3
    assert next_hash(chain_start("00", "a"), b"x") != next_hash(chain_start("00", "b"), b"x")


def test_a_chain_is_hashed_as_it_always_was():
    """Every ledger that there is was chained so: an outsider recomputes it from this."""
    start = sha256(b"holdfire/chain/v1\x00" + b"00\x00a").hexdigest()
    assert chain_start("00", "a") == start
    assert next_hash(start, b"x") == sha256(b"holdfire/entry/v1\x00" + bytes.fromhex(start) + b"x").hexdigest()


@pytest.mark.parametrize("current", AGENT_STEPS)
@pytest.mark.parametrize("following", AgentState)
def test_agents_go_only_where_the_table_says(current, following):
    if following in AGENT_STEPS[current]:
        require_agent_step(current, following)
    else:
        with pytest.raises(IllegalTransition):
            require_agent_step(current, following)


@pytest.mark.parametrize("current", ATTEMPT_STEPS)
@pytest.mark.parametrize("following", AttemptState)
def test_attempts_go_one_step_at_a_time(current, following):
    if following in ATTEMPT_STEPS[current]:
        require_attempt_step(current, following)
        assert ATTEMPT_STEP[following] == (0 if current is None else ATTEMPT_STEP[current] + 1)
    else:
        with pytest.raises(IllegalTransition):
            require_attempt_step(current, following)


def test_a_value_takes_nothing_unknown_and_changes_nothing(setup):
    request = setup.request()
    with pytest.raises(ValidationError):
        request.sell_amount = 1
    with pytest.raises(ValidationError):
        type(request).from_json_object({**request.to_json_object(), "bypass": True})


def test_assets_are_read_from_a_file(tmp_path):
    path = tmp_path / "assets.json"
    path.write_text(json.dumps([USDC.to_json_object(), JTO.to_json_object()]))
    registry = read_assets(path)
    assert (registry.resolve("USDC"), registry.resolve(JTO.mint), registry.resolve("BONK")) == (USDC, JTO, None)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        json.dumps([USDC.to_json_object() | {"decimals": "6"}]),
        json.dumps([USDC.to_json_object(), JTO.to_json_object() | {"symbol": "USDC"}]),
        json.dumps([USDC.to_json_object(), JTO.to_json_object() | {"mint": USDC.mint}]),
    ],
)
def test_a_file_of_anything_else_is_refused(tmp_path, content):
    path = tmp_path / "assets.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        read_assets(path)


HALT = Halt(wallet=key(1).wallet_address, by=Halter.USER, why="because", at_ms=T0)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(agent_state=AgentState.PAUSED, active_agents=0, attempt=1),
        Usage(
            agent_state=AgentState.ACTIVE,
            active_agents=3,
            attempt=501,
            window_attempt_at_ms=T0,
            halts=(HALT,),
            intent_held_by=uuid(1),
            window_micro_usd=2**60,
            window_room_at_ms=T0 + 1,
            fired_at_ms=T0 + 2,
        ),
    ],
)
def test_usage_is_read_as_it_was_written(usage):
    assert Usage.from_json_object(json.loads(json.dumps(usage.to_json_object()))) == usage


@pytest.mark.parametrize(
    "decision",
    [
        Allowed(value_micro_usd=2**60),
        Refused(reason=Reason.AGENT_UNKNOWN),
        Refused(
            reason=Reason.HALTED,
            checks=(
                Check(reason=Reason.HALTED, limit="no halt", actual="one"),
                Check(reason=Reason.EXECUTIONS_OVER_CAP, limit="1", actual="2", retry_at_ms=T0),
            ),
            retry_at_ms=T0,
        ),
    ],
)
def test_a_decision_is_read_as_it_was_written(decision):
    assert read_decision(json.loads(json.dumps(decision.to_json_object()))) == decision


def test_heads_and_entries_are_read_as_they_were_written():
    head = Head(
        ledger_id="00",
        wallet=key(1).wallet_address,
        seq=7,
        hash="ab",
        at_ms=T0,
        attempts=5,
        open_attempts=2,
        notional_micro_usd=2**60,
        refusals=3,
        refusals_unrecorded=4,
        active={uuid(1): ActiveAgent(2, T0 + 1), uuid(2): ActiveAgent(3, T0 + 2, T0)},
        halts=(HALT,),
        restored_epoch="01",
    )
    assert Head.read(head.canonical_bytes()) == head
    from_before = head._replace(restored_epoch=None)
    assert b"restoredEpoch" not in from_before.canonical_bytes()
    assert Head.read(from_before.canonical_bytes()).stream_epoch == "00"
    bare = Entry(wallet="w", seq=1, kind=Kind.REVOKED, at_ms=T0, body={"nonce": "00"})
    full = Entry(
        wallet="w",
        seq=2,
        kind=Kind.REFUSED,
        at_ms=T0,
        agent_id=uuid(1),
        execution_id=uuid(2),
        attempt=3,
        refusal=4,
        agent_state=AgentState.PAUSED,
        body={"reason": "PERMIT_EXPIRED"},
    )
    for entry in (bare, full):
        assert Entry.read(entry.canonical_bytes()) == entry


def test_a_copy_forgets_what_was_worked_out_from_the_original(sqlite_setup):
    bounds = sqlite_setup.activate()
    assert bounds.expires_at_ms > 0
    assert bounds.model_copy(update={"permit_id": "00" * 32}).permit_id == "00" * 32
