import itertools
import json
import os
import pickle

import pytest

from permits import PermitError, VerifiedPermit, draft, issue, verify, verify_many
from permits.errors import Code
from permits.many import BATCH, BATCHES_IN_FLIGHT_PER_PROCESS, _pack, _unpack, _verify_batch
from tests.support import T0, WALLET, as_json, key, uuid


def signed(number, **changes):
    permit = draft(
        **{
            "agent_id": uuid(number),
            "session_pubkey": key(1).wallet_address,
            "asset_whitelist": ["SOL", "USDC"],
            "max_amount_usd": 250,
            "issued_at_ms": T0,
            "lifetime_s": 3600,
            "nonce": f"{number:032x}",
            **changes,
        }
    )
    return as_json(issue(permit, WALLET).to_json_object())


SOME = [signed(number) for number in range(20)]
BAD = [b"", b"{", SOME[0].replace(b"250", b"251"), json.dumps([1]).encode(), b"\xff" * 100_000]


def mixed(count):
    """Good permits, and a bad one after each eighth."""
    return [BAD[number % len(BAD)] if number % 8 == 7 else SOME[number % len(SOME)] for number in range(count)]


def alone(data):
    try:
        return verify(data)
    except PermitError as refused:
        return refused


def same(first, second):
    return type(first) is type(second) and (
        first == second if isinstance(first, VerifiedPermit) else str(first) == str(second)
    )


@pytest.mark.parametrize("count", [0, 1, 7, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 17])
@pytest.mark.parametrize("processes", [1, 2])
def test_each_result_is_what_verify_gives_and_stands_in_its_place(count, processes):
    data = mixed(count)
    results = list(verify_many(iter(data), processes=processes))
    assert len(results) == count
    expected = {each: alone(each) for each in set(data)}
    assert all(same(result, expected[each]) for result, each in zip(results, data, strict=True))


@pytest.mark.parametrize("cores", [None, 2])
@pytest.mark.parametrize("count", [1, BATCH + 1])
def test_a_system_that_doesnt_say_which_cores_are_ours_is_no_obstacle(monkeypatch, cores, count):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    results = list(verify_many(itertools.repeat(SOME[0], count)))
    assert len(results) == count
    assert all(isinstance(result, VerifiedPermit) for result in results)


def test_the_arguments_hold_for_all_in_every_process():
    expired = list(verify_many(itertools.repeat(SOME[0], 2 * BATCH), now_ms=T0 + 3_600_000, processes=2))
    assert {result.code for result in expired} == {Code.TIME_EXPIRED}
    other = verify_many(itertools.repeat(SOME[0], 2 * BATCH), wallet=key(9).wallet_address, processes=2)
    assert {result.code for result in other} == {Code.SIGNATURE_WRONG_WALLET}


def test_input_is_read_only_a_bounded_number_ahead():
    read = 0

    def endless():
        nonlocal read
        for each in itertools.cycle(SOME):
            read += 1
            yield each

    results = verify_many(endless(), processes=2)
    for taken in range(1, 2 * BATCH):
        assert isinstance(next(results), VerifiedPermit)
        assert read <= taken + (2 * BATCHES_IN_FLIGHT_PER_PROCESS + 1) * BATCH
    results.close()  # what is under way is thrown away, and the processes end


def test_what_comes_back_from_a_process_is_whole():
    results = _verify_batch([SOME[0], BAD[2]], {"now_ms": T0})
    good, bad = map(_unpack, pickle.loads(pickle.dumps(results)))  # noqa: S301 - our own
    assert good == verify(SOME[0])
    assert good.permit == verify(SOME[0]).permit
    assert good.permit.canonical_bytes() == good.canonical
    assert (bad.code, bad.field) == (Code.SIGNATURE_INVALID, "signature")
    assert _pack(bad) is bad
