"""The examples of the page that describes AgentExchangeWS, each run against a server with only its import changed.

They are the specification's own examples, kept as they stand there.
"""

import ast
import asyncio
import inspect
import sys
import threading
import types
from functools import partial

import pytest

from executor.agentexchange import AgentExchangeWS
from tests.executor.agentexchange.exchange import BTC, KEY, Exchange
from tests.support import until

CONSTRUCTION = """
from agentexchange import AgentExchangeWS

ws = AgentExchangeWS(
    api_key="ak_live_...",
    base_url="ws://localhost:8000",  # default
)
"""

DECORATORS = """
from agentexchange import AgentExchangeWS

ws = AgentExchangeWS(api_key="ak_live_...")

@ws.on_ticker("BTCUSDT")
async def handle_btc(data):
    print(f"BTC: ${data['price']}")

@ws.on_ticker("ETHUSDT")
async def handle_eth(data):
    print(f"ETH: ${data['price']}")

@ws.on_order_update()
async def handle_order(data):
    print(f"Order {data['order_id']}{data['status']}")

@ws.on_portfolio()
async def handle_portfolio(data):
    print(f"Equity: ${data['total_equity']}")

# Block forever with auto-reconnect
await ws.connect()
"""

MAKE = 'from agentexchange import AgentExchangeWS\n\nws = AgentExchangeWS(api_key="ak_live_...")\n'

CHANNELS = [
    """
@ws.on_ticker("SOLUSDT")
async def on_sol(data):
    # data contains: symbol, price, timestamp
    print(f"{data['symbol']}: ${data['price']}")
""",
    """
@ws.on_ticker("all")
async def on_any_price(data):
    symbol = data["symbol"]
    price = data["price"]
    # Called for every price update across all pairs
""",
    """
@ws.on_candles("BTCUSDT", "1m")
async def on_btc_1m(data):
    # data contains: symbol, interval, open, high, low, close, volume, open_time
    print(f"1m candle closed at ${data['close']}")

@ws.on_candles("ETHUSDT", "1h")
async def on_eth_1h(data):
    print(f"ETH 1h: O={data['open']} H={data['high']} L={data['low']} C={data['close']}")
""",
    """
@ws.on_order_update()
async def on_order(data):
    # data contains: order_id, symbol, side, status, executed_price, executed_quantity
    print(f"Order {data['order_id']}: {data['status']}")
    if data["status"] == "filled":
        print(f"  Filled at: ${data['executed_price']}")
""",
    """
@ws.on_portfolio()
async def on_portfolio(data):
    # data contains: total_equity, available_cash, unrealized_pnl, roi_pct
    print(f"Equity: ${data['total_equity']}  ROI: {data['roi_pct']}%")
""",
]

CONNECT = """
import asyncio
from agentexchange import AgentExchangeWS

ws = AgentExchangeWS(api_key="ak_live_...")

@ws.on_ticker("BTCUSDT")
async def on_btc(data):
    print(f"BTC: ${data['price']}")

asyncio.run(ws.connect())
"""

RUN_FOREVER = """
import threading
from agentexchange import AgentExchangeWS

ws = AgentExchangeWS(api_key="ak_live_...")

@ws.on_ticker("BTCUSDT")
def on_btc(data):           # sync handlers are also supported
    print(f"BTC: ${data['price']}")

# Start in a daemon thread — non-blocking
thread = threading.Thread(target=ws.run_forever, daemon=True)
thread.start()

# Your main code continues here
# The WS client runs in the background until the process exits
"""

PRICE_CACHE = """
# price_stream.py
import os
import threading
from agentexchange import AgentExchangeWS

# Shared state — written by WS thread, read by agent tools
latest_prices: dict[str, str] = {}
latest_orders: list[dict] = []
_lock = threading.Lock()

ws = AgentExchangeWS(
    api_key=os.environ["AGENTEXCHANGE_API_KEY"],
    base_url=os.environ.get("AGENTEXCHANGE_WS_URL", "ws://localhost:8000"),
)


@ws.on_ticker("BTCUSDT")
def on_btc(data):
    with _lock:
        latest_prices["BTCUSDT"] = data["price"]


@ws.on_ticker("ETHUSDT")
def on_eth(data):
    with _lock:
        latest_prices["ETHUSDT"] = data["price"]


@ws.on_ticker("SOLUSDT")
def on_sol(data):
    with _lock:
        latest_prices["SOLUSDT"] = data["price"]


@ws.on_order_update()
def on_order(data):
    with _lock:
        latest_orders.append(data)
        # Keep only the last 100 updates
        if len(latest_orders) > 100:
            latest_orders.pop(0)
    print(f"[WS] Order {data['order_id']}{data['status']}")


def start_stream() -> threading.Thread:
    \"\"\"Start the WebSocket feed in a daemon thread.\"\"\"
    t = threading.Thread(target=ws.run_forever, daemon=True)
    t.start()
    return t


def get_cached_price(symbol: str) -> str | None:
    \"\"\"Thread-safe read of the latest cached price.\"\"\"
    with _lock:
        return latest_prices.get(symbol.upper())
"""

AGENT_SETUP = """
from price_stream import start_stream, get_cached_price

# Start the feed before the agent loop
start_stream()

# Later, in any tool function:
price = get_cached_price("BTCUSDT")
if price:
    print(f"BTC (from cache): ${price}")
"""

ASYNC_LOOP = """
import asyncio
import os
from agentexchange import AgentExchangeWS

ws = AgentExchangeWS(api_key=os.environ["AGENTEXCHANGE_API_KEY"])
price_cache: dict[str, str] = {}


@ws.on_ticker("all")
async def on_price(data):
    price_cache[data["symbol"]] = data["price"]


@ws.on_order_update()
async def on_order(data):
    if data["status"] == "filled":
        print(f"[FILL] {data['symbol']} {data['side']} {data['executed_quantity']} @ {data['executed_price']}")


async def strategy_loop():
    \"\"\"Run a simple strategy while the WS feed updates the cache.\"\"\"
    while True:
        btc = price_cache.get("BTCUSDT")
        if btc and float(btc) > 65000:
            print("BTC above $65k — consider taking profit")
        await asyncio.sleep(10)


async def main():
    # Run both the WS client and the strategy loop concurrently
    await asyncio.gather(
        ws.connect(),
        strategy_loop(),
    )


asyncio.run(main())
"""


@pytest.fixture
def exchange(monkeypatch):
    with Exchange() as made:
        ours = types.ModuleType("ours")
        ours.AgentExchangeWS = partial(AgentExchangeWS, base_url=made.url)
        monkeypatch.setitem(sys.modules, "ours", ours)
        monkeypatch.setenv("AGENTEXCHANGE_API_KEY", KEY)
        monkeypatch.setenv("AGENTEXCHANGE_WS_URL", made.url)
        yield made


def run(block, namespace):
    """Run `block` with its import line changed, as a module or where its `await` stands at the top, on a loop."""
    text = block.replace("from agentexchange import", "from ours import")
    code = compile(text, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, namespace))  # noqa: S307 - our own fixture
    else:
        exec(code, namespace)  # noqa: S102 - our own fixture


class Printed:
    """Collects what a block prints."""

    def __init__(self):
        self.lines = []
        self.namespace = {"__name__": "page", "print": self.lines.append}


def run_and_close(block, *lines):
    """Run a block that blocks, until it has printed `lines`, and close what it made."""
    printed = Printed()
    thread = threading.Thread(target=run, args=(block, printed.namespace))
    thread.start()
    until(lambda: set(lines) <= set(printed.lines))
    printed.namespace["ws"].close()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.usefixtures("exchange")
def test_construction():
    run(CONSTRUCTION, Printed().namespace)


@pytest.mark.usefixtures("exchange")
def test_decorators():
    run_and_close(DECORATORS, "BTC: $65000.10", "ETH: $3000.5", "Order o-1filled", "Equity: $10000.00")


@pytest.mark.usefixtures("exchange")
def test_channels():
    run_and_close(
        MAKE + "".join(CHANNELS) + "\nws.run_forever()",
        "SOLUSDT: $178.41",
        "1m candle closed at $1.5",
        "ETH 1h: O=1 H=2 L=0.5 C=1.5",
        "Order o-1: filled",
        "  Filled at: $65000.10",
        "Equity: $10000.00  ROI: 0.01%",
    )


@pytest.mark.usefixtures("exchange")
def test_connect():
    run_and_close(CONNECT, "BTC: $65000.10")


@pytest.mark.usefixtures("exchange")
def test_run_forever_in_a_daemon_thread():
    printed = Printed()
    run(RUN_FOREVER, printed.namespace)
    until(lambda: printed.lines == ["BTC: $65000.10"])
    printed.namespace["ws"].close()
    printed.namespace["thread"].join(20)


@pytest.mark.usefixtures("exchange")
def test_the_streaming_price_cache(monkeypatch):
    module = types.ModuleType("price_stream")
    lines = []
    module.print = lines.append
    monkeypatch.setitem(sys.modules, "price_stream", module)
    run(PRICE_CACHE, module.__dict__)
    setup = Printed()
    run(AGENT_SETUP, setup.namespace)
    until(lambda: module.get_cached_price("btcusdt") == BTC["price"])
    until(lambda: module.latest_orders and lines == ["[WS] Order o-1filled"])
    module.ws.close()
    until(lambda: not any(thread.name.startswith("price handler") for thread in threading.enumerate()))


@pytest.mark.usefixtures("exchange")
def test_the_async_event_loop():
    printed = Printed()
    text = ASYNC_LOOP.replace("asyncio.run(main())", "")
    run(text, printed.namespace)

    async def main():
        running = asyncio.create_task(printed.namespace["main"]())
        while printed.lines != ["[FILL] BTCUSDT buy 0.1 @ 65000.10"] or len(printed.namespace["price_cache"]) < 3:
            await asyncio.sleep(0.001)
            assert not running.done()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(asyncio.wait_for(main(), 30))
