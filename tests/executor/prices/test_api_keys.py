"""API keys: the file, who may open a stream with them, and the commands."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import jwt
import pytest
from websockets.sync.client import connect

from executor.cli import main
from executor.prices.api_keys import KeyFile, KeyFileError
from executor.prices.callers import KeysAndTokens
from executor.prices.hub import AuthenticationUnavailable, Subject
from executor.prices.protocol import TIERS, Subscribe, decode_from_server
from executor.service.settings import Settings
from executor.service.tokens import Tokens
from tests.executor.prices.market import next_tick
from tests.executor.service import serving
from tests.support import WALLET


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def asked(keys, credential):
    return asyncio.run(keys.authenticate(credential))


def add(keys, number=1, tier="pro"):
    return keys.add("ann", tier, secret=bytes([number]) * 32, now_s=1_700_000_000)


def test_a_key_opens_what_it_was_made_for_until_it_is_revoked_and_others_see_it_at_once(path):
    elsewhere = KeyFile(path)
    assert asked(elsewhere, "ak_" + "01" * 32) is None
    key, made = add(KeyFile(path))
    add(KeyFile(path), 2, "free")
    assert asked(elsewhere, key) == Subject("key:ann", TIERS["pro"])
    assert asked(elsewhere, key[:-1] + "0") is None
    assert KeyFile(path).revoke(made.key_id)
    assert asked(elsewhere, key) is None
    assert not KeyFile(path).revoke(made.key_id)
    assert [each.tier for each in elsewhere.list()] == ["free"]


def test_the_file_holds_no_key_and_is_its_owners_alone(path):
    key, _ = add(KeyFile(path))
    assert key[3:] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir() if each.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("subject", "tier"), [("", "pro"), ("a b", "pro"), ("ann\n", "pro"), ("ann", "gold"), ("a" * 65, "pro")]
)
def test_nobody_without_a_name_or_a_tier_gets_a_key(path, subject, tier):
    with pytest.raises(KeyFileError):
        KeyFile(path).add(subject, tier, secret=bytes(32), now_s=0)
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys":[{}]}', '{"keys":[],"more":1}'])
def test_a_file_that_is_none_lets_nobody_in_and_is_not_written_over(path, text):
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        add(KeyFile(path))
    with pytest.raises(AuthenticationUnavailable):
        asked(KeyFile(path), "ak_" + "01" * 32)
    assert path.read_text() == text


def test_a_file_that_others_may_read_or_write_lets_nobody_in(path):
    key, _ = add(KeyFile(path))
    path.chmod(0o620)
    with pytest.raises(AuthenticationUnavailable, match="owner"):
        asked(KeyFile(path), key)


def add_one(path, number):
    add(KeyFile(path), number)


def test_keys_that_are_added_at_once_are_all_kept(path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(add_one, [(path, number) for number in range(20)])
    assert len(KeyFile(path).list()) == 20


@pytest.fixture
def callers(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    secret.chmod(0o600)
    return KeysAndTokens(KeyFile(path), Tokens(Settings(jwt_secret_file=secret), time.time))


def token(**claims):
    return jwt.encode({"aud": "holdfire", "wallet": WALLET.wallet_address, "exp": 2**33, **claims}, "s" * 32, "HS256")


@pytest.mark.parametrize(
    ("claims", "tier"),
    [({}, "free"), ({"tier": "quant"}, "quant"), ({"tier": "Quant"}, "free"), ({"tier": ["quant"]}, "free")],
)
def test_a_token_has_the_tier_that_it_names_and_a_wrong_name_gives_the_least(callers, claims, tier):
    assert asked(callers, token(**claims)) == Subject(f"wallet:{WALLET.wallet_address}", TIERS[tier], 2**33)


@pytest.mark.parametrize("claims", [{"aud": "other"}, {"exp": 1}, {"wallet": "nobody"}])
def test_a_token_that_the_service_does_not_believe_opens_nothing(callers, claims):
    assert asked(callers, token(**claims)) is None


def test_keys_and_tokens_are_taken_side_by_side_and_counted_apart(callers, path):
    key, _ = KeyFile(path).add(WALLET.wallet_address, "pro", secret=bytes(32), now_s=0)
    assert asked(callers, key) == Subject(f"key:{WALLET.wallet_address}", TIERS["pro"])


def test_the_commands_make_show_and_revoke_keys(path, capsys):
    assert main(["keys", "add", "ann", "--tier", "pro", "--keys", str(path)]) == 0
    shown = capsys.readouterr()
    key, key_id = shown.out.removesuffix("\n"), shown.err.split()[1].rstrip(",")  # the key alone: `KEY=$(...)`
    assert asked(KeyFile(path), key) == Subject("key:ann", TIERS["pro"])
    assert main(["keys", "list", "--keys", str(path)]) == 0
    assert capsys.readouterr().out.split()[::3] == [key_id, "ann"]
    assert main(["keys", "revoke", key_id, "--keys", str(path)]) == 0
    assert main(["keys", "revoke", key_id, "--keys", str(path)]) == 1
    assert f"there is no key `{key_id}`" in capsys.readouterr().err
    assert main(["keys", "list", "--keys", str(path)]) == 0


def test_a_key_that_can_not_be_shown_is_taken_back(path):
    command = [sys.executable, "-c", "import sys; from executor.cli import main; sys.exit(main())"]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - no path of ours
        done = subprocess.run(
            [*command, "keys", "add", "ann", "--keys", path],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"executor: standard output: No space left on device\n")
    assert KeyFile(path).list() == ()


def test_a_key_file_that_is_not_there_has_no_keys_to_show_or_revoke(path, capsys):
    for command in (["list"], ["revoke", "0123456789ab"]):
        assert main(["keys", *command, "--keys", str(path)]) == 1
        assert capsys.readouterr() == ("", f"executor: there is no key file `{path}`: `keys add` makes one\n")
    assert main(["keys", "add", "a b", "--keys", str(path)]) == 1
    assert "a subject is 1 to 64 letters, digits" in capsys.readouterr().err


def test_serve_prices_tells_what_it_can_not_use(path, tmp_path, capsys):
    recording = tmp_path / "recording"
    recording.write_text('{"type":"ping","ts":1}\n')
    assert main(["serve-prices", "--keys", str(path), "--replay", str(recording)]) == 1
    assert "line 1 is no price" in capsys.readouterr().err
    assert main(["serve-prices", "--keys", str(path), "--replay", str(tmp_path / "none")]) == 1
    with pytest.raises(SystemExit):
        main(["serve-prices", "--keys", str(path), "--speed", "0"])


@pytest.mark.parametrize(
    ("believed", "market"),
    [("key", ["--seed", "7"]), ("key", ["--replay", "recording"]), ("token", ["--seed", "7"])],
)
def test_serve_prices_serves_a_market_until_it_is_stopped(path, tmp_path, believed, market):
    key, _ = add(KeyFile(path))
    who, opens = ["--keys", str(path)], f"api_key={key}"
    if believed == "token":
        secret = serving.private(tmp_path / "jwt.secret", serving.SECRET)
        (tmp_path / "holdfire.toml").write_text(f"jwt_secret_file = '{secret}'\n")
        who, opens = ["--config", "holdfire.toml"], f"token={serving.token(WALLET.wallet_address, tier='pro')}"
    line = '{{"type":"price","data":{{"symbol":"SOL","priceUsd":{n}.50,"ts":{n}00,"source":"pyth","stale":false}}}}\n'
    (tmp_path / "recording").write_text("".join(line.format(n=n) for n in range(1, 300)))
    command = "import sys; from executor.cli import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", command, "serve-prices", *who, "--port", "0", *market],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            url = process.stdout.readline().split()[-1]
            with connect(f"{url}?{opens}", proxy=None) as opened:
                assert decode_from_server(opened.recv(10)).tier == "pro"
                opened.send(Subscribe(("SOL",)).encode())
                tick = next_tick(opened)
                assert (tick.symbol, tick.source) == ("SOL", "generated" if "--seed" in market else "pyth")
                assert abs(tick.ts_ms - time.time() * 1_000) < 10_000
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
