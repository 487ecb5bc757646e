"""The nginx configuration of the how-to, run by a real nginx: what it must do for clients, and for a browser."""

import asyncio
import datetime as dt
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from executor.guard import AsyncGuard
from executor.prices.hub import Caps, Hub
from executor.prices.protocol import Subscribe
from executor.prices.socket import WEBSOCKET, routes, running
from executor.service import Settings, create_app
from tests.browser.conftest import NAME, PATIENCE_MS
from tests.executor.prices.market import Credentials, next_tick, tick
from tests.executor.service.served import frames, on_a_port
from tests.postgres import end_with_parent, free_port, unprivileged
from tests.support import uuid

CONFIGURATION = Path(__file__).parents[2] / "docs/how-to/nginx.conf"
PER_MINUTE = 20
START_S = 20
WHOLE = """\
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    include holdfire.conf;
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Proxied:
    """nginx before a service: `port` is nginx's, `service_port` the one where it looks for the service."""

    def __init__(self, port, service_port, certificate):
        self.port = port
        self.service_port = service_port
        self.tls = ssl.create_default_context(cafile=certificate)

    def client(self, address="127.0.0.1", **timeout):
        """Return a client at `address` that asks for the site by its name."""
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": NAME},
            transport=_Named(verify=self.tls, local_address=address),
            timeout=timeout.get("timeout_s", 30),
        )

    def price_stream(self, address):
        """Open a price stream from `address`."""
        opened = socket.create_connection(("127.0.0.1", self.port), 30, (address, 0))
        return connect(f"wss://{NAME}/v1/stream?api_key=quant-{address}", sock=opened, ssl=self.tls, proxy=None)


class _Named(httpx.HTTPTransport):
    def handle_request(self, request):
        request.extensions["sni_hostname"] = NAME
        return super().handle_request(request)


@pytest.fixture(scope="module")
def nginx():
    """Run nginx, unprivileged, on loopback, by the how-to's configuration: only its places and ports are others."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        why = "no `nginx` is installed (Debian: apt-get install --no-install-recommends nginx-light)"
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="nginx-for-tests-") as made:
        folder, proxied = Path(made), configured(Path(made))
        identity = {}
        if os.geteuid() == 0:
            identity = unprivileged()
            for each in (folder, *folder.iterdir()):
                os.chown(each, identity["user"], identity["group"])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-p", folder, "-c", "nginx.conf", "-e", "stderr"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one system call
                **identity,
            )
            try:
                wait_for(process, proxied.port, folder / "log")
                yield proxied
            finally:
                process.terminate()
                process.wait(START_S)


def configured(folder):
    """Write what nginx reads into `folder`."""
    port, service_port = free_port(), free_port()
    certificate = certify(folder)
    text = CONFIGURATION.read_text()
    for theirs, ours in {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "server 127.0.0.1:8787;": f"server 127.0.0.1:{service_port};",
        "/etc/ssl/agents.example.org.pem": certificate.name,
        "/etc/ssl/private/agents.example.org.key": "tls.key",
        "/var/log/nginx/error.log": "stderr",
    }.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    (folder / "holdfire.conf").write_text(text)
    temporary = "\n    ".join(f"{each}_temp_path {each};" for each in TEMPORARY)
    (folder / "nginx.conf").write_text(WHOLE.format(temporary=temporary))
    return Proxied(port, service_port, certificate)


def certify(folder):
    """Write a key, and a certificate for the name, which vouches for itself; return the certificate's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(private)
    (folder / "tls.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "tls.pem"


def wait_for(process, port, log):
    """Wait until nginx listens. Fails if it ends before."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail(f"nginx does not listen:\n{log.read_text()}")


@contextmanager
def service_behind(nginx, guard, **more):
    """Serve `guard`, and a price stream that publishes all the time, where nginx looks for it."""
    settings = Settings(hosts=(NAME,), trusted_proxies=("127.0.0.1/32",), wallet_address_streams=True, **more)
    hub = Hub(Credentials(), Caps(per_address=1))
    app = create_app(AsyncGuard(guard), settings, prices=routes(hub, settings.trusted_proxies))

    async def publish():
        while True:
            hub.publish(tick())
            await asyncio.sleep(0.1)

    app.router.lifespan_context = lambda _app: running(hub, publish)
    with on_a_port(app, nginx.service_port, **WEBSOCKET):
        yield


def test_each_client_has_a_rate_of_its_own_whatever_it_says_of_itself(nginx, sqlite_setup):
    with (
        service_behind(nginx, sqlite_setup.guard, requests_per_minute_per_ip=PER_MINUTE),
        nginx.client("127.0.0.2") as busy,
        nginx.client("127.0.0.3") as other,
    ):
        answers = [busy.get("/healthz").status_code for _ in range(PER_MINUTE)]
        assert answers == [200] * PER_MINUTE
        made_up = busy.get("/healthz", headers={"X-Forwarded-For": "192.0.2.1"})
        assert made_up.status_code == 429
        assert other.get("/healthz").json() == {"status": "ok"}


def test_an_event_arrives_at_once(nginx, sqlite_setup):
    sqlite_setup.activate()
    with service_behind(nginx, sqlite_setup.guard), nginx.client(timeout_s=1) as client:
        query = {"walletAddress": sqlite_setup.wallet}
        with client.stream("GET", "/api/agents/stream", params=query) as stream:
            assert stream.status_code == 200
            following = frames(stream.iter_lines())
            next(following)
            sqlite_setup.guard.arm_trigger(sqlite_setup.wallet, uuid(1), "told")
            assert "told" in next(following)["data"]


def test_price_streams_pass_and_are_counted_by_their_clients(nginx, sqlite_setup):
    with service_behind(nginx, sqlite_setup.guard), nginx.price_stream("127.0.0.2") as opened:
        with nginx.price_stream("127.0.0.3") as other:
            for each in (opened, other):
                each.send(Subscribe(("SOL",)).encode())
                assert next_tick(each).symbol == "SOL"
        with pytest.raises(InvalidStatus) as refused:
            nginx.price_stream("127.0.0.2")
        assert refused.value.response.status_code == 429


def test_while_the_service_is_away_only_streams_are_answered_200(nginx):
    with nginx.client() as client:
        assert client.get("/healthz").status_code == 502
        answer = client.get("/api/agents/stream", headers={"Origin": "https://app.example.org"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    assert answer.text == "retry: 2000\n\n"


def test_an_event_source_survives_a_restart_of_the_service(nginx, sqlite_setup, chromium):
    """It comes back by itself: the page does nothing. Once it has asked in vain, the service is started again."""
    sqlite_setup.activate()
    page = chromium.new_page(ignore_https_errors=True)
    page.set_default_timeout(PATIENCE_MS)
    with service_behind(nginx, sqlite_setup.guard):
        page.goto(f"https://{NAME}:{nginx.port}/healthz/live")
        page.evaluate(
            "wallet => { window.told = []; window.errors = 0;"
            " window.es = new EventSource(`/api/agents/stream?walletAddress=${wallet}`);"
            " es.onerror = () => errors++;"
            " es.addEventListener('trigger_armed', (e) => told.push(JSON.parse(e.data).condition)); }",
            sqlite_setup.wallet,
        )
        page.wait_for_function("es.readyState === EventSource.OPEN")
        sqlite_setup.guard.arm_trigger(sqlite_setup.wallet, uuid(1), "before")
        page.wait_for_function("told.length === 1")
    page.wait_for_function("errors >= 2")
    sqlite_setup.guard.arm_trigger(sqlite_setup.wallet, uuid(1), "meanwhile")
    with service_behind(nginx, sqlite_setup.guard):
        page.wait_for_function("told.length === 2 || es.readyState === EventSource.CLOSED")
        sqlite_setup.guard.arm_trigger(sqlite_setup.wallet, uuid(1), "after")
        page.wait_for_function("told.length === 3 || es.readyState === EventSource.CLOSED")
        assert page.evaluate("told") == ["before", "meanwhile", "after"]
    page.close()
