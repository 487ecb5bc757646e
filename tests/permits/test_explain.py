"""A permit in words, against plain arithmetic: who reads them decides whether to sign."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permits import Permit, draft, timestamp
from permits.explain import describe, duration, warnings
from tests.support import PERMIT, T0, key, mint, uuid

UNIT_MS = {"day": 86_400_000, "hour": 3_600_000, "minute": 60_000, "second": 1_000}
YEAR_MS = 366 * UNIT_MS["day"]
LIFETIMES_MS = st.one_of(
    st.integers(1, YEAR_MS),
    st.builds(
        lambda unit, count, off: max(1, min(YEAR_MS, UNIT_MS[unit] * count + off)),
        st.sampled_from(sorted(UNIT_MS)),
        st.integers(1, 400),
        st.sampled_from([-1_000, -1, 0, 1, 1_000]),
    ),
)


def permit(**changes):
    return draft(
        **{
            "agent_id": uuid(1),
            "session_pubkey": key(1).wallet_address,
            "asset_whitelist": ["SOL", "USDC"],
            "max_amount_usd": 250,
            "issued_at_ms": T0,
            "lifetime_s": 600,
            **changes,
        }
    )


def read_ms(words):
    """Return the length of time that `words` say; each unit stands once, the greatest first, in its right number."""
    parts = re.findall(r"([0-9.]+) (day|hour|minute|second)(s?)", words)
    assert " ".join(f"{count} {unit}{plural}" for count, unit, plural in parts) == words
    assert [unit for _, unit, _ in parts] == [unit for unit in UNIT_MS if unit in {each for _, each, _ in parts}]
    assert all((plural == "") == (count == "1") for count, _, plural in parts)
    assert all(Decimal(count) > 0 for count, _, _ in parts) or words == "0 seconds"
    return sum(Decimal(count) * UNIT_MS[unit] for count, unit, _ in parts)


@given(st.integers(0, YEAR_MS) | LIFETIMES_MS)
def test_a_length_of_time_is_said_exactly(ms):
    assert read_ms(duration(ms)) == ms


@given(LIFETIMES_MS, st.data())
def test_the_time_line_says_the_whole_and_never_less_than_is_left(lifetime_ms, data):
    document = {**PERMIT, "issuedAt": timestamp(T0), "expiresAt": timestamp(T0 + lifetime_ms)}
    now_ms = T0 + data.draw(st.integers(0, lifetime_ms - 1))
    line = describe(Permit.from_json_object(document), now_ms)[2]
    said = re.fullmatch(
        f"from {timestamp(T0)} until just before {timestamp(T0 + lifetime_ms)}: (.+) in all, (.+) left", line
    )
    assert read_ms(said[1]) == lifetime_ms
    left_ms = T0 + lifetime_ms - now_ms
    grain_ms = 60_000 if left_ms >= 3_600_000 else 1_000
    assert left_ms <= read_ms(said[2]) < left_ms + grain_ms


@pytest.mark.parametrize(
    ("lifetime_s", "after_ms", "words"),
    [
        (86_400, 2_000, "1 day in all, 1 day left"),
        (172_800, 2_000, "2 days in all, 2 days left"),
        (5_400, 2_000, "1 hour 30 minutes in all, 1 hour 30 minutes left"),
        (86_400, 3_600_000, "1 day in all, 23 hours left"),
        (7_200, -1, "2 hours in all, not begun"),
        (7_200, 7_199_999, "2 hours in all, 1 second left"),
        (7_200, 7_200_000, "2 hours in all, over"),
        (90_061, 0, "1 day 1 hour 1 minute 1 second in all, 1 day 1 hour 2 minutes left"),
    ],
)
def test_what_users_see(lifetime_s, after_ms, words):
    assert describe(permit(lifetime_s=lifetime_s), T0 + after_ms)[2].endswith(f": {words}")


@given(st.integers(1, 10**11))
def test_the_worst_case_of_a_day_is_the_cap_times_the_limit_that_it_assumes(cents):
    held = permit(max_amount_usd=Decimal(cents) / 100)
    said = re.fullmatch(
        r"if the executor has the usual limit of ([0-9]+) executions in any 24 hours, "
        r"up to \$([0-9,]+\.[0-9]{2}) may be traded in 24 hours",
        warnings(held)[0],
    )
    assert Decimal(said[2].replace(",", "")) == Decimal(cents) * int(said[1]) / 100
    cap = re.fullmatch(r"for at most \$([0-9]{1,3}(?:,[0-9]{3})*\.[0-9]{2}) a time", describe(held)[1])
    assert Decimal(cap[1].replace(",", "")) * 100 == cents


def test_the_limit_that_is_assumed_is_the_executors_default():
    from executor.limits import Limits  # noqa: PLC0415 - the words themselves never import it

    assert f"limit of {Limits().executions_per_24h} executions" in warnings(permit())[0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_amount_usd": 10_001}, "$10,001.00 in one trade is much"),
        ({"lifetime_s": 32 * 86_400}, "it holds for 32 days;"),
        ({"lifetime_s": 31 * 86_400 + 1}, "it holds for 31 days 1 second;"),
        ({"asset_whitelist": [f"A{number}" for number in range(11)]}, "it lists 11 assets"),
        ({"asset_whitelist": ["SOL"]}, "nothing can be executed"),
        ({"asset_whitelist": ["SOL", mint(1)]}, f"{mint(1)} is listed by its address"),
    ],
)
def test_a_careful_user_is_warned(changes, text):
    harmless = warnings(permit())
    found = [caution for caution in warnings(permit(**changes)) if caution not in harmless]
    assert any(text in caution for caution in found)
    assert len(harmless) == 1


def test_where_nothing_can_be_executed_no_worst_case_is_said():
    assert not any("may be traded" in caution for caution in warnings(permit(asset_whitelist=["SOL"])))
