"""Frames go past ASGI where the server offers a way, and through it anywhere else: a client sees no difference."""

import asyncio
import socket
import threading
import time
import zlib
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.middleware.base import BaseHTTPMiddleware

from executor.guard import AsyncGuard
from executor.service import Settings, bind, create_app
from executor.service.auth import Caller
from executor.service.chunks import WRITE_CHUNK, chunk_of, rolling_hash
from executor.service.pages import Page, Position
from executor.service.rounds import Rounds
from executor.service.stream import _Stream
from executor.service.tailer import Tail
from tests.executor.service.served import on_a_port, served, stream
from tests.support import until

EVENTS = 5


@pytest.fixture
def app(sqlite_setup):
    sqlite_setup.activate()
    return create_app(AsyncGuard(sqlite_setup.guard), Settings(wallet_address_streams=True))


class Counting:
    """The application, and how often it wrote a chunk past ASGI."""

    def __init__(self, app):
        self.app, self.state, self.written, self.left = app, app.state, 0, 0

    async def __call__(self, scope, receive, send):
        if WRITE_CHUNK in scope.get("state", {}):
            offered = scope["state"][WRITE_CHUNK]

            def counting(chunk, sent):
                is_written = offered(chunk, sent)
                self.written += is_written
                self.left += not is_written
                return is_written

            scope["state"][WRITE_CHUNK] = counting
        await self.app(scope, receive, send)


@contextmanager
def under_uvicorn(app):
    """Serve `app` as anybody would, with nothing of ours."""
    bound = bind("127.0.0.1", 0)
    how = {"log_level": "warning", "lifespan": "off", "timeout_graceful_shutdown": 10}
    server = uvicorn.Server(uvicorn.Config(app, **how))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def url_of(address, setup):
    return f"{address}/api/agents/stream?walletAddress={setup.wallet}"


def refused_in_turn(setup, following):
    """Have each event told before the next; return the ids that were told."""
    next(following)
    ids = []
    for number in range(EVENTS):
        setup.guard.authorize(setup.request(number + 1, sell="BONK"))
        ids.append(int(next(following)["id"].partition("-")[2]))
    return ids


def test_a_chunk_of_nothing_does_not_end_the_answer():
    assert chunk_of(b"") == b""
    assert chunk_of(b"x" * 255) == b"ff\r\n" + b"x" * 255 + b"\r\n"


def test_our_server_writes_an_events_chunk_as_it_is(sqlite_setup, app):
    counting = Counting(app)
    with served(counting) as address, stream(url_of(address, sqlite_setup)) as following:
        ids = refused_in_turn(sqlite_setup, following)
    assert ids == list(range(3, 3 + EVENTS))
    assert counting.written == EVENTS


class Compressing:
    """Compresses each piece as it comes, and says so."""

    def __init__(self, app, *, says=True):
        self.app, self.says = app, says

    async def __call__(self, scope, receive, send):
        compressor = zlib.compressobj(wbits=31)

        async def compressed(message):
            if message["type"] == "http.response.start" and self.says:
                message = {**message, "headers": [*message["headers"], (b"content-encoding", b"gzip")]}
            elif message["type"] == "http.response.body":
                body = compressor.compress(message["body"])
                body += compressor.flush(zlib.Z_SYNC_FLUSH if message.get("more_body") else zlib.Z_FINISH)
                message = {**message, "body": body}
            await send(message)

        await self.app(scope, receive, compressed)


class Halving:
    """Sends each piece in two."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def halved(message):
            body = message.get("body", b"")
            if body:
                await send({**message, "body": body[:9], "more_body": True})
                message = {**message, "body": body[9:]}
            await send(message)

        await self.app(scope, receive, halved)


class HeaderAdding(BaseHTTPMiddleware):
    """Starlette's way: the answer passes through a queue."""

    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-added"] = "1"
        return response


@pytest.mark.parametrize(("middleware", "past_asgi"), [(Compressing, 0), (Halving, 0), (HeaderAdding, EVENTS)], ids=str)
def test_a_middleware_around_the_application_gets_every_frame_that_it_changes(sqlite_setup, app, middleware, past_asgi):
    app.add_middleware(middleware)
    counting = Counting(app)
    with served(counting) as address, stream(url_of(address, sqlite_setup)) as following:
        assert refused_in_turn(sqlite_setup, following) == list(range(3, 3 + EVENTS))
    assert counting.written == past_asgi
    assert counting.left == (0 if past_asgi else EVENTS)


def test_a_body_that_is_changed_without_a_word_stays_whole(sqlite_setup, app):
    app.add_middleware(Compressing, says=False)
    plain, decompress = b"", zlib.decompressobj(wbits=31).decompress
    with served(app) as address, httpx.stream("GET", url_of(address, sqlite_setup), timeout=60) as answer:
        pieces = answer.iter_raw()
        while b"retry: 2000\n\n" not in plain:
            plain += decompress(next(pieces))
        sqlite_setup.guard.authorize(sqlite_setup.request(1, sell="BONK"))
        while not plain.endswith(b"}\n\n"):
            plain += decompress(next(pieces))
    assert plain.count(b"event: errored\n") == 1


def test_a_chunk_is_written_only_into_a_body_that_left_as_it_was_written(app):
    """The order of calls is the answer's: before its head, into its body, and after its end."""
    written = {}

    async def answer(scope, _receive, send):
        def write(when, sent):
            written[when] = scope["state"][WRITE_CHUNK](chunk_of(b"-" + when.encode()), sent)

        write("before", 0)
        head = [tuple(scope["query_string"].split(b"="))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        write("head", 0)
        await send({"type": "http.response.body", "body": b"-sent", "more_body": True})
        write("late", 0)
        write("body", rolling_hash(0, b"-sent"))
        await send({"type": "http.response.body", "body": b""})
        write("after", rolling_hash(0, b"-sent"))

    server = Counting(app)
    server.app = lambda scope, *how: (answer if scope["type"] == "http" else app)(scope, *how)
    with served(server) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/?x-other=1").text == "-head-sent-body"
        assert written == {"before": False, "head": True, "late": False, "body": True, "after": False}
        for other in ("content-length=5", "content-encoding=identity"):
            assert client.get(f"/?{other}").text == "-sent"
            assert not any(written.values())


EPOCH = "00112233445566aa"
AT = [Position(EPOCH, seq) for seq in range(8)]
NEWEST = Page(AT[5], AT[6], b"id: 6\n\n", more=False)


@pytest.mark.parametrize(
    ("stands_at", "page", "unsaid", "takes_it", "is_told"),
    [
        (AT[5], NEWEST, b"", True, True),
        (AT[4], NEWEST, b"", True, False),  # the page before was never told: it would be passed over
        (AT[6], NEWEST, b"", True, False),  # it was told: it would come twice
        (AT[5], NEWEST, b"id: 5\n\n", True, False),  # the first frame would come last, with an older id
        (AT[5], NEWEST._replace(more=True), b"", True, False),
        (AT[5], NEWEST._replace(after=Position("f" * 16, 5)), b"", True, False),  # of a ledger that was put back
        (
            AT[5],
            Page(AT[5], AT[5], b"", more=False),
            b"",
            True,
            False,
        ),  # woken without a page: the ledger is to be asked
        (AT[5], NEWEST, b"", False, False),
    ],
)
def test_only_the_page_that_follows_is_told_at_once(stands_at, page, unsaid, takes_it, is_told):
    written = []

    def write_chunk(chunk, _sent):
        return takes_it and not written.append(chunk)

    async def tell():
        stream = _Stream(None, Rounds(), Caller("wallet"), None, write_chunk, time.time)
        stream._tail = Tail("wallet", AT[5])
        stream._position, stream._unsaid, stream._is_behind = stands_at, unsaid, False
        stream._tail.move(page)
        return stream.tell_at_once(), stream._position

    told, position = asyncio.run(tell())
    assert told is is_told
    assert written == ([chunk_of(page.frames)] if is_told else [])
    assert position == (page.upto if is_told else stands_at)


def test_any_other_server_gets_every_frame_through_asgi(sqlite_setup, app):
    counting = Counting(app)
    with under_uvicorn(counting) as address, stream(url_of(address, sqlite_setup)) as following:
        assert refused_in_turn(sqlite_setup, following) == list(range(3, 3 + EVENTS))
    assert counting.written == 0


def test_a_client_of_http_1_0_gets_no_chunks(sqlite_setup, app):
    counting = Counting(app)
    with on_a_port(counting) as port, socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(f"GET {url_of('', sqlite_setup)} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        file = client.makefile("rb")
        while file.readline() != b"retry: 2000\n":
            pass
        sqlite_setup.guard.authorize(sqlite_setup.request(1, sell="BONK"))
        assert [file.readline() for _ in range(3)][:2] == [b"\n", b"id: %b-3\n" % sqlite_setup.guard.ledger.id.encode()]
    assert counting.written == 0


def test_a_client_that_lags_is_written_to_in_order(sqlite_setup, app):
    """Once the kernel takes no more, nothing overtakes what waits."""
    counting = Counting(app)
    with on_a_port(counting) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(f"GET {url_of('', sqlite_setup)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        file = client.makefile("rb")
        while file.readline() != b"retry: 2000\n":
            pass
        count = 0
        while not counting.left:
            sqlite_setup.guard.arm_trigger(sqlite_setup.wallet, sqlite_setup.request().agent_id, "x" * 20_000)
            count += 1
            until(lambda told=count: counting.written + counting.left >= told)
        sqlite_setup.guard.authorize(sqlite_setup.request(1, sell="BONK"))
        ids = []
        while len(ids) <= count:
            line = file.readline()
            if line.startswith(b"id: "):
                ids.append(int(line.partition(b"-")[2]))
        assert ids == list(range(3, 4 + count))
