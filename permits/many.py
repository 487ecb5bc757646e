"""Verify any number of permits, on all cores, in constant memory.

A stream of signed permits goes in, a stream of results comes out, in the same order; only a bounded number of either is
held at any time. Verification is all computation, so it runs in processes: threads would wait for one interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from permits.errors import PermitError
from permits.model import Permit, made
from permits.verification import LIFETIME_MS_MAX, RAW_ONLY, VerifiedPermit, verify

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from concurrent.futures import Future

    from permits.envelopes import Envelope
    from permits.model import SignedPermit

    _Packed = PermitError | tuple[dict[str, Any], str, str, Envelope, bytes]

__all__ = ["verify_many"]

BATCH: Final = 500
"""Permits handed to a process at once: enough that the handing over costs a few percent."""

BATCHES_IN_FLIGHT_PER_PROCESS: Final = 3
"""One at work, one waiting, one being read: no process waits for this one, and memory stays flat."""


def verify_many(
    signed: Iterable[SignedPermit | bytes],
    *,
    now_ms: int | None = None,
    wallet: str | None = None,
    envelopes: Collection[Envelope] = RAW_ONLY,
    lifetime_ms_max: int = LIFETIME_MS_MAX,
    clock_skew_ms: int = 0,
    processes: int | None = None,
) -> Iterator[VerifiedPermit | PermitError]:
    """Yield for each of `signed`, in order, the verified permit or the error that `verify` would raise.

    One bad permit never harms another. `signed` is read a bounded number ahead of the results. `processes` is how many
    to use: None is one for each core; with 1, and for a single batch, all happens in this one. The other arguments are
    those of `verify`, and hold for all. A script that calls this must guard its entry with
    `if __name__ == "__main__"`, as for any process pool.
    """
    how = {
        "now_ms": now_ms,
        "wallet": wallet,
        "envelopes": tuple(envelopes),
        "lifetime_ms_max": lifetime_ms_max,
        "clock_skew_ms": clock_skew_ms,
    }
    items = iter(signed)
    processes = processes or _cores()
    first = _next_batch(items)
    if processes == 1 or len(first) < BATCH:
        yield from (_verify_one(each, how) for each in chain(first, items))
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["permits.many"])
    with ProcessPoolExecutor(processes, context) as pool:
        in_flight: deque[Future[list[_Packed]]] = deque()
        batch = first
        while batch or in_flight:
            if batch:
                in_flight.append(pool.submit(_verify_batch, batch, how))
                batch = _next_batch(items)
            if not batch or len(in_flight) >= BATCHES_IN_FLIGHT_PER_PROCESS * processes:
                yield from map(_unpack, in_flight.popleft().result())


def _cores() -> int:
    """Return how many cores this process may use; where the system doesn't say that, how many there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, among others
        return os.cpu_count() or 1


def _next_batch(items: Iterator[SignedPermit | bytes]) -> list[SignedPermit | bytes]:
    return list(islice(items, BATCH))


def _verify_one(signed: SignedPermit | bytes, how: dict[str, Any]) -> VerifiedPermit | PermitError:
    try:
        return verify(signed, **how)
    except PermitError as refused:
        return refused


def _verify_batch(batch: list[SignedPermit | bytes], how: dict[str, Any]) -> list[_Packed]:
    return [_pack(_verify_one(each, how)) for each in batch]


def _pack(result: VerifiedPermit | PermitError) -> _Packed:
    """Return what a result is made of: a verified permit itself doesn't travel."""
    if isinstance(result, PermitError):
        return result
    return vars(result.permit), result.permit_id, result.wallet, result.envelope, result.canonical


def _unpack(packed: _Packed) -> VerifiedPermit | PermitError:
    if isinstance(packed, PermitError):
        return packed
    fields, permit_id, wallet, envelope, canonical = packed
    permit = made(Permit, **fields)
    return made(
        VerifiedPermit, permit=permit, permit_id=permit_id, wallet=wallet, envelope=envelope, canonical=canonical
    )
