import copy
import json
import pickle
import shutil
import subprocess
from dataclasses import FrozenInstanceError
from decimal import Decimal
from random import Random

import canonicaljson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from permits import Permit, PermitError, SignedPermit, keys, timestamp, utc_ms
from permits.errors import Code
from tests.support import PERMIT, as_json, key, mint

MINTS = [mint(number) for number in range(51)]


def with_(**changes):
    return {**PERMIT, **changes}


def refused(value):
    with pytest.raises(PermitError) as error:
        Permit.from_json_object(value)
    return error.value.code


def test_the_source_documents_permit_is_one():
    permit = Permit.from_json(as_json(PERMIT))
    assert permit.to_json_object() == PERMIT
    assert permit.max_amount_cents == 25_000
    assert permit.expires_at_ms - permit.issued_at_ms == 7_819_200_000
    assert type(permit.expires_at_ms) is int


def test_its_canonical_bytes_are_sorted_and_tight():
    assert Permit.from_json_object(PERMIT).canonical_bytes() == rfc8785.dumps(PERMIT)


@pytest.mark.parametrize("missing", PERMIT)
def test_each_key_must_be_there(missing):
    assert refused({name: value for name, value in PERMIT.items() if name != missing}) is Code.SCHEMA_MISSING_KEY


@pytest.mark.parametrize("unknown", ["admin", "agentid", "agent_id", "maxAmount", ""])
def test_no_other_key_may_be_there(unknown):
    assert refused(with_(**{unknown: 1})) is Code.SCHEMA_UNKNOWN_KEY


@pytest.mark.parametrize("value", [None, [], "permit", 3, True])
def test_a_permit_is_an_object(value):
    assert refused(value) is Code.SCHEMA_NOT_AN_OBJECT


BAD = {
    Code.SCHEMA_AGENT_ID: (
        "agentId",
        [
            "6F1C9A52-0D1E-4B7A-9D4C-2F3F5B8A7E10",
            "6f1c9a520d1e4b7a9d4c2f3f5b8a7e10",
            "{6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10}",
            "6f1c9a52-0d1e-4b7a-9d4c-2f3f5b8a7e10\n",
            "",
            None,
            7,
        ],
    ),
    Code.SCHEMA_SESSION_PUBKEY: ("sessionPubkey", ["", "0" * 44, "z" * 44, PERMIT["sessionPubkey"] + " ", None, 7]),
    Code.SCHEMA_ASSET_WHITELIST: (
        "assetWhitelist",
        [
            [],
            "SOL",
            None,
            {"SOL": 1},
            ["SOL", "SOL"],
            ["SOL", "sol"],
            [""],
            ["A" * 17],
            ["US-DC"],
            ["SOL "],
            ["ＳＯＬ"],
            ["z" * 44],
            [7],
            [None],
            [["SOL"]],
            MINTS,
        ],
    ),
    Code.SCHEMA_MAX_AMOUNT: (
        "maxAmountPerExecutionUsd",
        [
            0,
            -1,
            -0.0,
            0.001,
            Decimal("250.001"),
            Decimal("250.000"),
            0.1 + 0.2,
            1e9 + 1,
            10**9 + 1,
            Decimal("1000000000.01"),
            float("nan"),
            float("inf"),
            Decimal("NaN"),
            True,
            "250",
            None,
            [250],
        ],
    ),
    Code.SCHEMA_EXPIRES_AT: (
        "expiresAt",
        [
            "2026-08-01",
            "2026-08-01T00:00:00",
            "2026-08-01T00:00:00z",
            "2026-08-01 00:00:00Z",
            "2026-08-01T00:00:00+00:00",
            "2026-08-01T00:00:00.1Z",
            "2026-08-01T00:00:00.0000Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-08-01T24:00:00Z",
            "2026-08-01T23:59:60Z",
            "0000-01-01T00:00:00Z",
            "２026-08-01T00:00:00Z",
            1_785_542_400,
            None,
        ],
    ),
    Code.SCHEMA_NONCE: ("nonce", ["", "a" * 30, "a" * 33, "a" * 130, "A" * 32, "g" * 32, None, 7]),
}


@pytest.mark.parametrize(
    ("code", "field", "value"), [(code, field, value) for code, (field, values) in BAD.items() for value in values]
)
def test_each_field_keeps_its_rule(code, field, value):
    assert refused(with_(**{field: value})) is code


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("assetWhitelist", ["a"]),
        ("assetWhitelist", ["A" * 16]),
        ("assetWhitelist", MINTS[:50]),
        ("assetWhitelist", ["SOL", MINTS[0]]),
        ("maxAmountPerExecutionUsd", 0.01),
        ("maxAmountPerExecutionUsd", 10**9),
        ("maxAmountPerExecutionUsd", 999_999_999.99),
        ("maxAmountPerExecutionUsd", 1.15),
        ("expiresAt", "2028-02-29T23:59:59.999Z"),
        ("nonce", "0" * 32),
        ("nonce", "0" * 128),
    ],
)
def test_the_inner_side_of_each_edge_is_allowed(field, value):
    assert Permit.from_json_object(with_(**{field: value})).to_json_object()[field] == value


def test_it_must_begin_before_it_ends():
    assert refused(with_(expiresAt=PERMIT["issuedAt"])) is Code.SCHEMA_TIME_ORDER
    assert Permit.from_json_object(with_(expiresAt="2026-05-02T12:00:00.001Z"))


def test_times_keep_their_spelling():
    spelled = with_(issuedAt="2026-05-02T12:00:00.000Z")
    assert Permit.from_json_object(spelled).to_json_object()["issuedAt"] == "2026-05-02T12:00:00.000Z"


def test_the_longest_permit_has_a_canonical_form_of_at_most_3072_bytes():
    longest = with_(
        sessionPubkey=key(1).wallet_address,
        assetWhitelist=[keys.encode(bytes([255 - number]) * 32) for number in range(50)],
        maxAmountPerExecutionUsd=999_999_999.99,
        expiresAt="2026-08-01T00:00:00.001Z",
        issuedAt="2026-05-02T12:00:00.001Z",
        nonce="a" * 128,
    )
    canonical = Permit.from_json_object(longest).canonical_bytes()
    assert canonical == rfc8785.dumps(longest)
    assert len(canonical) <= 3_072


def test_a_dollar_fifteen_is_115_cents():
    assert Permit.from_json_object(with_(maxAmountPerExecutionUsd=1.15)).max_amount_cents == 115
    assert Permit.from_json(as_json(with_(maxAmountPerExecutionUsd=1.15))).max_amount_cents == 115


def dollars(cents):
    return cents / 100 if cents % 100 else cents // 100


PERMITS = st.fixed_dictionaries(
    {
        "agentId": st.uuids().map(str),
        "sessionPubkey": st.binary(min_size=32, max_size=32).map(keys.encode),
        "assetWhitelist": st.lists(
            st.from_regex("[A-Za-z0-9]{1,16}", fullmatch=True) | st.binary(min_size=32, max_size=32).map(keys.encode),
            min_size=1,
            max_size=50,
            unique_by=str.lower,
        ),
        "maxAmountPerExecutionUsd": st.integers(1, 10**11).map(
            lambda cents: cents / 100 if cents % 100 else cents // 100
        ),
        "issuedAt": st.integers(0, 10**13).map(timestamp),
        "expiresAt": st.integers(10**13 + 1, 2 * 10**13).map(timestamp),
        "nonce": st.binary(min_size=16, max_size=64).map(bytes.hex),
    }
)


@given(PERMITS)
def test_canonical_bytes_are_those_of_every_other_encoder(value):
    permit = Permit.from_json_object(value)
    canonical = permit.canonical_bytes()
    assert canonical == rfc8785.dumps(value) == canonicaljson.encode_canonical_json(value)
    assert len(canonical) <= 3_072
    assert Permit.from_json(canonical) == Permit.from_json(as_json(value)) == permit


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_canonical_bytes_are_those_of_a_browser():
    """Sorted keys and `JSON.stringify`, for a thousand permits at once."""
    script = """
        const lines = require("fs").readFileSync(0, "utf8").trim().split("\\n");
        for (const line of lines) {
          const value = JSON.parse(line);
          const sorted = Object.fromEntries(Object.keys(value).sort().map((name) => [name, value[name]]));
          console.log(JSON.stringify(sorted));
        }
    """
    random = Random(1)
    values = [
        with_(
            maxAmountPerExecutionUsd=(cents := random.randrange(1, 10 ** random.randrange(1, 12))) / 100,
            issuedAt=timestamp(random.randrange(10**12)),
            nonce=random.randbytes(16 + cents % 49).hex(),
        )
        for _ in range(1_000)
    ]
    done = subprocess.run(
        ["node", "-e", script], input=b"\n".join(map(as_json, values)), capture_output=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == [Permit.from_json_object(value).canonical_bytes() for value in values]


@given(st.integers(1, 10**11))
def test_every_amount_of_cents_survives_json(cents):
    spelled = as_json(PERMIT).replace(b": 250,", f": {Decimal(cents) / 100},".encode())
    permit = Permit.from_json(spelled)
    assert permit.max_amount_cents == cents
    assert Permit.from_json(permit.canonical_bytes()) == permit


def test_a_permit_does_not_change():
    permit = Permit.from_json_object(PERMIT)
    with pytest.raises(FrozenInstanceError):
        permit.max_amount_cents = 1


@pytest.mark.parametrize("kind", [Permit, SignedPermit])
def test_nobody_makes_one_past_its_rules(kind):
    with pytest.raises(TypeError, match="is read, by"):
        kind()


def test_it_survives_copying_and_pickling():
    permit = Permit.from_json_object(PERMIT)
    assert pickle.loads(pickle.dumps(permit)) == copy.deepcopy(permit) == permit  # noqa: S301 - its own bytes
    assert hash(copy.copy(permit)) == hash(permit)


@given(st.integers(0, 253_402_300_799_999))
def test_a_time_written_is_read_back(at_ms):
    assert utc_ms(timestamp(at_ms)) == at_ms


@pytest.mark.parametrize("text", ["", "2026-05-02", "2026-02-30T00:00:00Z", "2026-05-02T12:00:00+00:00"])
def test_what_is_no_time_is_not_read(text):
    with pytest.raises(ValueError, match="no timestamp of a permit"):
        utc_ms(text)


def test_whole_seconds_are_written_without_a_fraction():
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(1_777_723_200_000) == "2026-05-02T12:00:00Z"
    assert timestamp(1_777_723_200_120) == "2026-05-02T12:00:00.120Z"


TRANSPORT = {"permit": PERMIT, "walletAddress": key(1).wallet_address, "signature": keys.encode(b"\xff" * 64)}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"walletAddress": "x"}, Code.SCHEMA_WALLET_ADDRESS),
        ({"signature": "x"}, Code.SCHEMA_SIGNATURE),
        ({"signature": 3}, Code.SCHEMA_SIGNATURE),
        ({"signature": keys.encode(b"\xff" * 63)}, Code.SCHEMA_SIGNATURE),
        ({"signature": keys.encode(b"\x01" * 65)}, Code.SCHEMA_SIGNATURE),
        ({"envelope": "RAW"}, Code.SCHEMA_ENVELOPE),
        ({"envelope": None}, Code.SCHEMA_ENVELOPE),
        ({"extra": 1}, Code.SCHEMA_UNKNOWN_KEY),
        ({"permit": "x"}, Code.SCHEMA_NOT_AN_OBJECT),
        ({"permit": with_(nonce="")}, Code.SCHEMA_NONCE),
    ],
)
def test_the_transport_has_rules_too(changes, code):
    with pytest.raises(PermitError) as error:
        SignedPermit.from_json_object({**TRANSPORT, **changes})
    assert error.value.code is code


def test_without_an_envelope_it_is_raw():
    assert SignedPermit.from_json_object(TRANSPORT).envelope == "raw"


def test_a_refusal_names_field_rule_and_value_cut_short():
    with pytest.raises(PermitError) as error:
        Permit.from_json_object(with_(nonce="\x1b[2J" * 1000))
    assert error.value.field == "nonce"
    assert len(error.value.value) <= 64 + 3
    assert str(error.value).isprintable()
    assert str(error.value).startswith("SCHEMA_NONCE: `nonce` must be 32 to 128 lowercase hex digits")


@pytest.mark.parametrize("assets", [[], ["SOL", "sol"]])
def test_a_refusal_of_all_assets_together_shows_them(assets):
    with pytest.raises(PermitError) as error:
        Permit.from_json_object(with_(assetWhitelist=assets))
    assert error.value.value == json.dumps(assets)


def test_a_number_too_long_to_spell_is_refused_by_name():
    assert refused(with_(maxAmountPerExecutionUsd=10**5000)) is Code.SCHEMA_MAX_AMOUNT
    assert refused(with_(nonce=10**5000)) is Code.SCHEMA_NONCE
    assert refused({**PERMIT, b"nonce": 1}) in {Code.SCHEMA_NOT_AN_OBJECT, Code.SCHEMA_UNKNOWN_KEY}
