"""Checkpoints: where every chain stood, signed by an auditor and kept elsewhere, so that a rollback is found.

A wallet, or the whole database, that is put back to an older state lies under true seals and adds up: nothing in it
says what is missing. A checkpoint from in between does. It is JSON Lines, a line a wallet, each in canonical form:

    {"atMs":1777723200000,"checkpoint":"holdfire/checkpoint/v1","ledger":"<its id>"}
    {"hash":"<of the last entry>","seq":3,"wallet":"*"}
    {"hash":"<of the last entry>","seq":120,"wallet":"<address>"}
    {"auditor":"<address>","count":2,"sha256":"<of all bytes before>","signature":"<base58>"}

The signature is Ed25519 over the tag `holdfire/checkpoint/v1`, a zero byte, and the 32 bytes of that SHA-256. Neither
end holds more than a line at once, however many wallets there are.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from executor.audit import check_each
from executor.entries import chain_start
from executor.errors import CheckpointRefused, LedgerTampered, UnknownWallet
from executor.ledger import EVERYBODY
from executor.value import Value
from permits import keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from executor.ledger import Ledger
    from permits import Signer

__all__ = ["Compared", "find_rollbacks", "write_checkpoint"]

FORMAT: Final = "holdfire/checkpoint/v1"
SIGNED_TAG: Final = FORMAT.encode() + b"\x00"

LINE_BYTES_MAX: Final = 512
"""The longest line, the last, takes at most 274."""

COUNT_MAX: Final = 2**53 - 1
"""The integers that JSON readers agree on."""

_Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]


def write_checkpoint(ledger: Ledger, auditor: Signer, file: BinaryIO) -> int:
    """Audit all of `ledger` as it stands at this moment, and write where each chain stands, signed, to `file`.

    Returns:
        How many lines of wallets that is, EVERYBODY's included.

    Raises:
        LedgerTampered: the audit found something. What was written has no last line, and is refused everywhere.
        LedgerError: as `Ledger.view`; without a trusted time there is no checkpoint either.
        CheckpointRefused: the signer answered with anything but its signature over this checkpoint.
        OSError: it can't be written.

    """
    written, count = sha256(), 0

    def write(value: Value) -> None:
        line = _spelled(value)
        file.write(line)
        written.update(line)

    with ledger.snapshot() as snapshot:
        with snapshot.view(EVERYBODY) as view:
            write(_First(at_ms=view.now_ms, checkpoint=FORMAT, ledger=ledger.id))
        for checked in check_each(snapshot):
            if checked.findings or checked.head is None:
                finding = "; ".join(checked.findings)
                raise LedgerTampered(f"no checkpoint is made of a ledger that isn't true: {checked.wallet}: {finding}")
            write(_Standing(hash=checked.head.hash, seq=checked.head.seq, wallet=checked.wallet))
            count += 1
    digest = written.digest()
    address, signature = auditor.wallet_address, auditor.sign(SIGNED_TAG + digest)
    _require_signature(address, signature, digest)
    write(_Last(auditor=address, count=count, sha256=digest.hex(), signature=keys.encode(signature)))
    return count


class Compared(NamedTuple):
    """What a ledger was held against, and what it lacks."""

    at_ms: int
    """When the checkpoint was taken, Unix ms."""
    wallets: int
    """How many it has, EVERYBODY included."""
    findings: tuple[str, ...]
    """What is no longer as it was, a line each; empty: nothing was put back to before the checkpoint."""


def find_rollbacks(ledger: Ledger, file: BinaryIO, *, auditor: str) -> Compared:
    """Hold `ledger` against the checkpoint in `file`: each chain must still go through where it stood then.

    That what leads there is true, `check_ledger` finds: this goes beside it. `file` is read twice, since nothing in it
    is used before all of it has proved to be the word of `auditor` (an address in base58).

    Raises:
        CheckpointRefused: it is cut short or no checkpoint, of another ledger or auditor, or not what was signed.
        LedgerError: the database failed.
        OSError: `file` can't be read, or not from its beginning again.

    """
    for _line in _read(file, ledger.id, auditor):
        pass
    file.seek(0)
    at_ms, wallets, findings = 0, 0, []
    for line in _read(file, ledger.id, auditor):  # the signature is held against these bytes too
        if isinstance(line, _First):
            at_ms = line.at_ms
            continue
        wallets += 1
        finding = _finding(ledger, line)
        if finding is not None:
            findings.append(f"{line.wallet}: {finding}")
    return Compared(at_ms, wallets, tuple(findings))


def _finding(ledger: Ledger, standing: _Standing) -> str | None:
    """Return what is wrong with the wallet, if its chain doesn't go through `standing`."""
    seq = standing.seq
    try:
        with ledger.view(standing.wallet) as view:
            if view.head.seq < seq:
                return f"the chain ends at entry {view.head.seq}, but stood at {seq}: it was put back"
            found = view.entry(seq).hash if seq else chain_start(ledger.id, standing.wallet)
    except UnknownWallet:
        return f"it is gone, but stood at entry {seq}"
    except LedgerTampered as error:
        return str(error)
    return (
        None if found == standing.hash else f"entry {seq} is another than it was: the chain was put back, and went on"
    )


class _First(Value):
    """What the checkpoint is of."""

    at_ms: _Count
    checkpoint: Literal["holdfire/checkpoint/v1"]
    ledger: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class _Standing(Value):
    """Where a wallet's chain stood: at what number, with what hash."""

    hash: _Hex32
    seq: _Count
    wallet: Annotated[str, Field(pattern="^[!-~]{1,64}$")]


class _Last(Value):
    """By which the lines before it are known to be all, and the auditor's."""

    auditor: Annotated[str, Field(pattern=f"^{keys.KEY_PATTERN}$")]
    count: _Count
    sha256: _Hex32
    signature: Annotated[str, Field(pattern=f"^{keys.SIGNATURE_PATTERN}$")]


_line: Final = TypeAdapter[_First | _Standing | _Last](_First | _Standing | _Last)


def _spelled(value: Value) -> bytes:
    return to_json(value.to_json_object()) + b"\n"


def _read(file: BinaryIO, ledger_id: str, auditor: str) -> Iterator[_First | _Standing]:
    """Yield what stands before the last line; raise CheckpointRefused, at the end at last, if it isn't the auditor's.

    INVARIANT: whoever uses what is yielded has seen a whole run of this end, on the same bytes.
    """
    read, count = sha256(), 0
    for number, (line, value) in enumerate(_lines(file)):
        if isinstance(value, _First) != (number == 0):
            raise CheckpointRefused(f"line {number + 1} is not where it belongs in a checkpoint")
        if isinstance(value, _Last):
            _require_signed(value, read.digest(), count, auditor)
            if file.read(1):
                raise CheckpointRefused("something follows the checkpoint's last line")
            return
        if isinstance(value, _First) and value.ledger != ledger_id:
            raise CheckpointRefused(f"the checkpoint is of ledger `{value.ledger}`, but this is `{ledger_id}`")
        read.update(line)
        count += isinstance(value, _Standing)
        yield value
    raise CheckpointRefused("the checkpoint is cut short: its last line is missing")


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, _First | _Standing | _Last]]:
    number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        try:
            value = _line.validate_json(line)
        except ValidationError:
            raise CheckpointRefused(f"line {number} is none of a checkpoint, or it is cut short there") from None
        if _spelled(value) != line:  # a reader that takes another of two equal names would read something else
            raise CheckpointRefused(f"line {number} is not spelled as a checkpoint's, or it is cut short there")
        yield line, value


def _require_signed(last: _Last, digest: bytes, count: int, auditor: str) -> None:
    """Raise CheckpointRefused unless `last` is the word of `auditor` on lines with this digest and count."""
    if last.auditor != auditor:
        raise CheckpointRefused(f"the checkpoint is of auditor `{last.auditor}`, not of `{auditor}`")
    if (last.sha256, last.count) != (digest.hex(), count):
        raise CheckpointRefused("the checkpoint's lines are not those that were signed")
    _require_signature(auditor, keys.decode_signature(last.signature) or b"", digest)


def _require_signature(auditor: str, signature: bytes, digest: bytes) -> None:
    message, key = SIGNED_TAG + digest, keys.decode_key(auditor)
    try:
        fits = key is not None and crypto_sign_open(signature + message, key) == message
    except BadSignatureError:
        fits = False
    if not fits:
        raise CheckpointRefused("the signature is not the auditor's over this checkpoint")
