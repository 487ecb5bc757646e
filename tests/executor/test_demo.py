"""The demo and the command line, as a newcomer meets them: whole processes."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from executor import FixedPrices, Guard, KnownAssets, SealKeys, demo
from executor.demo import market
from executor.demo.market import StreamedWorld
from executor.demo.story import Story
from executor.demo.world import QUOTE_AGE_S_MAX
from executor.errors import ExecutorError
from executor.halts import EVERYTHING, Halter
from executor.prices.hub import Hub
from executor.reasons import Reason

COMMAND = [sys.executable, "-c", "import sys; from executor.cli import main; sys.exit(main())"]


def run(*arguments, **how):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **how
    )


def failed_with_one_line(done, status, text):
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_it_shows_everything_and_repeats_itself_with_a_seed(tmp_path):
    first = run("demo", "--dir", tmp_path / "a", "--seed", 7)
    assert first.returncode == 0, first.stdout + first.stderr
    shown = [Reason.ASSET_NOT_WHITELISTED, Reason.AMOUNT_OVER_CAP, Reason.PRICE_STALE]
    shown += [Reason.PERMIT_EXPIRED, Reason.AGENT_PAUSED]
    positions = [first.stdout.index(reason) for reason in shown]
    assert positions == sorted(positions)
    assert len(re.findall(r"^    landed \w{87,88}$", first.stdout, re.MULTILINE)) == 2
    assert "nothing sent" in first.stdout
    assert "everything happened as said" in first.stdout
    second = run("demo", "--dir", tmp_path / "b", "--seed", 7)
    assert second.stdout == first.stdout.replace(str(tmp_path / "a"), str(tmp_path / "b"))
    other = run("demo", "--dir", tmp_path / "c")
    assert re.findall(r"permit ([0-9a-f]{64})", other.stdout) != re.findall(r"permit ([0-9a-f]{64})", first.stdout)


def test_what_it_wrote_can_be_checked(tmp_path):
    assert run("demo", "--dir", tmp_path).returncode == 0
    assert {each.name for each in tmp_path.iterdir()} >= {"ledger.db", "seal.key", "master.key"}
    assert (tmp_path / "seal.key").stat().st_mode & 0o777 == 0o600
    done = run("db", "check", tmp_path / "ledger.db", "--seal-key", tmp_path / "seal.key")
    assert (done.returncode, done.stdout) == (0, "entries: 24, wallets: 1, findings: 0\n")


def commands_in(shown):
    """Return the commands that the demo says to go on with, as printed."""
    return re.findall(r"^  (\S.*(?: --db | db check | verify ).*)$", shown, re.MULTILINE)


@pytest.mark.parametrize("seed", [(), ("--seed", 7)], ids=["now", "a seed"])
def test_what_it_says_to_go_on_with_runs_as_printed(tmp_path, seed):
    """From any folder, whatever the folder's name: `executor` and `permits` need not be on the PATH."""
    shown = run("demo", "--dir", "a [b] folder", *seed, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    went_on = {}
    for command in commands_in(shown.stdout):
        program, verb, *_ = shlex.split(command)
        assert Path(program).parent == Path(sys.executable).parent
        done = subprocess.run(command, shell=True, cwd="/", capture_output=True, text=True, timeout=60, check=False)  # noqa: S602
        assert done.stderr == ""
        went_on[verb] = (done.returncode, done.stdout)
    assert {verb: status for verb, (status, _) in went_on.items()} == {
        "status": 0, "explain": 1, "trace": 0, "db": 0, "verify": 0,
    }  # fmt: skip
    assert "fault" not in went_on["status"][1]
    assert went_on["explain"][1].startswith("refused: AGENT_COMPLETED\n")
    assert went_on["verify"][1].startswith("valid: ")


def test_what_the_readme_names_runs_on_what_it_wrote(tmp_path):
    """As the README prints it, but for FILE, LEDGER and KEY, and a request on standard input."""
    assert run("demo", "--dir", tmp_path).returncode == 0
    named = re.findall(r"`((?:permits|executor) [^`]+)`", (Path(__file__).parents[2] / "README.md").read_text())
    assert {command.split()[1] for command in named} == {"verify", "--help", "status", "explain"}
    for command in named:
        for word, name in {"FILE": "permit.json", "LEDGER": "ledger.db", "KEY": "seal.key"}.items():
            command = command.replace(f" {word}", f" {shlex.quote(str(tmp_path / name))}")  # noqa: PLW2901
        done = subprocess.run(  # noqa: S602 - as a reader runs it
            command,
            shell=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            input=(tmp_path / "request.json").read_text(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1 if " explain " in command else 0, ""), command
        assert "from the future" not in done.stdout
        assert "fault" not in done.stdout


def test_its_time_ends_at_now_and_was_never_ahead(tmp_path):
    """What it wrote is the past to every later command: none finds the ledger from the future."""
    began_ms = time.time_ns() // 10**6
    assert run("demo", "--dir", tmp_path).returncode == 0
    keys = SealKeys.single(bytes.fromhex((tmp_path / "seal.key").read_text()))
    with Guard.open(tmp_path / "ledger.db", seal_keys=keys, prices=FixedPrices(), assets=KnownAssets([])) as guard:
        (wallet,) = guard.ledger.wallets()
        last_ms = guard.entries(wallet)[-1].entry.at_ms
        assert began_ms <= last_ms <= time.time_ns() // 10**6
        guard.halt(EVERYTHING, Halter.OPERATOR, "a change now")


def test_it_runs_twice(tmp_path):
    """Without --dir each has a folder of its own; a folder that was used, be it for a moment, is refused and left."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert [run("demo", env=environment).returncode for _ in range(2)] == [0, 0]
    first, second = tmp_path.iterdir()
    before = (first / "ledger.db").read_bytes()
    failed_with_one_line(run("demo", "--dir", first), 1, "already: name another folder with --dir")
    (second / "ledger.db").unlink()
    failed_with_one_line(run("demo", "--dir", second), 1, "already: name another folder with --dir")
    assert (first / "ledger.db").read_bytes() == before


def test_it_fails_when_something_does_not_happen_as_said(tmp_path, monkeypatch):
    async def same_again(self, *_):
        self._expect("a thing", False)

    monkeypatch.setattr(Story, "_same_again", same_again)
    assert demo.run(folder=tmp_path, seed=1, port=None) == 1


def test_its_agent_trades_on_what_the_hub_streams_and_on_nothing_else(tmp_path, monkeypatch):
    with StreamedWorld(tmp_path / "a", seed=1) as world:
        world.let_pass(seconds=1)
        assert [quote.at_ms for quote in world.prices.quotes(world.jto.mint)] == [world.now_ms]
        monkeypatch.setattr(Hub, "publish", lambda _hub, _tick: None)
        monkeypatch.setattr(market, "TRIES_MAX", 2)
        with pytest.raises(ExecutorError, match="doesn't tell its prices"):
            world.let_pass(seconds=QUOTE_AGE_S_MAX + 1)
        world.guard.activate(world.sign_permit())
        assert world.guard.explain(world.request(Decimal(10))).reason is Reason.PRICE_STALE


@contextlib.contextmanager
def ended(process):
    """End `process` at the end, whatever happened."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)


def test_it_serves_the_events_and_the_console_afterwards(tmp_path):
    command = [*COMMAND, "demo", "--dir", str(tmp_path), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ended(process):
        lines = []
        while not (opened := re.search(r"Open (\S+) and sign in", (lines or [""])[-1])):
            lines.append(next(process.stdout))
        console = opened[1]
        for command in commands_in("".join(lines)):  # beside it, and of an agent that lives
            assert subprocess.run(command, shell=True, stdout=subprocess.PIPE, timeout=60, check=False).returncode == 0  # noqa: S602
        token = next(process.stdout).strip()
        agents = httpx.get(f"{console}api/agents", headers={"Authorization": f"Bearer {token}"}).json()["agents"]
        assert [agent["state"] for agent in agents] == ["completed", "active"]
        assert "<title>Holdfire</title>" in httpx.get(console).text
        url = next(match[1] for line in process.stdout if (match := re.search(r"curl -N '(\S+)'", line)))
        with httpx.Client(timeout=60) as client, client.stream("GET", url) as response:
            told = []
            for line in response.iter_lines():
                if line.startswith("event: "):
                    told.append(line[7:])
                if len(told) == 9:
                    break
        assert told == ["executed", *["errored"] * 5, "executed", "completed", "errored"]
        stop = f"{console}api/agents/{agents[1]['agentId']}/stop"
        stopped = httpx.post(stop, headers={"Authorization": f"Bearer {token}"})
        assert stopped.json()["agent"]["state"] == "stopped", stopped.text


def test_a_taken_port_writes_nothing(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("demo", "--dir", tmp_path / "new", "--serve", "--port", port)
    failed_with_one_line(done, 1, f"`127.0.0.1:{port}`: Address already in use: name another port with --port")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_a_ledger_is_left_alone(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"mine")
    failed_with_one_line(run("demo", "--dir", tmp_path), 1, "holds a ledger or its keys already")
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.db"]


def test_a_folder_that_can_not_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    failed_with_one_line(run("demo", "--dir", file / "below"), 1, str(file))


def test_a_missing_extra_is_named():
    hidden = "import sys; sys.modules['rich'] = None; from executor.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "demo"], capture_output=True, text=True, timeout=60, check=False
    )
    failed_with_one_line(done, 2, "the extra `cli`, and more: pip install 'holdfire[all]'")


@pytest.mark.parametrize(("content", "text"), [(b"garbage " * 1000, "not a database"), (None, "there is no ledger")])
def test_a_broken_or_missing_ledger_is_named(tmp_path, content, text):
    path = tmp_path / "ledger.db"
    if content is not None:
        path.write_bytes(content)
    (tmp_path / "seal.key").write_text("00" * 32)
    failed_with_one_line(run("db", "check", path, "--seal-key", tmp_path / "seal.key"), 2, text)
    assert path.exists() == (content is not None)


def test_a_wrong_seal_key_is_named(tmp_path):
    assert run("demo", "--dir", tmp_path).returncode == 0
    (tmp_path / "other.key").write_text("00" * 32)
    done = run("db", "check", tmp_path / "ledger.db", "--seal-key", tmp_path / "other.key")
    failed_with_one_line(done, 1, "the key is another")
    (tmp_path / "other.key").write_text("zz")
    done = run("db", "check", tmp_path / "ledger.db", "--seal-key", tmp_path / "other.key")
    failed_with_one_line(done, 2, "hex digits")


def test_misuse_exits_2():
    assert run("frobnicate").returncode == 2
    assert run("db").returncode == 2
    assert run("demo", "--port", 99_999).returncode == 2
    assert run("--version").stdout.strip()


def test_it_writes_only_below_its_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "HOME": str(elsewhere), "PYTHONDONTWRITEBYTECODE": "1"}
    assert run("demo", "--dir", tmp_path / "demo", cwd=elsewhere, env=environment).returncode == 0
    assert list(elsewhere.iterdir()) == []
