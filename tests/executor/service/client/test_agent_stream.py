"""The client of the event stream against the real service, over sockets that break."""

import asyncio
import contextlib
import itertools
import logging
import re
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from executor.guard import AsyncGuard
from executor.service import Settings, create_app
from executor.service.client import AgentStream, AuthenticationError, Reset, StreamRefused, stream
from tests.executor.service.served import on_a_port
from tests.faulty_proxy import FaultyProxy


def service(setup):
    return create_app(AsyncGuard(setup.guard), Settings(wallet_address_streams=True))


def answering(answer):
    app = Starlette(routes=[Route("/api/agents/stream", answer)])
    app.state.close_streams, app.state.settings = lambda: None, Settings()
    return app


def soon(_first_s):
    return itertools.repeat(0.01)


def following(setup, port, **arguments):
    return AgentStream(f"http://127.0.0.1:{port}", wallet=setup.wallet, delays_s=soon, **arguments)


def refuse(setup, *numbers):
    for number in numbers:
        setup.guard.authorize(setup.request(number, sell="BONK"))


def ids(setup, numbers):
    return [setup.request(number).execution_id for number in numbers]


def head(setup):
    """Return the id of where the ledger stands: what comes after it is told only to a client that says it."""
    return f"{setup.guard.ledger.stream_epoch}-{setup.guard.head_seq(setup.wallet)}"


def taken(items, count):
    return [item.execution_id for item in itertools.islice(items, count)]


def test_it_hands_over_each_event_in_order(setup):
    setup.activate()
    refuse(setup, *range(1, 6))
    with on_a_port(service(setup)) as port, contextlib.closing(following(setup, port, from_start=True).sync()) as items:
        assert taken(items, 5) == ids(setup, range(1, 6))
        refuse(setup, 6)
        event = next(items)
        assert (event.name, event.execution_id) == ("errored", ids(setup, [6])[0])
        assert event.data["reason"] == "ASSET_NOT_WHITELISTED"


@pytest.mark.parametrize("size", [150, 333, 700])
def test_connections_cut_anywhere_lose_and_repeat_nothing(setup, size):
    """The answer's head and one frame take more than the smallest size, so that some connections tell nothing."""
    setup.activate()
    refuse(setup, *range(1, 21))
    with on_a_port(service(setup)) as port, FaultyProxy(port) as proxy:
        proxy.cut_after = 400 + size
        with contextlib.closing(following(setup, proxy.port, from_start=True).sync()) as items:
            assert taken(items, 20) == ids(setup, range(1, 21))
        assert proxy.connections >= 5


def test_a_server_that_restarts_loses_and_repeats_nothing(setup):
    setup.activate()
    with (
        FaultyProxy(0) as proxy,
        contextlib.closing(following(setup, proxy.port, last_event_id=head(setup)).sync()) as items,
    ):
        for number in range(1, 4):
            refuse(setup, number)
            with on_a_port(service(setup)) as port:
                proxy.target = port
                assert taken(items, 1) == ids(setup, [number])


def test_replicas_in_turn_tell_each_event_once(postgres_setup):
    setup = postgres_setup
    setup.activate()
    with (
        on_a_port(service(setup)) as one,
        on_a_port(service(setup)) as other,
        FaultyProxy(one) as proxy,
        contextlib.closing(following(setup, proxy.port, last_event_id=head(setup)).sync()) as items,
    ):
        for number in range(1, 7):
            refuse(setup, number)
            assert taken(items, 1) == ids(setup, [number])
            proxy.target = (one, other)[number % 2]
            proxy.cut()


def test_a_mute_connection_is_left(setup, monkeypatch):
    monkeypatch.setattr(stream, "SILENCE_S_MAX", 0.5)
    setup.activate()
    refuse(setup, 1, 2)
    with on_a_port(service(setup)) as port, FaultyProxy(port) as proxy:
        agent_stream = following(setup, proxy.port, from_start=True)

        @agent_stream.on_error
        def goes_on(_error):
            proxy.flow()

        proxy.stall()
        with contextlib.closing(agent_stream.sync()) as items:
            assert taken(items, 2) == ids(setup, [1, 2])
        assert proxy.connections >= 2


def test_after_a_restore_it_says_so_and_hands_over_only_what_is_new(setup):
    setup.activate()
    with on_a_port(service(setup)) as port, FaultyProxy(port) as proxy:
        agent_stream, resets = following(setup, proxy.port, from_start=True), []
        agent_stream.on_reset(resets.append)
        with contextlib.closing(agent_stream.sync()) as items:
            refuse(setup, 1, 2)
            assert taken(items, 2) == ids(setup, [1, 2])
            proxy.cut()
            setup.guard.mark_restored()
            refuse(setup, 3)
            reset = next(items)
            assert isinstance(reset, Reset)
            assert resets == [reset]
            assert taken(items, 1) == ids(setup, [3])
            refuse(setup, 4)
            assert taken(items, 1) == ids(setup, [4])


def test_a_reset_says_from_where_on_memory_suffices(setup, monkeypatch):
    monkeypatch.setattr(stream, "REMEMBERED_MAX", 2)
    setup.activate()
    refuse(setup, *range(1, 6))
    with (
        on_a_port(service(setup)) as port,
        FaultyProxy(port) as proxy,
        contextlib.closing(following(setup, proxy.port, from_start=True).sync()) as items,
    ):
        assert taken(items, 5) == ids(setup, range(1, 6))
        proxy.cut()
        epoch = setup.guard.mark_restored()
        refuse(setup, 6)
        assert next(items).known_above == f"{epoch}-5"  # the third of the events
        assert taken(items, 1) == ids(setup, [6])


def test_handlers_are_told_and_their_exceptions_end_nothing(setup, caplog):
    setup.activate()
    refuse(setup, 1, 2)
    told, errors = [], []

    async def follow(port):
        async with following(setup, port, from_start=True) as agent_stream:

            @agent_stream.on("errored")
            async def fails(event):
                told.append(event.execution_id)
                raise LookupError("in a handler")

            agent_stream.on_error(errors.append)
            async for _event in agent_stream:
                if len(told) == 2:
                    return

    with on_a_port(service(setup)) as port, caplog.at_level(logging.ERROR, "executor.service.client"):
        asyncio.run(follow(port))
    assert told == ids(setup, [1, 2])
    assert [str(error) for error in errors] == ["in a handler"] * 2
    assert "a handler of `errored` failed" in caplog.text


def test_a_token_is_fetched_for_each_connection_and_refused_twice_is_an_error(setup):
    seen = []

    async def answer(request):
        seen.append(request.headers["authorization"])
        return JSONResponse({"code": "UNAUTHENTICATED", "detail": "no"}, 401)

    tokens = itertools.count()
    with on_a_port(answering(answer)) as port:
        agent_stream = following(setup, port, token=lambda: f"token{next(tokens)}")
        with pytest.raises(AuthenticationError, match="401 UNAUTHENTICATED: no"):
            next(agent_stream.sync())
    assert seen == ["Bearer token0", "Bearer token1"]


def test_a_refusal_that_stays_is_told(setup):
    with on_a_port(service(setup)) as port:
        agent_stream = AgentStream(f"http://127.0.0.1:{port}", wallet="nobody")
        with pytest.raises(StreamRefused, match=r"400 .*walletAddress"):
            next(agent_stream.sync())


def test_it_comes_back_after_what_passes(setup):
    """429, 503, something that is no event stream, and an id that is none."""
    answers = [
        PlainTextResponse("", 429, {"Retry-After": "0"}),
        PlainTextResponse("", 503),
        PlainTextResponse("<html>", 200),
        PlainTextResponse("id: 7\ndata: {}\n\n", 200, media_type="text/event-stream"),
        PlainTextResponse(
            'id: 00000000000000aa-7\nevent: executed\ndata: {"executionId":"e","filledAmount":1.10,"feeUsd":2}\n\n',
            200,
            media_type="text/event-stream",
        ),
    ]
    left = iter(answers)
    errors = []

    async def answer(_request):
        return next(left)

    with on_a_port(answering(answer)) as port:
        agent_stream = following(setup, port)
        agent_stream.on_error(errors.append)
        with contextlib.closing(agent_stream.sync()) as items:
            event = next(items)
    assert event.data == {"executionId": "e", "filledAmount": Decimal("1.10"), "feeUsd": Decimal(2)}
    assert len(errors) == 4


def test_waiting_doubles_up_to_a_minute_and_never_undercuts_the_server():
    waits = list(itertools.islice(stream.delays_s(2.0, lambda low, _high: low), 8))
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    waits = list(itertools.islice(stream.delays_s(2.0, lambda _low, high: high), 3))
    assert waits == [3, 6, 12]


def test_an_id_that_is_none_is_not_taken(setup):
    with pytest.raises(ValueError, match="not the id"):
        following(setup, 1, last_event_id="7")


def test_leaving_closes_the_connection_at_once_and_leaves_no_thread(setup):
    left = threading.Event()

    async def answer(_request):
        async def body():
            yield 'id: 00000000000000aa-7\nevent: errored\ndata: {"executionId":"e"}\n\n'
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        return StreamingResponse(body(), media_type="text/event-stream")

    with on_a_port(answering(answer)) as port:
        before = threading.active_count()
        items = following(setup, port).sync()
        next(items)
        items.close()
        assert left.wait(5)
        assert threading.active_count() == before


def test_a_loop_that_was_left_goes_on_at_once_where_it_was(setup):
    setup.activate()
    refuse(setup, *range(1, 7))

    async def taken_one_by_one(agent_stream):
        found = []
        for _ in range(3):
            async for event in agent_stream:
                found.append(event.execution_id)
                break
        await agent_stream.aclose()
        async for event in agent_stream:
            found.append(event.execution_id)
            break
        return found

    with on_a_port(service(setup)) as port:
        agent_stream = following(setup, port, from_start=True)
        assert asyncio.run(taken_one_by_one(agent_stream)) == ids(setup, range(1, 5))
        for number in (5, 6):  # without a loop of one's own, on the same stream
            for event in agent_stream.sync():
                assert event.execution_id == ids(setup, [number])[0]
                break
        refuse(setup, 7, 8)
        assert asyncio.run(taken_first(agent_stream)) == ids(setup, [7])[0]
        assert taken(agent_stream.sync(), 1) == ids(setup, [8])


async def taken_first(agent_stream):
    async for event in agent_stream:
        return event.execution_id
    return None


PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "follow-events-in-python.md"


def test_the_how_tos_snippet_hears_a_real_event(setup, capsys):
    """Its service and its token replaced by the test's."""
    setup.activate()
    refuse(setup, 1)
    (snippet,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    with on_a_port(service(setup)) as port:
        own = f'"http://127.0.0.1:{port}", wallet="{setup.wallet}", from_start=True'
        page = {}
        exec(snippet.replace('"https://holdfire.example", token=lambda: "a fresh JWT"', own), page)  # noqa: S102 - ours

        async def until_told():
            following = asyncio.create_task(page["follow"]())
            async with asyncio.timeout(60):
                said = ""
                while "refused: ASSET_NOT_WHITELISTED" not in said:
                    await asyncio.sleep(0.01)
                    said += capsys.readouterr().out
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

        asyncio.run(until_told())
