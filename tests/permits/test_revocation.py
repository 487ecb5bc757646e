import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permits import (
    ENVELOPES,
    LocalSigner,
    Permit,
    PermitError,
    Revocation,
    SignedRevocation,
    issue,
    keys,
    revoke,
    verify,
    verify_revocation,
)
from permits.errors import Code
from tests.support import PERMIT, WALLET, as_json, key

REVOCATION = {"nonce": PERMIT["nonce"], "revokedAt": "2026-05-03T09:30:00Z"}
SIGNED = revoke(Revocation.from_json_object(REVOCATION), WALLET).to_json_object()
SECOND_SPELLING = keys.encode((2**255 - 17).to_bytes(32, "little"))


def with_(**changes):
    return {**REVOCATION, **changes}


def signed(**changes):
    return as_json({name: value for name, value in {**SIGNED, **changes}.items() if value is not ...})


def refused(data, **how):
    with pytest.raises(PermitError) as error:
        verify_revocation(data, **how)
    return error.value.code, error.value.field


def test_its_canonical_bytes_are_sorted_and_tight():
    revocation = Revocation.from_json_object(dict(reversed(REVOCATION.items())))
    assert revocation.canonical_bytes() == (
        b'{"nonce":"a1b2c3d4e5f60718293a4b5c6d7e8f90","revokedAt":"2026-05-03T09:30:00Z"}'
    )
    assert revocation.to_json_object() == REVOCATION


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_what_a_wallet_revoked_is_verified_in_every_envelope_that_the_caller_allows(envelope):
    revocation = Revocation.from_json_object(REVOCATION)
    made = revoke(revocation, WALLET, envelope=envelope)
    assert made.envelope == envelope
    for travelled in (made, as_json(made.to_json_object())):
        assert verify_revocation(travelled, envelopes=[envelope]) == (WALLET.wallet_address, revocation)
    others = [each for each in ENVELOPES if each != envelope]
    assert refused(made, envelopes=others) == (Code.SIGNATURE_ENVELOPE_NOT_ALLOWED, "envelope")


def test_it_is_raw_if_it_names_no_envelope_and_only_raw_is_allowed_if_the_caller_names_none():
    assert SIGNED["envelope"] == "raw"
    assert verify_revocation(signed(envelope=...))
    other = revoke(Revocation.from_json_object(REVOCATION), WALLET, envelope="offchain-v1")
    assert refused(other) == (Code.SIGNATURE_ENVELOPE_NOT_ALLOWED, "envelope")


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "0" * 32},
        {"nonce": "f" * 128},
        {"revokedAt": "0001-01-01T00:00:00Z"},
        {"revokedAt": "9999-12-31T23:59:59.999Z"},
        {"revokedAt": "2028-02-29T23:59:59.000Z"},
    ],
)
def test_the_inner_side_of_each_edge(changes):
    assert Revocation.from_json_object(with_(**changes)).to_json_object() == with_(**changes)


@pytest.mark.parametrize("key_", ["revocation", "walletAddress", "signature"])
def test_each_key_must_travel(key_):
    assert refused(signed(**{key_: ...})) == (Code.SCHEMA_MISSING_KEY, key_)


@pytest.mark.parametrize("key_", REVOCATION)
def test_each_key_must_be_there(key_):
    inner = {name: value for name, value in REVOCATION.items() if name != key_}
    assert refused(signed(revocation=inner)) == (Code.SCHEMA_MISSING_KEY, key_)


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"\xff", Code.ENCODING_NOT_UTF8, None),
        (b"{", Code.JSON_SYNTAX, None),
        (b"[]", Code.SCHEMA_NOT_AN_OBJECT, None),
        (signed(revocation=None), Code.SCHEMA_NOT_AN_OBJECT, "revocation"),
        (signed(revocation=[REVOCATION]), Code.SCHEMA_NOT_AN_OBJECT, "revocation"),
        (signed(reason=""), Code.SCHEMA_UNKNOWN_KEY, "reason"),
        (signed(revocation=with_(reason="")), Code.SCHEMA_UNKNOWN_KEY, "reason"),
        (signed(walletAddress="?"), Code.SCHEMA_WALLET_ADDRESS, "walletAddress"),
        (signed(signature=7), Code.SCHEMA_SIGNATURE, "signature"),
        (signed(envelope="RAW"), Code.SCHEMA_ENVELOPE, "envelope"),
        (signed(walletAddress=SECOND_SPELLING), Code.KEY_WALLET_ENCODING, "walletAddress"),
        (signed(walletAddress="1" * 32), Code.KEY_WALLET_ORDER, "walletAddress"),
        (signed(walletAddress=key(5).wallet_address), Code.SIGNATURE_INVALID, "signature"),
        (signed(revocation=with_(nonce="b" * 32)), Code.SIGNATURE_INVALID, "signature"),
        (signed(revocation=with_(revokedAt="2026-05-03T09:30:00.000Z")), Code.SIGNATURE_INVALID, "signature"),
        (signed(envelope="offchain-v0"), Code.SIGNATURE_INVALID, "signature"),
    ],
)
def test_each_refusal(data, code, field):
    assert refused(data, envelopes=ENVELOPES) == (code, field)


@pytest.mark.parametrize("nonce", ["", "a" * 30, "a" * 33, "a" * 130, "A" * 32, "g" * 32, "a" * 32 + "\n", None, 7])
def test_a_nonce_is_as_a_permit_spells_it(nonce):
    assert refused(signed(revocation=with_(nonce=nonce))) == (Code.SCHEMA_NONCE, "nonce")


@pytest.mark.parametrize(
    "revoked_at",
    [
        "",
        "2026-05-03",
        "2026-05-03T09:30:00",
        "2026-05-03T09:30:00+00:00",
        "2026-05-03T09:30:00.1Z",
        "2026-02-29T00:00:00Z",
        "2026-05-03T24:00:00Z",
        "0000-01-01T00:00:00Z",
        None,
        1_777_800_600,
    ],
)
def test_a_time_is_as_a_permit_spells_it(revoked_at):
    assert refused(signed(revocation=with_(revokedAt=revoked_at))) == (Code.SCHEMA_REVOKED_AT, "revokedAt")


def test_a_refused_time_says_its_rule():
    with pytest.raises(PermitError) as error:
        Revocation.from_json_object(with_(revokedAt="?"))
    assert str(error.value) == (
        "SCHEMA_REVOKED_AT: `revokedAt` must be a real date as YYYY-MM-DDTHH:MM:SSZ, with .mmm at most: `?`"
    )


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (signed(revocation=1, signature=...), Code.SCHEMA_NOT_AN_OBJECT, "revocation"),
        (signed(revocation=with_(a=1), signature=...), Code.SCHEMA_MISSING_KEY, "signature"),
        (signed(revocation={"nonce": ""}, a=1), Code.SCHEMA_MISSING_KEY, "revokedAt"),
        (signed(revocation=with_(nonce="", a=1), b=1), Code.SCHEMA_UNKNOWN_KEY, "b"),
        (signed(revocation={"revokedAt": "", "nonce": ""}), Code.SCHEMA_NONCE, "nonce"),
        (signed(revocation=with_(revokedAt=""), walletAddress=""), Code.SCHEMA_REVOKED_AT, "revokedAt"),
        (signed(walletAddress="1" * 32, envelope=""), Code.SCHEMA_ENVELOPE, "envelope"),
        (signed(walletAddress="1" * 32, envelope="offchain-v0"), Code.KEY_WALLET_ORDER, "walletAddress"),
    ],
)
def test_of_several_broken_rules_the_first_is_told(data, code, field):
    assert refused(data) == (code, field)


def test_a_permit_and_a_revocation_are_never_taken_for_each_other():
    permit = issue(Permit.from_json_object(PERMIT), WALLET).to_json_object()
    assert refused(as_json(permit)) == (Code.SCHEMA_MISSING_KEY, "revocation")
    assert refused(signed(permit=PERMIT)) == (Code.SCHEMA_UNKNOWN_KEY, "permit")
    assert refused(signed(revocation=PERMIT)) == (Code.SCHEMA_MISSING_KEY, "revokedAt")
    assert refused(signed(signature=permit["signature"])) == (Code.SIGNATURE_INVALID, "signature")
    for document, code in (
        (SIGNED, Code.SCHEMA_MISSING_KEY),
        ({**permit, "permit": REVOCATION}, Code.SCHEMA_MISSING_KEY),
        ({**permit, "signature": SIGNED["signature"]}, Code.SIGNATURE_INVALID),
    ):
        with pytest.raises(PermitError) as error:
            verify(as_json(document))
        assert error.value.code is code


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_signer_that_signs_something_else_is_noticed(envelope):
    class Confused(LocalSigner):
        def sign(self, message):
            return super().sign(message + b" ")

    with pytest.raises(PermitError) as error:
        revoke(Revocation.from_json_object(REVOCATION), Confused.from_seed(bytes(32)), envelope=envelope)
    assert error.value.code is Code.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("address", "signature", "code"),
    [
        ("?", bytes(64), Code.SCHEMA_WALLET_ADDRESS),
        ("1" * 32, bytes(64), Code.KEY_WALLET_ORDER),
        (key(5).wallet_address, keys.decode_signature(SIGNED["signature"]), Code.SIGNATURE_INVALID),
        (WALLET.wallet_address, bytes(63), Code.SCHEMA_SIGNATURE),
    ],
)
def test_a_signer_that_lies_is_noticed(address, signature, code):
    class Liar:
        wallet_address = address

        def sign(self, _message):
            return signature

    with pytest.raises(PermitError) as error:
        revoke(Revocation.from_json_object(REVOCATION), Liar())
    assert error.value.code is code


def test_a_revocation_that_was_changed_past_its_rules_is_not_signed_for():
    revocation = Revocation.from_json_object(REVOCATION)
    object.__setattr__(revocation, "nonce", "")
    with pytest.raises(PermitError) as error:
        revoke(revocation, WALLET)
    assert error.value.code is Code.SCHEMA_NONCE


def test_neither_can_be_made_or_changed_by_hand():
    with pytest.raises(TypeError, match=r"^a revocation is read, by Revocation\.from_json_object$"):
        Revocation()
    with pytest.raises(TypeError, match="is read, by its from_json or from_json_object"):
        SignedRevocation()
    made = SignedRevocation.from_json(signed())
    for document, field in ((made.revocation, "nonce"), (made, "wallet_address"), (made, "revocation")):
        with pytest.raises(FrozenInstanceError):
            setattr(document, field, "b" * 32)


def test_they_are_values():
    made = SignedRevocation.from_json(signed())
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - our own
    assert hash(made) == hash(SignedRevocation.from_json(signed()))
    assert made != SignedRevocation.from_json(signed(envelope="offchain-v0"))


def test_the_documents_that_it_was_read_from_stay_the_callers():
    document = copy.deepcopy(SIGNED)
    made = SignedRevocation.from_json_object(document)
    document["revocation"]["nonce"] = "b" * 32
    made.to_json_object()["revocation"]["nonce"] = "b" * 32
    assert made.to_json_object() == SIGNED


@given(st.integers(0, 8 * len(signed()) - 1))
def test_any_flipped_bit_is_refused(bit):
    data = bytearray(signed())
    data[bit // 8] ^= 1 << bit % 8
    try:
        _, found = verify_revocation(bytes(data))
    except PermitError:
        return
    assert found.to_json_object() == REVOCATION  # white space between the tokens, and nothing else, may differ
