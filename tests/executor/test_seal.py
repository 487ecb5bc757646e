"""Seals are HMAC-SHA-256, to the letter."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from executor.seal import SEAL_KEY_BYTES, Seal, SealKeys


@given(key=st.binary(min_size=SEAL_KEY_BYTES, max_size=SEAL_KEY_BYTES), tag=st.binary(), data=st.binary())
def test_a_seal_is_the_hmac_of_the_standard_library(key, tag, data):
    keys, mac = SealKeys.single(key), hmac.digest(key, tag + b"\x00" + data, "sha256")
    assert keys.seal(tag, data) == Seal("1", mac)
    assert keys.fits(Seal("1", mac), tag, data)
    assert not keys.fits(Seal("1", mac), tag, data + b"\x00")
    assert not keys.fits(Seal("2", mac), tag, data)
