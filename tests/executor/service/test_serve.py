"""`executor serve`, as a process of its own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from executor.cli import main
from executor.guard import AsyncGuard
from executor.ledger import Ledger
from executor.prices.protocol import CloseCode, Subscribe, decode_from_server
from executor.prices.socket import server_of
from executor.seal import SealKeys
from executor.service import Settings, create_app
from executor.service.server import GRACE_S, StoppableServer, _Server, bind
from executor.service.settings import AUTOFUND_VARIABLE
from tests.executor.prices.market import next_tick
from tests.executor.service.serving import SECRET, bearer, private, token
from tests.support import JTO, USDC, WALLET

COMMAND = "import sys; from executor.cli import main; sys.exit(main())"


@pytest.fixture
def config(tmp_path):
    private(tmp_path / "seal.key", (b"s" * 32).hex().encode())
    private(tmp_path / "vault.key", (b"v" * 32).hex().encode())
    private(tmp_path / "jwt.secret", SECRET)
    private(tmp_path / "service.secret", b"x" * 32)
    (tmp_path / "assets.json").write_text(json.dumps([USDC.to_json_object(), JTO.to_json_object()]))
    (tmp_path / "quotes.json").write_text(json.dumps({USDC.mint: "1", JTO.mint: "2.50"}))
    path = tmp_path / "holdfire.toml"
    files = {"seal_key_file": "seal.key", "vault_key_file": "vault.key", "jwt_secret_file": "jwt.secret"}
    files |= {"secret_file": "service.secret", "assets_file": "assets.json", "quotes_file": "quotes.json"}
    lines = [f"{name} = '{tmp_path / file}'\n" for name, file in files.items()]
    path.write_text(f"ledger = '{tmp_path / 'ledger.db'}'\nport = 0\n{''.join(lines)}")
    return path


def start(config, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def listens(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_off_what_is_under_way(config, second):
    process = start(config)
    host, port = process.stdout.readline().rsplit("/", 1)[1].strip().split(":")
    with socket.create_connection((host, int(port))) as half_sent:
        half_sent.sendall(b"POST /api/sign-in/challenge HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        with httpx.Client(timeout=30) as client:
            assert client.get(f"http://{host}:{port}/healthz").status_code == 200  # the other was accepted before it
        process.send_signal(signal.SIGTERM)
        assert not all(listens(host, int(port)) for _ in range(100_000))
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(GRACE_S - 1) == 0
    assert process.communicate() == ("", "")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop_and_ends_cleanly(config, tmp_path, ending):
    process = start(config)
    line = process.stdout.readline()
    assert line.startswith("listening on http://127.0.0.1:"), process.stderr.read()
    url = line.removeprefix("listening on ").strip()
    with httpx.Client(base_url=url, timeout=30, headers=bearer(token(WALLET.wallet_address))) as client:
        ticket = client.post("/api/stream-tickets").json()["ticket"]
        with client.stream("GET", "/api/agents/stream", params={"ticket": ticket}, headers={}) as stream:
            assert stream.status_code == 200
            process.send_signal(ending)
            for _ in stream.iter_raw():
                pass
    assert process.wait(60) == 0
    out, err = process.communicate()
    assert (out, err) == ("", "")
    Ledger.open(tmp_path / "ledger.db", seal_keys=SealKeys.single(b"s" * 32)).close()


def test_a_limit_that_the_ledger_does_not_hold_is_refused_with_what_to_do(config, tmp_path):
    process = start(config, **{AUTOFUND_VARIABLE: "5000"})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "executor limits set autofund_lamports_per_24h=5000 --yes" in err
    ledger = ["--db", str(tmp_path / "ledger.db"), "--seal-key", str(tmp_path / "seal.key")]
    assert main(["limits", "set", "autofund_lamports_per_24h=5000", *ledger, "--yes"]) == 0
    process = start(config, **{AUTOFUND_VARIABLE: "5000"})
    assert process.stdout.readline().startswith("listening")
    process.terminate()
    assert process.wait(60) == 0
    process.communicate()
    process = start(config)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "set that to 5000" in err


def stoppable(started=None):
    return StoppableServer(uvicorn.Config(Starlette(), log_level="critical"), started)


def handlers():
    return [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]


def test_one_signal_stops_all_servers_and_then_signals_are_their_callers_again():
    async def scene():
        before, all_serve = handlers(), asyncio.Barrier(4)
        heard = asyncio.Queue()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.put_nowait, "the caller's own")
        serving = [stoppable(lambda: waiting.append(asyncio.create_task(all_serve.wait()))) for _ in range(3)]
        with ExitStack() as closing:
            bound = [closing.enter_context(bind("127.0.0.1", 0)) for _ in serving]
            tasks = [asyncio.create_task(each.serve([at])) for each, at in zip(serving, bound, strict=True)]
            await all_serve.wait()
            serving[0].should_exit = True
            await tasks[0]
            signal.raise_signal(signal.SIGTERM)
            await asyncio.gather(*tasks, *waiting)
        await heard.get()
        signal.raise_signal(signal.SIGTERM)
        await heard.get()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        assert handlers() == before

    waiting = []
    asyncio.run(asyncio.wait_for(scene(), 60))


@pytest.mark.parametrize("server_for", [_Server, server_of], ids=["service", "price stream"])
def test_no_answer_waits_for_the_acknowledgement_of_its_head(sqlite_setup, server_for):
    """Nagle's algorithm stays on where a listening socket's protocol isn't named: 44 ms an answer."""

    async def scene():
        listens = asyncio.Event()
        server = server_for(create_app(AsyncGuard(sqlite_setup.guard), Settings()), listens.set)
        with bind("127.0.0.1", 0) as bound:
            serving = asyncio.create_task(server.serve([bound]))
            await listens.wait()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=30) as client:
                assert (await client.get("/healthz/live")).status_code == 200
                (accepted,) = [each.transport.get_extra_info("socket") for each in server.server_state.connections]
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            server.should_exit = True
            await serving

    asyncio.run(asyncio.wait_for(scene(), 60))


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_server_that_ends_by_anything_else_listens_no_more(how):
    async def scene():
        listening = asyncio.Event()

        def started():
            listening.set()
            if how == "failed":
                raise RuntimeError("nobody can be told")

        with bind("127.0.0.1", 0) as bound:
            host, port = bound.getsockname()
            task = asyncio.create_task(stoppable(started).serve([bound]))
            await listening.wait()
            task.cancel() if how == "cancelled" else None
            with pytest.raises(asyncio.CancelledError if how == "cancelled" else RuntimeError):
                await task
            assert not listens(host, port)

    before = handlers()
    asyncio.run(asyncio.wait_for(scene(), 60))
    assert handlers() == before


def test_an_address_that_nobody_can_be_told_ends_it_in_a_line(config):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", COMMAND, "serve", "--config", str(config)]
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert told.stderr.startswith("executor: standard output: No space left on device\n")
    assert "lifespan" not in told.stderr


def test_a_port_that_is_taken_is_told(config):
    process = start(config)
    port = process.stdout.readline().rsplit(":", 1)[1].strip()
    again = subprocess.run(
        [sys.executable, "-c", COMMAND, "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "HOLDFIRE_PORT": port},
    )
    assert again.returncode == 1
    assert f"`127.0.0.1:{port}`" in again.stderr
    process.terminate()
    assert process.wait(60) == 0
    process.communicate()


def test_a_recording_is_played_as_the_price_stream(config, tmp_path):
    line = '{{"type":"price","data":{{"symbol":"SOL","priceUsd":{n},"ts":{n}00,"source":"pyth","stale":false}}}}\n'
    (tmp_path / "recording").write_text("".join(line.format(n=n) for n in range(1, 300)))
    with config.open("a") as settings:
        settings.write(f"price_recording_file = '{tmp_path / 'recording'}'\n")
    process = start(config)
    url = process.stdout.readline().split()[-1].replace("http", "ws")
    with connect(f"{url}/v1/stream?token={token(WALLET.wallet_address, tier='quant')}", proxy=None) as opened:
        assert decode_from_server(opened.recv(10)).tier == "quant"
        opened.send(Subscribe(("SOL",)).encode())
        assert next_tick(opened).source == "pyth"
        with pytest.raises(InvalidStatus):
            connect(f"{url}/v1/stream?token=none", proxy=None)
        process.terminate()
        with pytest.raises(ConnectionClosed):
            _ = [opened.recv(10) for _ in range(300)]
        assert opened.close_code == CloseCode.RESTARTING
    assert process.wait(60) == 0
    assert process.communicate() == ("", "")


def test_a_recording_that_can_not_be_used_is_told_before_anything_is_opened(config, tmp_path):
    with config.open("a") as settings:
        settings.write(f"price_recording_file = '{tmp_path / 'none'}'\n")
    _, err = start(config).communicate(timeout=60)
    assert err == f"executor: `{tmp_path / 'none'}`: No such file or directory\n"
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize("spelling", ["", "sqlite:///"], ids=["a path", "a URL"])
def test_the_operator_halts_what_a_running_service_holds(config, tmp_path, capsys, spelling):
    """The file is the service's; the command line finds its socket beside it, however the settings name the file."""
    config.write_text(config.read_text().replace("ledger = '", f"ledger = '{spelling}"))
    process = start(config)
    assert process.stdout.readline().startswith("listening")
    ledger = ["--db", str(tmp_path / "ledger.db"), "--seal-key", str(tmp_path / "seal.key")]
    assert main(["halt", "everything", "--why", "a drill", *ledger]) == 0
    assert main(["status", *ledger]) == 0
    assert "a drill" in capsys.readouterr().out.splitlines()[-1]
    assert main(["lift", "everything", *ledger]) == 0
    process.terminate()
    assert process.wait(60) == 0
    assert process.communicate() == ("", "halted: everything, by the operator: a drill\nlifted: everything\n")
    assert not (tmp_path / "ledger.db.operator.sock").exists()


def test_a_full_disk_under_standard_error_keeps_nobody_from_halting(config, tmp_path):
    """The service only logs there: what it is asked to do doesn't fail by that."""
    ledger = ["--db", str(tmp_path / "ledger.db"), "--seal-key", str(tmp_path / "seal.key")]
    command = [sys.executable, "-c", COMMAND, "serve", "--config", str(config)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True)
    assert process.stdout.readline().startswith("listening")
    try:
        assert main(["halt", "everything", "--why", "a drill", *ledger]) == 0
    finally:
        process.terminate()
        process.communicate(timeout=60)
