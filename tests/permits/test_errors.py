"""What a refusal says, word for word: it names the rule, the key and the value, and a person acts on it."""

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from permits import (
    ENVELOPES,
    Code,
    Permit,
    PermitError,
    Revocation,
    SignedPermit,
    VerifiedPermit,
    issue,
    keys,
    verify,
    verify_bytes,
)
from permits import errors as tree
from permits.canonical import parse
from tests.support import PERMIT, WALLET, as_json, key, mint

SIGNED = issue(Permit.from_json_object(PERMIT), WALLET).to_json_object()
SECOND_SPELLING = keys.encode((2**255 - 17).to_bytes(32, "little"))
NOBODY = "1" * 32
TOO_LONG = issue(Permit.from_json_object({**PERMIT, "assetWhitelist": [mint(n) for n in range(30)]}), WALLET)
PLAIN_DIGITS = "numbers must be plain digits, at most 32 characters"
REAL_DATE = "must be a real date as YYYY-MM-DDTHH:MM:SSZ, with .mmm at most"
ONE_SPELLING = "must spell its point canonically (y < 2**255 - 19)"


def signed(**changes):
    return as_json({name: value for name, value in {**SIGNED, **changes}.items() if value is not ...})


def with_permit(**changes):
    return signed(permit={**PERMIT, **changes})


def check(error, kind, code, field, value, rule):
    assert (type(error), error.code, error.field, error.value, error.rule) == (kind, code, field, value, rule)
    subject = f"`{field}` " if field else ""
    found = f": `{value}`" if value is not None else ""
    assert str(error) == f"{code}: {subject}{rule}{found}"


@pytest.mark.parametrize(
    ("data", "kind", "code", "field", "value", "rule"),
    [
        (b" " * 16_385, tree.EncodingError, Code.ENCODING_TOO_LONG, None, None, "must be at most 16384 bytes"),
        (b"\xef\xbb\xbf1", tree.EncodingError, Code.ENCODING_BOM, None, None, "must not start with a byte order mark"),
        (b'"\xff"', tree.EncodingError, Code.ENCODING_NOT_UTF8, None, None, "must be UTF-8, but byte 1 is not"),
        (b"{]", tree.JsonError, Code.JSON_SYNTAX, None, None, "must be JSON, but is not at character 1"),
        (b" {} {}", tree.JsonError, Code.JSON_SYNTAX, None, None, "must be JSON, but is not at character 3"),
        (b"{} \f", tree.JsonError, Code.JSON_SYNTAX, None, None, "must be JSON, but is not at character 2"),
        (b"[" * 9, tree.JsonError, Code.JSON_TOO_DEEP, None, None, "must not be nested more than 8 deep"),
        (b"[{" * 4 + b"}[{[[", tree.JsonError, Code.JSON_TOO_DEEP, None, None, "must not be nested more than 8 deep"),
        (
            b'{"b":1,"a":1,"a":2}',
            tree.JsonError,
            Code.JSON_DUPLICATE_KEY,
            "a",
            None,
            "stands twice in one object",
        ),
        (b"1e5", tree.JsonError, Code.JSON_NUMBER_FORM, None, "1e5", PLAIN_DIGITS),
        (b"1.5E5", tree.JsonError, Code.JSON_NUMBER_FORM, None, "1.5E5", PLAIN_DIGITS),
        (b"1" * 33, tree.JsonError, Code.JSON_NUMBER_FORM, None, "1" * 33, PLAIN_DIGITS),
        (b"1." + b"0" * 31, tree.JsonError, Code.JSON_NUMBER_FORM, None, "1." + "0" * 31, PLAIN_DIGITS),
        (b"NaN", tree.JsonError, Code.JSON_NUMBER_FORM, None, "NaN", PLAIN_DIGITS),
        (
            b'["\\ud800"]',
            tree.JsonError,
            Code.JSON_LONE_SURROGATE,
            None,
            "\\ud800",
            "text must not hold half of a surrogate pair",
        ),
    ],
)
def test_reading(data, kind, code, field, value, rule):
    with pytest.raises(PermitError) as refused:
        parse(data)
    check(refused.value, kind, code, field, value, rule)


@pytest.mark.parametrize(
    ("data", "code", "field", "value", "rule"),
    [
        (b"[]", Code.SCHEMA_NOT_AN_OBJECT, None, "[]", "must be a JSON object"),
        (signed(permit=1), Code.SCHEMA_NOT_AN_OBJECT, "permit", "1", "must be a JSON object"),
        (signed(signature=...), Code.SCHEMA_MISSING_KEY, "signature", None, "must be there"),
        (signed(x=1), Code.SCHEMA_UNKNOWN_KEY, "x", None, "is not a key of this document"),
        (
            with_permit(agentId="?"),
            Code.SCHEMA_AGENT_ID,
            "agentId",
            "?",
            "must be a UUID in lowercase with hyphens",
        ),
        (
            with_permit(sessionPubkey="?"),
            Code.SCHEMA_SESSION_PUBKEY,
            "sessionPubkey",
            "?",
            "must be base58 of 32 bytes",
        ),
        (
            with_permit(assetWhitelist=["?"]),
            Code.SCHEMA_ASSET_WHITELIST,
            "assetWhitelist",
            "?",
            "must be 1 to 50 symbols (1 to 16 letters and digits) or base58 mints, none twice, ignoring case",
        ),
        (
            with_permit(maxAmountPerExecutionUsd=0),
            Code.SCHEMA_MAX_AMOUNT,
            "maxAmountPerExecutionUsd",
            "0",
            "must be a number above 0, at most 1000000000, with at most 2 decimals",
        ),
        (with_permit(expiresAt="?"), Code.SCHEMA_EXPIRES_AT, "expiresAt", "?", REAL_DATE),
        (with_permit(issuedAt="?"), Code.SCHEMA_ISSUED_AT, "issuedAt", "?", REAL_DATE),
        (
            with_permit(nonce="?"),
            Code.SCHEMA_NONCE,
            "nonce",
            "?",
            "must be 32 to 128 lowercase hex digits, an even number",
        ),
        (
            with_permit(expiresAt=PERMIT["issuedAt"]),
            Code.SCHEMA_TIME_ORDER,
            "issuedAt",
            None,
            "must be before `expiresAt`",
        ),
        (signed(walletAddress="?"), Code.SCHEMA_WALLET_ADDRESS, "walletAddress", "?", "must be base58 of 32 bytes"),
        (signed(signature="?"), Code.SCHEMA_SIGNATURE, "signature", "?", "must be base58 of 64 bytes"),
        (signed(envelope="?"), Code.SCHEMA_ENVELOPE, "envelope", "?", "must be raw, offchain-v0 or offchain-v1"),
    ],
)
def test_the_schema(data, code, field, value, rule):
    with pytest.raises(PermitError) as refused:
        verify(data)
    check(refused.value, tree.SchemaError, code, field, value, rule)


@pytest.mark.parametrize(
    ("data", "how", "kind", "code", "field", "value", "rule"),
    [
        (
            with_permit(sessionPubkey=SECOND_SPELLING),
            {},
            tree.KeyEncodingError,
            Code.KEY_SESSION_ENCODING,
            "sessionPubkey",
            SECOND_SPELLING,
            ONE_SPELLING,
        ),
        (
            with_permit(sessionPubkey=NOBODY),
            {},
            tree.KeyEncodingError,
            Code.KEY_SESSION_SMALL_ORDER,
            "sessionPubkey",
            NOBODY,
            "must not be of small order",
        ),
        (
            signed(walletAddress=SECOND_SPELLING),
            {},
            tree.KeyEncodingError,
            Code.KEY_WALLET_ENCODING,
            "walletAddress",
            SECOND_SPELLING,
            ONE_SPELLING,
        ),
        (
            signed(walletAddress=NOBODY),
            {},
            tree.KeyEncodingError,
            Code.KEY_WALLET_ORDER,
            "walletAddress",
            NOBODY,
            "must be a point of prime order",
        ),
        (
            signed(),
            {"wallet": key(5).wallet_address},
            tree.SignatureError,
            Code.SIGNATURE_WRONG_WALLET,
            "walletAddress",
            WALLET.wallet_address,
            f"must be `{key(5).wallet_address}`",
        ),
        (
            signed(),
            {"envelopes": ("offchain-v0", "offchain-v1")},
            tree.SignatureError,
            Code.SIGNATURE_ENVELOPE_NOT_ALLOWED,
            "envelope",
            "raw",
            "must be one of offchain-v0, offchain-v1",
        ),
        (
            as_json({**TOO_LONG.to_json_object(), "envelope": "offchain-v0"}),
            {"envelopes": ENVELOPES},
            tree.SignatureError,
            Code.SIGNATURE_ENVELOPE_TOO_LONG,
            "envelope",
            "offchain-v0",
            f"must hold at most 1147 bytes, but the text has {len(TOO_LONG.permit.canonical_bytes())}",
        ),
        (
            with_permit(nonce="b" * 32),
            {},
            tree.SignatureError,
            Code.SIGNATURE_INVALID,
            "signature",
            SIGNED["signature"][:64] + "...",
            "must be the wallet's, over exactly this document",
        ),
        (
            signed(),
            {"lifetime_ms_max": 36 * 3_600_000},
            tree.TimeError,
            Code.TIME_LIFETIME_TOO_LONG,
            "expiresAt",
            PERMIT["expiresAt"],
            "must be at most 1 day 12 hours after `issuedAt`",
        ),
        *(
            (
                signed(),
                {"lifetime_ms_max": most_ms},
                tree.TimeError,
                Code.TIME_LIFETIME_TOO_LONG,
                "expiresAt",
                PERMIT["expiresAt"],
                "must be at most 0 seconds after `issuedAt`",
            )
            for most_ms in (0, -5)
        ),
        (
            signed(),
            {"now_ms": 0},
            tree.TimeError,
            Code.TIME_NOT_YET_VALID,
            "issuedAt",
            PERMIT["issuedAt"],
            "must not be in the future",
        ),
        (
            signed(),
            {"now_ms": 10**13},
            tree.TimeError,
            Code.TIME_EXPIRED,
            "expiresAt",
            PERMIT["expiresAt"],
            "must be in the future",
        ),
    ],
)
def test_keys_signature_and_time(data, how, kind, code, field, value, rule):
    with pytest.raises(PermitError) as refused:
        verify(data, **how)
    check(refused.value, kind, code, field, value, rule)


def test_exact_bytes():
    with pytest.raises(PermitError) as refused:
        verify_bytes(as_json(PERMIT), signature=SIGNED["signature"], wallet=SIGNED["walletAddress"])
    rule = "must be the permit's canonical bytes"
    check(refused.value, tree.CanonicalFormError, Code.CANONICAL_MISMATCH, None, None, rule)


def test_the_two_ways_to_get_a_verified_permit_that_are_none():
    with pytest.raises(TypeError, match=r"^a verified permit comes from permits\.verify alone$"):
        VerifiedPermit()
    with pytest.raises(
        TypeError, match=r"^a verified permit doesn't travel: send the signed permit and verify it there$"
    ):
        verify(signed()).__reduce__()


@pytest.mark.parametrize("kind", [each for each in vars(tree).values() if isinstance(each, type)])
def test_every_error_is_of_one_tree(kind):
    if issubclass(kind, Exception) and kind is not PermitError:
        assert kind.__bases__ == (PermitError,)


HALF_PAIRS = st.text(st.characters(categories=("Cs",)) | st.sampled_from("a0\x1b\n'\"\\é"), min_size=1)
"""What no encoding takes: halves of surrogate pairs. JSON's escapes bring them in, and arguments that aren't UTF-8."""


def refusals(text):
    """Yield each way to hand `text` over, in JSON or decoded."""
    yield lambda: parse(as_json({"a": [text]}))
    yield lambda: parse(as_json({text: 1}))
    yield lambda: verify_bytes(as_json(PERMIT), signature=text, wallet=WALLET.wallet_address)
    yield lambda: verify_bytes(as_json(PERMIT), signature=SIGNED["signature"], wallet=text)
    yield lambda: verify(as_json(SIGNED), wallet=text)
    for value in (text, [text], {text: text}):
        for name in (*PERMIT, text):
            document = {**PERMIT, name: value}
            yield lambda document=document: Permit.from_json_object(document)
        for name in (*SIGNED, text):
            document = {**SIGNED, name: value}
            yield lambda document=document: SignedPermit.from_json_object(document)
        for name in ("nonce", "revokedAt"):
            document = {"nonce": PERMIT["nonce"], "revokedAt": PERMIT["issuedAt"], name: value}
            yield lambda document=document: Revocation.from_json_object(document)


@given(HALF_PAIRS)
@example("\ud800")
@example("\udcff\x1b[2J")
def test_text_that_no_encoding_takes_is_refused_in_plain_ascii(text):
    for hand_over in refusals(text):
        try:
            hand_over()
        except PermitError as refused:
            assert str(refused).isascii()
            assert str(refused).isprintable()
            assert pickle.loads(pickle.dumps(refused)).args == refused.args  # noqa: S301 - our own
