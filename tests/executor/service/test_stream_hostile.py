"""Clients that don't play by the rules, and clients whose time is over: the others notice nothing."""

import socket
import sys
import time
from contextlib import ExitStack

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from executor.guard import AsyncGuard
from executor.service import Settings, bind, create_app, server
from executor.service.auth import Authentication, Caller
from executor.service.parts import Parts
from executor.service.stream import StreamEndpoint
from executor.service.tailer import Tailer
from tests.executor.service.served import served, stream
from tests.support import until, uuid

LONG = "x" * 20_000
LATE_S_MAX = 5
"""For others' events beside hostile clients: far less than any deadline that would have to pass first."""


@pytest.fixture
def app(sqlite_setup):
    sqlite_setup.activate()
    return create_app(AsyncGuard(sqlite_setup.guard), Settings(wallet_address_streams=True))


@pytest.fixture
def address(app):
    with served(app) as address:
        yield address


def url_of(address, setup):
    return f"{address}/api/agents/stream?walletAddress={setup.wallet}"


def arm(setup, condition):
    setup.guard.arm_trigger(setup.wallet, uuid(1), condition)


def connect(address, setup, more=""):
    """Send a stream's request, with a receive buffer as small as can be."""
    host, port = address.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    client.settimeout(60)
    client.connect((host, int(port)))
    path = f"/api/agents/stream?walletAddress={setup.wallet}{more}"
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    return client


def open_streams(app):
    return len(app.state.close_streams.__self__._open)


def tells_at_once(setup, following, condition):
    begun = time.monotonic()
    arm(setup, condition)
    while condition not in next(following).get("data", ""):
        pass
    assert time.monotonic() - begun < LATE_S_MAX


def test_a_client_that_stops_reading_is_dropped_and_the_others_are_told_meanwhile(sqlite_setup, app, monkeypatch):
    monkeypatch.setattr(server, "UNANSWERED_MS_MAX", 100_000)  # the kernel would drop it, too
    monkeypatch.setattr("executor.service.stream.HEARTBEAT_S", 0.5)  # a write, even if nothing happens
    monkeypatch.setattr("executor.service.stream.WRITE_S_MAX", 1.0)
    monkeypatch.setattr("executor.service.rounds.SWEEP_S", 0.1)
    for _ in range(40):
        arm(sqlite_setup, LONG)
    with served(app) as address, ExitStack() as stack:
        following = stack.enter_context(stream(url_of(address, sqlite_setup)))
        next(following)
        for _ in range(3):
            stack.enter_context(connect(address, sqlite_setup, "&from=start"))
        until(lambda: open_streams(app) == 4)
        tells_at_once(sqlite_setup, following, "beside them")
        until(lambda: open_streams(app) == 1)
        tells_at_once(sqlite_setup, following, "after them")


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
def test_the_kernel_drops_a_peer_that_answers_nothing(monkeypatch):
    """As one whose cable was cut: its kernel acknowledges nothing more, and shuts its window for good."""
    monkeypatch.setattr(server, "UNANSWERED_MS_MAX", 1_000)
    with bind("127.0.0.1", 0) as listening, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            accepted.settimeout(60)
            with pytest.raises(OSError, match="timed out") as dropped:
                accepted.sendall(b"x" * 10_000_000)
            assert dropped.value.errno is not None  # the kernel's word, not the time limit's


def test_the_kernel_holds_little_back_for_a_client_that_does_not_read():
    with bind("127.0.0.1", 0) as listening, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            accepted.setblocking(False)
            assert accepted.send(b"x" * 10_000_000) < 256 * 1_024


def test_a_stop_waits_for_no_client_that_does_not_read(sqlite_setup, app, monkeypatch):
    monkeypatch.setattr(server, "UNANSWERED_MS_MAX", 1_000)
    for _ in range(40):
        arm(sqlite_setup, LONG)
    with ExitStack() as stack:
        with served(app) as address:
            following = stack.enter_context(stream(url_of(address, sqlite_setup)))
            next(following)
            stack.enter_context(connect(address, sqlite_setup, "&from=start"))
            until(lambda: open_streams(app) == 2)
            begun = time.monotonic()
        assert time.monotonic() - begun < LATE_S_MAX
        assert list(following) == []


def come_and_go(sqlite_setup, app, address, count):
    with stream(url_of(address, sqlite_setup)) as following:
        next(following)
        for number in range(count):
            with connect(address, sqlite_setup) as client:
                if number % 3:
                    client.recv(1_000)
                if number % 2:  # a reset, not a farewell
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        tells_at_once(sqlite_setup, following, "undisturbed")
        until(lambda: open_streams(app) == 1)


def test_clients_that_come_and_go_leave_nothing_behind(sqlite_setup, app, address):
    come_and_go(sqlite_setup, app, address, 200)


@pytest.mark.campaign
def test_ten_thousand_clients_that_come_and_go_leave_nothing_behind(sqlite_setup, app, address):
    come_and_go(sqlite_setup, app, address, 10_000)


class OneToken(Authentication):
    """Takes everybody for `wallet`, by a token that ends at 100 s."""

    def __init__(self, wallet):
        self.wallet = wallet

    async def stream_caller(self, _request):
        return Caller(self.wallet, expires_at_s=100)


@pytest.mark.parametrize("is_busy", [False, True], ids=["nothing happens", "events all the time"])
def test_a_token_that_expires_ends_its_stream_at_the_next_heartbeat(sqlite_setup, monkeypatch, is_busy):
    monkeypatch.setattr("executor.service.stream.HEARTBEAT_S", 0.3)
    sqlite_setup.activate()
    now_s = [99.9]
    guard = AsyncGuard(sqlite_setup.guard)
    settings = Settings()
    parts = Parts(guard, settings, OneToken(sqlite_setup.wallet), Tailer(guard.guard.ledger), None)
    endpoint = StreamEndpoint(parts, clock_s=lambda: now_s[0])
    app = Starlette(routes=[Route("/", endpoint)])
    app.state.close_streams, app.state.settings = endpoint.close, settings
    with served(app) as address, httpx.Client(timeout=60) as client, client.stream("GET", address) as response:
        lines = response.iter_lines()
        while next(lines) != ": heartbeat":
            pass
        now_s[0] = 100.0
        if is_busy:
            arm(sqlite_setup, "busy")
        for line in lines:
            assert line != ": heartbeat"
            if line.startswith("data"):
                arm(sqlite_setup, "busy")
