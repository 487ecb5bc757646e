"""The standard streams of a command, at real pipes, a real full disk, and terminals that know little."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from permits import draft, issue
from tests.support import T0, WALLET, as_json, key, uuid

PERMITS = [sys.executable, "-c", "import sys; from permits.cli import main; sys.exit(main())"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")


@pytest.fixture
def one(tmp_path):
    permit = draft(
        agent_id=uuid(1),
        session_pubkey=key(1).wallet_address,
        asset_whitelist=["SOL", "USDC"],
        max_amount_usd=250,
        issued_at_ms=T0,
        lifetime_s=60,
    )
    path = tmp_path / "one.json"
    path.write_bytes(as_json(issue(permit, WALLET).to_json_object()))
    return path


@pytest.fixture
def many(tmp_path, one):
    """More results than any pipe holds, and enough for several processes."""
    path = tmp_path / "many.jsonl"
    path.write_bytes((one.read_bytes() + b"\n") * 2_000)
    return path


def test_a_reader_that_leaves_ends_it_quietly(many):
    with subprocess.Popen(
        [*PERMITS, "verify", "--any-time", many], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout.readline().startswith(b"valid: ")
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 141


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"], ["schema", "permit"], ["verify", "ONE"]])
def test_nobody_reading_at_all_is_quiet(one, arguments):
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "wb") as stdout:
        command = [*PERMITS, *(one if each == "ONE" else each for each in arguments)]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@needs_full
@pytest.mark.parametrize("arguments", [["--help"], ["schema", "permit"], ["verify", "ONE"], ["verify", "MANY"]])
def test_a_full_disk_is_told_of_standard_output(one, many, arguments):
    files = {"ONE": one, "MANY": many}
    with FULL.open("wb") as stdout:
        command = [*PERMITS, *(files.get(each, each) for each in arguments)]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"permits: standard output: No space left on device\n")


@needs_full
def test_what_cant_be_said_on_standard_error_still_has_its_status():
    with FULL.open("wb") as stderr:
        done = subprocess.run(
            [*PERMITS, "verify", "/nowhere"], stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=False
        )
    assert done.returncode == 1


def test_a_closed_standard_output_is_nobodys(one):
    script = f"import os; os.close(1); os.execv({sys.executable!r}, {[*PERMITS, 'verify', '--any-time', str(one)]!r})"
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["verify"], ["inspect"], ["conformance", "respond"]])
def test_a_closed_standard_input_is_told(arguments):
    script = f"import os; os.close(0); os.execv({sys.executable!r}, {[*PERMITS, *arguments]!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"permits: standard input is closed\n")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "ascii"])
def test_what_a_terminal_cant_show_is_escaped(tmp_path, encoding):
    vector = {
        "id": "words/1",
        "comment": "\u2713 \ud800",
        "flags": [],
        "request": {"op": "canonicalize", "input": "7b7d"},
        "expected": {"ok": True},
    }
    (tmp_path / "words.json").write_text(json.dumps({"vectors": [vector]}))
    done = subprocess.run(
        [*PERMITS, "vectors", "run", "--vectors", tmp_path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    mark = "\u2713" if encoding == "utf-8" else r"\u2713"
    assert done.stdout.decode(encoding).startswith(f"FAILED: words/1 ({mark} \\ud800)\n")
