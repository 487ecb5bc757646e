"""The command line, as a process where its exit counts, else called."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from nacl.signing import SigningKey

from permits import LocalSigner, SignerError, draft, issue, keys, verify
from permits.cli import main
from tests.support import WALLET, key, uuid

VECTORS = Path(__file__).parents[2] / "vectors"


COMMAND = "import sys; from permits.cli import main; sys.exit(main())"


def run(*arguments, data=b""):
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)


def permit(**changes):
    return draft(
        **{
            "agent_id": uuid(1),
            "session_pubkey": key(1).wallet_address,
            "asset_whitelist": ["SOL", "USDC"],
            "max_amount_usd": 250,
            "issued_at_ms": time.time_ns() // 10**9 * 1000,
            "lifetime_s": 600,
            **changes,
        }
    )


@pytest.fixture
def signed():
    return issue(permit(), WALLET).to_json_object()


@pytest.fixture
def file(tmp_path, signed):
    path = tmp_path / "permit.json"
    path.write_text(json.dumps(signed, indent=2))
    return path


def test_a_good_permit_exits_0(file):
    done = run("verify", file, "--wallet", WALLET.wallet_address)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"valid: ")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("250", "1000000"), b"SIGNATURE_INVALID"),
        (lambda text: text.replace('"nonce"', '"nonce": "", "nonce"'), b"JSON_DUPLICATE_KEY: `nonce`"),
        (lambda text: text.replace('"nonce"', '"admin": 1, "nonce"'), b"SCHEMA_UNKNOWN_KEY: `admin`"),
        (lambda text: text[:-1], b"JSON_SYNTAX"),
        (
            lambda text: text.replace('"nonce"', r'"\u001b[2J\nvalid: permit 00\n": 1, "nonce"'),
            b"SCHEMA_UNKNOWN_KEY",
        ),
        (lambda text: text.ljust(20_000), b"ENCODING_TOO_LONG"),
        (lambda _: "", b"JSON_SYNTAX"),
    ],
)
def test_a_bad_one_exits_1_with_one_line(signed, change, code):
    done = run("verify", data=change(json.dumps(signed)).encode())
    assert (done.returncode, done.stderr) == (1, b"")
    assert code in done.stdout
    assert done.stdout.startswith(b"refused: ")
    assert done.stdout.count(b"\n") == 1
    assert done.stdout.strip().isascii()
    assert b"\x1b" not in done.stdout


def test_many_permits_stand_one_a_line(signed):
    good = json.dumps(signed)
    done = run("verify", "--json", data=f"{good}\n\n{good[:-9]}}}\n{good}".encode())
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["valid"] for result in results] == [True, False, True]
    assert results[1]["code"] == "JSON_SYNTAX"
    assert done.returncode == 1
    assert run("verify", data=f"{good}\n{good}".encode()).stderr == b"2 permits: 2 valid, 0 refused\n"


def test_time_is_judged_as_asked(signed, capsys, file):
    then = signed["permit"]["expiresAt"]
    assert main(["verify", str(file), "--at", then]) == 1
    assert "TIME_EXPIRED" in capsys.readouterr().out
    assert main(["verify", str(file), "--any-time"]) == 0
    file.write_text(json.dumps(issue(permit(lifetime_s=86_401), WALLET).to_json_object()))
    assert main(["verify", str(file), "--max-days", "2"]) == 0
    assert main(["verify", str(file), "--max-days", "1"]) == 1
    assert "TIME_LIFETIME_TOO_LONG: `expiresAt` must be at most 1 day after" in capsys.readouterr().out


def test_only_the_named_wallet_and_envelope(capsys, file):
    assert main(["verify", str(file), "--wallet", key(3).wallet_address]) == 1
    assert "SIGNATURE_WRONG_WALLET" in capsys.readouterr().out
    assert main(["verify", str(file), "--envelope", "offchain-v0"]) == 1
    assert "SIGNATURE_ENVELOPE_NOT_ALLOWED" in capsys.readouterr().out


ISSUE = ["--agent-id", uuid(1), "--session-pubkey", key(1).wallet_address, "--asset", "SOL", "--asset", "USDC"]
SIGN = ["issue", "--keypair", "WALLET", *ISSUE]
FILED = ["issue", "--keypair", "WALLET", "--permit", "UNSIGNED"]
NO_AMOUNT = "is not an amount such as 250 or 99.50"
NO_LIFETIME = "is not a lifetime such as 90m, 12h or 7d"
NO_TIME = "is not a time such as 2026-08-01T00:00:00Z"
NO_DAYS = "is not a number of days, at least 1"
NO_WALLET = "is not a wallet's address: base58 of 32 bytes"
NO_COMMAND = "is not a command, with every quote closed"

MISUSES = [
    ([], "COMMAND"),
    (["frobnicate"], "'frobnicate'"),
    (["vectors"], "COMMAND"),
    (["schema"], "document"),
    (["schema", "nope"], "'nope'"),
    (["issue"], "--keypair"),
    (SIGN, "--max-usd must be given, or all of it by --permit"),
    (["issue", "--keypair", "WALLET", "--max-usd", "5"], "--agent-id, --session-pubkey, --asset must be given"),
    *(
        ([*FILED, *more], f"--permit holds the whole permit: leave it out, or {more[0]}")
        for more in (
            ["--max-usd", "7"],
            ["--asset", "SOL"],
            ["--agent-id", uuid(1)],
            ["--session-pubkey", key(1).wallet_address],
            ["--lifetime", "1d"],
        )
    ),
    ([*FILED, *ISSUE, "--max-usd", "7"], "leave it out, or --agent-id, --session-pubkey, --asset, --max-usd"),
    *(
        ([*SIGN, f"--max-usd={text}"], f"argument --max-usd: `{text}` {NO_AMOUNT}")
        for text in (
            "",
            "much",
            "NaN",
            "sNaN",
            "inf",
            "-Infinity",
            "-5",
            "1e2",
            " 5",
            "5_0",
            "5.",
            ".5",
            "+5",
            "9" * 99,
        )
    ),
    *(
        ([*SIGN, "--max-usd", "5", f"--lifetime={text}"], f"argument --lifetime: `{text}` {NO_LIFETIME}")
        for text in ("", "long", "0s", "00d", "7", "d", "1.5h", "-1h", "1D", "1w", "9" * 5_000 + "d")
    ),
    ([*SIGN, "--max-usd", "5", "--max-usd", "6"], "--max-usd was given before"),
    ([*SIGN, "--max-usd", "5", "--agent-id", uuid(1)], "--agent-id was given before"),
    ([*SIGN, "--max-usd", "5", "--lifetime", "1d", "--lifetime", "2d"], "--lifetime was given before"),
    ([*SIGN, "--max-usd", "5", "--envelope", "raw", "--envelope", "offchain-v0"], "--envelope was given before"),
    ([*FILED, "--keypair", "WALLET"], "--keypair was given before"),
    ([*FILED, "--permit", "UNSIGNED"], "--permit was given before"),
    ([*SIGN, "--max", "5"], "unrecognized arguments: --max 5"),
    *((["verify", "SIGNED", "--at", text], f"`{text}` {NO_TIME}") for text in ("", "noon", "2026-02-30T00:00:00Z")),
    *((["verify", "SIGNED", f"--max-days={text}"], f"`{text}` {NO_DAYS}") for text in ("", "-3", "0", "1.5", "1e3")),
    *((["verify", "SIGNED", "--wallet", text], f"`{text}` {NO_WALLET}") for text in ("", "nope", "1" * 33)),
    (["verify", "SIGNED", "--at", "2026-08-01T00:00:00Z", "--any-time"], "not allowed with argument --at"),
    (["verify", "SIGNED", "--envelope", "nope"], "'nope'"),
    (["verify", "SIGNED", *["--at", "2026-08-01T00:00:00Z"] * 2], "--at was given before"),
    (["verify", "SIGNED", *["--wallet", key(1).wallet_address] * 2], "--wallet was given before"),
    *((["vectors", "run", "--against", text], f"`{text}` {NO_COMMAND}") for text in ("", " ", "'", '"x')),
    ([*SIGN, "--max-usd", "\udcff"], NO_AMOUNT),
    (["verify", "SIGNED", "--wallet", "\udcff"], NO_WALLET),
]


@pytest.mark.parametrize(("arguments", "text"), MISUSES)
def test_misuse_exits_2_with_one_line(tmp_path, capsys, file, arguments, text):
    wallet, unsigned = tmp_path / "wallet.json", tmp_path / "unsigned.json"
    WALLET.write_keypair_file(wallet)
    unsigned.write_text(json.dumps(permit().to_json_object()))
    files = {"WALLET": str(wallet), "UNSIGNED": str(unsigned), "SIGNED": str(file)}
    try:
        status = main([files.get(each, each) for each in arguments])
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    assert (status, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert captured.err.startswith("permits")
    assert text in captured.err
    assert "Decimal" not in captured.err


def test_a_missing_file_exits_1_with_one_line(capsys):
    assert main(["verify", "/nowhere/at/all"]) == 1
    assert capsys.readouterr().err == "permits: `/nowhere/at/all`: No such file or directory\n"


def test_a_key_pair_is_made_once_and_signs(tmp_path, capsys):
    path = tmp_path / "wallet.json"
    assert main(["keygen", str(path)]) == 0
    address = capsys.readouterr().out.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(path.read_text())) == 64
    assert LocalSigner.from_keypair_file(path).wallet_address == address
    before = path.read_bytes()
    assert main(["keygen", str(path)]) == 1
    assert "File exists" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert main(["issue", "--keypair", str(path), *ISSUE, "--max-usd", "99.50", "--lifetime", "7d"]) == 0
    verified = verify(capsys.readouterr().out.encode(), wallet=address)
    assert verified.permit.max_amount_cents == 9_950
    assert verified.permit.expires_at_ms - verified.permit.issued_at_ms == 7 * 86_400_000


def test_a_written_permit_is_signed_as_it_is(tmp_path, capsys):
    wallet, unsigned = tmp_path / "wallet.json", tmp_path / "unsigned.json"
    WALLET.write_keypair_file(wallet)
    unsigned.write_text(json.dumps(permit().to_json_object()))
    assert main(["issue", "--keypair", str(wallet), "--permit", str(unsigned), "--envelope", "offchain-v0"]) == 0
    assert verify(capsys.readouterr().out.encode(), envelopes=["offchain-v0"]).wallet == WALLET.wallet_address


@pytest.mark.parametrize(
    ("more", "status", "text"),
    [
        (["--max-usd", "0"], 1, "with at most 2 decimals: `0`"),
        (["--max-usd", "250.001"], 1, "with at most 2 decimals: `250.001`"),
        (["--max-usd", "1000000000.01"], 1, "SCHEMA_MAX_AMOUNT"),
        (["--max-usd", "250", "--lifetime", "400d"], 1, "TIME_LIFETIME_TOO_LONG"),
        (["--max-usd", "250", "--lifetime", "3000000d"], 1, "SCHEMA_EXPIRES_AT"),
        (["--max-usd", "250", "--lifetime", "9999999999d"], 1, "SCHEMA_EXPIRES_AT"),
        (["--max-usd", "250", "--asset", "sol"], 1, '`["SOL", "USDC", "sol"]`'),
        (["--max-usd", "250", "--asset", "\udcff"], 1, "ignoring case: `\\udcff`"),
    ],
)
def test_a_bad_permit_is_not_issued(tmp_path, capsys, more, status, text):
    wallet = tmp_path / "wallet.json"
    WALLET.write_keypair_file(wallet)
    assert main(["issue", "--keypair", str(wallet), *ISSUE, *more]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert text in captured.err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[1, 2]", "64 bytes"),
        ("[" + ",".join(["7"] * 64) + "]", "public key"),
        ("[" + ",".join(["256"] * 64) + "]", "64 bytes"),
        ("7", "64 bytes"),
        ("{}", "64 bytes"),
        ("nonsense", "64 bytes"),
        ("9" * 64, "64 bytes"),
        ("4000000000", "64 bytes"),
        ("[" * 4_000, "64 bytes"),
    ],
)
def test_a_bad_key_pair_is_named_and_never_shown(tmp_path, capsys, content, text):
    path = tmp_path / "wallet.json"
    path.write_text(content)
    path.chmod(0o600)
    assert main(["issue", "--keypair", str(path), *ISSUE, "--max-usd", "1"]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert str(path) in error
    assert "7, 7" not in error


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["verify", "."], "`.`: Is a directory"),
        (["inspect", "."], "`.`: Is a directory"),
        (["issue", "--keypair", ".", "--permit", "x"], "`.`: Is a directory"),
        (["issue", "--keypair", "WALLET", "--permit", "."], "`.`: Is a directory"),
        (["issue", "--keypair", "WALLET", "--permit", "/dev/null"], "JSON_SYNTAX"),
        (["issue", "--keypair", "EMPTY", "--permit", "x"], "must hold a key pair of 64 bytes"),
        (["keygen", "/nowhere/x"], "`/nowhere/x`: No such file or directory"),
        (["vectors", "run", "--vectors", "/nowhere"], "`/nowhere` holds no vectors"),
        (["vectors", "run", "--expected-failures", "/nowhere"], "`/nowhere`: No such file or directory"),
        (["vectors", "run", "--expected-failures", "."], "`.`: Is a directory"),
        (["vectors", "run", "--expected-failures", "LATIN"], "isn't UTF-8"),
        (["verify", "/nowhere/\udcff"], r"`/nowhere/\udcff`: No such file or directory"),
    ],
)
def test_a_file_that_cant_be_used_exits_1_with_one_line(tmp_path, capsys, arguments, told):
    wallet, latin, empty = tmp_path / "wallet.json", tmp_path / "latin", tmp_path / "empty"
    WALLET.write_keypair_file(wallet)
    latin.write_bytes(b"a/b\n\xff\n")
    empty.touch(0o600)
    files = {"WALLET": str(wallet), "LATIN": str(latin), "EMPTY": str(empty)}
    status = main([files.get(each, each) for each in arguments])
    captured = capsys.readouterr()
    assert (status, captured.out, captured.err.count("\n")) == (1, "", 1)
    assert told in captured.err


def test_a_file_without_an_end_is_read_no_further_than_a_permit_goes(tmp_path):
    wallet = tmp_path / "wallet.json"
    WALLET.write_keypair_file(wallet)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); {COMMAND}"
    command = [sys.executable, "-c", limited, "issue", "--keypair", wallet, "--permit", "/dev/zero"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "permits: ENCODING_TOO_LONG: must be at most 16384 bytes\n"


def test_a_key_pair_that_doesnt_fit_on_the_disk_leaves_nothing(tmp_path):
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8)); {COMMAND}"
    path = tmp_path / "wallet.json"
    done = subprocess.run(
        [sys.executable, "-c", limited, "keygen", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"permits: `{path}`: File too large\n")
    assert not path.exists()


def test_a_key_pair_that_others_may_read_is_warned_of(tmp_path):
    path = tmp_path / "wallet.json"
    WALLET.write_keypair_file(path)
    path.chmod(0o644)
    with pytest.warns(UserWarning, match="chmod 600"):
        assert LocalSigner.from_keypair_file(path).wallet_address == WALLET.wallet_address
    done = run("issue", "--keypair", path, *ISSUE, "--max-usd", "1")
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)


def test_a_browser_wallets_secret_is_a_wallet():
    seed = bytes(range(32))
    secret = keys.encode(seed + bytes(SigningKey(seed).verify_key))
    assert LocalSigner.from_base58(secret).wallet_address == WALLET.wallet_address
    for wrong in (secret[:-1], secret + "1", keys.encode(seed + bytes(32)), ""):
        with pytest.raises(SignerError) as error:
            LocalSigner.from_base58(wrong)
        assert secret[:8] not in str(error.value)


def test_inspect_says_it_in_words(file, capsys, signed):
    assert main(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "may trade SOL and USDC with each other" in shown
    assert "at most $250.00 a time" in shown
    assert "up to $125,000.00 may be traded in 24 hours" in shown
    assert re.search("10 minutes in all, (9 minutes [0-9]+ seconds left|10 minutes left)", shown)
    assert WALLET.wallet_address in shown
    assert main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["signer"] == WALLET.wallet_address
    file.write_text(json.dumps(signed["permit"]))
    assert main(["inspect", str(file)]) == 0
    assert "not signed" in capsys.readouterr().out
    file.write_text("{}")
    assert main(["inspect", str(file)]) == 1
    assert "SCHEMA_MISSING_KEY: `agentId`" in capsys.readouterr().out
    file.write_text(json.dumps({**signed, "signature": "x"}))
    assert main(["inspect", "--json", str(file)]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "SCHEMA_SIGNATURE"


@pytest.fixture(params=["permit", "signed-permit", "signed-revocation"])
def schema(request, capsys):
    assert main(["schema", request.param]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


OPERATIONS = {"Permit": "canonicalize", "SignedPermit": "verify_permit", "SignedRevocation": "verify_revocation"}


def golden(schema):
    """Return (document, error code) of each golden vector that is strict JSON and of the schema's kind."""
    kind = OPERATIONS[schema.schema["title"]]
    for file in VECTORS.glob("*.json"):
        for vector in json.loads(file.read_text())["vectors"]:
            request, error = vector["request"], vector["expected"].get("error", "")
            if request["op"] == kind and not error.startswith(("ENCODING", "JSON")):
                yield json.loads(bytes.fromhex(request["input"])), error


BEYOND_A_SCHEMA = {
    "SCHEMA_SESSION_PUBKEY",
    "SCHEMA_WALLET_ADDRESS",
    "SCHEMA_SIGNATURE",
    "SCHEMA_ASSET_WHITELIST",
    "SCHEMA_MAX_AMOUNT",
    "SCHEMA_EXPIRES_AT",
    "SCHEMA_ISSUED_AT",
    "SCHEMA_TIME_ORDER",
    "SCHEMA_REVOKED_AT",
}
"""Rules of which a schema knows only a part: decoded lengths, case, decimals, the calendar."""


def test_the_schema_agrees_with_the_golden_vectors(schema):
    checked = 0
    for document, error in golden(schema):
        if error not in BEYOND_A_SCHEMA:
            assert schema.is_valid(document) == (not error.startswith("SCHEMA")), (error, document)
            checked += 1
    assert checked > 50


def test_an_interrupt_ends_with_a_line(monkeypatch, capsys, file):
    def interrupted(*_arguments, **_how):
        raise KeyboardInterrupt

    monkeypatch.setattr("permits.cli.verify_many", interrupted)
    assert main(["verify", str(file)]) == 1
    assert capsys.readouterr().err == "permits: interrupted\n"


def test_a_program_that_never_answers_is_given_up(monkeypatch, capsys):
    monkeypatch.setattr("permits.cli.CONFORMANCE_TIMEOUT_S", 0.2)
    forever = f"{sys.executable} -c 'import time; time.sleep(60)'"
    assert main(["vectors", "run", "--against", forever]) == 1
    assert capsys.readouterr().err == "permits: no answer within 0.2 s\n"


@pytest.mark.parametrize("with_rich", [True, False])
def test_progress_is_shown_on_a_terminal_and_never_among_the_results(file, with_rich):
    hidden = "" if with_rich else "sys.modules['rich.progress'] = None; "
    script = f"import sys; {hidden}from permits.cli import main; sys.exit(main())"
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb") as terminal, os.fdopen(theirs, "wb") as stderr:
        environment = {**os.environ, "TERM": "xterm"}
        done = subprocess.run(
            [sys.executable, "-c", script, "verify", file],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            timeout=60,
            check=True,
        )
        stderr.write(b"the end")
        stderr.flush()
        shown = b""
        while not shown.endswith(b"the end"):
            shown += os.read(terminal.fileno(), 4096)
    assert (b"verifying" in shown) is with_rich
    assert done.stdout.startswith(b"valid: ")
    assert done.stdout.count(b"\n") == 1


def test_it_answers_on_standard_input(monkeypatch, capsys):
    lines = [b'{"id": "a", "op": "canonicalize", "input": "7b7d"}', b"", b"x", b"[" * 100_000, b"\xff", b'{"id": "b"}']
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(lines))))
    assert main(["conformance", "respond"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    none = {"id": None, "ok": False, "error": "PROTOCOL"}
    right = {"id": "a", "ok": False, "error": "SCHEMA_MISSING_KEY"}
    assert answers == [right, *[none] * 4, {**none, "id": "b"}]
