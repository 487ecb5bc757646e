"""The console's words, by the JavaScript that browsers run, against plain arithmetic."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.limits import COUNT_MAX, Limits
from executor.service.console import PAGE
from permits import timestamp
from tests.support import PERMIT, T0

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

UNIT_MS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000}
YEAR_MS = 366 * UNIT_MS["day"]
LENGTHS_MS = st.integers(1, YEAR_MS) | st.builds(
    lambda unit, count, off: max(1, min(YEAR_MS, UNIT_MS[unit] * count + off)),
    st.sampled_from(sorted(UNIT_MS)),
    st.integers(1, 400),
    st.sampled_from([-1_000, -1, 0, 1, 1_000]),
)
CENTS = st.integers(1, 10**11)
COUNTS = st.integers(1, 1_000) | st.integers(1, COUNT_MAX)


@pytest.fixture(scope="module")
def say(tmp_path_factory):
    """Return a function that calls one of the module's, in a Node process that stays."""
    folder = tmp_path_factory.mktemp("words")
    shutil.copy(PAGE / "words.js", folder / "words.mjs")
    (folder / "say.mjs").write_text(
        'import * as words from "./words.mjs";\n'
        'import { createInterface } from "node:readline";\n'
        "for await (const line of createInterface({ input: process.stdin })) {\n"
        "  const [name, ...values] = JSON.parse(line);\n"
        '  process.stdout.write(JSON.stringify(words[name](...values)) + "\\n");\n'
        "}\n"
    )
    with subprocess.Popen(
        ["node", folder / "say.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as node:

        def call(*request):
            print(json.dumps(request), file=node.stdin, flush=True)
            return json.loads(node.stdout.readline())

        yield call
        node.stdin.close()


def read_ms(words):
    """Return the length of time that `words` say; each unit stands once, the greatest first, in its right number."""
    parts = re.findall(r"([0-9.]+) (day|hour|minute|second)(s?)", words)
    assert " ".join(f"{count} {unit}{plural}" for count, unit, plural in parts) == words
    assert [unit for _, unit, _ in parts] == [unit for unit in UNIT_MS if unit in {each for _, each, _ in parts}]
    assert all((plural == "") == (count == "1") for count, _, plural in parts)
    return sum(Decimal(count) * UNIT_MS[unit] for count, unit, _ in parts)


def dollars(words):
    """Return the micro-dollars that `words` say, digits grouped by three."""
    assert re.fullmatch(r"\$[0-9]{1,3}(,[0-9]{3})*\.[0-9]{2,6}", words), words
    return Decimal(words[1:].replace(",", "")) * 10**6


def permit(cents=25_000, **changes):
    return {**PERMIT, "maxAmountPerExecutionUsd": cents // 100 if cents % 100 == 0 else cents / 100, **changes}


@given(ms=LENGTHS_MS | st.just(0))
def test_a_length_of_time_is_never_said_shorter_than_it_is(say, ms):
    grain_ms = 60_000 if ms >= 3_600_000 else 1_000
    assert ms <= read_ms(say("roughly", ms)) < ms + grain_ms


@given(lifetime_ms=LENGTHS_MS, data=st.data())
def test_what_is_left_of_a_permit_is_said_at_every_moment(say, lifetime_ms, data):
    after_ms = data.draw(st.integers(-1_000, lifetime_ms + 1_000))
    held = permit(issuedAt=timestamp(T0), expiresAt=timestamp(T0 + lifetime_ms))
    until = say("allows", held, T0 + after_ms, None)[2]
    end, _, told = until.removeprefix("Until ").removesuffix(".").partition(" UTC: ")
    form = "%b %d, %Y, %H:%M:%S.%f" if "." in end else "%b %d, %Y, %H:%M:%S"
    shown = datetime.strptime(end, form).replace(tzinfo=UTC)
    assert (shown - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == T0 + lifetime_ms
    left_ms = lifetime_ms - after_ms
    if after_ms < 0:
        assert told == "it has not begun"
    elif left_ms <= 0:
        assert told == "that is over"
    else:
        assert left_ms <= read_ms(told.removesuffix(" left")) < left_ms + (60_000 if left_ms >= 3_600_000 else 1_000)


def test_nothing_is_said_of_what_is_left_where_it_doesnt_matter(say):
    assert say("allows", permit(), None, None)[2] == "Until Aug 1, 2026, 00:00:00 UTC."


@given(cents=CENTS)
def test_where_no_limit_is_known_the_usual_one_is_said_to_be_assumed(say, cents):
    cap, rest = say("allows", permit(cents), None, None)[1].split(" at a time. ")
    assert dollars(cap.removeprefix("At most ")) == cents * 10**4
    said = re.fullmatch(
        r"If the executor has the usual limit of ([0-9]+) executions in any 24 hours, which its operator can change, "
        r"that is (.*) in 24 hours at most\.",
        rest,
    )
    assert int(said[1]) == Limits().executions_per_24h
    assert dollars(said[2]) == cents * 10**4 * int(said[1])


@given(cents=CENTS, count=COUNTS)
def test_the_worst_case_is_by_the_limit_that_holds(say, cents, count):
    rest = say("allows", permit(cents), None, {"executionsPer24H": count})[1].split(" at a time. ")[1]
    said = re.fullmatch(
        r"In any 24 hours all of the wallet's agents together have ([0-9]+) executions?: by this permit (.*) at most\.",
        rest,
    )
    assert int(said[1]) == count
    assert ("execution:" in rest) == (count == 1)
    assert dollars(said[2]) == cents * 10**4 * count


@given(cents=CENTS, count=st.integers(1, 1_000), notional=st.integers(0, COUNT_MAX), spell=st.sampled_from([int, str]))
def test_where_a_days_value_is_limited_to_less_that_is_the_worst_case(say, cents, count, notional, spell):
    limits = {"executionsPer24H": count, "notionalMicroUsdPer24H": spell(notional)}
    rest = say("allows", permit(cents), None, limits)[1].split(" at a time. ")[1]
    said = re.search(r"(\$\S+) at most\.$", rest)
    assert dollars(said[1]) == min(notional, cents * 10**4 * count)
    assert ("may trade" in rest) == (notional < cents * 10**4 * count)


@pytest.mark.parametrize("limits", [None, {"executionsPer24H": 7}])
def test_where_nothing_can_be_executed_no_worst_case_is_said(say, limits):
    assert say("allows", permit(assetWhitelist=["SOL"]), None, limits)[:2] == [
        "May trade SOL alone, so nothing.",
        "At most $250.00 at a time.",
    ]


def test_evidence_spells_the_limits_so():
    assert {"executionsPer24H", "notionalMicroUsdPer24H"} <= Limits(
        notional_micro_usd_per_24h=1
    ).to_json_object().keys()
