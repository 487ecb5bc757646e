"""The hub's sockets: every refusal, every close, every cap, and clients that are slow, dead or noisy."""

import asyncio
import json
import logging
import socket
import time
from contextlib import AsyncExitStack, suppress
from decimal import Decimal
from ipaddress import ip_network

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from executor.guard import AsyncGuard
from executor.prices import hub as hub_module
from executor.prices import socket as socket_module
from executor.prices.bars import Bars
from executor.prices.hub import AuthenticationUnavailable, Caps, Hub, framed
from executor.prices.protocol import Bar, CloseCode, Subscribe, Tick
from executor.prices.socket import WEBSOCKET, StreamWire, routes
from executor.service import Settings, create_app
from executor.service.server import _Server, bind
from tests.executor.prices.market import Credentials, Market, market, tick, until


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 60))


async def receive(opened, kind=None):
    """Return the next frame, of `kind` if given."""
    while True:
        frame = json.loads(await asyncio.wait_for(opened.recv(), 10), parse_float=Decimal)
        if kind in {None, frame["type"]}:
            return frame


async def closed(opened):
    """Return the frames up to the close, and its code."""
    frames = []
    with suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(await asyncio.wait_for(opened.recv(), 10)))
    await opened.wait_closed()
    return frames, opened.close_code


def test_a_subscriber_is_greeted_and_told_each_tick_exactly():
    async def scene():
        async with market() as open_market, open_market.connect("pro-ann") as opened:
            assert await opened.recv() == '{"type":"hello","tier":"pro","limits":{"maxAssets":100,"maxConnections":5}}'
            await open_market.subscribe(opened, "SOL")
            open_market.hub.publish(tick("BTC"))
            open_market.hub.publish(Tick("SOL", Decimal("178.410"), 1746144000000, "pyth", stale=True))
            assert await opened.recv() == (
                '{"type":"price","data":{"symbol":"SOL","priceUsd":178.410,"ts":1746144000000,'
                '"source":"pyth","stale":true}}'
            )
            await opened.send('{"type":"unsubscribe","assets":["SOL"]}')
            await until(lambda: not open_market.hub._subscribers)
            open_market.hub.publish(tick("SOL"))
            await open_market.beat()
            assert (await receive(opened))["type"] == "ping"

    run(scene())


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"Authorization": "Bearer free-ann"}),
        ("", {"Authorization": "bearer free-ann"}),
        ("", {"X-API-Key": "free-ann"}),
        ("?api_key=free-ann", {}),
        ("?token=free-ann", {}),
    ],
)
def test_a_credential_may_stand_in_a_header_or_in_the_query(query, headers):
    async def scene():
        async with market() as open_market, open_market.connect(query=query, additional_headers=headers) as opened:
            assert (await receive(opened))["tier"] == "free"

    run(scene())


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?api_key=nobody", {}),
        ("?api_key=free-ann&token=free-ann", {}),
        ("?api_key=free-ann", {"X-API-Key": "free-ann"}),
        ("", {"Authorization": "Basic free-ann"}),
        ("", {"Authorization": "free-ann"}),
    ],
)
def test_without_exactly_one_good_credential_there_is_no_upgrade(query, headers, caplog):
    async def scene():
        async with market() as open_market:
            with pytest.raises(InvalidStatus) as refused:
                await open_market.connect(query=query, additional_headers=headers)
            assert refused.value.response.status_code == 401
            assert refused.value.response.headers["content-type"] == "application/problem+json"
            await until(lambda: open_market.hub.connections == 0)

    with caplog.at_level(logging.INFO):
        run(scene())
    assert "free-ann" not in caplog.text


def test_while_credentials_can_not_be_told_nobody_is_let_in_and_nobody_loses_a_stream(caplog):
    async def unavailable(_credential):
        raise AuthenticationUnavailable("the file is gone")

    async def scene():
        async with market() as open_market, open_market.connect() as opened:
            open_market.credentials.authenticate = unavailable
            with pytest.raises(InvalidStatus) as refused:
                await open_market.connect()
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["retry-after"] == "30"
            await open_market.beat()
            assert (await receive(opened, "ping"))["type"] == "ping"

    run(scene())
    assert "the file is gone" in caplog.text


@pytest.mark.parametrize(
    ("messages", "codes", "close"),
    [
        (["{"], ["bad_json"], CloseCode.BAD_JSON),
        (['{"type":"dance"}'], ["unknown_type"], CloseCode.UNKNOWN_TYPE),
        ([Subscribe(tuple(f"S{n}" for n in range(11))).encode()], ["symbol_limit"], CloseCode.SYMBOL_LIMIT),
        ([b"\x00"], [], CloseCode.NOT_TEXT),
        (['{"type":"pong"}'] * 101, [], CloseCode.TOO_FAST),
        ([" " * 16_385], [], 1009),
    ],
)
def test_the_reason_is_told_before_the_close_whose_code_says_it_too(messages, codes, close):
    async def scene():
        async with market() as open_market, open_market.connect("free-ann") as opened:
            await receive(opened, "hello")
            with suppress(ConnectionClosed):
                for message in messages:
                    await opened.send(message)
            frames, code = await closed(opened)
            assert [frame["code"] for frame in frames] == codes
            assert code == close
            assert open_market.hub._subscribers == {}
            await until(lambda: open_market.hub.connections == 0)

    run(scene())


def test_text_that_is_no_utf_8_closes_without_a_word_in_the_log(caplog):
    async def scene():
        async with market() as open_market, open_market.connect() as opened, open_market.connect() as other:
            await receive(opened, "hello")
            await opened.send([b'{"type":"po', b'ng\xff"}'], text=True)
            assert (await closed(opened))[1] == CloseCode.NOT_UTF8
            await receive(other, "hello")
            await other.send(['{"type":"po', 'ng"}'])
            await until(lambda: open_market.hub.connections == 1)
            assert (await other.ping()) is not None

    run(scene())
    assert caplog.text == ""


def frame(head, payload=b""):
    """Return a client's frame, whose mask is zeros."""
    return bytes([head, 0x80 | len(payload)]) + bytes(4) + payload


def wire_of(open_market):
    return next(each for beat in open_market.hub._beats for each in beat).wire


def test_pings_that_nobody_reads_the_answers_of_fill_no_memory():
    async def scene():
        async with market() as open_market, open_market.connect() as opened:
            await receive(opened, "hello")
            opened.transport.pause_reading()
            wire, most = wire_of(open_market), 0
            for _ in range(50):
                opened.transport.write(frame(0x89, b"x" * 125) * 1_000)
                while opened.transport.get_write_buffer_size():
                    await asyncio.sleep(0)
                    most = max(most, wire.transport.get_write_buffer_size())
            await open_market.subscribe(opened, "SOL")  # what came after all of them
            assert max(most, wire.transport.get_write_buffer_size()) < 2**19  # of 6 MB: the answers of one read

    run(scene())


@pytest.mark.parametrize(
    "flood",
    [frame(0x01) + frame(0x00) * 5_000, frame(0x81, b'{"type":"pong"}') * 5_000],
    ids=["a-message-in-endless-pieces", "messages-in-one-read"],
)
def test_what_comes_faster_than_it_is_looked_at_fills_no_memory_and_hears_why(flood, monkeypatch):
    aborted = []

    def abort(wire):
        aborted.append(wire)  # it would take the close from whoever still sends

    monkeypatch.setattr(StreamWire, "abort", abort)

    async def scene():
        async with market() as open_market, open_market.connect() as opened:
            await receive(opened, "hello")
            wire = wire_of(open_market)
            opened.transport.write(flood)
            assert (await closed(opened))[1] == CloseCode.TOO_FAST
            assert wire.queue.qsize() <= socket_module.WAITING_MAX + 1
            assert len(wire.frames) <= socket_module.FRAGMENTS_MAX
            assert aborted == []
            await until(lambda: open_market.hub.connections == 0)

    run(scene())


def test_a_missed_pong_closes_and_an_answered_ping_does_not():
    async def scene():
        async with market() as open_market, open_market.connect() as good, open_market.connect() as bad:
            for _ in range(3):
                await open_market.beat()
                if (await receive(good, "ping"))["type"] == "ping":
                    await good.send('{"type":"pong"}')
                    owes = [each.session for beat in open_market.hub._beats for each in beat]
                    await until(lambda owes=owes: not all(each._awaits_pong for each in owes))
            assert (await closed(bad))[1] == CloseCode.MISSED_PONG
            assert open_market.hub.connections == 1

    run(scene())


def test_a_token_that_expires_and_a_key_that_is_revoked_close_at_the_heartbeat():
    async def scene():
        async with market() as open_market, open_market.connect("pro-key") as by_key:
            open_market.credentials.expires_at_s = int(time.time()) - 1
            async with open_market.connect("pro-token") as by_token:
                open_market.credentials.expires_at_s = None
                open_market.credentials.gone.add("pro-key")
                await open_market.beat()
                assert (await closed(by_token))[1] == CloseCode.TOKEN_EXPIRED
            assert (await closed(by_key))[1] == CloseCode.TOKEN_EXPIRED

    run(scene())


# Caps.


def test_the_tiers_cap_of_connections_is_told_after_the_upgrade_and_freed_by_leaving():
    async def scene():
        async with market() as open_market:
            async with open_market.connect("free-ann") as first, open_market.connect("free-bob"):
                await receive(first, "hello")
                async with open_market.connect("free-ann") as second:
                    frames, code = await closed(second)
                    assert [frame["code"] for frame in frames] == ["symbol_limit"]
                    assert code == CloseCode.SYMBOL_LIMIT
                assert (await first.ping()) is not None
            await until(lambda: not open_market.hub._open_by_subject)
            async with open_market.connect("free-ann") as again:
                await receive(again, "hello")

    run(scene())


@pytest.mark.parametrize(
    ("caps", "status"), [(Caps(connections=3, per_address=50), 503), (Caps(connections=50, per_address=3), 429)]
)
def test_past_the_caps_of_the_process_and_of_an_address_there_is_no_upgrade(caps, status):
    async def scene():
        async with market(caps) as open_market, AsyncExitStack() as opened:
            for _ in range(3):
                await opened.enter_async_context(open_market.connect())
            with pytest.raises(InvalidStatus) as refused:
                await open_market.connect()
            assert refused.value.response.status_code == status
            assert refused.value.response.headers["retry-after"] == "30"
            if status == 429:
                await opened.enter_async_context(open_market.connect(host="127.0.0.2"))
            assert open_market.hub.connections == 3 + (status == 429)

    run(scene())


@pytest.mark.parametrize("trusted", [True, False])
def test_an_address_is_what_a_trusted_proxy_says_and_nobody_else(trusted):
    async def scene():
        proxies = [ip_network("127.0.0.0/8")] if trusted else []
        async with market(Caps(per_address=1), trusted_proxies=proxies) as open_market, AsyncExitStack() as opened:

            def connect(client):
                return open_market.connect(additional_headers={"X-Forwarded-For": f"made-up, {client}"})

            await opened.enter_async_context(connect("1.1.1.1"))
            with pytest.raises(InvalidStatus) as refused:
                await connect("1.1.1.1" if trusted else "1.1.1.2")
            assert refused.value.response.status_code == 429
            if trusted:
                await opened.enter_async_context(connect("1.1.1.2"))

    run(scene())


def test_a_thousand_who_come_at_once_get_exactly_the_places_that_there_are():
    """Bare requests, so that all are under way at once; each is answered, and none more than fit is let in."""
    request = (
        "GET /v1/stream?api_key=quant-{n} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    async def ask(port, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{1 + number % 4}", 0))
        writer.write(request.format(n=number % 100).encode())
        return (await reader.readline()).split()[1], reader, writer

    async def scene():
        async with market(Caps(connections=600, per_address=200)) as open_market:
            answers = await asyncio.gather(*(ask(open_market.port, number) for number in range(1_000)))
            statuses = [status for status, _, _ in answers]
            assert sorted(set(statuses)) in ([b"101", b"503"], [b"101", b"429", b"503"])
            assert statuses.count(b"101") == open_market.hub.connections == 600
            for _, _, writer in answers:
                writer.close()
            await until(lambda: open_market.hub.connections == 0 and not open_market.hub._open_by_subject)
            assert open_market.hub._open_by_address == {}

    run(scene())


def test_a_client_that_is_gone_before_it_is_answered_keeps_no_place():
    async def scene():
        async with market() as open_market:
            for _ in range(50):
                _, writer = await asyncio.open_connection("127.0.0.1", open_market.port)
                writer.write(b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
                writer.write(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
                writer.transport.abort()
            async with open_market.connect() as opened:
                await receive(opened, "hello")
                await until(lambda: open_market.hub.connections == 1)

    run(scene())


# Slow, dead and noisy clients.


def test_a_slow_client_gets_the_latest_of_each_symbol_and_costs_the_others_nothing():
    async def scene():
        async with market() as open_market, open_market.connect("quant-quick") as quick:
            # No byte is read from its socket until `read` is set, and its kernel keeps little.
            small = socket.create_connection(("127.0.0.1", open_market.port))
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            async with open_market.connect("quant-slow", sock=small, max_queue=1) as slow:
                symbols = [f"S{n}" for n in range(20)]
                await open_market.subscribe(quick, *symbols)
                await open_market.subscribe(slow, *symbols)
                slow.transport.pause_reading()
                last, got = 500, 0
                for price in range(1, last + 1):
                    for symbol in symbols:
                        open_market.hub.publish(tick(symbol, price))
                    while got < 20 * price:
                        assert (await receive(quick, "price"))["data"]["priceUsd"] == price
                        got += 1
                (behind,) = open_market.hub._behind
                assert len(behind._waiting) <= 21
                assert behind.wire.transport.get_write_buffer_size() < 8_192
                slow.transport.resume_reading()
                seen = {}
                while set(seen.values()) != {last} or len(seen) < 20:
                    data = (await receive(slow, "price"))["data"]
                    assert data["priceUsd"] > seen.get(data["symbol"], 0)
                    seen[data["symbol"]] = data["priceUsd"]
                await until(lambda: not open_market.hub._behind)

    run(scene())


def test_a_client_that_never_reads_is_dropped(monkeypatch):
    monkeypatch.setattr(hub_module, "WRITE_S_MAX", 0.2)

    async def scene():
        async with market() as open_market:
            small = socket.create_connection(("127.0.0.1", open_market.port))
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            async with open_market.connect("quant-dead", sock=small, max_queue=1) as dead:
                await open_market.subscribe(dead, "SOL")
                dead.transport.pause_reading()
                async with asyncio.timeout(5):  # well before the kernel would drop it by itself
                    while open_market.hub.connections:
                        open_market.hub.publish(tick())
                        open_market.hub.drop_overdue()
                        await asyncio.sleep(0)
                assert open_market.hub.dropped_as_too_slow == 1
                assert open_market.hub._subscribers == {}
                dead.transport.abort()

    run(scene())


def test_a_client_that_ignores_its_close_is_cut_off(monkeypatch):
    monkeypatch.setattr(socket_module, "CLOSE_S_MAX", 0.2)

    async def scene():
        async with market() as open_market:
            reader, writer = await asyncio.open_connection("127.0.0.1", open_market.port)
            writer.write(b"GET /v1/stream?api_key=free-x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n")
            writer.write(b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
            writer.write(b"Sec-WebSocket-Version: 13\r\n\r\n")
            await until(lambda: any(open_market.hub._beats))
            await open_market.beat(2)
            await asyncio.wait_for(reader.read(), 10)  # up to the end that the server makes
            await until(lambda: open_market.hub.connections == 0)
            writer.close()

    run(scene())


def test_a_storm_of_subscriptions_leaves_nothing_behind():
    async def storm(open_market, number):
        with suppress(ConnectionClosed):
            async with open_market.connect(f"quant-{number}") as opened:
                for turn in range(60):
                    names = tuple(f"S{(number + turn + n) % 50}" for n in range(30))
                    await opened.send(Subscribe(names).encode().replace("sub", "unsub" if turn % 2 else "sub"))

    async def scene():
        async with market() as open_market, open_market.connect("quant-calm") as calm:
            await open_market.subscribe(calm, "S1")
            storms = asyncio.gather(*(storm(open_market, number) for number in range(20)))
            for price in range(1, 200):
                open_market.hub.publish(tick("S1", price))
                await asyncio.sleep(0)
            await storms
            await until(lambda: open_market.hub.connections == 1)
            assert list(open_market.hub._subscribers) == ["S1"]
            last = None
            while last != 199:
                last = (await receive(calm, "price"))["data"]["priceUsd"]

    run(scene())


def test_a_tick_that_can_not_be_written_is_told_to_nobody():
    with pytest.raises(ValueError, match="of a price stream"):
        Hub(Credentials()).publish(tick(price="NaN"))


def test_a_bar_is_told_when_it_closes():
    async def scene():
        async with market() as open_market, open_market.connect() as opened:
            open_market.hub._bars = Bars()
            await open_market.subscribe(opened, "SOL")
            minute_ms = time.time_ns() // 60_000_000_000 * 60_000
            before = tick("SOL", "2.0")._replace(ts_ms=minute_ms - 1)
            open_market.hub.publish(before, Decimal(3))
            frame = await receive(opened, "bar_update")  # by the clock, 2 s after the minute, or with the next tick
            assert frame["data"]["interval"] == "1m"
            assert frame["data"]["ts"] == minute_ms - 60_000
            assert (frame["data"]["close"], frame["data"]["volume"]) == (2, 3)

    run(scene())


def test_frames_of_every_length_are_framed_as_the_rfc_says():
    assert framed("x" * 125)[:2] == b"\x81\x7d"
    assert framed("x" * 126)[:4] == b"\x81\x7e\x00\x7e"
    bar = Bar("S" * 44, "15m", *[Decimal("1" * 31)] * 5, ts_ms=2**53 - 1)
    assert len(framed(bar.encode())) < 2**16


def test_open_streams_are_told_that_the_server_stops():
    async def scene():
        async with market() as open_market:
            opened = await open_market.connect()
            await receive(opened, "hello")
        assert (await closed(opened))[1] == 1012

    run(scene())


def test_the_stream_is_served_beside_the_service(setup):
    async def scene():
        hub = Hub(Credentials())
        app = create_app(AsyncGuard(setup.guard), Settings(), prices=routes(hub))
        server = _Server(app, **WEBSOCKET)
        with bind("127.0.0.1", 0) as bound:
            serving = asyncio.create_task(server.serve(sockets=[bound]))
            beating = asyncio.create_task(hub.run())
            await until(lambda: server.started)
            open_market = Market(hub, hub.authenticator, bound.getsockname()[1])
            async with open_market.connect() as opened:
                await open_market.subscribe(opened, "SOL")
                hub.publish(tick())
                assert (await receive(opened, "price"))["data"]["symbol"] == "SOL"
            server.should_exit = True
            await asyncio.wait_for(serving, 20)
            beating.cancel()

    run(scene())
