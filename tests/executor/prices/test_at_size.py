"""The caps at their size: 15,000 real connections from 301 addresses, in other processes. And the Autobahn cases."""

import asyncio

import pytest

from executor.prices.hub import Hub
from executor.prices.socket import app_of
from tests.benchmarks.prices import MANY, Anybody, crowd, fanned_out, scene, serving, until

KB_MAX, P99_MS_MAX, FAN_OUT_MIN = 25, 50, 0.6


@pytest.mark.campaign
def test_15000_are_let_in_and_whoever_comes_then_is_told_to_come_back():
    async def play():
        hub = Hub(Anybody())
        async with serving(app_of(hub)) as port:
            async with crowd(port, MANY - 50) as most:
                assert most.answers == {"101": MANY - 50}
                async with crowd(port, 1) as one_more_of_a_full_address:
                    assert one_more_of_a_full_address.answers == {"429": 1}
                async with crowd(port, 150, first=MANY - 50) as the_rest:  # 100 more than fit, all at once
                    assert the_rest.answers == {"101": 50, "503": 100}
                    await until(lambda: hub.connections == MANY)
                await until(lambda: hub.connections == MANY - 50)
            await until(lambda: hub.connections == 0 and not hub._open_by_subject)
            assert hub._open_by_address == {}
            assert not any(hub._beats)

    asyncio.run(play())


@pytest.mark.campaign
def test_a_connection_of_15000_is_small_and_no_tick_is_late():
    found = scene("crowded")
    assert found["answers"] == {"101": MANY}
    assert found["received"] == found["expected"]
    assert found["kb"] <= KB_MAX
    assert found["p99_ms"] < P99_MS_MAX


@pytest.mark.campaign
def test_a_tick_reaches_a_thousand_about_as_fast_as_bytes_do():
    ratios = sorted(theirs / ours for ours, theirs in asyncio.run(fanned_out()))
    assert ratios[len(ratios) // 2] >= FAN_OUT_MIN


@pytest.mark.campaign
def test_the_sockets_are_websockets_but_for_one_close_code():
    """7.1.5: a close in the middle of a fragmented message is answered with another code than the case wants."""
    assert scene("conforming")["failed"] == ["7.1.5 FAILED/WRONG CODE"]
