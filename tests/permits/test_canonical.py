import json
from contextlib import suppress
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from permits.canonical import INPUT_BYTES_MAX, canonicalize, parse
from permits.errors import Code, PermitError


def test_reads_what_json_says():
    assert parse(b' {"a": [1, -2, 0.50, true, null, "\\u00e9\\ud83d\\ude00"]} ') == {
        "a": [1, -2, Decimal("0.50"), True, None, "é😀"]
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b" " * (INPUT_BYTES_MAX + 1), Code.ENCODING_TOO_LONG),
        (b"\xef\xbb\xbf{}", Code.ENCODING_BOM),
        (b'{"a": "\xff"}', Code.ENCODING_NOT_UTF8),
        (b'{"a": "\xed\xa0\x80"}', Code.ENCODING_NOT_UTF8),  # a surrogate in UTF-8
        ('{"a": 1}'.encode("utf-16"), Code.ENCODING_NOT_UTF8),
        ('{"a": 1}'.encode("utf-16-le"), Code.JSON_SYNTAX),
        (b"", Code.JSON_SYNTAX),
        (b"{", Code.JSON_SYNTAX),
        (b"{} {}", Code.JSON_SYNTAX),
        (b"{'a': 1}", Code.JSON_SYNTAX),
        (b'{"a": 1,}', Code.JSON_SYNTAX),
        (b'{"a": 01}', Code.JSON_SYNTAX),
        (b'{"a": "\n"}', Code.JSON_SYNTAX),
        (b"[" * 9 + b"]" * 9, Code.JSON_TOO_DEEP),
        (b"[" * 8_000, Code.JSON_TOO_DEEP),
        (b'{"a": 1, "a": 1}', Code.JSON_DUPLICATE_KEY),
        (b'{"a": 1, "\\u0061": 2}', Code.JSON_DUPLICATE_KEY),
        (b'[{"x": {"a": 1, "a": 2}}]', Code.JSON_DUPLICATE_KEY),
        (b"NaN", Code.JSON_NUMBER_FORM),
        (b"[-Infinity]", Code.JSON_NUMBER_FORM),
        (b"1e2", Code.JSON_NUMBER_FORM),
        (b"1.5E0", Code.JSON_NUMBER_FORM),
        (b"1" * 33, Code.JSON_NUMBER_FORM),
        (b"0." + b"1" * 31, Code.JSON_NUMBER_FORM),
        (b"1" * 16_000, Code.JSON_NUMBER_FORM),
        (b'"\\ud800"', Code.JSON_LONE_SURROGATE),
        (b'{"\\udfff": 1}', Code.JSON_LONE_SURROGATE),
        (b'["\\ude00\\ud83d"]', Code.JSON_LONE_SURROGATE),
    ],
)
def test_refuses_what_readers_would_read_differently(data, code):
    with pytest.raises(PermitError) as refused:
        parse(data)
    assert refused.value.code is code


def test_brackets_in_strings_are_not_depth():
    assert parse(b'"[[[[[[[[[[[[{{{{{{{{{{{\\"[["') == '[[[[[[[[[[[[{{{{{{{{{{{"[['


@pytest.mark.parametrize(
    ("data", "deep"),
    [
        (b"[[],[],[],[],[],[],[],[],[],[]]", False),
        (b'[{"a":[{"b":[[[[1]]]]}]},[[[[[[[]]]]]]]]', False),
        (b"[[[[[[[[],[],[]]]]]]]]", False),
        (b"[[[[[[[[[]]]]]]]]]", True),
        (b"[[],[[[[[[[[]]]]]]]]]", True),
        (b'{"a":{},"b":[[[[[[[[]]]]]]]]}', True),
        (b'{"]]]]":[[[[[[[[]]]]]]]]}', True),
        (b'{"a":"\\"[[[[[[[[["}', False),
    ],
)
def test_depth_is_what_is_open_at_once(data, deep):
    if not deep:
        parse(data)
        return
    with pytest.raises(PermitError) as refused:
        parse(data)
    assert refused.value.code is Code.JSON_TOO_DEEP


def test_numbers_of_32_characters_are_read():
    assert parse(b"1" * 32) == int("1" * 32)
    assert parse(b"1." + b"0" * 29 + b"1") == Decimal("1." + "0" * 29 + "1")


def test_depth_of_eight_is_read():
    assert parse(b"[" * 8 + b"]" * 8) == [[[[[[[[]]]]]]]]


SCALARS = (
    st.text(max_size=20)
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.integers(1, 10**11).filter(lambda cents: cents % 100).map(lambda cents: cents / 100)
)


@given(
    st.dictionaries(
        st.text(max_size=9),
        st.recursive(SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=9), each)),
    )
)
def test_canonical_form_is_that_of_rfc_8785(value):
    ascii_keys = json.dumps(value, ensure_ascii=True)
    if "\\ud" in ascii_keys:  # outside the basic plane RFC 8785 sorts by UTF-16 units; permits are ASCII
        return
    assert canonicalize(value) == rfc8785.dumps(value)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused_by_name(data):
    with suppress(PermitError):
        parse(data)
