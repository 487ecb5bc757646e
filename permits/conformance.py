"""The conformance protocol: by it any implementation, in any language, shows that it agrees with this one.

JSON Lines: a request a line on standard input, an answer a line on standard output, in order. Each request has an `id`
that its answer repeats. The operations, with bytes always as lowercase hex:

| op | request | answer |
|---|---|---|
| canonicalize | input: a permit's JSON | ok, canonical; or error |
| verify_signature | public_key, message, signature | ok |
| verify_permit | input: a signed permit's JSON; now: Unix ms or null; envelopes, else all | ok, permit_id; or error |
| verify_revocation | input: a signed revocation's JSON; envelopes, else all | ok, wallet (base58), nonce; or error |

`error` is a code of `permits.errors.Code`. The golden vectors are such requests, each with its expected answer.

>>> answer({"id": "1", "op": "canonicalize", "input": "7b7d"})
{'id': '1', 'ok': False, 'error': 'SCHEMA_MISSING_KEY'}
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from permits import keys
from permits.envelopes import ENVELOPES
from permits.errors import PermitError
from permits.model import Permit
from permits.revocation import verify_revocation
from permits.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

__all__ = ["Result", "answer", "drive", "load", "respond", "run", "vectors_folder"]

Request = dict[str, Any]
Answer = dict[str, Any]


def answer(request: Any) -> Answer:  # noqa: ANN401 - a foreign program's JSON
    """Return this implementation's answer to `request`; to what is no request, the error `PROTOCOL`."""
    try:
        outcome = OPERATIONS[request["op"]](request)
    except PermitError as refused:
        outcome = {"ok": False, "error": str(refused.code)}
    except (KeyError, TypeError, ValueError):
        outcome = {"ok": False, "error": "PROTOCOL"}
    return {"id": request.get("id") if isinstance(request, dict) else None, **outcome}


def respond(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield an answer for each line."""
    for line in lines:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        yield json.dumps(answer(request), separators=(",", ":"))


def _canonicalize(request: Request) -> Answer:
    permit = Permit.from_json(bytes.fromhex(request["input"]))
    return {"ok": True, "canonical": permit.canonical_bytes().hex()}


def _verify_signature(request: Request) -> Answer:
    public_key, message, signature = (bytes.fromhex(request[name]) for name in ("public_key", "message", "signature"))
    if (len(public_key), len(signature)) != (keys.KEY_BYTES, keys.SIGNATURE_BYTES):
        return {"ok": False}  # the binding would read past the end of a shorter key
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        return {"ok": False}
    return {"ok": True}


def _verify_permit(request: Request) -> Answer:
    verified = verify(
        bytes.fromhex(request["input"]), now_ms=request["now"], envelopes=request.get("envelopes", ENVELOPES)
    )
    return {"ok": True, "permit_id": verified.permit_id}


def _verify_revocation(request: Request) -> Answer:
    wallet, revocation = verify_revocation(
        bytes.fromhex(request["input"]), envelopes=request.get("envelopes", ENVELOPES)
    )
    return {"ok": True, "wallet": wallet, "nonce": revocation.nonce}


OPERATIONS: Final[dict[str, Callable[[Request], Answer]]] = {
    "canonicalize": _canonicalize,
    "verify_signature": _verify_signature,
    "verify_permit": _verify_permit,
    "verify_revocation": _verify_revocation,
}


class Result(NamedTuple):
    """How an implementation did on one vector."""

    vector: dict[str, Any]
    given: Answer

    @property
    def agrees(self) -> bool:
        """Tell whether the answer is the expected one, in every key."""
        return self.given == {"id": self.vector["id"], **self.vector["expected"]}


def vectors_folder() -> Path:
    """Return where the golden vectors are: in the installed package, or in the checkout beside it."""
    package = Path(__file__).parent
    installed = package / "vectors"
    return installed if installed.is_dir() else package.parent / "vectors"


def load(folder: Path) -> list[dict[str, Any]]:
    """Return the vectors of every file in `folder`, in order.

    Raises:
        OSError: a file can't be read.
        ValueError: one holds anything but vectors, two have the same id, or one has a key that no runner knows.

    """
    vectors = [vector for path in sorted(folder.glob("*.json")) for vector in _read(path)]
    ids = [vector["id"] for vector in vectors]
    if len(set(ids)) != len(ids):
        raise ValueError(f"`{folder}` holds two vectors of the same id")
    return vectors


MEMBERS: Final = {"id": str, "comment": str, "flags": list, "request": dict, "expected": dict}
"""What a vector has. A runner that skipped a key would call itself conformant while it isn't."""


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        document = None
    vectors = document.get("vectors") if isinstance(document, dict) else None
    if not isinstance(vectors, list):
        raise ValueError(f"`{path}` isn't a file of vectors")  # noqa: TRY004 - the file's fault, not the caller's
    for place, vector in enumerate(vectors):
        if not isinstance(vector, dict) or vector.keys() != MEMBERS.keys():
            raise ValueError(f"`{path}`, vector {place}, has other keys than {', '.join(MEMBERS)}")
        for name, kind in MEMBERS.items():
            if not isinstance(vector[name], kind):
                raise ValueError(f"`{path}`, vector {place}: its `{name}` can't be used")  # noqa: TRY004 - the same
    return vectors


def run(vectors: Iterable[dict[str, Any]]) -> Iterator[Result]:
    """Yield how this implementation does on each of `vectors`."""
    for vector in vectors:
        yield Result(vector, answer({"id": vector["id"], **vector["request"]}))


def drive(vectors: Collection[dict[str, Any]], command: list[str], *, timeout_s: float) -> list[Result]:
    """Run `command`, which speaks the protocol, over `vectors`, and return how it did on each.

    Raises:
        OSError: it can't be started.
        subprocess.TimeoutExpired: it didn't answer everything within `timeout_s`.
        ValueError: it answered something else than one JSON object a request, in order, with its id.

    """
    requests = "".join(json.dumps({"id": each["id"], **each["request"]}) + "\n" for each in vectors)
    done = subprocess.run(  # noqa: S603 - the caller's own command
        command, input=requests.encode(), stdout=subprocess.PIPE, timeout=timeout_s, check=False
    )
    try:
        answers: list[Any] = [json.loads(line) for line in done.stdout.splitlines()]
    except (ValueError, RecursionError):
        raise ValueError(f"`{command[0]}` answered a line that isn't JSON") from None
    ids = [given.get("id") if isinstance(given, dict) else None for given in answers]
    if ids != [each["id"] for each in vectors]:
        raise ValueError(f"`{command[0]}` gave {len(answers)} answers to {len(vectors)} requests, or not in order")
    return [Result(vector, given) for vector, given in zip(vectors, answers, strict=True)]
