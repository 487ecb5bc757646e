import json
import subprocess
import sys
import time

import pytest

from permits import draft, issue
from tests.support import WALLET, key, uuid


def run(*arguments, data=b""):
    command = [sys.executable, "-c", "import sys; from permits.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=30, check=False)


@pytest.fixture
def signed():
    permit = draft(
        agent_id=uuid(1),
        session_pubkey=key(1).wallet_address,
        asset_whitelist=["SOL"],
        max_amount_usd=250,
        issued_at_ms=time.time_ns() // 10**9 * 1000,
        lifetime_s=600,
    )
    return issue(permit, WALLET).to_json_object()


def test_a_good_permit_exits_0(signed, tmp_path):
    file = tmp_path / "permit.json"
    file.write_text(json.dumps(signed))
    done = run("verify", str(file), "--wallet", WALLET.wallet_address)
    assert done.returncode == 0
    assert b"valid: permit " in done.stdout


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("250", "1000000"), b"SIGNATURE_INVALID"),
        (lambda text: text.replace('"nonce"', '"nonce": "", "nonce"'), b"JSON_DUPLICATE_KEY: `nonce`"),
        (lambda text: text.replace('"nonce"', '"admin": 1, "nonce"'), b"SCHEMA_UNKNOWN_KEY: `admin`"),
        (lambda text: text[:-1], b"JSON_SYNTAX"),
    ],
)
def test_a_bad_one_exits_1_with_one_line(signed, change, code):
    done = run("verify", data=change(json.dumps(signed)).encode())
    assert done.returncode == 1
    assert code in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_missing_file_exits_1_and_misuse_2():
    missing = run("verify", "/nowhere/at/all")
    assert (missing.returncode, missing.stderr.count(b"\n")) == (1, 1)
    assert run("frobnicate").returncode == 2
