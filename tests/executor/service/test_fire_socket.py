"""The sockets of strategies and of the operator: who gets in, what they can ask, and what peers can't do to others."""

import asyncio
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from executor.cli import main
from executor.decide import Allowed, Refused
from executor.demo.world import World
from executor.errors import LedgerError
from executor.execution import Executor
from executor.guard import AsyncGuard
from executor.halts import EVERYTHING, Halter, Scope
from executor.lifecycle import AttemptState
from executor.limits import Limits
from executor.reasons import Reason
from executor.request import FireRequest
from executor.service import FireSocket, OperatorSocket, fire_socket
from executor.service.calls import CallError, Code, Fired, encode, fire_socket_path, operator_socket_path
from executor.service.client import FireClient, OutcomeUnknown, ServiceAway
from executor.service.client.fire import ask
from executor.service.client.operator import OperationsThere
from permits.canonical import parse
from tests.support import key, uuid

NOBODY = 65_534
WITHIN_S = 30

STRATEGY = """
import json, sys
from executor.request import FireRequest
from executor.service.client import FireClient
client = FireClient(sys.argv[1])
for line in sys.stdin:
    print(json.dumps(client.fire_now(FireRequest.from_json_object(json.loads(line))).to_json_object()), flush=True)
"""


@pytest.fixture
def folder():
    """Return a folder that others may look into: pytest's own are closed to them, and too long for a socket."""
    made = Path(tempfile.mkdtemp(prefix="hf-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


class Desk:
    """A user's guard, awaited, and sockets over it."""

    def __init__(self, setup, folder):
        self.setup = setup
        self.guard = AsyncGuard(setup.guard)
        self.fires = folder / "fire.sock"
        self.operator = folder / "operator.sock"


@pytest.fixture
def desk(sqlite_setup, folder):
    sqlite_setup.activate()
    made = Desk(sqlite_setup, folder)
    yield made
    asyncio.run(made.guard.close())


@pytest.fixture
def world(tmp_path):
    with World(tmp_path, seed=4) as made:
        made.guard.activate(made.sign_permit())
        yield made


async def until(holds):
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def says(path, *lines):
    """Send lines; return all that comes back, as JSON."""
    async with asyncio.timeout(WITHIN_S):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"".join(lines))
        writer.write_eof()
        heard = await reader.read()
        writer.close()
    return [json.loads(line) for line in heard.splitlines()]


def call(number, name, **arguments):
    return encode({"id": number, "call": name, "with": arguments})


def test_a_strategy_in_another_process_fires_and_has_neither_key_nor_ledger(world, folder):
    async def story():
        async with FireSocket(folder / "s", world.awaited, world.executor):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", STRATEGY, folder / "s", stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            requests = [world.request(200), world.request(10, buy="BONK")]
            sent = "".join(json.dumps(each.to_json_object()) + "\n" for each in requests)
            out, _ = await asyncio.wait_for(process.communicate(sent.encode()), WITHIN_S)
            return requests, [Fired.from_json_object(json.loads(line)) for line in out.splitlines()]

    (first, second), (landed, refused) = asyncio.run(story())
    assert isinstance(landed.decision, Allowed)
    assert landed.execution.state is AttemptState.LANDED
    assert landed.execution.fill.sold == first.sell_amount
    stored = world.guard.execution(world.wallet, first.execution_id)
    assert landed.execution.tx_signature == stored.steps[-1].entry.body["txSignature"]
    assert stored.steps[1].entry.body["transaction"] not in json.dumps(landed.to_json_object())
    assert (refused.decision.reason, refused.execution.state) == (Reason.ASSET_NOT_WHITELISTED, "refused")
    assert refused.decision == world.guard.execution(world.wallet, second.execution_id).decision
    assert refused.decision.checks[0].actual


def test_to_fire_and_to_halt_no_extra_need_be_installed():
    hidden = ["alembic", "httpx", "jwt", "pydantic_settings", "rich", "solders", "starlette", "uvicorn", "websockets"]
    script = (
        f"import sys\nfor name in {hidden}: sys.modules[name] = None\n"
        "from executor.service.client import FireClient\n"
        "from executor.cli import main\n"
        "sys.exit(main(['halt', 'everything', '--why', 'x', '--socket', '/nowhere']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "executor: nobody answers at `/nowhere`: No such file or directory\n")


def test_an_execution_is_fired_once_however_many_connections_ask_at_once(world, folder):
    request = world.request(100)
    before = world.chain.block().height

    async def story():
        async with FireSocket(folder / "s", world.awaited, world.executor):
            line = [call(number, "fire", **request.to_json_object()) for number in range(20)]
            return await asyncio.gather(says(folder / "s", *line), says(folder / "s", *line))

    for answers in asyncio.run(story()):
        assert sorted(each["id"] for each in answers) == list(range(20))
        assert {each["answer"]["decision"]["outcome"] for each in answers} == {"allowed"}
    assert world.chain.block().height == before + 1
    kinds = [each.entry.kind for each in world.guard.entries(world.wallet)]
    assert (kinds.count("authorized"), kinds.count("landed")) == (1, 1)


def test_a_fire_goes_on_when_its_client_goes_away(world, folder):
    request, building, may_build = world.request(100), asyncio.Event(), asyncio.Event()

    class Slow:
        name, cosigners = "local", world.rail.cosigners

        async def build(self, *arguments):
            building.set()
            await may_build.wait()
            return await world.rail.build(*arguments)

    executor = Executor(world.awaited, world.executor._gate, world.chain, [Slow()])

    async def story():
        async with FireSocket(folder / "s", world.awaited, executor):
            client = FireClient(folder / "s")
            firing = asyncio.create_task(client.fire(request))
            await building.wait()
            firing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await firing
            assert (await client.execution(world.wallet, request.execution_id)).state is AttemptState.AUTHORIZED
            may_build.set()
        return world.guard.execution(world.wallet, request.execution_id).state

    assert asyncio.run(story()) is AttemptState.LANDED


def test_an_answer_that_is_lost_is_asked_for_again_by_the_same_id(world, folder):
    """The first connection ends before its answer; the second finds what the first has done."""
    request = world.request(100)

    async def story():
        async with FireSocket(folder / "s", world.awaited, world.executor) as served:
            spoken = []
            answer_to = served._answer_to

            async def first_is_lost(asked):
                answer = await answer_to(asked)
                spoken.append(answer)
                if len(spoken) == 1:
                    raise OSError
                return answer

            served._answer_to = first_is_lost
            carry_out = served._carry_out

            async def cut(asked, writer):
                try:
                    await carry_out(asked, writer)
                except OSError:
                    writer.transport.abort()

            served._carry_out = cut
            return await FireClient(folder / "s").fire(request), spoken

    fired, spoken = asyncio.run(story())
    assert len(spoken) == 2
    assert fired.execution.state is AttemptState.LANDED
    assert Fired.from_json_object(spoken[0]["answer"]) == fired


def test_what_is_not_known_is_said_with_the_id_that_tells(desk, monkeypatch):
    """Whoever listens takes the call and never answers."""
    monkeypatch.setattr("executor.service.client.fire.AGAIN_AFTER_S", (0.001, 0.001))
    request = desk.setup.request()

    async def story():
        async def hang_up(reader, writer):
            await reader.readline()
            writer.close()

        async with await asyncio.start_unix_server(hang_up, desk.fires):
            with pytest.raises(OutcomeUnknown, match=f"same executionId `{request.execution_id}`"):
                await FireClient(desk.fires).fire(request)

        heard_out = asyncio.Event()

        async def keep_silent(reader, writer):
            await reader.read()
            writer.close()
            heard_out.set()

        desk.fires.unlink(missing_ok=True)
        async with await asyncio.start_unix_server(keep_silent, desk.fires):
            with pytest.raises(OutcomeUnknown, match=r"no answer within 0.05 s: ask again"):
                await FireClient(desk.fires, timeout_s=0.05).fire(request)
            await asyncio.wait_for(heard_out.wait(), WITHIN_S)
        desk.fires.unlink(missing_ok=True)
        with pytest.raises(ServiceAway, match="nobody answers"):
            await FireClient(desk.fires).fire(request)

    asyncio.run(story())


def test_a_rail_that_the_service_has_not_is_told_and_nothing_is_authorized(world, folder):
    request = world.request(1).model_copy(update={"rail": "moon"})

    async def story():
        async with FireSocket(folder / "s", world.awaited, world.executor):
            with pytest.raises(CallError) as error:
                await FireClient(folder / "s").fire(request)
            assert error.value.code is Code.RAIL_UNKNOWN

    asyncio.run(story())
    assert world.guard.execution(world.wallet, request.execution_id) is None


def test_a_service_without_rails_says_so(desk):
    async def story():
        request = desk.setup.request()
        async with FireSocket(desk.fires, desk.guard):
            client = FireClient(desk.fires)
            with pytest.raises(CallError) as error:
                await client.fire(request)
            assert error.value.code is Code.NO_RAILS
            assert (await client.explain(request)).outcome == "allowed"
            assert await client.execution(desk.setup.wallet, request.execution_id) is None
            assert (await client.headroom(desk.setup.wallet))["caps"]["executionsPer24H"]["used"] == 0

    asyncio.run(story())


def test_a_strategy_has_no_call_of_the_operators_and_the_operator_none_that_fires(desk):
    desk.setup.guard.halt(EVERYTHING, Halter.OPERATOR, "maintenance")
    request = desk.setup.request().to_json_object()

    async def story():
        operators = [("halt", {"why": "x"}), ("lift", {}), ("halts", {}), ("limits", {})]
        operators += [("change-limits", {"limits": Limits(executions_per_24h=10**6).to_json_object()})]
        operators += [("set-fundable", {"wallet": desk.setup.wallet, "fundable": True})]
        others = [("activate", {}), ("stop", {}), ("__init__", {})]
        strategies = [("fire", request), ("explain", request), ("headroom", {"wallet": desk.setup.wallet})]
        fires, operator = FireSocket(desk.fires, desk.guard), OperatorSocket(desk.operator, desk.guard)
        async with fires, operator:
            for path, calls in ((desk.fires, operators + others), (desk.operator, strategies + others)):
                for name, arguments in calls:
                    with pytest.raises(CallError) as error:
                        await ask(path, name, arguments)
                    assert error.value.code is Code.CALL_UNKNOWN, name

    asyncio.run(story())
    assert [str(halt) for halt in desk.setup.guard.halts()] == ["everything, by the operator: maintenance"]
    assert desk.setup.guard.ledger.limits == Limits()


def test_a_socket_is_for_the_wallets_and_agents_that_are_listed(desk):
    desk.setup.activate(2)
    setup = desk.setup
    for number, agent in ((1, 1), (2, 2)):
        setup.guard.authorize(setup.request(number, agent=agent))
    setup.guard.halt(Scope(setup.wallet, uuid(2)), Halter.USER, "not for others")
    other = key(9).wallet_address

    async def story():
        async with FireSocket(desk.fires, desk.guard, scopes=[Scope(setup.wallet, uuid(1))]):
            client = FireClient(desk.fires)
            assert (await client.explain(setup.request(3))).outcome == "allowed"
            for foreign in (setup.request(3, agent=2), setup.request(3, wallet=other)):
                for asked in (client.explain(foreign), client.fire(foreign)):
                    with pytest.raises(CallError) as error:
                        await asked
                    assert error.value.code is Code.FORBIDDEN
            with pytest.raises(CallError):
                await client.headroom(other)
            assert (await client.headroom(setup.wallet))["halts"] == []
            assert (await client.execution(setup.wallet, uuid(10_001))).agent_id == uuid(1)
            assert await client.execution(setup.wallet, uuid(10_002)) is None
            assert await client.execution(other, uuid(10_001)) is None

    asyncio.run(story())


def as_nobody(path, gid=None):
    """Have a process of another user connect and ask; return what it hears, or its error."""
    script = (
        "import os, socket, sys\n"
        f"os.setgroups([{gid}] if {gid} else []); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(30)\n"
        "try:\n"
        "    s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); print(s.recv(100_000).decode(), end='')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    line = call(1, "limits").decode()
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, path, line], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run a process as another user")
def test_nobody_else_gets_in_by_the_files_mode_or_by_its_uid(desk):
    async def story():
        async with OperatorSocket(desk.operator, desk.guard):
            assert stat.S_IMODE(desk.operator.stat().st_mode) == 0o600
            assert await asyncio.to_thread(as_nobody, desk.operator) == "PermissionError\n"
            desk.operator.chmod(0o666)
            assert await asyncio.to_thread(as_nobody, desk.operator) in {
                "",
                "ConnectionResetError\n",
                "BrokenPipeError\n",
            }
        async with OperatorSocket(desk.operator, desk.guard, uids={NOBODY}, gid=NOBODY):
            assert stat.S_IMODE(desk.operator.stat().st_mode) == 0o660
            heard = await asyncio.to_thread(as_nobody, desk.operator, NOBODY)
            assert "executionsPer24H" in heard
            with pytest.raises(OutcomeUnknown):  # the service's own user isn't listed here
                await ask(desk.operator, "limits", {})

    asyncio.run(story())


def test_the_file_is_private_from_its_first_moment_whatever_the_umask(desk, monkeypatch):
    """Nothing listens before the mode is as it stays."""
    seen = []
    chmod = Path.chmod

    def looked_at(path, mode):
        with socket.socket(socket.AF_UNIX) as trying, pytest.raises(ConnectionRefusedError):
            trying.connect(str(path))
        seen.append(stat.S_IMODE(path.stat().st_mode))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", looked_at)
    before = os.umask(0)
    try:
        asyncio.run(_enter_and_leave(FireSocket(desk.fires, desk.guard)))
    finally:
        os.umask(before)
    assert seen == [0o600]


async def _enter_and_leave(served):
    async with served:
        assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


def test_what_a_dead_process_left_is_replaced_and_nothing_else(desk):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(desk.fires))

    async def story():
        async with FireSocket(desk.fires, desk.guard):
            with pytest.raises(OSError, match="another process listens there") as error:
                async with FireSocket(desk.fires, desk.guard):
                    pass
            assert error.value.filename == str(desk.fires)
            assert (await FireClient(desk.fires).headroom(desk.setup.wallet))["halts"] == []
        assert not desk.fires.exists()
        desk.fires.write_text("a diary")
        with pytest.raises(OSError, match="no socket"):
            async with FireSocket(desk.fires, desk.guard):
                pass
        assert desk.fires.read_text() == "a diary"

    asyncio.run(story())


def test_the_path_is_its_listeners_even_when_its_file_is_gone(desk):
    """Between two processes that both find nothing, or a dead socket, the lock decides."""

    async def story():
        async with FireSocket(desk.fires, desk.guard):
            desk.fires.unlink()
            with pytest.raises(OSError, match="another process listens there"):
                await _enter_and_leave(FireSocket(desk.fires, desk.guard))
            assert not desk.fires.exists()

    asyncio.run(story())


def test_a_socket_that_somebody_without_a_lock_listens_on_stays(desk):
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(desk.fires))
        living.listen(0)
        for _ in range(3):  # also with its backlog full
            with pytest.raises(OSError, match="another process listens there"):
                asyncio.run(_enter_and_leave(FireSocket(desk.fires, desk.guard)))
        assert desk.fires.is_socket()


def test_a_folder_that_others_may_write_in_is_no_place_for_it(desk, folder):
    folder.chmod(0o777)
    with pytest.raises(OSError, match="others may write in its folder"):
        asyncio.run(_enter_and_leave(FireSocket(desk.fires, desk.guard)))
    assert list(folder.iterdir()) == []


def test_where_nobody_says_who_connects_nothing_is_opened(desk, monkeypatch):
    async def scene():
        with pytest.raises(OSError, match="for Linux only") as refused:
            async with FireSocket(desk.fires, desk.guard):
                pass
        assert refused.value.filename == str(desk.fires)

    monkeypatch.delattr(socket, "SO_PEERCRED")
    asyncio.run(scene())
    assert list(desk.fires.parent.iterdir()) == []


def test_where_there_is_no_way_around_a_long_path_it_is_told(desk, folder, monkeypatch):
    monkeypatch.delattr(os, "O_PATH")
    with pytest.raises(ServiceAway, match="at most 103 bytes"):
        asyncio.run(FireClient(folder / ("x" * 200)).headroom(desk.setup.wallet))


def test_a_path_that_is_too_long_for_an_address_is_listened_on_all_the_same(desk, folder):
    deep = folder / ("x" * 120)
    deep.mkdir()
    path = deep / "fire.sock"

    async def story():
        async with FireSocket(path, desk.guard):
            with pytest.raises(OSError, match="another process listens there"):
                await _enter_and_leave(FireSocket(path, desk.guard))
            assert (await FireClient(path).headroom(desk.setup.wallet))["halts"] == []
        assert not path.exists()
        with pytest.raises(OSError, match="too long"):
            await _enter_and_leave(FireSocket(deep / ("y" * 200), desk.guard))

    asyncio.run(story())


GARBAGE = {
    "no JSON": b"garbage\n",
    "an empty line": b"\n",
    "not UTF-8": b"\xff\xfe\n",
    "half a surrogate pair for a call": b'{"id": 1, "call": "\\ud800", "with": {}}\n',
    "half a surrogate pair in a call": b'{"id": 1, "call": "halt", "with": {"why": "\\ud800"}}\n',
    "half a surrogate pair for a key, twice": b'{"\\ud800": 1, "\\ud800": 2}\n',
    "half a surrogate pair in UTF-8": b'{"id": 1, "call": "\xed\xa0\x80", "with": {}}\n',
    "a list": b"[]\n",
    "another id": b'{"id": true, "call": "limits", "with": {}}\n',
    "a key twice": b'{"id": 1, "id": 2, "call": "limits", "with": {}}\n',
    "a key too many": b'{"id": 1, "call": "limits", "with": {}, "as": "root"}\n',
    "nested deep": b'{"id": 1, "call": "limits", "with": {"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}\n",
    "too long": b'{"id": 1, "call": "limits", "with": {"a": "' + b"a" * 20_000 + b'"}}\n',
    "too long without an end": b"a" * 100_000,
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_answered_once_and_ends_the_connection(desk, sent):
    async def story():
        async with OperatorSocket(desk.operator, desk.guard):
            reader, writer = await asyncio.open_unix_connection(desk.operator)
            writer.write(sent)
            answer = json.loads(await asyncio.wait_for(reader.readline(), WITHIN_S))
            assert (answer["error"]["code"], answer["id"]) == ("MALFORMED", None)
            assert answer["error"]["detail"].isascii()
            writer.close()
            assert await asyncio.to_thread(OperationsThere(desk.operator).limits) == Limits()

    asyncio.run(story())


MISSHAPEN = {
    "fire nothing": ("fire", {}),
    "fire a float": ("fire", {"sellAmount": 1.5}),
    "an execution of a number": ("execution", {"wallet": 1, "executionId": "x"}),
    "a headroom of too much": ("headroom", {"wallet": "x", "other": "y"}),
    "a halt without why": ("halt", {}),
    "a halt of half a scope": ("halt", {"agentId": uuid(1), "why": "x"}),
    "a halt of no wallet": ("halt", {"wallet": "x", "why": "x"}),
    "too long a why": ("halt", {"why": "x" * 201}),
    "limits of nothing": ("change-limits", {}),
    "limits below 1": ("change-limits", {"limits": {"executionsPer24H": 0}}),
    "funding perhaps": ("set-fundable", {"wallet": "x", "fundable": "yes"}),
    "funding of no wallet": ("set-fundable", {"wallet": "x", "fundable": True}),
}


@pytest.mark.parametrize(("name", "arguments"), MISSHAPEN.values(), ids=MISSHAPEN)
def test_a_call_of_another_form_does_nothing(desk, name, arguments):
    before = [desk.setup.guard.head_seq(desk.setup.wallet), desk.setup.guard.halts(), desk.setup.guard.ledger.limits]

    async def story():
        fires, operator = FireSocket(desk.fires, desk.guard), OperatorSocket(desk.operator, desk.guard)
        async with fires, operator:
            path = desk.fires if name in {"fire", "execution", "headroom"} else desk.operator
            (answer,) = await says(path, encode({"id": 7, "call": name, "with": arguments}))
            assert (answer["error"]["code"], answer["id"]) == ("MALFORMED", 7)

    asyncio.run(story())
    after = [desk.setup.guard.head_seq(desk.setup.wallet), desk.setup.guard.halts(), desk.setup.guard.ledger.limits]
    assert before == after


def test_peers_that_dawdle_hold_up_nobody_and_are_dropped(desk, monkeypatch):
    """One sends half a line, one never reads, one is full of calls: another is answered meanwhile."""
    monkeypatch.setattr(fire_socket, "LINE_S_MAX", 0.2)
    monkeypatch.setattr(fire_socket, "ANSWER_S_MAX", 0.2)

    async def story():
        async with OperatorSocket(desk.operator, desk.guard) as served:
            half_reader, half = await asyncio.open_unix_connection(desk.operator)
            half.write(b'{"id": 1, ')
            deaf = socket.socket(socket.AF_UNIX)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, str(desk.operator))
            talking = asyncio.create_task(_talk(deaf))
            assert await asyncio.to_thread(OperationsThere(desk.operator).limits) == Limits()
            assert await asyncio.wait_for(half_reader.read(), WITHIN_S) == b""
            half.close()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await asyncio.wait_for(talking, WITHIN_S)
            deaf.close()
            await until(lambda: not served._connections)

    asyncio.run(story())


async def _talk(deaf):
    number = 0
    while True:
        number += 1
        await asyncio.get_running_loop().sock_sendall(deaf, call(number, "limits") * 100)


def test_one_connection_more_than_there_may_be_is_told_so(desk, monkeypatch):
    monkeypatch.setattr(fire_socket, "CONNECTIONS_MAX", 3)

    async def story():
        async with OperatorSocket(desk.operator, desk.guard) as served:
            held = [await asyncio.open_unix_connection(desk.operator) for _ in range(3)]
            await until(lambda: len(served._connections) == 3)
            (answer,) = await says(desk.operator)
            assert answer["error"]["code"] == "BUSY"
            for _, writer in held:
                writer.close()
            await until(lambda: not served._connections)
            assert (await says(desk.operator, call(1, "limits")))[0]["id"] == 1

    asyncio.run(story())


def test_one_connection_has_a_bounded_number_of_calls_under_way(desk, monkeypatch):
    monkeypatch.setattr(fire_socket, "CALLS_MAX", 2)
    under_way, most = 0, 0

    async def counted(_arguments):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return {}

    async def story():
        served = FireSocket(desk.fires, desk.guard)
        served._calls = {"explain": counted}
        async with served:
            return await says(desk.fires, *(call(number, "explain") for number in range(50)))

    assert sorted(each["id"] for each in asyncio.run(story())) == list(range(50))
    assert most == 2


@pytest.mark.parametrize("fault", [RuntimeError("a secret"), LedgerError("a secret")], ids=["ours", "the ledger's"])
def test_a_fault_tells_a_strategy_nothing_of_the_inside(desk, caplog, fault):
    async def broken(_arguments):
        raise fault

    async def story():
        served = FireSocket(desk.fires, desk.guard)
        served._calls = {"explain": broken}
        async with served:
            (answer,) = await says(desk.fires, call(1, "explain"))
            assert answer["error"] == {"code": "FAULT", "detail": "the service failed"}

    asyncio.run(story())
    assert "a secret" in caplog.text  # for the operator


def test_the_operator_is_told_what_failed(desk):
    desk.setup.path.unlink()

    async def story():
        async with OperatorSocket(desk.operator, desk.guard):
            with pytest.raises(CallError, match=r"FAULT: .*ledger.db` is gone"):
                await ask(desk.operator, "halt", {"why": "x"})

    asyncio.run(story())


def test_closing_waits_for_what_is_under_way_and_answers_it(desk):
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(_arguments):
        begun.set()
        await may_end.wait()
        return {"done": True}

    async def story():
        served = FireSocket(desk.fires, desk.guard)
        served._calls = {"explain": slow}
        await served.__aenter__()
        asking = asyncio.create_task(ask(desk.fires, "explain", {}))
        await begun.wait()
        closing = asyncio.create_task(served.__aexit__())
        await until(lambda: not desk.fires.exists())
        assert not closing.done()
        may_end.set()
        await closing
        return await asking

    assert asyncio.run(story()) == {"done": True}


@pytest.fixture
def served_ledger(sqlite_setup, folder):
    """Return a user whose SQLite file a service holds, and that service's loop in a thread of its own."""
    sqlite_setup.activate()
    (folder / "seal.key").write_text((b"s" * 32).hex())
    where = ["--db", str(folder / "ledger.db"), "--seal-key", str(folder / "seal.key")]
    (folder / "ledger.db").symlink_to(sqlite_setup.path)
    begun, end = threading.Event(), asyncio.Event()
    found = {}

    async def serve():
        found["loop"] = asyncio.get_running_loop()
        guard = AsyncGuard(sqlite_setup.guard)
        async with OperatorSocket(operator_socket_path(folder / "ledger.db"), guard):
            begun.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert begun.wait(WITHIN_S)
    yield sqlite_setup, where
    found["loop"].call_soon_threadsafe(end.set)
    thread.join(WITHIN_S)


def test_the_command_line_halts_lifts_and_limits_while_a_service_holds_the_ledger(served_ledger, capsys):
    setup, where = served_ledger
    first = setup.guard.authorize(setup.request(1)).authorization
    setup.sign(first, "one")
    assert main(["halt", "everything", "--why", "prices look wrong", *where]) == 0
    assert capsys.readouterr().out == ("halted: everything, by the operator: prices look wrong\nmay still land: one\n")
    refused = setup.guard.authorize(setup.request(2))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.HALTED
    assert main(["lift", "everything", *where]) == 0
    assert main(["lift", "everything", *where]) == 1
    assert setup.guard.authorize(setup.request(3)).outcome == "allowed"
    assert main(["limits", "set", "executions_per_24h=2", "--yes", *where]) == 0
    assert setup.guard.ledger.limits.executions_per_24h == 2
    assert main(["funding", "allow", setup.wallet, *where]) == 0
    assert "as it was" not in capsys.readouterr().out
    assert main(["funding", "allow", setup.wallet, *where]) == 0
    assert "as it was" in capsys.readouterr().out


def test_the_command_line_needs_no_seal_key_where_the_socket_is_named(served_ledger, capsys):
    setup, _ = served_ledger
    named = ["--socket", str(operator_socket_path(setup.path))]
    assert main(["halt", f"wallet:{setup.wallet}", "--why", "asked to", *named]) == 0
    assert [str(halt) for halt in setup.guard.halts(setup.wallet)] == ["the wallet, by the operator: asked to"]
    assert main(["limits", *named]) == 0
    assert "executions_per_24h=500" in capsys.readouterr().out
    assert main(["lift", f"agent:{setup.wallet}/{uuid(1)}", *named]) == 1
    assert main(["halt", "everything", "--why", "x", "--socket", "/nowhere"]) == 1
    assert "nobody answers at `/nowhere`" in capsys.readouterr().err


def test_more_signatures_than_fit_an_answer_are_said_to_be_more(desk, monkeypatch):
    monkeypatch.setattr(fire_socket, "LISTED_MAX", 1)
    for number in (1, 2):
        desk.setup.sign(desk.setup.guard.authorize(desk.setup.request(number)).authorization, f"{number}")

    async def story():
        async with OperatorSocket(desk.operator, desk.guard):
            return await asyncio.to_thread(OperationsThere(desk.operator).halt, EVERYTHING, "x")

    halted = asyncio.run(story())
    assert (len(halted.may_still_land), halted.more) == (1, True)


def test_the_default_paths_lie_beside_the_ledger_itself(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "ledger.db")
    assert fire_socket_path(tmp_path / "link") == tmp_path / "ledger.db.fire.sock"
    assert operator_socket_path(tmp_path / "link") == tmp_path / "ledger.db.operator.sock"


def test_the_longest_answer_fits_a_line(desk):
    """Every check that can fail at once, with the longest values, is less than half of one."""
    setup = desk.setup
    longest = 2**64 - 1
    request = setup.request(sell="A" * 44, buy="B" * 44, sell_amount=longest, min_received=longest)
    decision = setup.guard.explain(request)
    line = encode({"answer": Fired(decision, None).to_json_object(), "id": 2**53 - 1})
    assert len(line) < fire_socket.LINE_BYTES_MAX // 2
    assert parse(line)["answer"]["decision"]["reason"] == decision.reason
    assert FireRequest.from_json_object(request.to_json_object()) == request
