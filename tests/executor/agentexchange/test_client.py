"""AgentExchangeWS against a real server."""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from executor.agentexchange import AgentExchangeWS, AuthenticationError, ExchangeError, protocol
from executor.prices import connection, handlers
from tests.executor.agentexchange.exchange import BTC, CANDLE, KEY, ORDER, PORTFOLIO, Exchange
from tests.support import until


@pytest.fixture(params=[False, True], ids=["nested", "flat"])
def exchange(request):
    with Exchange(flat=request.param) as made:
        yield made


@pytest.fixture
def quiet_exchange():
    with Exchange(news=False) as made:
        yield made


@contextmanager
def running(ws):
    thread = threading.Thread(target=ws.run_forever)
    thread.start()
    try:
        yield thread
    finally:
        ws.close()
        thread.join(20)
        assert not thread.is_alive()


def test_each_channel_reaches_its_handler_as_one_flat_dict(exchange):
    ws = AgentExchangeWS(KEY, exchange.url)
    got = {}
    ws.on_ticker("BTCUSDT")(lambda data: got.update(ticker=data))
    ws.on_candles("BTCUSDT", "1m")(lambda data: got.update(candle=data))
    ws.on_order_update()(lambda data: got.update(order=data))
    ws.on_portfolio()(lambda data: got.update(portfolio=data))
    with running(ws):
        until(lambda: len(got) == 4)
        until(lambda: exchange.pongs == [{"type": "pong"}])  # with the `action` that the live server knows
        assert exchange.errors == []
    assert got["ticker"] == BTC
    assert got["candle"] == {"symbol": "BTCUSDT", "interval": "1m", **CANDLE, "open_time": CANDLE["time"]}
    assert got["order"] == ORDER
    assert got["portfolio"] == PORTFOLIO
    assert exchange.subscriptions == [
        [
            {"channel": "orders"},
            {"channel": "portfolio"},
            {"channel": "ticker", "symbol": "BTCUSDT"},
            {"channel": "candles", "symbol": "BTCUSDT", "interval": "1m"},
        ]
    ]
    until(lambda: exchange.closes == [1000])


def test_all_and_a_symbol_together_fire_each_handler_once_a_tick(exchange):
    ws = AgentExchangeWS(KEY, exchange.url)
    one, all_ = [], []
    ws.on_ticker("all")(all_.append)
    ws.on_ticker("BTCUSDT")(one.append)
    with running(ws):
        until(lambda: len(all_) >= 3 and one)
        exchange.tell("ticker", {**BTC, "price": "1"}, symbol="BTCUSDT")
        until(lambda: len(one) >= 2)
        until(lambda: len(all_) >= 4)
    assert [data["price"] for data in one] == [BTC["price"], "1"]
    assert len(all_) == 4


@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "1h", "4h", "1d"])
def test_six_intervals_are_known(interval):
    AgentExchangeWS(KEY).on_candles("BTCUSDT", interval)(print)


@pytest.mark.parametrize("interval", ["", "2m", "1M", "1w", "60"])
def test_other_intervals_are_refused_at_registration(interval):
    with pytest.raises(ValueError, match="none of the intervals"):
        AgentExchangeWS(KEY).on_candles("BTCUSDT", interval)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_never_tried_again(exchange, status):
    exchange.refuse_with = status
    with pytest.raises(AuthenticationError):
        asyncio.run(AgentExchangeWS(KEY, exchange.url).connect())
    assert exchange.dials == 1


def test_a_close_with_4401_is_a_refused_key(exchange):
    exchange.close_with = 4401
    with pytest.raises(AuthenticationError):
        asyncio.run(AgentExchangeWS(KEY, exchange.url).connect())
    assert exchange.dials == 1


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_any_other_refusal_is_retried(exchange, status, monkeypatch):
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    exchange.refuse_with = status
    ws = AgentExchangeWS(KEY, exchange.url)
    got = []
    ws.on_portfolio()(got.append)
    with running(ws):
        until(lambda: exchange.dials >= 3)
        exchange.refuse_with = None
        until(lambda: got)


def test_after_a_cut_it_subscribes_again(exchange, monkeypatch):
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    ws = AgentExchangeWS(KEY, exchange.url)
    got = []
    ws.on_order_update()(got.append)
    with running(ws):
        for times in (1, 2, 3):
            until(lambda: len(got) == times)  # noqa: B023 - called at once
            exchange.cut()
        until(lambda: len(exchange.subscriptions) == 4)
    assert exchange.subscriptions[:3] == [[{"channel": "orders"}]] * 3


def test_a_silent_server_is_left_for_a_new_connection(quiet_exchange, monkeypatch):
    assert protocol.QUIET_S_MAX == 40
    monkeypatch.setattr(protocol, "QUIET_S_MAX", 0.2)
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    with running(ws):
        until(lambda: len(quiet_exchange.subscriptions) >= 2)


def test_errors_and_nonsense_keep_the_socket_open(quiet_exchange, caplog):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    got = []
    ws.on_portfolio()(got.append)
    with running(ws):
        until(lambda: quiet_exchange.subscriptions and quiet_exchange.subscriptions[0])
        for message in ('{"type":"error","code":"X","message":"no"}', "[", "[]", "{}", '{"price":NaN}', "[" * 100_000):
            quiet_exchange.say(message)
        quiet_exchange.say({"channel": 7, "data": []})
        quiet_exchange.tell("portfolio", PORTFOLIO)
        until(lambda: got)
    assert len(quiet_exchange.subscriptions) == 1
    assert "the server says `X`: no" in caplog.text


def test_a_handlers_exception_is_logged_and_ends_nothing(quiet_exchange, caplog):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    got = []

    @ws.on_portfolio()
    async def fails(data):
        got.append(data)
        raise KeyError("a mistake in a handler")

    @ws.on_portfolio()
    def exits(data):
        got.append(data)
        sys.exit(1)

    @ws.on_portfolio()
    async def canceled(data):
        got.append(data)
        raise asyncio.CancelledError

    with running(ws):
        until(lambda: quiet_exchange.subscriptions and quiet_exchange.subscriptions[0])
        for times in (3, 6):
            quiet_exchange.tell("portfolio", PORTFOLIO)
            until(lambda: len(got) == times)  # noqa: B023 - called at once
    assert "a mistake in a handler" in caplog.text


def test_a_slow_handler_delays_no_other_and_gets_the_latest(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    free, slow, fast, orders = threading.Event(), [], [], []

    @ws.on_ticker("all")
    def blocks(data):
        slow.append(data["price"])
        assert free.wait(30)

    ws.on_ticker("all")(lambda data: fast.append(data["price"]))

    @ws.on_order_update()
    def counts(data):
        assert free.wait(30)
        orders.append(data["order_id"])

    with running(ws):
        until(lambda: quiet_exchange.subscriptions and len(quiet_exchange.subscriptions[0]) == 2)
        for number in range(100):
            quiet_exchange.tell("ticker", {**BTC, "price": str(number)}, symbol="BTCUSDT")
            quiet_exchange.tell("orders", {**ORDER, "order_id": number})
            until(lambda: slow)  # the first is under way when the others come
        until(lambda: fast and fast[-1] == "99")
        free.set()
        until(lambda: len(orders) == 100)
        until(lambda: slow[-1] == "99")
    assert slow == ["0", "99"]
    assert orders == list(range(100))


def test_an_overflow_of_orders_is_told(quiet_exchange, monkeypatch, caplog):
    monkeypatch.setattr(handlers, "WAITING_MAX", 10)
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    free, orders, seen = threading.Event(), [], []

    @ws.on_order_update()
    def counts(data):
        orders.append(data["order_id"])
        assert free.wait(30)

    ws.on_ticker("all")(seen.append)

    with running(ws), caplog.at_level(logging.ERROR):
        until(lambda: quiet_exchange.subscriptions and len(quiet_exchange.subscriptions[0]) == 2)
        quiet_exchange.tell("orders", {**ORDER, "order_id": -1})
        until(lambda: orders == [-1])
        for number in range(20):
            quiet_exchange.tell("orders", {**ORDER, "order_id": number})
        quiet_exchange.tell("ticker", BTC, symbol="BTCUSDT")  # what comes after the orders
        until(lambda: seen)
        assert "1 of what waited" in caplog.text
        free.set()
        until(lambda: orders and orders[-1] == 19)
        until(lambda: "10 of what waited" in caplog.text)
    assert orders == [-1, *range(10, 20)]


def test_what_waits_is_handled_before_a_close_ends(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    orders = []

    @ws.on_order_update()
    async def first_closes(data):
        ws.close()
        await asyncio.sleep(0.01)
        orders.append(data["order_id"])

    thread = threading.Thread(target=ws.run_forever)
    thread.start()
    until(lambda: quiet_exchange.subscriptions and quiet_exchange.subscriptions[0])
    quiet_exchange.tell("orders", ORDER)
    thread.join(20)
    assert orders == [ORDER["order_id"]]
    until(lambda: quiet_exchange.closes == [1000])


def test_closed_before_it_connects_it_never_does(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    ws.close()
    ws.run_forever()
    assert quiet_exchange.dials == 0


def test_delays_double_to_a_minute():
    delays = connection.backoff()
    assert [next(delays) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_ctrl_c_ends_it_cleanly(quiet_exchange):
    script = "import sys; from executor.agentexchange import AgentExchangeWS as W; W(*sys.argv[1:]).run_forever()"
    command = [sys.executable, "-c", script, KEY, quiet_exchange.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        until(lambda: quiet_exchange.pongs)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    until(lambda: quiet_exchange.closes == [1000])


def fills_lost(pong, monkeypatch):
    """Return which of the fills sent through forty pings a client missed that answers with `pong`."""
    monkeypatch.setattr("executor.agentexchange.client.PONG", pong)
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.05)
    with Exchange(news=False, ping_s=0.02, silence_s=0.2) as exchange:
        ws = AgentExchangeWS(KEY, exchange.url)
        got = []
        ws.on_order_update()(lambda data: got.append(data["order_id"]))
        with running(ws):
            until(lambda: exchange.subscriptions and exchange.subscriptions[0])
            sent = 0
            while exchange.pings < 40:
                exchange.fill(sent)
                sent += 1
            until(lambda: exchange.subscriptions[-1] and exchange.open)
            exchange.tell("orders", {**ORDER, "order_id": "last"})
            until(lambda: got and got[-1] == "last")
    return set(range(sent)) - set(got), sent, exchange


def test_no_fill_is_lost_through_many_pings(monkeypatch):
    lost, sent, exchange = fills_lost(protocol.PONG, monkeypatch)
    assert (lost, exchange.dials, exchange.errors) == (set(), 1, [])
    assert sent > 100


def test_the_pong_of_the_page_alone_loses_fills(monkeypatch):
    """The server of these tests is as strict as the live one."""
    lost, _, exchange = fills_lost('{"type":"pong"}', monkeypatch)
    assert lost
    assert exchange.dials > 1
    assert set(exchange.errors) == {"UNKNOWN_ACTION"}


def test_what_the_server_refuses_is_told_and_the_rest_comes(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    errors, others, got = [], [], []
    for number in range(10):
        ws.on_ticker(f"COIN{number}USDT")(print)
    ws.on_candles("BTCUSDT", "15m")(print)
    ws.on_candles("BTCUSDT", "4h")(print)
    ws.on_order_update()(got.append)  # the last that is asked for here, and the first of the server
    ws.on_error(errors.append)

    @ws.on_error()
    async def too(error):
        others.append(error)

    with running(ws):
        until(lambda: len(errors) == len(others) == 3)
        quiet_exchange.tell("orders", ORDER)
        until(lambda: got)
        assert quiet_exchange.open == 1
    assert sorted(each.code for each in errors) == ["INVALID_CHANNEL", "INVALID_CHANNEL", "SUBSCRIPTION_LIMIT"]
    assert all(isinstance(each, ExchangeError) for each in errors)
    assert str(errors[0]).startswith("the server says `")
    assert quiet_exchange.subscriptions[0][0] == {"channel": "orders"}
    assert quiet_exchange.dials == 1


def test_what_ends_a_connection_and_what_a_handler_raises_is_told_too(quiet_exchange, monkeypatch):
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    quiet_exchange.refuse_with = 500
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    errors = []
    ws.on_error(errors.append)

    @ws.on_portfolio()
    def fails(data):
        raise LookupError(data["total_equity"])

    with running(ws):
        until(lambda: errors)
        quiet_exchange.refuse_with = None
        until(lambda: quiet_exchange.subscriptions and quiet_exchange.subscriptions[-1])
        quiet_exchange.tell("portfolio", PORTFOLIO)
        until(lambda: isinstance(errors[-1], LookupError))
    assert "HTTP 500" in str(errors[0])


def test_a_403_after_the_key_has_worked_passes(exchange, monkeypatch):
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    ws = AgentExchangeWS(KEY, exchange.url)
    got = []
    ws.on_portfolio()(got.append)
    with running(ws):
        until(lambda: got)
        exchange.refuse_with = 403
        dials = exchange.dials
        exchange.cut()
        until(lambda: exchange.dials >= dials + 3)
        exchange.refuse_with = None
        until(lambda: len(got) == 2)


@pytest.mark.parametrize("refusal", [{"refuse_with": 401}, {"close_with": 4401}], ids=["401", "4401"])
def test_a_key_that_is_refused_later_ends_it_all_the_same_and_is_told(exchange, refusal, monkeypatch):
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    ws = AgentExchangeWS(KEY, exchange.url)
    got, errors = [], []
    ws.on_portfolio()(got.append)
    ws.on_error(errors.append)

    async def story():
        connected = asyncio.create_task(ws.connect())
        await asyncio.to_thread(until, lambda: got)
        vars(exchange).update(refusal)
        exchange.cut()
        with pytest.raises(AuthenticationError):
            await connected

    asyncio.run(asyncio.wait_for(story(), 30))
    assert isinstance(errors[-1], AuthenticationError)


def test_channels_come_and_go_while_it_is_connected(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    ws.subscribe("candles:ETHUSDT:1m")
    ws.on_ticker("BTCUSDT")(print)
    ws.on_ticker("SOLUSDT")(print)
    ws.unsubscribe("ticker:SOLUSDT")
    btc = {"channel": "ticker", "symbol": "BTCUSDT"}
    eth = {"channel": "candles", "symbol": "ETHUSDT", "interval": "1m"}
    with running(ws):
        until(lambda: quiet_exchange.subscriptions and quiet_exchange.subscriptions[0] == [eth, btc])
        ws.subscribe("orders")
        until(lambda: quiet_exchange.subscriptions[0] == [eth, btc, {"channel": "orders"}])
        ws.subscribe("ticker:all")
        until(lambda: quiet_exchange.subscriptions[0] == [eth, {"channel": "orders"}, {"channel": "ticker_all"}])
        ws.unsubscribe("ticker:all")
        until(lambda: quiet_exchange.subscriptions[0] == [eth, {"channel": "orders"}, btc])
        ws.unsubscribe("candles:ETHUSDT:1m")
        ws.unsubscribe("candles:ETHUSDT:1m")
        until(lambda: quiet_exchange.subscriptions[0] == [{"channel": "orders"}, btc])
    assert quiet_exchange.errors == []


@pytest.mark.parametrize("name", ["", "ticker", "ticker:", "ticker:a b", "candles:BTCUSDT", "candles:BTCUSDT:2m", "x"])
def test_what_is_no_channel_is_refused(name):
    for ask in (AgentExchangeWS(KEY).subscribe, AgentExchangeWS(KEY).unsubscribe):
        with pytest.raises(ValueError, match="is no "):
            ask(name)


def test_leaving_its_block_ends_it_and_it_may_connect_again(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    got = []
    ws.on_portfolio()(got.append)

    async def story():
        for times in (1, 2):
            async with ws as entered:
                assert entered is ws
                connected = asyncio.create_task(ws.connect())
                await asyncio.to_thread(until, lambda: len(quiet_exchange.subscriptions) == times)  # noqa: B023
                await asyncio.to_thread(until, lambda: quiet_exchange.subscriptions[-1])
                quiet_exchange.tell("portfolio", PORTFOLIO)
                await asyncio.to_thread(until, lambda: len(got) == times)  # noqa: B023
            await connected
        await ws.disconnect()

    asyncio.run(asyncio.wait_for(story(), 30))
    until(lambda: quiet_exchange.closes == [1000, 1000])
    thread = threading.Thread(target=ws.run_forever)
    thread.start()
    until(lambda: len(quiet_exchange.subscriptions) == 3)
    asyncio.run(ws.disconnect())  # from another loop
    thread.join(20)
    assert not thread.is_alive()


def test_a_handler_may_disconnect(quiet_exchange):
    ws = AgentExchangeWS(KEY, quiet_exchange.url)
    got = []

    @ws.on_order_update()
    async def once(data):
        await ws.disconnect()
        await asyncio.sleep(0.01)
        got.append(data)

    thread = threading.Thread(target=ws.run_forever)
    thread.start()
    until(lambda: quiet_exchange.subscriptions and quiet_exchange.subscriptions[0])
    quiet_exchange.tell("orders", ORDER)
    thread.join(3)
    assert not thread.is_alive()
    assert got == [ORDER]


def test_reading_a_ticker_takes_microseconds():
    text = json.dumps({"channel": "ticker", "symbol": "BTCUSDT", "data": BTC})
    began = time.perf_counter()
    for _ in range(1_000):
        protocol.read(text)
    assert time.perf_counter() - began < 1
