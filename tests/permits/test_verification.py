import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permits import (
    ENVELOPES,
    LocalSigner,
    Permit,
    PermitError,
    SignedPermit,
    VerifiedPermit,
    draft,
    issue,
    keys,
    verify,
    verify_bytes,
)
from permits.envelopes import enclose
from permits.errors import Code
from tests.support import PERMIT, T0, WALLET, as_json, key, uuid

DAY_S = 86_400
L = 2**252 + 27742317777372353535851937790883648493


def permit(**changes):
    return draft(
        **{
            "agent_id": uuid(1),
            "session_pubkey": key(1).wallet_address,
            "asset_whitelist": ["SOL", "USDC"],
            "max_amount_usd": 250,
            "issued_at_ms": T0,
            "lifetime_s": DAY_S,
            "nonce": "ab" * 16,
            **changes,
        }
    )


SIGNED = issue(permit(), WALLET)


def refused(signed, **how):
    with pytest.raises(PermitError) as error:
        verify(signed, **how)
    return error.value.code


def changed(**changes):
    return SignedPermit.from_json_object({**SIGNED.to_json_object(), **changes})


def test_what_a_wallet_signed_is_verified():
    verified = verify(as_json(SIGNED.to_json_object()), now_ms=T0, wallet=WALLET.wallet_address)
    assert verified.permit == SIGNED.permit
    assert verified.wallet == WALLET.wallet_address
    assert verified.canonical == SIGNED.permit.canonical_bytes()
    assert len(verified.permit_id) == 64


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_every_envelope_that_the_caller_allows(envelope):
    signed = issue(permit(), WALLET, envelope=envelope)
    assert verify(signed, envelopes=[envelope]).envelope == envelope
    others = [each for each in ENVELOPES if each != envelope]
    assert refused(signed, envelopes=others) is Code.SIGNATURE_ENVELOPE_NOT_ALLOWED


def test_only_raw_if_the_caller_names_none():
    assert refused(issue(permit(), WALLET, envelope="offchain-v1")) is Code.SIGNATURE_ENVELOPE_NOT_ALLOWED


def test_a_signature_in_one_envelope_is_none_in_another():
    signed = issue(permit(), WALLET, envelope="offchain-v0").to_json_object()
    for envelope in ("raw", "offchain-v1"):
        other = SignedPermit.from_json_object({**signed, "envelope": envelope})
        assert refused(other, envelopes=ENVELOPES) is Code.SIGNATURE_INVALID


def test_off_chain_headers_are_as_solana_defines_them():
    wallet = bytes(range(32))
    assert len(enclose("offchain-v0", wallet, b"")) == 85
    assert enclose("offchain-v0", wallet, b"{}") == (
        b"\xffsolana offchain" + b"\0" + bytes(32) + b"\0" + b"\1" + wallet + b"\2\0" + b"{}"
    )
    place = len(b"\xffsolana offchain") + 1 + 32
    formats = {
        text: enclose("offchain-v0", wallet, text)[place] for text in (b" ~", b"\n", b"\x1f", b"\x7f", b"\xc3\xa9")
    }
    assert list(formats.values()) == [0, 1, 1, 1, 1]
    assert enclose("offchain-v1", wallet, b"{}") == b"\xffsolana offchain" + b"\1\1" + wallet + b"{}"


def test_a_permit_too_long_for_a_ledger_is_refused():
    long = permit(asset_whitelist=[key(number).wallet_address for number in range(30)])
    with pytest.raises(PermitError) as error:
        issue(long, WALLET, envelope="offchain-v0")
    assert error.value.code is Code.SIGNATURE_ENVELOPE_TOO_LONG


def test_the_same_permit_of_another_wallet_is_another_permit():
    assert verify(SIGNED).permit_id != verify(issue(permit(), key(5))).permit_id


def test_another_wallet_than_expected_is_refused():
    assert refused(SIGNED, wallet=key(5).wallet_address) is Code.SIGNATURE_WRONG_WALLET
    assert refused(changed(walletAddress=key(5).wallet_address)) is Code.SIGNATURE_INVALID


@pytest.mark.parametrize("position", [0, 31, 32, 63])
def test_a_changed_signature_is_refused(position):
    signature = bytearray(keys.decode_signature(SIGNED.signature))
    signature[position] ^= 1
    assert refused(changed(signature=keys.encode(bytes(signature)))) is Code.SIGNATURE_INVALID


def test_s_plus_l_is_not_a_second_signature():
    signature = keys.decode_signature(SIGNED.signature)
    s = int.from_bytes(signature[32:], "little") + L
    assert refused(changed(signature=keys.encode(signature[:32] + s.to_bytes(32, "little")))) is Code.SIGNATURE_INVALID


def test_nobody_signs_for_the_wallet_of_all_ones():
    forged = changed(walletAddress="1" * 32, signature=keys.encode(b"\1" + bytes(63)))
    assert refused(forged) is Code.KEY_WALLET_ORDER


def test_keys_that_are_no_ones_are_refused():
    p = 2**255 - 19
    not_canonical = keys.encode((p + 2).to_bytes(32, "little"))
    small = keys.encode((1).to_bytes(32, "little"))
    assert refused(changed(walletAddress=not_canonical)) is Code.KEY_WALLET_ENCODING
    for pubkey, code in ((not_canonical, Code.KEY_SESSION_ENCODING), (small, Code.KEY_SESSION_SMALL_ORDER)):
        assert refused(changed(permit={**SIGNED.permit.to_json_object(), "sessionPubkey": pubkey})) is code


@pytest.mark.parametrize(
    ("now_ms", "code"),
    [
        (T0 - 1, Code.TIME_NOT_YET_VALID),
        (T0, None),
        (T0 + DAY_S * 1000 - 1, None),
        (T0 + DAY_S * 1000, Code.TIME_EXPIRED),
    ],
)
def test_it_holds_from_issued_until_just_before_expiry(now_ms, code):
    if code is None:
        assert verify(SIGNED, now_ms=now_ms)
    else:
        assert refused(SIGNED, now_ms=now_ms) is code


def test_clock_skew_ends_it_early_and_lets_it_begin_early():
    assert refused(SIGNED, now_ms=T0 + DAY_S * 1000 - 1000, clock_skew_ms=1000) is Code.TIME_EXPIRED
    assert verify(SIGNED, now_ms=T0 - 1000, clock_skew_ms=1000)
    assert refused(SIGNED, now_ms=T0 - 1001, clock_skew_ms=1000) is Code.TIME_NOT_YET_VALID


def test_without_a_time_only_the_lifetime_is_judged():
    assert verify(issue(permit(lifetime_s=366 * DAY_S), WALLET))
    with pytest.raises(PermitError) as error:
        issue(permit(lifetime_s=366 * DAY_S + 1), WALLET)
    assert error.value.code is Code.TIME_LIFETIME_TOO_LONG
    assert refused(SIGNED, lifetime_ms_max=DAY_S * 1000 - 1) is Code.TIME_LIFETIME_TOO_LONG


def test_exact_bytes_are_verified_only_in_canonical_form():
    message = SIGNED.permit.canonical_bytes()
    how = {"signature": SIGNED.signature, "wallet": SIGNED.wallet_address}
    assert verify_bytes(message, **how).permit_id == verify(SIGNED).permit_id
    with pytest.raises(PermitError) as error:
        verify_bytes(as_json(SIGNED.permit.to_json_object()), **how)
    assert error.value.code is Code.CANONICAL_MISMATCH


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"now_ms": T0 - 1}, Code.TIME_NOT_YET_VALID),
        ({"now_ms": T0 - 1, "clock_skew_ms": 1}, None),
        ({"now_ms": T0 + DAY_S * 1000 - 1}, None),
        ({"now_ms": T0 + DAY_S * 1000 - 1, "clock_skew_ms": 1}, Code.TIME_EXPIRED),
        ({"lifetime_ms_max": DAY_S * 1000 - 1}, Code.TIME_LIFETIME_TOO_LONG),
        ({"lifetime_ms_max": DAY_S * 1000}, None),
    ],
)
def test_exact_bytes_are_judged_by_the_same_times(how, code):
    message = SIGNED.permit.canonical_bytes()
    if code is None:
        assert verify_bytes(message, signature=SIGNED.signature, wallet=SIGNED.wallet_address, **how)
        return
    with pytest.raises(PermitError) as error:
        verify_bytes(message, signature=SIGNED.signature, wallet=SIGNED.wallet_address, **how)
    assert error.value.code is code


def test_a_verified_permit_comes_from_verify_alone():
    with pytest.raises(TypeError):
        VerifiedPermit()
    with pytest.raises(TypeError):
        pickle.dumps(verify(SIGNED))
    with pytest.raises(TypeError):
        copy.copy(verify(SIGNED))


def test_a_signer_that_signs_something_else_is_noticed():
    class Confused(LocalSigner):
        def sign(self, message):
            return super().sign(message + b" ")

    with pytest.raises(PermitError) as error:
        issue(permit(), Confused.from_seed(bytes(32)))
    assert error.value.code is Code.SIGNATURE_INVALID


def test_a_signer_shows_and_sends_no_key():
    signer = LocalSigner.from_seed(b"\x07" * 32)
    assert repr(signer) == f"LocalSigner({signer.wallet_address})"
    with pytest.raises(TypeError):
        pickle.dumps(signer)


@given(st.integers(0, 8 * len(as_json(SIGNED.to_json_object())) - 1))
def test_any_flipped_bit_is_refused(bit):
    data = bytearray(as_json(SIGNED.to_json_object()))
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = verify(bytes(data)).permit
    except PermitError:
        return
    assert found == SIGNED.permit  # white space between the tokens, and nothing else, may differ


@given(st.binary(max_size=200) | st.builds(as_json, st.recursive(st.none() | st.text() | st.integers(), st.lists)))
def test_no_input_raises_anything_but_a_permit_error(data):
    with pytest.raises(PermitError):
        verify(data)


def test_the_source_documents_permit_can_be_signed():
    assert verify(issue(Permit.from_json_object(PERMIT), WALLET), now_ms=T0).permit.to_json_object() == PERMIT
