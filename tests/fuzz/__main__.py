"""`make fuzz`: feeds verification what a coverage-guided fuzzer (atheris) makes of the golden vectors.

Whatever goes in, only a `PermitError` may come out, and a permit that comes out must be the one that its canonical
bytes say. `python -m tests.fuzz SECONDS`; findings are left in build/fuzz.
"""

import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["permits"]):
    from permits import ENVELOPES, Permit, PermitError, verify
    from permits.canonical import parse


def feed(data):
    for read in (parse, Permit.from_json, verify_any):
        try:
            read(data)
        except PermitError as refused:
            str(refused).encode("ascii")


def verify_any(data):
    verified = verify(data, envelopes=ENVELOPES)
    if (
        Permit.from_json(verified.canonical) != verified.permit
        or verified.permit.canonical_bytes() != verified.canonical
    ):
        raise AssertionError("a permit that isn't what was signed")


def corpus(folder):
    """Write each golden vector's input as the fuzzer's seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in Path("vectors").glob("*.json"):
        for number, vector in enumerate(json.loads(path.read_text())["vectors"]):
            if "input" in vector["request"]:
                (folder / f"{path.stem}-{number}").write_bytes(bytes.fromhex(vector["request"]["input"]))


def main():
    folder = Path("build/fuzz")
    corpus(folder / "corpus")
    flags = [f"-max_total_time={sys.argv[1]}", "-max_len=20000", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(folder / "corpus"), *flags], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
