"""What is stopped before any endpoint sees it, and what all of that costs a client that behaves: nothing."""

import contextlib
import ipaddress
import json
import logging
import socket
import struct
import threading
import time
from pathlib import Path

import httpx
import pytest

from executor.service import Settings, fences, rates
from executor.service.rates import Rates, client_of, payer_of
from permits import keys
from tests.executor.service.serving import bearer, serving, settings_in, token
from tests.support import WALLET, until

MINE = WALLET.wallet_address
STREAM = "/api/agents/stream"


@pytest.fixture
def served(sqlite_setup, tmp_path):
    """Return what starts a service with some settings; all end with the test."""
    with contextlib.ExitStack() as ending:
        yield lambda **more: ending.enter_context(serving(sqlite_setup.guard, settings_in(tmp_path, **more)))


def told(answer):
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "host", ["evil.example.org", "127.0.0.1.evil.example.org", "", "a b", "127.0.0.1:x", "LOCALHOST."]
)
def test_a_host_that_is_not_ours_is_misdirected(served, host):
    client = served()
    assert told(client.get(STREAM, headers={"Host": host})) == (421, "HOST_UNKNOWN")
    assert client.get(STREAM, headers={"Host": "LocalHost:1234"}).status_code == 400


def test_a_foreign_page_can_not_write_nor_open_a_websocket(served):
    client = served(origins=["https://friend.example.org"])
    own = str(client.base_url).rstrip("/")
    path, headers = "/api/stream-tickets", bearer(token(MINE))
    for origin in ("https://evil.example.org", "null", "https://friend.example.org.evil.org", f"{own}0", ""):
        assert told(client.post(path, headers={**headers, "Origin": origin})) == (403, "ORIGIN_FOREIGN")
        handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        handshake |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": origin}
        assert client.get("/v1/stream", headers=handshake).status_code == 403
    for passing in ({"Origin": own}, {"Origin": "https://friend.example.org"}, {}):
        assert client.post(path, headers={**headers, **passing}).status_code == 201


def test_other_sites_pages_read_nothing_unless_they_are_listed(served):
    asking = {"Origin": "https://friend.example.org", "Access-Control-Request-Method": "POST"}
    closed, opened = served(), served(origins=["https://friend.example.org"])
    assert "access-control-allow-origin" not in closed.options("/api/stream-tickets", headers=asking).headers
    allowed = opened.options(
        "/api/stream-tickets", headers={**asking, "Access-Control-Request-Headers": "authorization"}
    )
    assert allowed.headers["access-control-allow-origin"] == "https://friend.example.org"
    assert "access-control-allow-credentials" not in allowed.headers
    asking["Origin"] = "https://evil.example.org"
    assert "access-control-allow-origin" not in opened.options("/api/stream-tickets", headers=asking).headers


def test_every_answer_says_what_browsers_must_not_do(served):
    client = served()
    for answer in (client.get("/nowhere"), client.get(STREAM), client.get(STREAM, headers={"Host": "evil"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_bounded_whether_or_not_its_length_is_told(served, chunked):
    client = served(body_bytes_max=2_000)
    for size, expected in ((1_999, 400), (2_000, 400), (2_001, 413), (200_000, 413)):
        pieces = (b"x" * 100 for _ in range(size // 100)) if size % 100 == 0 else iter([b"x" * size])
        answer = client.post("/api/sign-in", content=pieces if chunked else b"x" * size)
        assert answer.status_code == expected


def test_too_many_requests_wait(served):
    client = served(requests_per_minute_per_ip=5)
    answers = [client.get("/nowhere") for _ in range(8)]
    assert [answer.status_code for answer in answers] == [404] * 5 + [429] * 3
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 12


def test_each_address_behind_a_listed_proxy_is_counted_by_itself(served):
    client = served(requests_per_minute_per_ip=2, trusted_proxies=["127.0.0.0/8", "10.0.0.0/8"])

    def ask(forwarded):
        return client.get("/nowhere", headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask("1.1.1.1") for _ in range(3)] == [404, 404, 429]
    assert ask("made-up, 9.9.9.9, 1.1.1.1, 10.0.0.7") == 429
    assert ask("1.1.1.2") == 404
    unlisted = served(requests_per_minute_per_ip=2)
    assert [unlisted.get("/nowhere", headers={"X-Forwarded-For": f"1.1.1.{n}"}).status_code for n in range(3)] == [
        404,
        404,
        429,
    ]


LISTED = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("1.1.1.1", ["2.2.2.2"], "1.1.1.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["3.3.3.3, 2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", ["3.3.3.3", "2.2.2.2, 10.9.9.9"], "2.2.2.2"),
        ("10.0.0.1", ["3.3.3.3, nonsense"], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["2.2.2.2"], "2.2.2.2"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("", ["2.2.2.2"], ""),
    ],
)
def test_the_last_address_that_no_listed_proxy_has_asks(peer, forwarded, client):
    assert client_of(peer, forwarded, LISTED) == client


def test_an_ipv6_client_is_its_64():
    assert payer_of("2001:db8:1:2:3::4") == payer_of("2001:db8:1:2::") == "2001:db8:1:2::/64"
    assert payer_of("2001:db8:1:3::4") == "2001:db8:1:3::/64"
    assert payer_of("::ffff:1.2.3.4") == payer_of("1.2.3.4") == "1.2.3.4"
    assert payer_of("") == ""


def test_rates_give_back_what_time_brings_and_remember_no_more_than_they_may(monkeypatch):
    monkeypatch.setattr(rates, "KNOWN_MAX", 10)
    counted = Rates(120)
    assert sum(counted.wait_s("a", 0) == 0 for _ in range(200)) == 120
    assert counted.wait_s("a", 0) == pytest.approx(0.5)
    assert counted.wait_s("a", 0.5) == 0
    assert counted.wait_s("a", 0.5) > 0
    assert sum(counted.wait_s("a", 10.5) == 0 for _ in range(200)) == 20
    for number in range(100):
        counted.wait_s(f"{number}", 20)
        counted.wait_s("a", 20)
    assert len(counted._paid_until_s) == 10
    assert "a" in counted._paid_until_s, "who asks is not forgotten"


# Hostile sockets


class Neighbor:
    """A client that behaves, and asks all the while."""

    def __init__(self, client):
        self._client, self._ending, self.answers, self.slowest_s = client, threading.Event(), [], 0.0
        self._thread = threading.Thread(target=self._ask)

    def _ask(self):
        with httpx.Client(base_url=self._client.base_url, timeout=30) as client:
            while not self._ending.wait(0.02):
                began = time.monotonic()
                self.answers.append(client.post("/api/stream-tickets", headers=bearer(token(MINE))).status_code)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def __enter__(self):
        self._thread.start()
        until(lambda: self.answers)
        return self

    def __exit__(self, *_):
        asked = len(self.answers)
        until(lambda: len(self.answers) > asked or not self._thread.is_alive())
        self._ending.set()
        self._thread.join(60)
        assert set(self.answers) == {201}
        assert self.slowest_s < 5


@pytest.fixture
def hostile(served):
    return served(header_deadline_s=1)


def connect(client):
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=30)


def ended(sock):
    """Return what came, once the other side has closed."""
    came = b""
    try:
        while piece := sock.recv(65_536):
            came += piece
    except ConnectionError:
        pass
    return came


def test_a_head_or_body_that_never_ends_is_cut_off(hostile):
    """Slow-loris: a byte at a time, on many connections."""
    with Neighbor(hostile):
        slow = [connect(hostile) for _ in range(50)]
        for sock in slow[2:]:
            sock.sendall(b"GET /api/agents/stream HTTP/1.1\r\nHost: localhost\r\n")
        body, second = slow[:2]
        body.sendall(b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
        second.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"404" in second.recv(65_536)
        second.sendall(b"GET /no")
        began = time.monotonic()
        until(lambda: sum(drips(sock) for sock in slow[1:]) == 0, within_s=20)
        assert 0.5 < time.monotonic() - began < 10
        assert b" 408 " in ended(body)
    for sock in slow:
        sock.close()


def drips(sock):
    """Send a byte; tell whether the other side still takes any."""
    try:
        sock.sendall(b"x")
        sock.settimeout(0.001)
        return sock.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False
    finally:
        sock.settimeout(30)


def test_a_body_that_goes_on_after_its_answer_is_cut_off(hostile):
    with Neighbor(hostile), connect(hostile) as sock:
        sock.sendall(b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"500000\r\n" + b"x" * 0x5000)  # its one chunk goes on
        assert b" 413 " in sock.recv(65_536)
        began = time.monotonic()
        until(lambda: not drips(sock), within_s=20)
        assert 0.5 < time.monotonic() - began < 10


def test_a_body_of_which_the_end_is_missing_is_none(hostile, caplog):
    """Nothing is done on the half of a request, even if that could be read."""
    told = hostile.post("/api/sign-in/challenges", json={"walletAddress": MINE}).json()
    body = {"challenge": told["challenge"], "signature": keys.encode(WALLET.sign(told["message"].encode()))}
    data = json.dumps(body).encode()
    for end in (b"", b"nonsense\r\n"):
        with connect(hostile) as sock:
            sock.sendall(b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            sock.sendall(b"%x\r\n%b\r\n%b" % (len(data), data, end))
            sock.shutdown(socket.SHUT_WR)
            assert b" 200 " not in ended(sock)
    assert hostile.post("/api/sign-in", json=body).status_code == 200, "it wasn't used up"
    assert "Traceback" not in caplog.text


def test_nonsense_behind_a_request_ends_it_and_nobody_else(hostile, caplog):
    head = f"Host: localhost\r\nAuthorization: Bearer {token(MINE)}\r\n".encode()
    with Neighbor(hostile):
        for path, behind in (
            (b"GET " + STREAM.encode(), b""),
            (b"POST /api/sign-in", b"Transfer-Encoding: chunked\r\n"),
        ):
            with connect(hostile) as sock:
                sock.sendall(path + b" HTTP/1.1\r\n" + head + behind + b"\r\n")
                if not behind:
                    assert b" 200 " in sock.recv(65_536)
                sock.sendall(b"\x00\x01 nonsense\r\n\r\n" * 10)
        with connect(hostile) as sock:
            sock.sendall(b"POST /api/sign-in HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n")
            sock.sendall(b"5000\r\n" + b"x" * 0x5000)
            assert b" 413 " in sock.recv(65_536)
            sock.sendall(b"\r\nnonsense\r\n")
            ended(sock)
    assert "Traceback" not in caplog.text


def test_half_open_connections_are_cut_off(hostile):
    with Neighbor(hostile):
        silent = [connect(hostile) for _ in range(200)]
        began = time.monotonic()
        assert [ended(sock) for sock in silent] == [b""] * 200
        assert time.monotonic() - began < 10
        for sock in silent:
            sock.close()


BOMBS = {
    "one header": b"X: " + b"x" * 100_000,
    "many headers": b"\r\n".join(b"X-%d: y" % number for number in range(5_000)),
    "a few too many": b"\r\n".join(b"X-%d: y" % number for number in range(fences.HEADERS_MAX)),
    "just too long": b"X: " + b"x" * fences.HEAD_BYTES_MAX,
    "a header without a name": b": x",
    "a NUL": b"X: \x00",
    "two lengths": b"Content-Length: 1\r\nContent-Length: 2",
    "a length and chunks": b"Content-Length: -1\r\nTransfer-Encoding: chunked",
    "two hosts": b"Host: evil.example.org",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_header_bombs_are_refused(hostile, bomb):
    with Neighbor(hostile), connect(hostile) as sock:
        try:
            sock.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n" + bomb + b"\r\n\r\n")
            came = ended(sock)
        except ConnectionError:
            came = b""
        assert not came or came.split()[1] in {b"400", b"421", b"431"}


def drop(client, count):
    """Connect and go, each in another way."""
    ways = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"GET /api/agents/stream HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    for number in range(count):
        sock = connect(client)
        sock.sendall(ways[number % len(ways)])
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        sock.close()


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_many_that_connect_and_drop_leave_nothing_behind(served, count, caplog):
    client = served(header_deadline_s=1, requests_per_minute_per_ip=10**6)
    descriptors = open_descriptors()
    with Neighbor(client):
        drop(client, count)
    until(lambda: open_descriptors() <= descriptors + 20)
    assert "Traceback" not in caplog.text


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_token_or_ticket_stands_in_any_log(served, caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's own
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        client = served()
        mine = token(MINE)
        ticket = client.post("/api/stream-tickets", headers=bearer(mine)).json()["ticket"]
        for _ in range(2):
            with client.stream("GET", STREAM, params={"ticket": ticket}):
                pass
        client.get(f"/v1/stream?ticket={ticket}", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        client.get(STREAM, headers=bearer(mine + "x"))
    printed = capsys.readouterr()
    for told in (ticket, mine, ticket.rpartition(".")[2]):
        assert told not in caplog.text + printed.out + printed.err


def test_the_settings_of_a_stranger_hold_by_default():
    settings = Settings()
    assert not settings.wallet_address_streams
    assert settings.origins == settings.trusted_proxies == ()
