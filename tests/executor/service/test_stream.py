"""The event stream over a real socket, served by uvicorn in a thread."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Router

from executor.guard import AsyncGuard
from executor.service import Settings, bind, create_app
from tests.executor.service.served import served, stream
from tests.support import WALLET, Setup, key, uuid


@pytest.fixture
def url(setup):
    with served(create_app(AsyncGuard(setup.guard), Settings(wallet_address_streams=True))) as address:
        yield f"{address}/api/agents/stream?walletAddress={setup.wallet}"


def refuse(setup, *numbers):
    for number in numbers:
        setup.guard.authorize(setup.request(number, sell="BONK"))


def told(frame):
    return frame["data"].split('"executionId":"')[1][:36]


def ids(setup, *numbers):
    return [setup.request(number).execution_id for number in numbers]


def test_it_begins_with_the_heads_id_and_tells_what_follows(setup, url):
    setup.activate()
    refuse(setup, 1)
    with stream(url) as following:
        epoch = setup.guard.ledger.stream_epoch
        assert next(following) == {"id": f"{epoch}-3", "retry": "2000"}
        refuse(setup, 2)
        frame = next(following)
        assert frame["event"] == "errored"
        assert frame["id"] == f"{epoch}-4"
        assert told(frame) == ids(setup, 2)[0]


def test_from_start_tells_everything(setup, url):
    setup.activate()
    refuse(setup, *range(1, 5))
    with stream(url + "&from=start") as following:
        next(following)
        assert [told(next(following)) for _ in range(4)] == ids(setup, 1, 2, 3, 4)


@pytest.mark.parametrize("by_header", [True, False])
def test_coming_back_with_the_last_id_misses_and_repeats_nothing(setup, url, by_header):
    setup.activate()
    with stream(url) as following:
        opening = next(following)["id"]
    refuse(setup, 1, 2)
    with stream(url, {"Last-Event-ID": opening}) as following:
        next(following)
        first = next(following)
        assert told(first) == ids(setup, 1)[0]
    again = stream(url, {"Last-Event-ID": first["id"]}) if by_header else stream(f"{url}&lastEventId={first['id']}")
    with again as following:
        next(following)
        assert told(next(following)) == ids(setup, 2)[0]


@pytest.mark.parametrize("foreign", ["0123456789abcdef-1", "nonsense", "{epoch}-999", "{epoch}-01", "{epoch}--1"])
def test_an_id_of_another_ledger_is_told_to_reset(setup, url, foreign):
    setup.activate()
    with stream(url, {"Last-Event-ID": foreign.format(epoch=setup.guard.ledger.stream_epoch)}) as following:
        opening = next(following)
        assert opening["event"] == "reset"
        assert opening["id"] == f"{setup.guard.ledger.stream_epoch}-2"


def test_an_id_from_before_a_restore_is_told_to_reset(setup, url):
    """Whatever the restored ledger reaches: its numbers mean other events."""
    setup.activate()
    refuse(setup, 1)
    with stream(url) as following:
        before = next(following)["id"]
    setup.guard.mark_restored()
    refuse(setup, 2, 3)
    for headers in ({"Last-Event-ID": before}, {"Last-Event-ID": before.replace("-3", "-1")}):
        with stream(url, headers) as following:
            opening = next(following)
        assert opening["event"] == "reset"
        assert opening["id"] == f"{setup.guard.ledger.stream_epoch}-5"
    with stream(url, {"Last-Event-ID": opening["id"].replace("-5", "-4")}) as following:
        assert "event" not in next(following)
        frame = next(following)
        assert (frame["id"], told(frame)) == (opening["id"], ids(setup, 3)[0])


@pytest.mark.parametrize("known", [True, False], ids=["a wallet with a past", "a wallet without one"])
def test_a_stream_that_is_open_while_its_ledger_is_restored_is_told_to_reset(setup, url, monkeypatch, known):
    monkeypatch.setattr("executor.service.stream.HEARTBEAT_S", 0.05)
    if known:
        setup.activate()
        refuse(setup, 1)
    with stream(url) as following:
        assert next(following)["id"] == f"{setup.guard.ledger.id}-{3 if known else 0}"
        epoch = setup.guard.mark_restored()
        if not known:
            setup.guard.reserve_session_key(setup.wallet, uuid(1), key(1).wallet_address)
        reset = next(frame for frame in following if frame.get("event"))
        assert reset["event"] == "reset"
        assert reset["id"].startswith(f"{epoch}-")


def test_another_wallets_events_are_not_told(setup, url):
    setup.activate()
    other = url.replace(setup.wallet, key(50).wallet_address)
    with stream(other) as following, stream(url) as own:
        assert next(following)["id"].endswith("-0")
        next(own)
        refuse(setup, 1)
        assert told(next(own)) == ids(setup, 1)[0]
        theirs = Setup.__new__(Setup)
        theirs.__dict__ = {**setup.__dict__, "signer": key(50), "wallet": key(50).wallet_address}
        theirs.activate(3)
        refused = theirs.request(7, agent=3, sell="BONK")
        setup.guard.authorize(refused)
        assert told(next(following)) == refused.execution_id


@pytest.mark.parametrize("query", ["", "?walletAddress=", "?walletAddress=../etc", "?walletAddress=" + "1" * 5000])
def test_an_address_that_is_none_is_a_bad_request(url, query):
    answer = httpx.get(url.partition("?")[0] + query, timeout=60)
    assert answer.status_code == 400
    assert "walletAddress" in answer.json()["detail"]


def test_only_get(url):
    assert httpx.post(url, timeout=60).status_code == 405


def test_the_head_of_a_stream_ends(url):
    answer = httpx.head(url, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


@pytest.mark.parametrize("make", [Router, Starlette], ids=["a router", "an application"])
def test_it_runs_below_a_path_of_another_application_whose_lifespan_it_never_sees(setup, make):
    service = create_app(AsyncGuard(setup.guard), Settings(wallet_address_streams=True))
    app = make(routes=[Mount("/below", service)])
    app.state = service.state
    with (
        served(app) as address,
        stream(f"{address}/below/api/agents/stream?walletAddress={setup.wallet}") as following,
    ):
        next(following)
        setup.activate()
        refuse(setup, 1)
        assert told(next(following)) == ids(setup, 1)[0]


def test_heartbeats_are_comments(setup, url, monkeypatch):
    monkeypatch.setattr("executor.service.stream.HEARTBEAT_S", 0.05)
    setup.activate()
    with httpx.Client(timeout=60) as client, client.stream("GET", url) as response:
        received = b""
        for chunk in response.iter_raw():
            received += chunk
            if received.count(b": heartbeat\n\n") == 2:
                break
    assert received.startswith(b"id: ")


def test_stopping_the_server_ends_open_streams(tmp_path):
    """SIGTERM with a stream open: uvicorn alone would wait for ever, and then end the process."""
    script = (
        "import sys; from pathlib import Path\n"
        "from executor import FixedPrices, Guard, KnownAssets, SealKeys; from executor.guard import AsyncGuard\n"
        "from executor.service import Settings, bind, create_app, serve\n"
        "guard = Guard.open(Path(sys.argv[1]), seal_keys=SealKeys.single(bytes(32)),\n"
        "                   prices=FixedPrices(), assets=KnownAssets([]))\n"
        "bound = bind('127.0.0.1', 0); print(bound.getsockname()[1], flush=True)\n"
        "serve(create_app(AsyncGuard(guard), Settings(wallet_address_streams=True)), bound)\n"
        "guard.close(); print('closed')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "ledger.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}/api/agents/stream?walletAddress={WALLET.wallet_address}"
        with httpx.Client(timeout=60) as client, client.stream("GET", url) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("id: ")
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line and not line.startswith("retry")] == []
        assert process.stdout.read() == "closed\n"
        assert process.wait(60) == 0


def test_a_taken_port_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", taken.getsockname()[1])
