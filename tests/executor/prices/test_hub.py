"""The hub over real sockets, with the client that follows it and the book that a guard trades by."""

import contextlib
import json
import subprocess
import sys
import threading
from decimal import Decimal

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from executor.assets import KnownAssets
from executor.prices.book import PriceBook
from executor.prices.client import PriceStream
from executor.prices.hub import Caps, Hub, Refusal, Subject
from executor.prices.protocol import CloseCode, Tick, Tier
from executor.prices.socket import app_of, server_of
from executor.service import bind
from tests.support import JTO, T0, USDC, until

TIER = Tier("pro", 2, 3)


class Keys:
    """Knows one key of one subject."""

    async def authenticate(self, credential):
        return Subject("desk", TIER) if credential == "key" else None


class Served:
    """A hub that is served; `publish` from any thread."""

    def __init__(self, hub):
        self.hub = hub
        self._bound = bind("127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._bound.getsockname()[1]}/v1/stream"
        self._ready = threading.Event()
        self._server = server_of(app_of(hub, self._feed))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._bound]})

    async def _feed(self):
        import asyncio  # noqa: PLC0415 - the loop of the server's thread

        self._loop = asyncio.get_running_loop()
        self._ready.set()

    def publish(self, tick):
        self._loop.call_soon_threadsafe(self.hub.publish, tick)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_exception):
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def served():
    with Served(Hub(Keys())) as made:
        yield made


def tick(symbol="JTO", price="2.50", ts_ms=T0, *, stale=False):
    return Tick(symbol, Decimal(price), ts_ms, "pyth", stale=stale)


@contextlib.contextmanager
def joined(served, key="key", source=None):
    """Connect, and read the hello."""
    with connect(f"{served.url}?api_key={key}", source_address=source, compression=None) as socket:
        yield socket, json.loads(socket.recv(timeout=60))


def test_it_says_hello_and_sends_what_was_subscribed(served):
    with joined(served) as (socket, hello):
        assert hello == {"type": "hello", "tier": "pro", "limits": {"maxAssets": 3, "maxConnections": 2}}
        socket.send('{"type":"subscribe","assets":["JTO"]}')
        until(lambda: "JTO" in served.hub._subscribers)
        served.publish(tick("SOL"))
        served.publish(tick())
        assert socket.recv(timeout=60) == tick().encode()


@pytest.mark.parametrize(
    ("sent", "code", "close"),
    [
        ("{", "bad_json", CloseCode.BAD_JSON),
        ('{"type":"order"}', "unknown_type", CloseCode.UNKNOWN_TYPE),
        ('{"type":"subscribe","assets":["A","B","C","D"]}', "symbol_limit", CloseCode.SYMBOL_LIMIT),
    ],
)
def test_what_it_does_not_take_is_told_before_it_closes(served, sent, code, close):
    with joined(served) as (socket, _):
        socket.send(sent)
        assert json.loads(socket.recv(timeout=60))["code"] == code
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd.code == close


def test_one_connection_too_many_is_told_and_the_others_stay(served):
    with joined(served) as (first, _), joined(served):
        with joined(served) as (third, told):
            assert told["code"] == "symbol_limit"
            with pytest.raises(ConnectionClosed):
                third.recv(timeout=60)
        first.send('{"type":"subscribe","assets":["JTO"]}')
        until(lambda: "JTO" in served.hub._subscribers)
        served.publish(tick())
        assert first.recv(timeout=60) == tick().encode()


@pytest.mark.parametrize("key", ["", "another"])
def test_a_key_that_is_not_known_is_refused_before_the_upgrade(served, key):
    with pytest.raises(InvalidStatus) as refused, joined(served, key):
        pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(("caps", "status"), [(Caps(1, 50), 503), (Caps(50, 1), 429)], ids=["in all", "per address"])
def test_past_a_cap_of_sockets_it_is_refused_before_the_upgrade(caps, status):
    with Served(Hub(Keys(), caps)) as served, joined(served):
        with pytest.raises(InvalidStatus) as refused, joined(served):
            pass
        assert refused.value.response.status_code == status
        assert int(refused.value.response.headers["retry-after"]) > 0


def test_a_book_that_follows_the_hub_has_quotes_to_trade_on_and_shows_stale_ones(served):
    book = PriceBook(KnownAssets([USDC, JTO]), now_ms=lambda: T0)
    stream = PriceStream(served.url, "key")
    stream.subscribe("JTO")
    stream.feed(book)
    with stream:
        until(lambda: "JTO" in served.hub._subscribers)
        served.publish(tick())
        until(lambda: book.quotes(JTO.mint))
        (quote,) = book.quotes(JTO.mint)
        assert (quote.price_pico_usd, quote.at_ms, quote.is_fresh(T0, 1_000)) == (25 * 10**11, T0, True)
        served.publish(tick(ts_ms=T0 + 1, stale=True))
        until(lambda: book.quotes(JTO.mint)[0].stale)
        assert not book.quotes(JTO.mint)[0].is_fresh(T0, 1_000)
        assert book.quotes(USDC.mint) == ()


def test_the_commands_make_a_key_and_serve_a_generated_market_to_it(tmp_path):
    command = [sys.executable, "-c", "import sys; from executor.cli import main; sys.exit(main())"]
    keys = ["--keys", str(tmp_path / "keys.json")]

    def run(*arguments):
        return subprocess.run([*command, *arguments, *keys], capture_output=True, text=True, timeout=60, check=True)

    key = run("keys", "add", "desk", "--tier", "pro").stdout.split()[0]
    assert key not in (tmp_path / "keys.json").read_text()
    serving = [*command, "serve-prices", *keys, "--seed", "1", "--port", "0"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[-1].replace("http:", "ws:")
        try:
            with connect(f"{url}?api_key={key}", compression=None) as socket:
                assert json.loads(socket.recv(timeout=60))["tier"] == "pro"
                socket.send('{"type":"subscribe","assets":["SOL"]}')
                told = json.loads(socket.recv(timeout=60))
                assert (told["type"], told["data"]["symbol"], told["data"]["stale"]) == ("price", "SOL", False)
        finally:
            process.terminate()
        process.wait(60)


def test_who_chooses_addresses_in_one_ipv6_network_is_one_client():
    hub = Hub(Keys(), Caps(50, 2))
    givers = [hub.claim(f"2001:db8::{number}") for number in (1, 2)]
    assert hub.claim("2001:db8::3").status == 429
    assert not isinstance(hub.claim("2001:db8:0:1::3"), Refusal)
    givers[0]()
    assert not isinstance(hub.claim("2001:db8::4"), Refusal)
