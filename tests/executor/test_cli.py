"""The command line for operators, on each database: what it shows, what it changes, and how it says no."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from executor.cli import main
from executor.guard.headroom import Headroom, Room
from executor.halts import EVERYTHING, Halter
from executor.limits import Limits
from executor.status import Status, show
from permits import timestamp
from tests.support import JTO, USDC, key, uuid

COMMAND = [sys.executable, "-c", "import sys; from executor.cli import main; sys.exit(main())"]
DAY_S = 86_400


@pytest.fixture
def desk(setup, tmp_path):
    """Return a user whose time is now, and whose ledger nobody holds."""
    setup.now_ms = time.time_ns() // 10**6
    setup.activate(lifetime_s=DAY_S)
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    setup.seal_key = tmp_path / "seal.key"
    setup.guard.close()
    return setup


@pytest.fixture
def sqlite_desk(sqlite_setup, tmp_path):
    """Return the same on SQLite alone: nothing here asks the database for anything of its own."""
    sqlite_setup.now_ms = time.time_ns() // 10**6
    sqlite_setup.activate(lifetime_s=DAY_S)
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    sqlite_setup.seal_key = tmp_path / "seal.key"
    sqlite_setup.guard.close()
    return sqlite_setup


@pytest.fixture
def ask(desk, capsys, monkeypatch):
    """Return a function that runs a command in this process: its status, its output, its one line of error."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = main([*map(str, arguments), "--db", str(desk.path), "--seal-key", str(desk.seal_key)])
        except SystemExit as misused:
            status = misused.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def fire(desk, *executions):
    desk.guard = desk.open()
    decisions = [desk.guard.authorize(desk.request(number)) for number in executions]
    return [decision.authorization for decision in decisions]


def asked(desk, **fields):
    return json.dumps(desk.request(**fields).to_json_object()).encode()


PRICES = ["--quote", f"{USDC.mint}=1", "--quote", f"{JTO.mint}=2.50"]


def test_status_shows_agents_caps_and_halts(desk, ask):
    fire(desk, 1, 2, 3)
    desk.guard.halt(EVERYTHING, Halter.OPERATOR, "maintenance")
    desk.guard.halt(EVERYTHING._replace(wallet=desk.wallet), Halter.USER, "on holiday")
    desk.guard.reserve_session_key(desk.wallet, uuid(2), key(2).wallet_address)
    desk.guard.change_limits(Limits(executions_per_24h=4, notional_micro_usd_per_24h=10**9))
    desk.guard.close()
    status, out, err = ask("status")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("halt: everything, by the operator: maintenance, since 20")
    assert lines[1] == f"wallet {desk.wallet}"
    assert lines[2].startswith(f"  agent {uuid(1)}  active until 20")
    assert lines[2].endswith(f", session key {key(1).wallet_address}")
    assert lines[3] == f"  agent {uuid(2)}  reserved, session key {key(2).wallet_address}"
    assert lines[4].split() == ["active", "agents", "1", "of", "20", "█" + "░" * 19]
    assert lines[5].split() == ["executions", "in", "24", "h", "3", "of", "4", "█" * 15 + "░" * 5]
    assert lines[7].split() == ["USD", "in", "24", "h", "$300.00", "of", "$1000.00", "█" * 6 + "░" * 14]
    assert lines[8].startswith("  halt: the wallet, by the user: on holiday")
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("used", "limit", "told"),
    [
        (0, 10**9, "$0.00 of $1000.00"),
        (1, 10**9, "$0.000001 of $1000.00"),
        (999_999_999, 10**9, "$999.999999 of $1000.00"),
        (12_500_000, 12_500_000, "$12.50 of $12.50"),
        (2**53 - 1, 2**53 - 1, "$9007199254.740991 of $9007199254.740991"),
    ],
)
def test_status_says_amounts_exactly_and_full_only_where_nothing_is_left(capsys, used, limit, told):
    room = Headroom(0, Room(0, 20), Room(0, 500), None, Room(used, limit), None, ())
    show([], [Status("w", headroom=room)])
    line = capsys.readouterr().out.splitlines()[-1]
    assert f" {told} " in line
    assert line.endswith("░") == (used < limit)


def test_status_tells_when_an_agent_was_stopped(desk, ask):
    """Its permit's end is nothing that a stopped agent waits for."""
    desk.guard = desk.open()
    desk.now_ms += 1_000
    desk.guard.stop(desk.wallet, uuid(1))
    desk.guard.close()
    at = timestamp(desk.now_ms)
    assert f"  agent {uuid(1)}  stopped at {at}, session key" in ask("status")[1]
    (wallet,) = json.loads(ask("status", "--json")[1])["wallets"]
    assert wallet["agents"][0]["since"] == at


def test_status_speaks_in_dollars_and_sol_to_the_last_digit(desk, ask):
    fire(desk, 1)
    limits = {"notional_micro_usd_per_24h": 300_000_001, "autofund_lamports_per_24h": 1_500_000_000}
    desk.guard.change_limits(Limits(**limits))
    desk.guard.set_fundable(desk.wallet, fundable=True)
    desk.guard.close()
    out = ask("status")[1]
    assert "\n  USD in 24 h         $100.00 of $300.000001 " in out
    assert "\n  SOL given in 24 h   0 of 1.5 " in out


STREAMED = {
    "help": ["--help"],
    "status": ["status"],
    "status as JSON": ["status", "--json"],
    "explain": ["explain"],
    "limits": ["limits"],
    "halt": ["halt", "everything", "--why", "x"],
    "trace": ["trace", "1" * 64],
}


@pytest.mark.parametrize("command", STREAMED.values(), ids=STREAMED)
def test_a_full_disk_is_named_and_a_reader_that_left_is_no_fault(sqlite_desk, command):
    """One line names standard output; of a pipe that nobody reads, none: a shell's 141 says it. Never a traceback."""
    desk = sqlite_desk
    where = [] if command == ["--help"] else ["--db", desk.path, "--seal-key", desk.seal_key]
    ours, theirs = os.pipe()
    os.close(ours)
    fault = 2 if command == ["explain"] else 1  # where 1 says refused
    line = b"executor: standard output: No space left on device\n"
    for stdout, expected in ((os.open("/dev/full", os.O_WRONLY), (fault, line)), (theirs, (141, b""))):
        done = subprocess.run(
            [*COMMAND, *command, *where],
            input=asked(desk),
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        os.close(stdout)
        assert (done.returncode, done.stderr) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "cp437", "ascii"])
def test_a_terminal_of_few_characters_is_told_all_the_same(sqlite_desk, encoding):
    desk = sqlite_desk
    fire(desk, 1, 2)
    desk.guard.halt(EVERYTHING, Halter.OPERATOR, "ne\u017e \u2713")
    desk.guard.close()
    done = subprocess.run(
        [*COMMAND, "status", "--db", desk.path, "--seal-key", desk.seal_key],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode(encoding).splitlines()
    bar = "█" + "░" * 19 if encoding in {"utf-8", "cp437"} else "#" + "." * 19
    assert lines[4].endswith(f" 2 of 500                {bar}")
    assert ("\u2713" if encoding == "utf-8" else r"\u2713") in lines[0]


def test_status_is_json_too_and_of_one_wallet(desk, ask):
    fire(desk, 1)
    desk.guard.close()
    status, out, _ = ask("status", desk.wallet, "--json")
    (wallet,) = json.loads(out)["wallets"]
    assert status == 0
    assert wallet["agents"][0]["state"] == "active"
    assert wallet["caps"]["executionsPer24H"] == {"used": 1, "limit": 500}
    assert wallet["caps"]["notionalMicroUsdPer24H"] is None
    assert (wallet["fault"], wallet["halts"]) == (None, [])
    status, out, err = ask("status", key(50).wallet_address)
    assert (status, out) == (2, "")
    assert "has nothing of wallet" in err


def test_status_tells_that_the_clock_is_wrong_and_the_rest(desk, ask):
    desk.guard = desk.open()
    desk.now_ms += 10**6
    desk.guard.reserve_session_key(desk.wallet, uuid(2), key(2).wallet_address)
    desk.guard.close()
    status, out, _ = ask("status")
    assert status == 1
    assert "  fault: the clock says" in out
    assert f"agent {uuid(1)}  active until" in out


def test_status_tells_a_permit_that_is_over(setup, tmp_path, capsys):
    setup.now_ms = time.time_ns() // 10**6 - 10**6
    setup.activate(lifetime_s=60)
    setup.guard.close()
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    assert main(["status", "--db", str(setup.path), "--seal-key", str(tmp_path / "seal.key")]) == 0
    out = capsys.readouterr().out
    assert f"agent {uuid(1)}  active, but its permit is over since 20" in out
    assert "active agents       0 of 20" in out


def test_explain_tells_what_would_be_decided(desk, ask, tmp_path):
    (tmp_path / "request.json").write_bytes(asked(desk))
    (tmp_path / "prices.json").write_text(json.dumps({USDC.mint: "1", JTO.mint: 2.50}))
    told = "allowed: worth $100.000000\n"
    assert ask("explain", tmp_path / "request.json", *PRICES) == (0, told, "")
    assert ask("explain", "--quotes", tmp_path / "prices.json", stdin=asked(desk)) == (0, told, "")
    status, out, err = ask("explain", *PRICES, stdin=asked(desk, sell_amount=900 * 10**6, min_received=1))
    assert (status, err) == (1, "")
    assert out.splitlines()[:2] == [
        "refused: AMOUNT_OVER_CAP",
        "  AMOUNT_OVER_CAP: limit $250.000000, found $900.000000",
    ]
    assert [line.split(":")[0] for line in out.splitlines()[2:]] == ["  MIN_RECEIVED_TOO_LOW"]
    assert ask("explain", stdin=asked(desk))[1].startswith("refused: PRICE_MISSING\n")
    unknown = asked(desk, wallet=key(50).wallet_address)
    assert ask("explain", *PRICES, stdin=unknown) == (1, "refused: AGENT_UNKNOWN\n", "")


def test_explain_says_when_time_cures_it(desk, ask):
    fire(desk, 1)
    desk.guard.change_limits(Limits(executions_per_24h=1))
    desk.guard.close()
    status, out, _ = ask("explain", *PRICES, stdin=asked(desk, execution=2))
    refused, check, cure = out.splitlines()
    assert (status, refused) == (1, "refused: EXECUTIONS_OVER_CAP")
    assert check.endswith(cure.removeprefix("time alone cures it"))


def test_the_operator_halts_and_lifts_and_hears_what_may_still_land(desk, ask):
    first, second = fire(desk, 1, 2)
    desk.sign(first, "one")
    desk.guard.close()
    for scope, told in {
        "everything": "everything",
        f"wallet:{desk.wallet}": "the wallet",
        f"agent:{desk.wallet}/{uuid(1)}": f"agent {uuid(1)}",
    }.items():
        halted = ask("halt", scope, "--why", "prices look wrong")
        assert halted == (0, f"halted: {told}, by the operator: prices look wrong\nmay still land: one\n", "")
        assert ask("explain", *PRICES, stdin=asked(desk, execution=9))[1].startswith("refused: HALTED\n")
        assert ask("lift", scope) == (0, "lifted\n", "")
        assert ask("lift", scope) == (1, "the operator has no halt of exactly that\n", "")
    assert second is not None


def test_limits_are_shown_and_changed_only_when_that_is_confirmed(ask):
    status, out, _ = ask("limits")
    assert (status, out.splitlines()[4]) == (0, "executions_per_24h=500")
    changes = ["limits", "set", "executions_per_24h=100", "notional_micro_usd_per_24h=5", "active_agents=20"]
    told = "executions_per_24h: 500 -> 100\nnotional_micro_usd_per_24h: none -> 5\n"
    assert ask(*changes) == (2, told, "executor: nothing was changed: add --yes to do it\n")
    assert ask("limits")[1] == out
    assert ask(*changes, "--yes") == (0, told, "")
    assert "executions_per_24h=100\n" in ask("limits")[1]
    assert ask("limits", "set", "notional_micro_usd_per_24h=none", "--yes")[0] == 0
    assert "notional_micro_usd_per_24h=none\n" in ask("limits")[1]


def test_a_ledger_is_checked_on_either_database(desk, capsys):
    assert main(["db", "check", str(desk.path), "--seal-key", str(desk.seal_key)]) == 0
    assert capsys.readouterr().out == "entries: 2, wallets: 1, findings: 0\n"


def test_a_restored_ledger_is_halted_and_its_events_begin_anew(desk):
    (authorization,) = fire(desk, 1)
    desk.sign(authorization, "one")
    before = desk.guard.ledger.stream_epoch
    desk.guard.close()

    def run(*arguments):
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr

    status, out, err = run("db", "restored", desk.path, "--seal-key", desk.seal_key)
    assert (status, err) == (0, "")
    assert out[1:] == ["halted: everything, by the operator: restored from a backup", "may still land: one"]
    desk.guard = desk.open()
    assert out[0] == f"event ids begin with {desk.guard.ledger.stream_epoch}"
    assert desk.guard.ledger.stream_epoch != before
    assert desk.guard.authorize(desk.request(2)).reason == "HALTED"
    desk.guard.close()
    where = ["--db", desk.path, "--seal-key", desk.seal_key]
    assert run("db", "check", desk.path, "--seal-key", desk.seal_key)[0] == 0
    assert run("lift", "everything", *where) == (0, ["lifted"], "")
    desk.guard = desk.open()
    assert desk.guard.authorize(desk.request(3)).outcome == "allowed"
    desk.guard.close()


@pytest.fixture
def auditor(tmp_path):
    """Return an auditor whose key pair lies in `auditor.json`."""
    signer = key(500)
    signer.write_keypair_file(tmp_path / "auditor.json")
    return signer


def test_a_checkpoint_is_printed_and_finds_what_was_put_back(desk, auditor, tmp_path):
    fire(desk, 1)
    desk.guard.close()

    def run(*arguments, stdout=subprocess.PIPE):
        done = subprocess.run(
            [*COMMAND, "db", *arguments, "--seal-key", desk.seal_key],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    with (tmp_path / "checkpoint").open("wb") as file:
        taken = run("checkpoint", desk.path, "--key", tmp_path / "auditor.json", stdout=file)
    assert taken == (0, None, "")
    (tmp_path / "auditor.json").chmod(0o644)
    assert run("checkpoint", desk.path, "--key", tmp_path / "auditor.json")[2].count("\n") == 1
    against = ["--against", tmp_path / "checkpoint", "--auditor", auditor.wallet_address]
    status, out, err = run("check", desk.path, *against)
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert re.fullmatch(r"against the checkpoint of 20\S+Z: findings: 0", first)
    assert second == "entries: 3, wallets: 1, findings: 0"

    other = [*against[:3], key(501).wallet_address]
    refused = f"the checkpoint is of auditor `{auditor.wallet_address}`, not of `{other[3]}`"
    assert run("check", desk.path, *other) == (1, "", f"executor: {refused}\n")
    for half in (against[:2], against[2:]):
        status, out, err = run("check", desk.path, *half)
        assert (status, out) == (2, "")
        assert "--against and --auditor go together" in err

    desk.guard = desk.open()
    with desk.guard.ledger.engine.begin() as connection:
        dialect = connection.dialect.name
        which = {"sqlite": "entries_refuse_delete", "postgresql": "entries_refuse_change ON entries"}
        connection.exec_driver_sql(f"DROP TRIGGER {which[dialect]}")
        for table in ("entries", "heads"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE wallet = '{desk.wallet}'")
    desk.guard.close()
    status, out, err = run("check", desk.path, *against)
    assert (status, err) == (1, "")
    assert out.splitlines()[0] == f"{desk.wallet}: it is gone, but stood at entry 3"
    assert out.splitlines()[-2:] == [
        f"the database isn't defined as this version defines it: trigger {which[dialect].partition(' ')[0]} on entries",
        "entries: 0, wallets: 0, findings: 1",
    ]


def test_a_checkpoint_of_a_ledger_that_is_not_true_is_cut_short(sqlite_setup, auditor, tmp_path, capfdbinary):
    sqlite_setup.now_ms = time.time_ns() // 10**6
    sqlite_setup.activate()
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    with sqlite_setup.guard.ledger.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER entries_refuse_update")
        connection.exec_driver_sql("UPDATE entries SET nonce = NULL")
    where = [str(sqlite_setup.path), "--seal-key", str(tmp_path / "seal.key")]
    assert main(["db", "checkpoint", *where, "--key", str(tmp_path / "auditor.json")]) == 1
    out, err = capfdbinary.readouterr()
    assert b"auditor" not in out
    assert err.startswith(b"executor: no checkpoint is made of a ledger that isn't true")
    (tmp_path / "checkpoint").write_bytes(out)
    against = ["--against", str(tmp_path / "checkpoint"), "--auditor", auditor.wallet_address]
    assert main(["db", "check", *where, *against]) == 1
    assert b"the checkpoint is cut short" in capfdbinary.readouterr().err


def test_a_checkpoint_that_finds_no_room_is_an_error(desk, auditor, tmp_path):
    command = ["db", "checkpoint", desk.path, "--seal-key", desk.seal_key, "--key", tmp_path / "auditor.json"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no path of ours
        done = subprocess.run([*COMMAND, *command], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode != 0
    assert done.stderr == b"executor: standard output: No space left on device\n"
    assert auditor.wallet_address.encode() not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["checkpoint", "--key", "nowhere.json"], "`nowhere.json`: No such file"),
        (["checkpoint", "--key", "seal.key"], "`seal.key` must hold a key pair"),
        (["checkpoint"], "--key"),
        (["check", "--against", "nowhere", "--auditor", USDC.mint], "`nowhere`: No such file"),
        (["check", "--against", "/dev/stdin", "--auditor", USDC.mint], "must be a file: it is read twice"),
        (["check", "--against", "seal.key", "--auditor", "me"], "`me` is not base58 of 32 bytes"),
        (["check", "--against", "seal.key", "--auditor", USDC.mint], "line 1 is none of a checkpoint"),
    ],
)
def test_what_makes_no_checkpoint_is_said(sqlite_setup, tmp_path, arguments, text):
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    (tmp_path / "seal.key").chmod(0o600)
    command = [*COMMAND, "db", arguments[0], str(sqlite_setup.path), *arguments[1:], "--seal-key", "seal.key"]
    done = subprocess.run(command, input="", cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert text in done.stderr


def test_a_ledger_that_is_not_there_was_not_restored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.key").write_text("00" * 32)
    assert main(["db", "restored", "nowhere.db", "--seal-key", "a.key"]) == 2
    assert capsys.readouterr().err == "executor: there is no ledger `nowhere.db`\n"
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_a_keyring_is_a_seal_key_too(desk, ask):
    keys = {"1": (b"s" * 32).hex(), "2": (b"t" * 32).hex()}
    desk.seal_key.write_text(json.dumps({"current": "2", "keys": keys}))
    assert ask("halt", "everything", "--why", "a new key")[0] == 0
    desk.seal_key.write_text(keys["1"])
    assert ask("status")[0] == 1
    desk.seal_key.write_text(json.dumps({"current": "2", "keys": keys}))
    assert ask("status")[0] == 0


BAD = {
    "a request that is no JSON": (["explain"], b"{", "JSON_SYNTAX"),
    "a request that is none": (["explain"], b"[]", "the request: must be a JSON object"),
    "a request with an amount that is no whole number": (["explain"], b'{"sellAmount": 1.5}', "the request `"),
    "a request that is not there": (["explain", "nowhere.json"], b"", "`nowhere.json`: No such file"),
    "a quote without a price": (["explain", "--quote", USDC.mint], b"", "is not NAME=VALUE"),
    "a quote of no mint": (["explain", "--quote", "USDC=1"], None, "the quote of `USDC`: that is no mint"),
    "a price that is none": (["explain", "--quote", f"{USDC.mint}=-1"], None, "the quote of"),
    "a price that is no number": (["explain", "--quote", f"{USDC.mint}=NaN"], None, "is not a price"),
    "no file of prices": (["explain", "--quotes", "nowhere.json"], None, "`nowhere.json`: No such file"),
    "a scope of nothing": (["halt", "wallet", "--why", "x"], b"", "is not everything, wallet:ADDRESS"),
    "a scope of no wallet": (["lift", "wallet:abc"], b"", "is not everything, wallet:ADDRESS"),
    "a scope of no agent": (["lift", f"agent:{USDC.mint}/7"], b"", "is not everything, wallet:ADDRESS"),
    "a reason of two lines": (["halt", "everything", "--why", "a\nb"], b"", "--why must be one line of printable text"),
    "no reason": (["halt", "everything", "--why", ""], b"", "--why `why`: String should have at least 1"),
    "too long a reason": (["halt", "everything", "--why", "x" * 201], b"", "--why `why`: String should have at most"),
    "an unknown limit": (["limits", "set", "speed=1", "--yes"], b"", "there is no limit `speed`: there are active_"),
    "a limit that is none": (["limits", "set", "executions_per_24h=none"], b"", "the limits `executions"),
    "a limit past its rules": (["limits", "set", "executions_per_24h=0", "--yes"], b"", "greater than or equal to 1"),
    "a limit that is no number": (
        ["limits", "set", "active_agents=ten", "--yes"],
        b"",
        "`ten` is not a whole number of",
    ),
    "a limit past all numbers": (["limits", "set", f"active_agents={'9' * 5000}"], b"", "is not a whole number"),
}


@pytest.mark.parametrize(("arguments", "stdin", "text"), BAD.values(), ids=BAD)
def test_what_can_not_be_used_is_said_in_one_line(desk, ask, arguments, stdin, text):
    status, out, err = ask(*arguments, stdin=asked(desk) if stdin is None else stdin)
    assert (status, out) == (2, "")
    assert text in err
    assert err.startswith("usage:") or err.count("\n") == 1


KEYS = {
    "no key": "",
    "a short key": "00",
    "a keyring of nothing": "{}",
    "a keyring whose current key is none": '{"current": [], "keys": {}}',
    "a keyring without its current key": '{"current": "2", "keys": {"1": "' + "00" * 32 + '"}}',
    "a keyring of short keys": '{"current": "1", "keys": {"1": "00"}}',
    "a keyring of numbers": '{"current": "1", "keys": {"1": 5}}',
    "a keyring that is no JSON": '{"current',
}


@pytest.mark.parametrize("content", KEYS.values(), ids=KEYS)
def test_a_seal_key_that_is_none_is_named(sqlite_setup, tmp_path, capsys, content):
    (tmp_path / "a.key").write_text(content)
    assert main(["status", "--db", str(sqlite_setup.path), "--seal-key", str(tmp_path / "a.key")]) == 2
    err = capsys.readouterr().err
    assert "a.key" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nowhere.db", "there is no ledger `nowhere.db`"),
        (".", "`.` is a folder: name the ledger's file in it"),
        ("", "`` is a folder"),
        ("sqlite:///nowhere.db", "unable to open database file"),
        ("mysql://h/d", "is not a database for a ledger"),
        ("postgresql://h:port/d", "the ledger's URL is none"),
        ("postgresql://user:secret@127.0.0.1:1/d", "connection"),
    ],
)
def test_a_ledger_that_can_not_be_opened_is_named_and_never_made(tmp_path, monkeypatch, capsys, url, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.key").write_text("00" * 32)
    for command in (["status"], ["halt", "everything", "--why", "x"], ["limits", "set", "active_agents=1", "--yes"]):
        assert main([*command, "--db", url, "--seal-key", "a.key"]) == 2
        err = capsys.readouterr().err
        assert text in err
        assert "secret" not in err
        assert err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_a_database_without_a_ledger_gets_none(postgres_url, tmp_path, capsys):
    (tmp_path / "a.key").write_text("00" * 32)
    for command in (["status"], ["halt", "everything", "--why", "x"]):
        assert main([*command, "--db", postgres_url, "--seal-key", str(tmp_path / "a.key")]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_the_executor_holds_is_read_but_not_written(sqlite_setup, tmp_path):
    sqlite_setup.now_ms = time.time_ns() // 10**6
    sqlite_setup.activate()
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    where = ["--db", sqlite_setup.path, "--seal-key", tmp_path / "seal.key"]
    for command in (["status"], ["limits"]):
        done = subprocess.run([*COMMAND, *command, *where], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
    for command in (
        ["halt", "everything", "--why", "x"],
        ["lift", "everything"],
        ["limits", "set", "active_agents=1", "--yes"],
    ):
        done = subprocess.run([*COMMAND, *command, *where], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout.count("halted")) == (2, 0)
        assert f"is in use by process {os.getpid()}" in done.stderr
        assert "name its operator socket with --socket FILE, or end it" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_gets_colors_where_they_are_installed(sqlite_setup, tmp_path, rich):
    sqlite_setup.now_ms = time.time_ns() // 10**6
    sqlite_setup.activate()
    (tmp_path / "seal.key").write_text((b"s" * 32).hex())
    script = "" if rich else "import sys; sys.modules['rich'] = None; "
    command = [sys.executable, "-c", script + COMMAND[2], "status"]
    where = ["--db", sqlite_setup.path, "--seal-key", tmp_path / "seal.key"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([*command, *where], stdout=theirs, stderr=theirs, env=environment) as process:
        assert process.wait(60) == 0
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert ("\x1b[" in shown) is rich
    assert sqlite_setup.wallet in shown
