"""The golden vectors, against this implementation and the one in JavaScript, and the protocol that joins them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from permits import conformance, verify, verify_revocation
from permits.cli import main
from permits.errors import Code
from tests.support import PERMIT, WALLET

VECTORS = Path(__file__).parents[2] / "vectors"
JAVASCRIPT = VECTORS / "holdfire.mjs"
RESPOND = f"{sys.executable} -c 'from permits.cli import main; main()' conformance respond"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture(scope="module")
def vectors():
    return conformance.load(VECTORS)


def test_there_are_enough_of_them_and_each_code_has_one(vectors):
    assert len(vectors) >= 400
    tested = {vector["expected"].get("error") for vector in vectors}
    # what needs an expected wallet, or the exact bytes, the protocol doesn't ask for
    assert set(Code) - tested == {Code.SIGNATURE_WRONG_WALLET, Code.CANONICAL_MISMATCH}


def test_the_files_are_as_their_schema_says():
    schema = json.loads((VECTORS / "schemas" / "vectors.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted(VECTORS.glob("*.json")):
        assert [error.message for error in validator.iter_errors(json.loads(path.read_text()))] == []


def test_every_flag_is_explained(vectors):
    explained = (VECTORS / "README.md").read_text()
    used = {flag for vector in vectors for flag in vector["flags"]}
    assert {flag for flag in used if f"`{flag}`" not in explained} <= {
        *PERMIT,
        "walletAddress",
        "envelope",
        "revokedAt",
    }  # "a key's name"


def test_every_code_has_its_section_in_the_specification_in_order():
    text = (VECTORS.parent / "docs" / "reference" / "permit.md").read_text()
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == [str(code) for code in Code]


def test_this_implementation_agrees(vectors):
    assert [result for result in conformance.run(vectors) if not result.agrees] == []


def test_the_generator_writes_the_same_again(tmp_path):
    subprocess.run([sys.executable, VECTORS / "generate.py", tmp_path], check=True, timeout=120, capture_output=True)
    for path in sorted(VECTORS.glob("*.json")):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_generator_uses_nothing_of_ours():
    text = (VECTORS / "generate.py").read_text()
    assert "import permits" not in text
    assert "from permits" not in text


@needs_node
def test_the_javascript_implementation_agrees(capsys):
    assert main(["vectors", "run", "--against", f"node {JAVASCRIPT}"]) == 0
    assert "0 fail" in capsys.readouterr().out.splitlines()[-1]


def signed_in_javascript(tmp_path, function, document):
    """Return what the JavaScript `function` makes of `document` with the wallet `WALLET`."""
    seed = bytes(range(32)).hex()
    script = f"""
        import {{ {function} }} from {json.dumps(JAVASCRIPT.as_uri())};
        import {{ createPrivateKey, createPublicKey, sign }} from "node:crypto";
        const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
        const der = Buffer.concat([prefix, Buffer.from("{seed}", "hex")]);
        const key = createPrivateKey({{ key: der, format: "der", type: "pkcs8" }});
        const raw = createPublicKey(key).export({{ format: "der", type: "spki" }}).subarray(-32);
        const wallet = {{ publicKey: new Uint8Array(raw), signMessage: async (bytes) => sign(null, bytes, key) }};
        console.log(JSON.stringify(await {function}({json.dumps(document)}, wallet)));
    """
    path = tmp_path / "sign.mjs"
    path.write_text(script)
    return subprocess.run(["node", path], capture_output=True, timeout=60, check=True).stdout


@needs_node
def test_the_javascript_implementation_issues_what_python_verifies(tmp_path):
    signed = signed_in_javascript(tmp_path, "issue", {**PERMIT, "maxAmountPerExecutionUsd": 99.5})
    assert verify(signed, wallet=WALLET.wallet_address).permit.max_amount_cents == 9_950


@needs_node
def test_the_javascript_implementation_revokes_what_python_verifies(tmp_path):
    document = {"revokedAt": "2026-05-03T09:30:00.000Z", "nonce": PERMIT["nonce"]}
    wallet, revocation = verify_revocation(signed_in_javascript(tmp_path, "revoke", document))
    assert wallet == WALLET.wallet_address
    assert revocation.to_json_object() == document


def test_a_program_that_speaks_the_protocol_is_driven(capsys):
    assert main(["vectors", "run", "--against", RESPOND]) == 0
    assert "fail" in capsys.readouterr().out


def write(folder, *vectors):
    folder.mkdir(exist_ok=True)
    (folder / "some.json").write_text(json.dumps({"vectors": vectors}))
    return str(folder)


WRONG = {
    "id": "some/wrong",
    "comment": "expects what isn't so",
    "flags": [],
    "request": {"op": "canonicalize", "input": "7b7d"},
    "expected": {"ok": True, "canonical": ""},
}


def test_a_disagreement_fails_and_is_shown(tmp_path, capsys):
    assert main(["vectors", "run", "--vectors", write(tmp_path, WRONG)]) == 1
    shown = capsys.readouterr().out
    assert "FAILED: some/wrong" in shown
    assert "SCHEMA_MISSING_KEY" in shown


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[" * 100_000,
        "\udcff",
        "[]",
        "{}",
        '{"vectors": 1}',
        '{"vectors": [1]}',
        '{"vectors": [{}]}',
        *(json.dumps({"vectors": [{**WRONG, name: 5}]}) for name in WRONG),
    ],
)
def test_a_file_that_holds_no_vectors_is_named(tmp_path, capsys, text):
    path = tmp_path / "some.json"
    path.write_text(text, errors="surrogateescape")
    assert main(["vectors", "run", "--vectors", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"permits: `{path}`")
    assert told.count("\n") == 1


def test_an_expected_failure_must_fail(tmp_path, capsys):
    expected = tmp_path / "expected"
    expected.write_text("some/wrong\n")
    folder = write(tmp_path / "vectors", WRONG)
    assert main(["vectors", "run", "--vectors", folder, "--expected-failures", str(expected)]) == 0
    right = {**WRONG, "expected": {"ok": False, "error": "SCHEMA_MISSING_KEY"}}
    folder = write(tmp_path / "vectors", right)
    assert main(["vectors", "run", "--vectors", folder, "--expected-failures", str(expected)]) == 1
    assert "didn't" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("vectors", "text"),
    [([], "no vectors"), ([WRONG, WRONG], "same id"), ([{**WRONG, "only_if": "x"}], "other keys")],
)
def test_vectors_that_a_runner_can_not_run_are_refused(tmp_path, capsys, vectors, text):
    assert main(["vectors", "run", "--vectors", write(tmp_path, *vectors)]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "program",
    [
        "pass",
        "print('{}')",
        "import sys, json; [print(json.dumps({'id': 'x'})) for _ in sys.stdin]",
        "print('not json')",
        "print('[]')",
        "print('[' * 100_000)",
        "import sys; sys.stdout.buffer.write(b'\\xff\\n')",
    ],
)
def test_a_program_that_answers_nonsense_is_told_so(tmp_path, capsys, program):
    path = tmp_path / "program.py"
    path.write_text(program)
    folder = write(tmp_path / "vectors", WRONG)
    assert main(["vectors", "run", "--vectors", folder, "--against", f"{sys.executable} {path}"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


def test_a_program_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["vectors", "run", "--vectors", write(tmp_path, WRONG), "--against", "/no/such/program"]) == 1
    assert "/no/such/program" in capsys.readouterr().err


@pytest.mark.parametrize(
    "request_", [{}, {"id": "1"}, {"id": "1", "op": "x"}, {"id": "1", "op": "canonicalize", "input": "zz"}, [], 3]
)
def test_a_request_that_is_none_is_answered_so(request_):
    answered = conformance.answer(request_)
    assert (answered["ok"], answered["error"]) == (False, "PROTOCOL")
