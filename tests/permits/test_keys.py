import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permits import keys

P = keys.P


@pytest.mark.parametrize("number", [0, 1, 58**31, 2**256 - 1])
def test_a_key_has_one_spelling(number):
    data = number.to_bytes(32, "big")
    text = keys.encode(data)
    assert keys.decode_key(text) == data
    for other in (text + " ", text + "\n", " " + text, text + "\u00a0", "1" + text, text + "\u0661"):
        assert keys.decode_key(other) is None


def test_lengths_of_key_and_signature_are_exact():
    assert keys.decode_key(keys.encode(b"\xff" * 33)) is None
    assert keys.decode_key(keys.encode(b"\xff" * 31)) is None
    assert keys.decode_signature(keys.encode(b"\xff" * 64)) == b"\xff" * 64
    assert keys.decode_signature(keys.encode(b"\xff" * 63)) is None
    assert keys.decode_signature(keys.encode(b"\xff" * 65)) is None


@pytest.mark.parametrize("zeros", range(33))
def test_a_key_is_told_without_decoding_at_each_edge(zeros):
    """The least and the greatest number with so many leading zeros, and their neighbors, with a zero more and less."""
    edges = (256 ** (31 - zeros) if zeros < 32 else 0, 256 ** (32 - zeros) - 1)
    for number in {edge + step for edge in edges for step in (-1, 0, 1) if edge + step >= 0}:
        digits = keys.encode(number.to_bytes(33, "big")).lstrip("1")
        for leading in {max(zeros - 1, 0), zeros, zeros + 1}:
            text = "1" * leading + digits
            assert keys.is_key(text) is (keys.decode_key(text) is not None), text


@given(st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", min_size=30, max_size=46))
def test_a_key_is_told_without_decoding(text):
    assert keys.is_key(text) is (keys.decode_key(text) is not None)


@pytest.mark.parametrize("text", ["1" * 32, "1" * 33, "1" * 44, "1" * 33 + "z" * 11, "0" * 44, "z" * 43, "z" * 44])
def test_a_text_of_one_digit_or_two_is_told_too(text):
    assert keys.is_key(text) is (keys.decode_key(text) is not None)


def test_a_hostile_length_is_not_decoded():
    assert keys.decode_key("z" * 1_000_000) is None  # decoding it would outlast the test's time limit
    assert keys.decode_signature("z" * 1_000_000) is None


def points_of_small_order():
    """Every y that a point of order 1, 2, 4 or 8 has, found by adding points on the curve, not by a list."""
    d = -121665 * pow(121666, -1, P) % P

    def add(a, b):
        (x1, y1), (x2, y2) = a, b
        k = d * x1 * x2 * y1 * y2
        return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P

    def with_y(y):
        square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
        for root in (pow(square, (P + 3) // 8, P), pow(square, (P + 3) // 8, P) * pow(2, (P - 1) // 4, P) % P):
            if root * root % P == square:
                return root, y
        return None

    order = 2**252 + 27742317777372353535851937790883648493
    found = set()
    y = 2
    while len(found) < 5:
        point, y = with_y(y), y + 1
        if point is None:
            continue
        small, power, times = (0, 1), point, order
        while times:
            small = add(small, power) if times & 1 else small
            power, times = add(power, power), times >> 1
        found.add(small[1])
    return found


def test_the_small_order_points_are_all_known():
    assert set(keys.SMALL_ORDER_Y) == points_of_small_order()


@pytest.mark.parametrize("sign", [0, 1 << 255])
@pytest.mark.parametrize("y", sorted(keys.SMALL_ORDER_Y))
def test_small_order_is_seen_whatever_the_sign(y, sign):
    assert keys.encode((y | sign).to_bytes(32, "little")) in keys.SMALL_ORDER_KEYS
    assert len(keys.SMALL_ORDER_KEYS) == 10


@pytest.mark.parametrize("sign", [0, 1 << 255])
@pytest.mark.parametrize(("y", "canonical"), [(P - 1, True), (2, True), *((y, False) for y in range(P, 2**255))])
def test_a_y_of_p_or_more_is_not_canonical(y, canonical, sign):
    assert (keys.encode((y | sign).to_bytes(32, "little")) not in keys.NOT_CANONICAL_KEYS) is canonical
    assert len(keys.NOT_CANONICAL_KEYS) == 38


def test_the_address_of_all_ones_is_nobodys_wallet():
    assert "1" * 32 in keys.SMALL_ORDER_KEYS
    assert not keys.has_prime_order(keys.decode_key("1" * 32))


@given(st.binary(max_size=70))
def test_base58_is_that_of_the_library(data):
    text = keys.encode(data)
    assert text == base58.b58encode(data).decode()
    assert keys.decode_key(text) == (data if len(data) == 32 else None)
    assert keys.decode_signature(text) == (data if len(data) == 64 else None)


@given(st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", min_size=30, max_size=90))
def test_whatever_is_decoded_is_encoded_to_the_same_text(text):
    for decode, size in ((keys.decode_key, 32), (keys.decode_signature, 64)):
        decoded = decode(text)
        assert decoded is None or (len(decoded) == size and keys.encode(decoded) == text)
        assert decoded == (raw if len(raw := base58.b58decode(text)) == size else None)
