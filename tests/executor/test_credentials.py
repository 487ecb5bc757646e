"""No credential of any client is in anything that is raised, reported, logged or shown.

A server on loopback sends back all that it was sent, in every place of an answer, and all loggers write at DEBUG.
"""

import asyncio
import itertools
import logging
import threading
import traceback
from contextlib import suppress
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import make_url
from websockets.asyncio.server import serve

from executor import cli
from executor.agentexchange import AgentExchangeWS
from executor.credentials import credential_of, harmless
from executor.errors import LedgerError
from executor.ledger import Ledger
from executor.ledger.scratch import scratch
from executor.ledger.upgrade import upgrade
from executor.prices import connection
from executor.prices.client import PriceStream
from executor.prices.connection import Target
from executor.rails.agreed import AgreedChain
from executor.rails.rpc import RpcChain
from executor.seal import SealKeys
from executor.service.client import AgentStream, FireClient
from executor.service.client.operator import OperationsThere
from executor.service.settings import Settings, SettingsRefused
from executor.service.tokens import Key, KeySet, Purpose

PART = "s3cr3tS3CR3T"
KEY = f"ak_{PART}+/={PART}"

BAD = {
    "a newline within": f"{KEY}\n{PART}",
    "a control character": f"{KEY}\x07",
    "a NUL": f"\x00{KEY}",
    "no latin-1": f"{KEY}\u20ac",
    "latin-1": f"{KEY}\xe9",
    "a space": f"{KEY} {PART}",
    "a header": f"{KEY}\r\nX-Evil: {PART}",
    "nothing": "",
    "white space alone": " \n",
    "bytes": KEY.encode(),
    "None": None,
}
"""What can't be sent."""

AROUND = {"a newline": f"{KEY}\n", "Windows": f"{KEY}\r\n", "spaces": f" {KEY}\t", "no-break space": f"\xa0{KEY}"}
"""What is sent without what is around it."""

ANSWERS = ["401", "403", "404", "429", "301", "302", "500", "200", "101", "not HTTP", "nothing"]


class Everything:
    """All that anybody may read: lines of all loggers, and what was handed to it."""

    def __init__(self, capfd):
        self.capfd = capfd
        self.records = []
        self.texts = []

    def take(self, error):
        """Keep all that can be printed of an error, and of what it holds."""
        self.texts += [str(error), repr(error), repr(error.args), *getattr(error, "__notes__", ())]
        self.texts += traceback.format_exception(error)

    def lines(self):
        formatter = logging.Formatter("%(name)s %(message)s")
        return [formatter.format(each) for each in list(self.records)]

    def require_clean(self):
        out, err = self.capfd.readouterr()
        found = [each for each in (*self.lines(), *self.texts, out, err) if PART in each]
        assert found == []


@pytest.fixture
def everything(capfd):
    made = Everything(capfd)
    handler = logging.Handler(logging.DEBUG)
    handler.handle = made.records.append
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    names = ["httpx", "httpcore.http11", "httpcore.connection", "websockets.client", "executor.agentexchange"]
    loggers += map(logging.getLogger, names)
    before = [(each, each.level, each.propagate) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
        each.propagate = True
    root.addHandler(handler)
    yield made
    root.removeHandler(handler)
    for each, level, propagate in before:
        each.setLevel(level)
        each.propagate = propagate


class Mirror:
    """Says back what it was sent: in the reason, a header, the redirect's target and the body."""

    def __init__(self):
        self.answer = "401"
        self.heads = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._attend, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _attend(self, reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            first = await reader.readexactly(1)
            if first == b"\x16":  # TLS
                writer.write(b"HTTP/1.1 400 plain\r\n\r\n")
                writer.close()
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            target, said = head.split(" ")[1], " ".join(head.split())
            body = f'{{"code": "{said}", "detail": "{said}"}}'
            if self.answer == "not HTTP":
                writer.write(f"{head}\r\n\r\n".encode("latin-1"))
            elif self.answer != "nothing":
                writer.write(
                    f"HTTP/1.1 {self.answer} {said}\r\nLocation: http://127.0.0.1:9{target}\r\nX-Said: {said}\r\n"
                    f"Upgrade: {said}\r\nContent-Type: {said}\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1")
                )
            await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def mirror():
    with Mirror() as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(connection, "DELAY_S_MIN", 0.01)
    monkeypatch.setattr(connection, "OPEN_S_MAX", 2.0)


def price_stream(server, everything, key=KEY):
    stream = PriceStream(f"ws{server}/v1/stream", key)
    stream.subscribe("SOL")
    stream.on_error(everything.take)
    return stream, stream.connect


def price_stream_by_url(server, everything):
    stream = PriceStream(f"ws{server}/{quote(KEY, safe='')}?api_key={KEY}", "another_token")
    stream.subscribe("SOL")
    stream.on_error(everything.take)
    return stream, stream.connect


def agent_exchange(server, _everything, key=KEY):
    ws = AgentExchangeWS(key, f"ws{server}")
    ws.on_ticker("all")(print)
    return ws, ws.connect


def agent_stream(server, everything, key=KEY):
    stream = AgentStream(f"http{server}", token=lambda: key, delays_s=lambda _: itertools.repeat(0.01))
    stream.on_error(everything.take)
    return stream, stream.run


def rpc_chain(server, _everything):
    chain = RpcChain(f"http{server}/v2/{KEY}?api-key={quote(KEY, safe='')}", timeout_s=2.0, pauses_s=())

    async def ask():
        async with chain:
            await chain.finalized_block()

    return chain, ask


def agreed_chain(server, everything):
    chains = [rpc_chain(server, everything)[0] for _ in range(2)]
    agreed = AgreedChain(*chains)

    async def ask():
        async with chains[0], chains[1]:
            await agreed.latest_blockhash()

    return agreed, ask


def key_set(server, _everything):
    keys = KeySet(f"http{server}/{KEY}?key={KEY}")
    return keys, lambda: keys.key("kid")


STREAMS = [price_stream, agent_exchange, agent_stream]
CLIENTS = [*STREAMS, price_stream_by_url, rpc_chain, agreed_chain, key_set]


def drive(everything, client, run):
    """Run until it ended, or has told thrice why it goes on."""

    async def main():
        task = asyncio.create_task(run())
        async with asyncio.timeout(20):
            while not task.done() and sum(is_told(line) for line in everything.lines()) < 3:  # noqa: ASYNC110 - of logs
                await asyncio.sleep(0.001)
        everything.texts.append(repr(client))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            everything.take(error)

    asyncio.run(main(), debug=True)


def is_told(line):
    return any(words in line for words in ("connection lost", "goes on after", "connection ended", "stream ended"))


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda made: made.__name__)
def test_whatever_a_server_says_back_no_text_holds_the_key(client, answer, mirror, everything):
    mirror.answer, mirror.heads = answer, []
    drive(everything, *client(f"://{mirror.address}", everything))
    assert any(PART in head for head in mirror.heads), "it was sent"
    everything.require_clean()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda made: made.__name__)
@pytest.mark.parametrize("server", ["://127.0.0.1:1", "s://{}", "://no.such.host.invalid"], ids=["port", "TLS", "host"])
def test_a_server_that_is_not_there_is_told_without_the_key(client, server, mirror, everything):
    drive(everything, *client(server.format(mirror.address), everything))
    everything.require_clean()


@pytest.mark.parametrize(
    "proxy", [f"http://user:{KEY}@127.0.0.1:1", f"gopher://user:{KEY}@host", f"http://u:{KEY}@h:x"]
)
@pytest.mark.parametrize("client", STREAMS, ids=lambda made: made.__name__)
def test_a_proxy_of_the_environment_is_told_without_its_password(client, proxy, mirror, everything, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "")
    try:
        drive(everything, *client(f"://{mirror.address}", everything, "another_key"))
    finally:
        everything.require_clean()


@pytest.mark.parametrize("client", STREAMS, ids=lambda made: made.__name__)
@pytest.mark.parametrize("key", AROUND.values(), ids=AROUND)
def test_white_space_around_a_key_is_not_sent(client, key, mirror, everything):
    mirror.answer, mirror.heads = "401", []
    drive(everything, *client(f"://{mirror.address}", everything, key))
    sent = mirror.heads[0].splitlines()
    assert f"Authorization: Bearer {KEY}" in sent or sent[0] == f"GET /ws/v1?api_key={quote(KEY, safe='')} HTTP/1.1"
    everything.require_clean()


@pytest.mark.parametrize("given", BAD.values(), ids=BAD)
def test_what_can_not_be_sent_is_refused_where_it_is_given(given, everything):
    for make in (lambda: PriceStream("ws://localhost", given), lambda: AgentExchangeWS(given)):
        with pytest.raises(
            ValueError, match=r"the (token|API key) (is empty|must be text|holds white space)"
        ) as refused:
            make()
        everything.take(refused.value)
    everything.require_clean()


@pytest.mark.parametrize("client", [price_stream, agent_stream], ids=lambda made: made.__name__)
@pytest.mark.parametrize("given", BAD.values(), ids=BAD)
def test_what_a_function_returns_is_held_to_the_same_at_each_connection(client, given, mirror, everything):
    mirror.answer, mirror.heads = "500", []
    stream, run = client(f"://{mirror.address}", everything, KEY)
    stream._token = lambda: given
    drive(everything, stream, run)
    assert mirror.heads == []
    assert any("what the token's function returned" in line for line in everything.lines())
    everything.require_clean()


@pytest.mark.parametrize("client", [price_stream, agent_stream], ids=lambda made: made.__name__)
def test_what_a_token_function_raises_is_told_by_its_name_alone(client, mirror, everything):
    def failing():
        url = f"https://login.example/token?client_secret={KEY}"
        httpx.Response(401, request=httpx.Request("GET", url)).raise_for_status()

    stream, run = client(f"://{mirror.address}", everything, KEY)
    stream._token = failing
    told = []
    stream.on_error(told.append)
    drive(everything, stream, run)
    assert "its function raised `HTTPStatusError`" in str(told[0])
    assert isinstance(told[0].__context__, httpx.HTTPStatusError), "a program can still look"
    everything.require_clean()


@pytest.mark.parametrize("url", [f"ws://u:{PART}@h", f"ws://h:{PART}", f"http://h?key={PART}", f"wss://h#{PART}", PART])
def test_a_url_that_is_none_is_not_repeated(url, everything):
    makers = [lambda: PriceStream(url, KEY), lambda: AgentExchangeWS(KEY, url)]
    makers += [lambda: AgentStream(url.replace("ws", "http", 1))]
    makers += [lambda: RpcChain(url.replace("ws", "http", 1))] if "?" not in url and "#" not in url else []
    for make in makers:
        with pytest.raises(ValueError, match=r"must|can't be read") as refused:
            make()
        everything.take(refused.value)
    everything.require_clean()


class Echo:
    """A WebSocket that says what it is told to, then closes with it as the reason."""

    async def __aenter__(self):
        silent = logging.getLogger("tests.silent")
        silent.propagate = False
        self.server = await serve(self.attend, "127.0.0.1", 0, logger=silent)
        self.address = f"://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def attend(self, socket):
        for text in (f'{{"type":"error","code":"{KEY}","message":"no {KEY}"}}', f"{KEY} is no JSON", "[" * 99):
            with suppress(Exception):
                await socket.send(text)
        await socket.close(4000, f"{KEY}: no")


@pytest.mark.parametrize("client", [price_stream, agent_exchange], ids=lambda made: made.__name__)
def test_what_a_server_says_over_the_socket_is_told_without_the_key(client, everything):
    async def story():
        async with Echo() as echo:
            made, run = client(echo.address, everything)
            running = asyncio.create_task(run())
            async with asyncio.timeout(20):
                while sum("…" in line for line in everything.lines()) < 3:  # noqa: ASYNC110 - of logs
                    await asyncio.sleep(0.001)
            made.close()
            await running

    asyncio.run(story())
    everything.require_clean()


PASSWORDS = [f"postgresql://ann:{PART}@127.0.0.1:1/db", f"postgresql://ann@127.0.0.1:1/db?password={PART}"]
PASSWORDS += [f"postgresql://ann:x@{PART}@127.0.0.1:1/db", f"postgresql://ann:{PART}@127.0.0.1:x/db"]
PASSWORDS += [f"postgresql://ann:a/{PART}@127.0.0.1:1/db", f"postgresql://ann@127.0.0.1:1/db?sslpassword={PART}"]
PASSWORDS += [f"postgresql://ann:{quote(odd)}{PART}@127.0.0.1:1/db" for odd in ("\x00", "\n", "' \"", "\\", "é")]
PASSWORDS += [f"mysql://ann:{PART}@127.0.0.1/db", f"postgresql:/ann:{PART}@127.0.0.1/db", f"://ann:{PART}@h"]


@pytest.mark.parametrize("url", PASSWORDS)
def test_a_databases_password_is_in_no_text(url, everything, tmp_path):
    key_file = tmp_path / "seal.key"
    key_file.write_text("5e" * 32)
    seal_keys = SealKeys.single(b"s" * 32)
    places = [lambda: Ledger.open(url, seal_keys=seal_keys), lambda: upgrade(url), lambda: scratch(url).__enter__()]
    for place in places:
        with pytest.raises(LedgerError) as refused:
            place()
        everything.take(refused.value)
    lines = [["status", "--db", url], ["status", "--db", str(tmp_path / "no.db"), url], ["halt", url, "--db", "x"]]
    lines += [["db", "upgrade", url], ["db", "check", url], ["traces", "run", "--url", url], ["limits", "--db", url]]
    lines += [["status", "--password", PART], ["trace", "x", "--db", url], [f"--api-key={PART}"]]
    for line in lines:
        seal = [] if "upgrade" in line or "traces" in line else ["--seal-key", str(key_file)]
        with suppress(SystemExit):
            assert cli.main([*line, *seal]) != 0
    everything.require_clean()


@pytest.mark.parametrize("url", PASSWORDS)
def test_settings_with_a_password_are_refused_without_it(url, everything, tmp_path):
    path = tmp_path / "settings.toml"
    for setting in (f'ledger = "{url}"', f'jwt_jwks_url = "{url.replace("postgresql", "https")}"'):
        path.write_text(setting.replace("\\", "\\\\"))
        if "ledger" in setting and ":/ann" in url:
            continue  # that names a file
        with pytest.raises(SettingsRefused) as refused:
            Settings.read(path)
        everything.take(refused.value)
    with pytest.raises(ValueError, match="1 validation error") as refused:
        Settings(jwt_jwks_url=f"ftp://{PART}")
    everything.take(refused.value)
    everything.require_clean()


def test_a_key_in_the_url_of_a_key_set_is_not_shown(everything, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(f'jwt_jwks_url = "https://keys.example/{KEY}?key={KEY}"\n')
    everything.texts.append(repr(Settings.read(path)))
    with suppress(SystemExit):
        cli.main(["config", "check", str(path)])
    everything.require_clean()


def test_an_api_key_that_is_given_for_something_else_is_not_repeated(everything, tmp_path):
    key = f"ak_{PART}{PART}"
    file = str(tmp_path / "keys.json")
    for line in (["revoke", key], ["add", f"{key}/"], ["add", "ann", "--tier", key], [key], ["list", key]):
        with suppress(SystemExit):
            assert cli.main(["keys", *line, "--keys", file]) != 0
    everything.require_clean()


def test_no_repr_shows_a_credential(everything):
    secret = PART.encode()
    shown = [Target(f"ws://h?api_key={KEY}", {"Authorization": KEY}, (KEY,)), Key(secret, "HS256")]
    shown += [Purpose(secret, "ticket"), FireClient("/a/socket"), OperationsThere("/a/socket")]
    everything.texts += map(repr, shown)
    everything.require_clean()


def test_a_password_in_a_query_reaches_postgresql_and_no_text(postgres_ledger, everything):
    url = make_url(postgres_ledger)
    given = url.set(password=None).update_query_dict({"password": url.password or PART})
    with Ledger.open(given.render_as_string(hide_password=False), seal_keys=SealKeys.single(b"s" * 32)) as ledger:
        everything.texts += [repr(ledger.engine), str(ledger.engine.url), ledger._store.name]
    assert not any(url.password in text for text in everything.texts if url.password)
    everything.require_clean()


def test_harmless_takes_the_longest_first_and_leaves_words_alone():
    assert harmless("a key: 0123456789abc\n", ["01234567", "0123456789abc", "key"]) == "a key: …"
    assert credential_of("k\n", "the key") == "k"
