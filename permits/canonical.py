r"""Strict JSON in, canonical JSON out.

What goes in is read once, and only if every reader on earth would read the same: UTF-8 without a byte order mark, no
key twice (however it is spelled), no `NaN`, no exponent, no half of a surrogate pair. What comes out is the one
spelling that wallets sign: sorted keys, no white space, shortest numbers. On every valid permit it equals RFC 8785
and a browser's `JSON.stringify` over sorted keys, byte for byte.

It knows JSON, and nothing of permits.

>>> parse(b'{"b": 250.5, "a": [1]}')
{'b': Decimal('250.5'), 'a': [1]}
>>> parse(b'{"a": 250, "\\u0061": 1000000}')
Traceback (most recent call last):
permits.errors.JsonError: JSON_DUPLICATE_KEY: `a` stands twice in one object
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn

import canonicaljson

from permits.errors import Code, EncodingError, JsonError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INPUT_BYTES_MAX", "canonicalize", "parse"]

INPUT_BYTES_MAX: Final = 16 * 1024
"""A signed permit takes at most some 3 KB; white space and escapes may stretch it fivefold, no more."""

NUMBER_CHARACTERS_MAX: Final = 32
"""Far more than any amount needs; it keeps the conversion of a number from growing with the square of its length."""

DEPTH_MAX: Final = 8
"""A signed permit is nested three deep."""

BOM: Final = b"\xef\xbb\xbf"
WHITE_SPACE: Final = " \t\n\r"
STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def parse(data: bytes) -> Any:  # noqa: ANN401 - JSON is any of six types, and the caller checks which
    """Read one JSON value from strict UTF-8 `data`, at most 16 KiB.

    Objects become dicts in their order, whole numbers `int`, others `decimal.Decimal` with every digit kept.

    Raises:
        EncodingError: too long, a byte order mark, or not UTF-8.
        JsonError: nested more than 8 deep, not JSON (RFC 8259), a duplicate key, a number in exponent form or longer
            than 32 characters, `NaN` or `Infinity`, or a lone surrogate.

    """
    if len(data) > INPUT_BYTES_MAX:
        raise EncodingError(Code.ENCODING_TOO_LONG, None, None, f"must be at most {INPUT_BYTES_MAX} bytes")
    if data.startswith(BOM):
        raise EncodingError(Code.ENCODING_BOM, None, None, "must not start with a byte order mark")
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise EncodingError(
            Code.ENCODING_NOT_UTF8, None, None, f"must be UTF-8, but byte {error.start} is not"
        ) from None
    if text.count("[") + text.count("{") > DEPTH_MAX:
        _refuse_depth(text)
    start = len(text) - len(text.lstrip(WHITE_SPACE))
    try:
        value, end = _decode(text, start)
    except json.JSONDecodeError as error:
        raise _syntax(error.pos) from None
    if end != len(text) and text[end:].strip(WHITE_SPACE):
        raise _syntax(end)
    if "\\" in text:
        _refuse_lone_surrogates(value)
    return value


def canonicalize(value: Mapping[str, Any]) -> bytes:
    """Return the canonical JSON of `value`: sorted keys, no white space, ASCII wherever the text is.

    The caller passes only strings, booleans, integers within ±(2**53 - 1), floats of at least 1e-4 that are not whole,
    and lists and dicts of these: on all of them `canonicaljson` equals RFC 8785.
    """
    return canonicaljson.encode_canonical_json(value)


def _syntax(position: int) -> JsonError:
    return JsonError(Code.JSON_SYNTAX, None, None, f"must be JSON, but is not at character {position}")


def _refuse_depth(text: str) -> None:
    depth = 0
    for match in STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
        if depth > DEPTH_MAX:
            raise JsonError(Code.JSON_TOO_DEEP, None, None, f"must not be nested more than {DEPTH_MAX} deep")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonError(Code.JSON_DUPLICATE_KEY, key, None, "stands twice in one object")
            seen.add(key)
    return found


def _fraction(text: str) -> Decimal:
    if "e" in text or "E" in text or len(text) > NUMBER_CHARACTERS_MAX:
        raise _number_form(text)
    return Decimal(text)


def _whole(text: str) -> int:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise _number_form(text)
    return int(text)


def _constant(text: str) -> NoReturn:
    raise _number_form(text)


def _number_form(text: str) -> JsonError:
    return JsonError(
        Code.JSON_NUMBER_FORM,
        None,
        text,
        f"numbers must be plain digits, at most {NUMBER_CHARACTERS_MAX} characters",
    )


def _refuse_lone_surrogates(value: object) -> None:
    """Walk `value`; escapes are the only way in for half a pair, since strict UTF-8 has none."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise JsonError(Code.JSON_LONE_SURROGATE, None, value, "text must not hold half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_lone_surrogates(key)
            _refuse_lone_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_lone_surrogates(item)


_decode = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_float=_fraction, parse_int=_whole, parse_constant=_constant
).raw_decode
