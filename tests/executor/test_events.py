import json
from decimal import Decimal

import pytest

from executor.assets import NATIVE_MINT, Asset
from executor.events import Event, event_of
from executor.fill import Landing
from executor.reasons import Reason
from tests.support import JTO, Setup, mint


def events(setup):
    return [event for sealed in setup.guard.entries(setup.wallet) if (event := event_of(sealed.entry))]


def land(setup, request, received):
    authorization = setup.guard.authorize(request).authorization
    setup.guard.mark_signed(authorization, tx_signature="5" * 87, transaction_bytes=b"", last_valid_block_height=1)
    setup.guard.mark_landed(
        setup.wallet,
        request.execution_id,
        Landing(slot=9, sold=request.sell_amount, received=received, fee_lamports=10_000),
    )


def test_a_landing_is_told_as_the_source_documents_it(setup):
    setup.activate()
    sol = Asset(symbol="SOL", mint=NATIVE_MINT, decimals=9, token_program=mint(9))
    setup.quote(sol, "150")
    request = setup.request()
    land(setup, request, 40 * 10**9)
    (event,) = events(setup)
    assert event.name == "executed"
    assert list(event.data) == [
        "agentId",
        "executionId",
        "rail",
        "txSignature",
        "filledAmount",
        "filledPriceUsd",
        "feeUsd",
    ]
    assert event.data["executionId"] == request.execution_id
    assert event.frame("00-3").decode() == (
        f'id: 00-3\nevent: executed\ndata: {{"agentId":"{request.agent_id}","executionId":"{request.execution_id}",'
        f'"rail":"local","txSignature":"{"5" * 87}","filledAmount":40,"filledPriceUsd":2.5,"feeUsd":0.0015}}\n\n'
    )


def test_amounts_are_written_digit_for_digit(setup):
    setup.activate()
    received = 40_123_456_789
    land(setup, setup.request(), received)
    frame = events(setup)[0].frame("0-1").decode()
    assert '"filledAmount":40.123456789,' in frame
    assert '"feeUsd":null' in frame
    data = json.loads(frame.split("data: ")[1], parse_float=Decimal)
    assert data["filledAmount"] == Decimal(received).scaleb(-JTO.decimals)


def test_no_amount_is_ever_written_with_an_exponent():
    frame = Event("executed", {"filledAmount": Decimal("1E-9"), "filledPriceUsd": Decimal("1E+18")}).frame("0-1")
    assert b'"filledAmount":0.000000001,"filledPriceUsd":1000000000000000000' in frame


def test_each_end_without_a_landing_is_one_errored(setup):
    setup.activate()
    ids = [setup.request(number).execution_id for number in range(4)]
    setup.guard.authorize(setup.request(0, sell="BONK"))
    setup.guard.authorize(setup.request(1))
    setup.guard.void(setup.wallet, ids[1], Reason.RAIL_UNAVAILABLE, "gone")
    for number in (2, 3):
        authorization = setup.guard.authorize(setup.request(number)).authorization
        setup.guard.mark_signed(
            authorization, tx_signature=f"{number}" * 87, transaction_bytes=b"", last_valid_block_height=1
        )
    setup.guard.mark_failed(setup.wallet, ids[2], "custom program error")
    setup.guard.mark_dead(setup.wallet, ids[3])
    assert [(event.name, event.data["executionId"], event.data["reason"]) for event in events(setup)] == [
        ("errored", ids[0], "ASSET_NOT_WHITELISTED"),
        ("errored", ids[1], "RAIL_UNAVAILABLE"),
        ("errored", ids[2], "TRANSACTION_FAILED"),
        ("errored", ids[3], "TRANSACTION_DEAD"),
    ]


def test_expiry_is_told_by_its_name(setup: Setup):
    setup.activate()
    setup.now_ms += 3_600_000
    setup.guard.authorize(setup.request())
    assert events(setup)[0].data["reason"] == "PERMIT_EXPIRED"


@pytest.mark.parametrize("kind", ["reserved", "activated", "authorized", "signed"])
def test_other_entries_are_no_events(setup, kind):
    setup.activate()
    authorization = setup.guard.authorize(setup.request()).authorization
    setup.guard.mark_signed(authorization, tx_signature="5" * 87, transaction_bytes=b"", last_valid_block_height=1)
    (entry,) = [sealed.entry for sealed in setup.guard.entries(setup.wallet) if sealed.entry.kind == kind]
    assert event_of(entry) is None
